"""Keypoints from files, in place of a detector, and back into files. No file can run code.

opening.py parses files; cells.py tells tables in JSON, and JSON in tables; arrays, tables, tracks,
videopose3d and structures recognise what is in them by its structure and bring it to one form
(found.py); examine.py asks whether the numbers can be true. What was assumed on the way is in
`People.assumed`, a sentence each.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from demo.keypoint_files import examine
from demo.keypoint_files.arrays import KEYPOINTS, read_arrays
from demo.keypoint_files.cells import in_its_form
from demo.keypoint_files.found import Sightings
from demo.keypoint_files.images import frames_of_images, rate_by_times
from demo.keypoint_files.layouts import choose_layout, doubt_layout
from demo.keypoint_files.marks import without_marks
from demo.keypoint_files.opening import files_of, open_files
from demo.keypoint_files.structures import read_structures
from demo.keypoint_files.tables import read_tables
from demo.keypoint_files.tracks import read_tracks
from demo.keypoint_files.videopose3d import read_videopose3d
from demo.people import People
from demo.tracks import filled
from lib.files import write_atomic
from lib.keypoints import Layout, find_layout

__all__ = ["files_of", "read_keypoints", "save_keypoints"]


def read_keypoints(
    path: str,
    layout: str | None = None,
    size: tuple[int, int] | None = None,
    video_frames: int = 0,
    shown: tuple[int, int] | None = None,
) -> People:
    """Read a keypoint file of any program, or a folder with a file for each image.

    layout: its name, where the file does not tell. size: width and height of the picture, where
    the user or the video tells; keypoints that are shares of it become pixels. video_frames: of the
    video, 0: unknown; shown: the picture's size in square pixels. Raises UserError.
    """
    wanted = None if layout is None else find_layout(layout)
    sightings = Sightings(path)
    _read(sightings, path, wanted)
    return _examined(sightings, wanted, (size, shown), video_frames)


def _read(sightings: Sightings, path: str, wanted: Layout | None) -> None:
    contents = [(file, in_its_form(content)) for file, content in open_files(path)]
    if read_tables(sightings, contents, wanted):
        return
    if len(contents) == 1:
        _, content = contents[0]
        table = content if isinstance(content, Mapping) else {"keypoints": content}
        arrays = {
            name: _as_array(value) if name in KEYPOINTS else value for name, value in table.items()
        }
        if (
            read_videopose3d(sightings, table)
            or read_arrays(sightings, arrays, wanted)
            or read_tracks(sightings, table)
        ):
            return
    read_structures(sightings, contents)


def _as_array(value: object) -> object:
    """A full table of numbers, in JSON or as text, as an array; anything else as it is."""
    is_text = isinstance(value, np.ndarray) and value.dtype.kind in "US"
    nested = isinstance(value, list) and value and isinstance(value[0], list | np.ndarray)
    if not is_text and not nested:
        return value
    try:
        array = np.asarray(value, dtype=float)
    except (ValueError, TypeError, OverflowError):
        return value
    return array if array.ndim > 1 else value


def _examined(
    sightings: Sightings,
    wanted: Layout | None,
    sizes: tuple[tuple[int, int] | None, tuple[int, int] | None],
    video_frames: int,
) -> People:
    if not sightings.numbers:
        raise sightings.wrong("nobody is in it; is it of the right video?")
    frames, num_frames = frames_of_images(sightings, list(sightings.images), video_frames)
    frame = np.array([frames[image] for image in sightings.image], dtype=int)
    sightings.facts.fps = sightings.facts.fps or rate_by_times(sightings, frames)
    layout, keypoints = choose_layout(sightings, wanted)
    examine.recognise_depth(sightings, layout, keypoints)
    confidence = examine.confidences(sightings, keypoints)
    examine.refuse_poses_in_space(sightings, layout, keypoints, confidence)
    own, size = examine.resolve_size(sightings, *sizes)
    clean = np.where(confidence[..., None] > 0, keypoints, 0)
    places = examine.to_pixels(sightings, layout, clean, confidence, own)
    by_image, frame = frame, examine.frames_for_people(sightings, places, confidence, frame)
    num_frames = num_frames if frame is by_image else len(frame)
    confidence = without_marks(sightings, places, confidence, frame)
    if own and size and own != size:
        places = places * (np.array(size) / own)
    examine.question_picture(sightings, places, confidence, size)
    points = np.concatenate([places, confidence[..., None]], axis=-1)
    points = np.where(confidence[..., None] > 0, points, 0).astype(np.float32)
    told = bool(wanted or sightings.facts.layout or sightings.names or sightings.facts.names)
    doubt_layout(sightings, layout, points, told)
    examine.question_jumps(sightings, places, confidence, frame)
    examine.question_posture(sightings, layout, places, confidence)
    return _people(sightings, points, frame, num_frames, layout, size)


def _people(
    sightings: Sightings,
    points: np.ndarray,
    frame: np.ndarray,
    num_frames: int,
    layout: Layout,
    size: tuple[int, int] | None,
) -> People:
    """Sightings (N, J, 3) in the order of their frames, without those in which nothing was seen."""
    person = np.array(sightings.person, dtype=int)
    order = [row for row in np.argsort(frame, kind="stable") if points[row, :, 2].any()]
    kept: dict[tuple[int, bytes], int] = {}
    for row in order:
        kept.setdefault((int(frame[row]), points[row].tobytes()), int(row))
    rows = list(kept.values())
    if not rows:
        raise sightings.wrong("nobody is in it: no keypoint has a place that can be one")
    if len(rows) < len(order):
        sightings.assumed.append(f"{len(order) - len(rows)} people are there twice and kept once")
    if sightings.without_pose:
        sightings.assumed.append(f"{sightings.without_pose} people without a pose are left out")
    times = np.array(sightings.facts.times)
    rise = len(times) == num_frames and (np.diff(times, prepend=-np.inf) > 0).all()
    if len(times) and not rise:
        sightings.assumed.append("its 'times' do not rise from frame to frame and are left out")
    people = People(
        points[rows],
        frame[rows],
        person[rows],
        num_frames,
        layout,
        sightings.facts.fps,
        size,
        tuple(dict.fromkeys(sightings.assumed)),
    )
    return people.at(times.tolist()) if rise else people


def save_keypoints(path: Path, people: People) -> None:
    """Write .npz or .json with an entry for every frame, to be read again by --keypoints.

    In square pixels; with the times of the frames, where they are uneven. Raises UserError.
    """
    people = people.in_square_pixels()
    size, name, fps = np.array(people.size), people.layout.name, people.fps
    times = {} if people.times is None else {"times": np.round(people.times, 6)}
    if path.suffix.lower() == ".npz":
        with write_atomic(path) as file:
            arrays = {"keypoints": filled(people), "size": size, **times}
            np.savez_compressed(file, allow_pickle=False, layout=name, fps=fps, **arrays)
        return
    content = {"layout": name, "fps": fps, "size": size.tolist(), "names": people.layout.names}
    content |= {key: values.tolist() for key, values in times.items()}
    content["keypoints"] = np.round(filled(people).astype(float), 4).tolist()
    with write_atomic(path, "w") as file:
        json.dump(content, file)
