"""Which frame of the video an image is, by its name or number.

The first image is frame 0. Numbers that are missing are frames in which nobody was seen.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np

from demo.keypoint_files.found import Image, Sightings, natural_order

SLOWEST, FASTEST = 1, 500  # frames a second that times may tell
MAX_FRAMES = 10_000_000
MOST_OF_VIDEO = 0.95  # images that are fewer are a part of the video
LONGEST = 25  # digits of a number that may be read
# Numbers that are farther apart than this, by and large, number no frames.
FARTHEST = 100
# A step between numbers from here on may be a time in ms; it is where it is not always the same.
MILLISECONDS = 10
OFF_THE_BEAT = 0.1  # of a step, that times in whole milliseconds may be


def frames_of_images(
    sightings: Sightings, images: Sequence[Image], video_frames: int
) -> tuple[dict[Image, int], int]:
    """The frame of each image, and how many frames there are. Raises UserError.

    video_frames: of the video that the keypoints are of, 0: unknown.
    """
    if not images:
        return {}, 0
    numbers = _by_times(sightings, images) or _numbers(sightings, images)
    if numbers is None:
        order = sorted(images, key=lambda image: natural_order(str(image)))
        return {image: frame for frame, image in enumerate(order)}, len(order)
    first, last = min(numbers.values()), max(numbers.values())
    if first > 1 and last <= video_frames and last - first + 1 < MOST_OF_VIDEO * video_frames:
        # The numbers fit into the video as they are; the images before the first show nobody.
        first = 0 if last < video_frames else 1
        sightings.assumed.append(f"the images' numbers are taken as the video's, from {first}")
    elif first > 1:
        sightings.assumed.append(f"the first image has the number {first} and is frame 0")
    if last - first > MAX_FRAMES:
        raise sightings.wrong(f"image numbers up to {last} are no frame numbers")
    return {image: number - first for image, number in numbers.items()}, last - first + 1


def _by_times(sightings: Sightings, images: Sequence[Image]) -> dict[Image, int]:
    """The number of each image where only times tell that some are missing; else nothing."""
    times = np.array([sightings.times.get(image, np.nan) for image in images])
    steps = np.diff(times)
    if not sightings.by_place or len(steps) < 2 or not (steps > 0).all():
        return {}
    counts = np.round(steps / np.median(steps))
    beat = steps.sum() / counts.sum()
    if counts.max() < 2 or counts.min() < 1 or np.abs(steps / beat - counts).max() > OFF_THE_BEAT:
        return {}
    sightings.assumed.append(f"{int((counts - 1).sum())} frames are missing, by the images' times")
    return dict(zip(images, [0, *np.cumsum(counts).astype(int).tolist()], strict=True))


def rate_by_times(sightings: Sightings, frames: dict[Image, int]) -> float:
    """Frames a second by the times of the images, 0 where they do not tell; they may be in any unit
    in which the rate can be one."""
    known = sorted((frames[image], time) for image, time in sightings.times.items())
    steps = [(t - s) / (b - a) for (a, s), (b, t) in pairwise(known) if b > a]
    middle = float(np.median(steps)) if len(steps) > 1 else 0.0
    if not middle > 0 or min(steps) <= 0 or len(known) < len(frames):
        return 0.0
    for unit in (1, 1e-3, 1e-6, 1e-9):  # seconds
        rate = 1 / (middle * unit)
        if SLOWEST <= rate <= FASTEST:
            told = "" if max(steps) < 1.5 * min(steps) else ", by and large"
            sightings.assumed.append(f"{rate:.4g} frames/s, as the images' times have it{told}")
            return rate
    return 0.0


def _numbers(sightings: Sightings, images: Sequence[Image]) -> dict[Image, int] | None:
    """The number of each image; None: they are frames in the natural order of their names."""
    if all(isinstance(image, int) for image in images):
        numbers = {image: int(image) for image in images}
    else:
        found = _by_names(sightings, [str(image) for image in images])
        if found is None:
            return None
        numbers = dict(zip(images, found, strict=True))
    ordered = sorted(numbers.values())
    steps = sorted(b - a for a, b in pairwise(ordered))
    if not steps:
        return numbers
    middle = steps[len(steps) // 2]
    if middle > FARTHEST:
        sightings.assumed.append(
            f"the images' numbers ({ordered[0]}, {ordered[1]} …) are too far apart for frames;"
            " the images are frames in this order"
        )
        return None
    if middle > MILLISECONDS and steps[0] != steps[-1] and steps[-1] - steps[0] <= 2:
        sightings.assumed.append(
            f"the images' numbers rise by {steps[0]} to {steps[-1]}, as times in ms do; the images"
            " are frames in this order"
        )
        return None
    if steps[0] == middle > 1:
        sightings.assumed.append(
            f"one frame in {middle} has keypoints; what lies between is filled in"
        )
    return numbers


def _by_names(sightings: Sightings, names: Sequence[str]) -> list[int] | None:
    """The group of digits that tells the names apart."""
    stems = [_stem(name) for name in names]
    parts = [re.split("([0-9]+)", stem) for stem in stems]  # text at even places, digits at odd
    texts = {tuple(part[::2]) for part in parts}
    if len(texts) > 1:
        in_front = _in_front(parts)
        if in_front:
            sightings.assumed.append(
                "the images' names differ in more than a number; the first one that tells all of"
                " them apart is taken as the frame's"
            )
            return in_front
        _refuse_collisions(sightings, names, parts)
        sightings.assumed.append("the images' names differ in more than a number; they are frames")
        sightings.assumed[-1] += " in the natural order of their names"
        return None
    digits = [part[1::2] for part in parts]
    if any(len(group) > LONGEST for groups in digits for group in groups):
        raise sightings.wrong(f"{names[0][:40]} …: numbers of so many digits are no frame numbers")
    values = [[int(group) for group in groups] for groups in digits]
    varying = [g for g in range(len(values[0])) if len({row[g] for row in values}) > 1]
    if not varying:  # one image, or the same number written in several ways
        if len(names) > 1:
            _refuse_collisions(sightings, names, parts)
        return [0] * len(names)
    telling = [g for g in varying if len({row[g] for row in values}) == len(names)]
    if telling:
        best = min(telling, key=lambda g: max(r[g] for r in values) - min(r[g] for r in values))
        return [row[best] for row in values]
    if len(varying) == 1 or not _is_time(varying, texts.pop(), values):
        last = varying[-1]
        _refuse_collisions(sightings, names, [["", str(row[last])] for row in values])
    sightings.assumed.append(
        "several numbers vary in the images' names; they are frames in the natural order of their"
        " names"
    )
    return None


def _in_front(parts: Sequence[Sequence[str]]) -> list[int]:
    """The numbers that tell names apart and have nothing before them that differs; or none."""
    for place in range(1, min(map(len, parts)), 2):
        if len({part[place - 1] for part in parts}) > 1:
            break
        numbers = [int(part[place][:LONGEST]) for part in parts]
        if len(set(numbers)) == len(parts):
            return numbers
    return []


def _stem(name: str) -> str:
    """Without the ending; 'clip_0.040' of 'clip_0.040.jpg'."""
    path = PurePosixPath(name.replace("\\", "/"))
    has_ending = re.fullmatch(r"\.[A-Za-z]\w{0,4}", path.suffix)
    return str(path.with_suffix("")) if has_ending else str(path)


def _is_time(varying: Sequence[int], text: tuple[str, ...], values: Sequence[list[int]]) -> bool:
    """Whether the varying numbers are hours, minutes, seconds and parts of a second."""
    between = [text[group] for group in varying[1:]]
    as_written = all(re.fullmatch(r"[.,:-]|_?[hms]_?", word) for word in between)
    smallest = sorted({row[varying[-1]] for row in values})
    steps = {b - a for a, b in pairwise(smallest)}
    return as_written or (all(w == "_" for w in between) and min(steps) > 1)


def _refuse_collisions(
    sightings: Sightings, names: Sequence[str], parts: Sequence[Sequence[str]]
) -> None:
    """Raise UserError where the last number is the same in two names: of two videos, maybe."""
    seen: dict[int, str] = {}
    for name, part in zip(names, parts, strict=True):
        digits = part[1::2]
        if not digits or len(digits[-1]) > LONGEST:
            continue
        number = int(digits[-1])
        if number in seen:
            raise sightings.wrong(
                f"{seen[number]} and {name} are both image {number}; of two videos? keep one"
            )
        seen[number] = name
