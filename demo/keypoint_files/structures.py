"""JSON and other nested values: who has keypoints in which image, found by structure.

Programs nest alike: a list or table of images, in each its people, of each the keypoints. What
differs are the names, which are listed here. A table that none of them opens is refused.
"""

import re
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path

import numpy as np

from demo.keypoint_files.found import (
    BOXES,
    TIMES,
    Image,
    Points,
    Sightings,
    list_of_names,
    listed,
    plain_key,
)
from demo.keypoint_files.points import IN_SPACE, POSES, NotPoints, confidence_in, points_of
from demo.keypoint_files.videopose3d import is_detectron, of_detectron
from lib.errors import UserError
from lib.keypoints import BODY_25, COCO_17

# Names under which the people of an image stand.
PEOPLE = (
    "people", "bodies", "instances", "pred_instances", "predictions", "skeleton", "skeletons",
    "persons", "person", "humans", "detections", "objects", "poses", "results",
    "result",
)  # fmt: skip
# Names under which the images of a video stand.
FRAMES = ("frames", "instance_info", "pose_results", "data", "images", "results", "video", *PEOPLE)
# Names under which the image of a person, or of all people in a table, stands.
IMAGES = (
    "frame_id", "frame_index", "frame_idx", "frame_number", "frame_num", "frame_no", "frame",
    "image_id", "image", "image_name", "image_file", "image_path", "img_name", "imgname",
    "img_path", "file_name", "filename", "frame_name",
)  # fmt: skip

Table = Mapping[str, object]


def read_structures(sightings: Sightings, contents: Sequence[tuple[Path, object]]) -> None:
    """Add the people of files of nested values; of several files each is an image."""
    owner: dict[Image, Path] = {}  # the file that an image is in
    for file, content in contents:
        reader = _Reader(sightings, file)
        if len(contents) == 1:
            reader.whole(content)
        elif isinstance(content, list) and _is_list_of_images(content):
            reader.images(content)  # results of AlphaPose, in a folder
        else:
            reader.file_of_image(content)
        for image in reader.names:
            if owner.setdefault(image, file) != file:
                raise sightings.wrong(
                    f"image {image!r} is in {owner[image].name} and in {file.name}; of two videos?"
                    " give one of the files"
                )
    if sightings.without_pose and not sightings.numbers:
        raise sightings.wrong(
            "holds nothing called 'keypoints', 'pose_keypoints_2d' or another usual name of them;"
            f" there: {listed([repr(key) for key in sightings.keys_without_pose])}"
        )


def _is_list_of_images(content: list[object]) -> bool:
    named = [isinstance(one, Mapping) and _image_in(one) is not None for one in content]
    return bool(named) and all(named)


def _image_in(table: Table) -> Image | None:
    known = {plain_key(str(key)): value for key, value in table.items()}
    for key in IMAGES:
        value = known.get(plain_key(key))
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int | float | np.number) and not isinstance(value, bool):
            return int(value) if float(value).is_integer() else str(value)
    return None


def _with_scores(key: str, lists: list[object], scores: list[object]) -> list[object]:
    """Keypoints by frame, in each of the frames with its scores from another list by frame."""
    if len(lists) != len(scores):
        return lists
    return [
        {"people": [{key: one, "scores": c}] if isinstance(one, Sized) and len(one) else []}
        for one, c in zip(lists, scores, strict=True)
    ]


class _Reader:
    """Adds what one file holds to `sightings`; raises UserError, which names the file."""

    def __init__(self, sightings: Sightings, file: Path) -> None:
        self.sightings, self.file = sightings, file
        self.names: dict[Image, None] = {}  # of the images in this file

    def wrong(self, what: str) -> UserError:
        return self.sightings.wrong(what, self.file)

    def take(self, table: Table) -> None:
        try:
            self.sightings.facts.take(table)
        except (TypeError, ValueError, OverflowError) as error:
            raise self.wrong("'fps' or 'size' is not a number or a pair") from error

    def time(self, table: Table, name: Image) -> None:
        known = {plain_key(str(key)): value for key, value in table.items()}
        for key in TIMES:
            value = known.get(plain_key(key))
            if isinstance(value, int | float) and not isinstance(value, bool):
                self.sightings.times[name] = float(value)
                return

    def points(self, table: Table, key: str) -> Points | None:
        try:
            return points_of(table[key], confidence_in(table))
        except NotPoints as error:
            raise self.wrong(f"a person's {key!r}: {error}") from error

    # --- A file with all images ---------------------------------------------------------------

    def whole(self, content: object) -> None:
        if isinstance(content, Mapping):
            self.table(content)
        elif isinstance(content, list):
            self.images(content)
        else:
            raise self.wrong("no list or table of people, and no array of plain numbers")

    def table(self, table: Table) -> None:
        annotations = table.get("annotations")
        if isinstance(annotations, list) and not isinstance(table.get("keypoints"), list):
            self.take(table)
            self.coco(table, annotations)
            return
        if self.has_people(table):
            self.image(table, 0)
            return
        self.take(table)
        # easy_ViTPose, which has y before x.
        self.sightings.y_first = set(table) == {"keypoints", "skeleton"}
        for key in ("meta_info", "metadata", "info", "meta", "video_info"):
            told = table.get(key)
            if isinstance(told, Mapping):
                self.take(told)
        for key in (*FRAMES, *POSES):
            nested, scores = table.get(key), confidence_in(table)
            if list_of_names(nested):  # of keypoints, called a skeleton
                continue
            if key in POSES and isinstance(nested, list) and isinstance(scores, list):
                nested = _with_scores(key, nested, scores)
            if isinstance(nested, list):
                self.images(nested)
                return
            if isinstance(nested, Mapping) and nested:
                self.by_image(nested)
                return
        self.by_image(table)

    def has_people(self, table: Table) -> bool:
        """Whether a table is one image, or one person."""
        for key in POSES:
            points = self.points(table, key) if key in table else None
            if points is not None and len(points.numbers):
                return True
        people = next((table[key] for key in PEOPLE if key in table), None)
        return isinstance(people, list) and all(
            isinstance(one, Mapping) and _image_in(one) is None and not self.nests(one)
            for one in people
        )

    def nests(self, table: Table) -> bool:
        return any(isinstance(table.get(key), list) and key not in POSES for key in PEOPLE)

    def images(self, images: Sequence[object]) -> None:
        """A list with an entry for each image, or for each person with the name of the image."""
        named = [isinstance(one, Mapping) and _image_in(one) is not None for one in images]
        if any(named) and not all(named):
            raise self.wrong(f"entry {named.index(False)} does not say of which image it is")
        seen: set[Image] = set()
        for place, one in enumerate(images):
            own = _image_in(one) if isinstance(one, Mapping) else None
            name = place if own is None else own
            nests = not isinstance(one, Mapping) or not self.is_person(one)
            if nests and name in seen:
                raise self.wrong(f"image {name!r} occurs twice; keep one")
            seen.add(name)
            self.image(one, name)
        self.sightings.by_place = not any(named)
        loose = [
            isinstance(one, Mapping) and self.is_person(one) and not any(t in one for t in TIMES)
            for one in images
        ]
        if len(images) > 1 and not any(named) and all(loose):
            self.sightings.loose = True
            self.sightings.assumed.append(
                f"{len(images)} people without the names of their images: each is taken as a frame"
            )

    def by_image(self, table: Table) -> None:
        """A table with an entry for each image, or for each person and in it for each image."""
        names = [name for name in table if any(c.isdecimal() for c in str(name))]
        nested = [isinstance(table[name], Mapping | list) or table[name] is None for name in names]
        if len(names) < len(table) or not all(nested):
            for key in IN_SPACE:
                if table.get(key):
                    raise self.wrong(f"holds {key!r}, poses in 3D; give the keypoints in pixels")
            keys = listed([repr(key) for key in table])
            raise self.wrong(
                "neither a list of people (AlphaPose), nor 'people' (OpenPose), nor 'keypoints',"
                f" nor images by name; there: {keys or 'nothing'}"
            )
        numbered = {
            name: one
            for name, one in table.items()
            if isinstance(one, Mapping) and one and all(str(key).isdecimal() for key in one)
        }
        inner = max((len(one) for one in numbered.values()), default=0)
        if len(numbered) == len(table) and inner > len(table):
            self.sightings.assumed.append(
                f"a table of {len(table)} people, each with the keypoints by frame"
            )
            for person, frames in enumerate(numbered.values(), 1):
                for frame, one in frames.items():
                    self.people([one], int(frame), person)
            return
        for name, one in table.items():
            self.image(one, int(name) if str(name).isdecimal() else str(name))

    # --- An image, its people -----------------------------------------------------------------

    def is_person(self, table: Table) -> bool:
        return any(key in table for key in POSES)

    def file_of_image(self, content: object) -> None:
        """A file in a folder that has one for each image; one without people is none of them."""
        name = self.file.name.partition(".")[0]
        known = (*PEOPLE, *POSES, *IN_SPACE, "instance_info")
        if isinstance(content, Mapping) and not any(key in content for key in known):
            self.sightings.assumed.append(f"{self.file.name} is left out, it has no people")
        else:
            self.image(content, name)

    def image(self, content: object, name: Image) -> None:
        """What stands for one image: a table with people, a person, a list of people, numbers."""
        self.sightings.images[name] = None
        self.names[name] = None
        if content is None:
            return
        if isinstance(content, Mapping):
            if self.is_person(content):
                self.time(content, name)
                self.person(content, name)
            else:
                self.take(content)
                self.time(content, name)
                self.within(content, name)
            return
        self.people(content, name)

    def within(self, content: Table, name: Image) -> None:
        """The people of a table that stands for an image and is no person itself."""
        for key in (*PEOPLE, "instance_info"):
            if key in content:
                self.people(content[key], name)
                return
        nested = {
            key: value
            for key, value in content.items()
            if isinstance(value, Mapping | list) and key not in (*IMAGES, *IN_SPACE, *BOXES)
        }
        numbered = {key: value for key, value in nested.items() if re.search("[0-9]", str(key))}
        try:
            points = points_of(nested) if nested else None  # keypoints by name
        except NotPoints as error:
            raise self.wrong(f"image {name!r}: {error}") from error
        if points is not None:
            self.sightings.add(name, points)
        elif numbered:
            self.people(list(numbered.values()), name)
        else:
            self.person(content, name)

    def people(self, people: object, name: Image, person: int = 0) -> None:
        if people is None:
            return
        if isinstance(people, Mapping):
            people = [people] if self.is_person(people) else list(people.values())
        if is_detectron(people):
            people = of_detectron(people)
            self.sightings.usual = COCO_17
        if not isinstance(people, list | tuple | np.ndarray):
            raise self.wrong(f"the people of image {name!r} are not a list")
        if len(people) and isinstance(people[0], Mapping) and self.is_person(people[0]):
            for one in people:
                self.person(one, name, person)
            return
        try:
            points = points_of(list(people) if isinstance(people, tuple) else people)
        except NotPoints as error:
            raise self.wrong(f"image {name!r}: {error}") from error
        if points is None:
            self.each(list(people), name)
        else:
            self.sightings.add(name, points, person)

    def each(self, people: Sequence[object], name: Image) -> None:
        """People of whom each is something of their own: a table or numbers."""
        for one in people:
            if isinstance(one, Mapping) and not self.is_person(one):
                nested = next((one[key] for key in PEOPLE if key in one), None)
                if nested is not None:
                    self.people(nested, name)
                    continue
            self.person(one if isinstance(one, Mapping) else {"keypoints": one}, name)

    def person(
        self, one: object, name: Image, person: int = 0, names: tuple[str, ...] = ()
    ) -> None:
        if not isinstance(one, Mapping):
            raise self.wrong(f"image {name!r}: a person that is not a table")
        for key in POSES:
            if key not in one:
                continue
            points = self.points(one, key)
            value = one[key]
            tables = isinstance(value, list) and all(isinstance(v, Mapping) for v in value)
            if points is None and tables:
                self.people(value, name, person)  # people, called keypoints
                return
            if points is None:
                raise self.wrong(
                    f"image {name!r}: {key!r} are not x, y, confidence triples of numbers"
                )
            if not len(points.numbers):
                continue
            if key.startswith("pose_keypoints"):
                self.sightings.usual, self.sightings.range_of_each_axis = BODY_25, True
            elif self.sightings.usual is None:
                self.sightings.usual = COCO_17
            points = Points(points.numbers, points.columns, names or points.names)
            self.sightings.add(name, points, person)
            return
        for key in IN_SPACE:
            if one.get(key):
                raise self.wrong(f"a person has {key!r} only, a pose in 3D; give 2D keypoints")
        self.sightings.without_pose += 1
        self.sightings.keys_without_pose = self.sightings.keys_without_pose or list(one)

    # --- COCO's annotations -------------------------------------------------------------------

    def coco(self, table: Table, annotations: Sequence[object]) -> None:
        """People in 'annotations', with the number of their image in 'images'."""
        images: dict[str, Image] = {}  # by id
        entries = table.get("images")
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, Mapping):
                self.take(entry)
                named = entry.get("file_name") or _image_in(entry)
                number = str(entry.get("id"))
                images[number] = number if named is None else str(named)
                self.sightings.images[images[number]] = None
        names = _category_names(table.get("categories"))
        for one in annotations:
            if not isinstance(one, Mapping):
                raise self.wrong("'annotations' holds something that is not a table")
            number = str(one.get("image_id"))
            image = images.get(number, _image_in(one)) if images else _image_in(one)
            if image is None:
                raise self.wrong("an annotation does not say of which image it is")
            if images and number not in images:
                raise self.wrong(f"an annotation of image {number!r}, which 'images' lacks")
            kept = names.get(str(one.get("category_id")), ())
            if not self.is_person(one) or (entries and one.get("num_keypoints") == 0):
                self.sightings.without_pose += 1
                continue
            self.person(one, image, names=kept)
        self.sightings.visibility = bool(entries)


def _category_names(categories: object) -> dict[str, tuple[str, ...]]:
    found = {}
    for one in categories if isinstance(categories, list) else ():
        if isinstance(one, Mapping):
            found[str(one.get("id"))] = list_of_names(one.get("keypoints"))
    return found
