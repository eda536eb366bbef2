"""VideoPose3D's `data_2d_custom_*.npz`: videos by name, in each actions, in each cameras."""

from collections.abc import Mapping

import numpy as np

from demo.keypoint_files.found import Points, Sightings, listed

NAME = "positions_2d"


def read_videopose3d(sightings: Sightings, table: Mapping[str, object]) -> bool:
    """Add the person of its only video; False where the file is another. Raises UserError."""
    videos = table.get(NAME)
    if not isinstance(videos, Mapping):
        return False
    found: dict[str, tuple[str, np.ndarray]] = {}
    for video, actions in videos.items():
        for action, cameras in actions.items() if isinstance(actions, Mapping) else ():
            cameras = [cameras] if isinstance(cameras, np.ndarray) else cameras
            for number, camera in enumerate(cameras):
                array = np.asarray(camera)
                if array.ndim != 3 or array.shape[-1] not in (2, 3) or array.dtype.kind not in "fi":
                    raise sightings.wrong(f"{video}, {action}: no keypoints of (frames, joints, 2)")
                name = f"{video} {action}" + (f" {number}" if len(cameras) > 1 else "")
                found[name] = str(video), array
    if len(found) != 1:
        there = listed(list(found)) or "none"
        raise sightings.wrong(f"{len(found)} videos ({there}); save one of them alone")
    ((video, array),) = found.values()
    told = table.get("metadata")
    if isinstance(told, Mapping):
        sizes = told.get("video_metadata")
        for facts in (told, sizes.get(video) if isinstance(sizes, Mapping) else None):
            if isinstance(facts, Mapping):
                try:
                    sightings.facts.take(facts)
                except (TypeError, ValueError, OverflowError) as error:
                    raise sightings.wrong("its metadata hold a size that is none") from error
    for frame, person in enumerate(array):
        points = Points(person[None].astype(float), "xy" if array.shape[-1] == 2 else "xyc")
        sightings.add(frame, points, 1)
    return True


# --- Detectron2's arrays, as VideoPose3D stores them ------------------------------------------


def is_detectron(people: object) -> bool:
    """[] for the background, then (P, 4, J): x, y, logit, probability of each person."""
    if not isinstance(people, list | tuple | np.ndarray) or len(people) != 2:
        return False
    background, found = people
    return not np.size(background) and np.ndim(found) == 3 and np.shape(found)[1] == 4


def of_detectron(people: object) -> list[object]:
    assert isinstance(people, list | tuple | np.ndarray)
    numbers = np.asarray(people[1], dtype=float)[:, [0, 1, 3]]
    return list(numbers.transpose(0, 2, 1))
