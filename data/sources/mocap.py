"""Motion capture: real motion from an .npz file, filmed on random bodies by random cameras.

The .npz holds one array (T, 17, 3) per clip, in Human3.6M's joint order, z up, floor near 0, and
`__meta__`, a JSON string:

    {"head": {"fps": 50, "unit_m": metres of one step of the arrays, "parents": [-1, 0, 1, ...]},
     "clips": {name: {"subject": ..., "action": ..., "split": "train" or "test"}, ...}}
"""

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.bodies import random_body, scale_bones
from data.filming import film_videos
from data.sequences import Sequences
from lib.camera import H36M_FPS
from lib.errors import UserError
from lib.files import UNREADABLE
from lib.skeleton import H36M

FORMAT = "data/sources/mocap.py describes the format"


@dataclass(frozen=True)
class Clip:
    name: str
    subject: str
    action: str
    split: str
    motion: np.ndarray  # (T, J, 3) mm


def read_mocap(path: Path) -> list[Clip]:
    """All clips of the .npz; UserError if it is not in the format described above."""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is not an .npz, or the end is missing")
            with np.load(path, allow_pickle=False) as arrays:
                return parse_mocap(arrays)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the motion capture's .npz") from None
    except KeyError as error:
        raise UserError(f"{path}: __meta__ lacks the key {error}; {FORMAT}") from None
    except UNREADABLE as error:
        raise UserError(f"{path}: cannot be read as motion capture: {error}; {FORMAT}") from None


def parse_mocap(arrays: Mapping[str, Any]) -> list[Clip]:
    meta = json.loads(str(read_array(arrays, "__meta__")))
    if not isinstance(meta, dict):
        raise ValueError("__meta__ is not a JSON object")
    head, clips = meta["head"], meta["clips"]
    if tuple(head["parents"]) != H36M.parents:
        raise ValueError(f"its joints' parents are {head['parents']}, not Human3.6M's")
    if head["fps"] != H36M_FPS:
        raise ValueError(f"it has {head['fps']} frames a second, not {H36M_FPS:g}")
    unit = head["unit_m"]
    if not (isinstance(unit, int | float) and unit > 0):
        raise ValueError(f"its unit is {unit!r}, not a number of metres")
    return [
        parse_clip(name, about, read_array(arrays, name), 1000 * unit)
        for name, about in clips.items()
    ]


def read_array(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    if name not in arrays:
        raise ValueError(f"there is no array {name}")
    try:
        return arrays[name]
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"array {name}: {error}") from None


def parse_clip(name: str, about: dict, array: np.ndarray, unit_mm: float) -> Clip:
    if array.ndim != 3 or array.shape[1:] != (H36M.num_joints, 3) or not len(array):
        raise ValueError(f"clip {name} has shape {array.shape}, not (frames, 17, 3)")
    if about["split"] not in ("train", "test"):
        raise ValueError(f"clip {name} is of split {about['split']!r}, not 'train' or 'test'")
    if array.dtype.kind not in "if" or not np.isfinite(array).all():
        raise ValueError(f"clip {name} has coordinates that are not finite numbers")
    motion = array * unit_mm
    return Clip(name, about["subject"], about["action"], about["split"], motion)


def check_held_out(clips: list[Clip]) -> None:
    subjects = {s: {clip.subject for clip in clips if clip.split == s} for s in ("train", "test")}
    both = sorted(subjects["train"] & subjects["test"])
    if both:
        raise UserError(f"subject {both[0]} is in the training and the test clips: not held out")


def mocap_videos(
    clips: list[Clip], *, num_cameras: int, seed: int
) -> Iterator[tuple[str, Sequences]]:
    """Yields (split, one video) for each clip, each window of it that fits the image, each camera.

    A clip's randomness depends on its name and the seed alone, not on the clips beside it.
    """
    actions = {action: n for n, action in enumerate(sorted({clip.action for clip in clips}), 1)}
    takes: Counter[str] = Counter()
    for clip in clips:
        rng = np.random.default_rng([seed, zlib.crc32(clip.name.encode())])
        motion = scale_bones(clip.motion, random_body(rng))
        for video in film_videos(
            rng,
            motion,
            num_cameras=num_cameras,
            subject=clip.subject,
            action=clip.action,
            action_number=actions[clip.action],
            takes=takes,
        ):
            yield clip.split, video
