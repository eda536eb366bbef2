"""Tables of people, of each an array over frames and the frames' numbers, as of VIBE and PHALP."""

from collections.abc import Mapping

import numpy as np

from demo.keypoint_files.arrays import numbers_of_frames
from demo.keypoint_files.found import Points, Sightings
from demo.keypoint_files.points import POSES, NotPoints, confidence_in, points_of


def read_tracks(sightings: Sightings, table: Mapping[str, object]) -> bool:
    """Add the people; False where the file is another."""
    found: list[tuple[list[int], Points]] = []
    for one in table.values():
        numbers = numbers_of_frames(one) if isinstance(one, Mapping) else None
        if not numbers or not isinstance(one, Mapping):
            return False
        key = next((key for key in POSES if isinstance(one.get(key), list | np.ndarray)), None)
        try:
            points = points_of(one[key], confidence_in(one)) if key else None
        except NotPoints:
            return False
        if points is None or len(points.numbers) != len(numbers):
            return False
        found.append((list(numbers), points))
    for person, (numbers, points) in enumerate(found, 1):
        for frame, keypoints in zip(numbers, points.numbers, strict=True):
            sightings.add(frame, Points(keypoints[None], points.columns, points.names), person)
    return bool(found)
