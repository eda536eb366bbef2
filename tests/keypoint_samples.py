"""One person who walks and swings the arms, as keypoint files of many programs could have them."""

import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from demo.people import People
from lib.keypoints import BLAZEPOSE_33, BODY_25, COCO_17, COCO_18, HALPE_26, Layout

SIZE = (864, 480)
FRAMES = 40
PICTURE = np.array(SIZE, dtype=float)
Rows = Sequence[Sequence[object]]
Write = Callable[[Path], Path]

# Of COCO's 17 in cm, x to the person's left in the picture, y down from the hips.
_STANDING = {
    "nose": (2, -68), "left_eye": (5, -72), "right_eye": (-2, -72), "left_ear": (9, -70),
    "right_ear": (-6, -70), "left_shoulder": (18, -49), "right_shoulder": (-18, -50),
    "left_elbow": (24, -22), "right_elbow": (-24, -22), "left_wrist": (26, 4),
    "right_wrist": (-27, 3), "left_hip": (13, 0), "right_hip": (-13, 1), "left_knee": (14, 44),
    "right_knee": (-14, 44), "left_ankle": (15, 88), "right_ankle": (-15, 89),
}  # fmt: skip
_SWING = {"wrist": 17.0, "elbow": 9.0, "ankle": 13.0, "knee": 8.0}  # cm


def clip(layout: Layout = COCO_17, frames: int = FRAMES) -> np.ndarray:
    """(F, J, 3): pixels, 3 decimals, and confidences from 0.5 to 1. Joints that COCO's 17 lack are
    means of those around them."""
    time = np.arange(frames)
    coco = {}
    for name, place in _STANDING.items():
        side, _, part = name.partition("_")
        swing = _SWING.get(part, 0.0) * np.sin(time / 4 + (side == "left") * np.pi)
        x, y = place[0] + swing, place[1] - np.abs(swing) / 5
        coco[name] = np.stack([330 + 3 * time + 2.1 * x, 240 + 2.1 * y + np.sin(time)], axis=-1)
    middle = {
        "neck": ("left_shoulder", "right_shoulder"),
        "hip": ("left_hip", "right_hip"),
        "mid_hip": ("left_hip", "right_hip"),
        "head": ("left_ear", "right_ear"),
    }
    joints = []
    for place, name in enumerate(layout.names):
        if name in coco:
            joints.append(coco[name])
            continue
        side, _, rest = name.partition("_")
        part = "eye" if "eye" in rest else "ear" if rest == "mouth" else "wrist"
        part = "ankle" if rest.endswith(("toe", "heel", "foot_index")) else part
        ends = middle.get(name, (f"{side}_{part}",))
        joints.append(np.mean([coco[end] for end in ends], axis=0) + 3 + place / 10)
    places = np.round(np.stack(joints, axis=1), 3)
    confidence = np.random.default_rng(0).uniform(0.5, 1, (*places.shape[:2], 1)).round(3)
    confidence[0, 0] = 1
    return np.concatenate([places, confidence], axis=-1)


CLIP = clip()
NAMES = COCO_17.names
OPENPOSE, OPENPOSE_18, HALPE, BLAZE = map(clip, (BODY_25, COCO_18, HALPE_26, BLAZEPOSE_33))


TWO = np.stack([CLIP, CLIP + np.array([200, 0, 0])])
# OpenPose's other 25: COCO's 17, neck and head, six of the feet.
BODY_25B = np.concatenate([CLIP, OPENPOSE[:, 1:2], CLIP[:, :1], OPENPOSE[:, 19:]], axis=1)


def with_places(keypoints: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.concatenate([change(keypoints[..., :2]), keypoints[..., 2:]], axis=-1)


def with_confidence(
    keypoints: np.ndarray, change: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    return np.concatenate([keypoints[..., :2], change(keypoints[..., 2:])], axis=-1)


def shares(keypoints: np.ndarray) -> np.ndarray:
    """From 0 to 1 over the picture."""
    return with_places(keypoints, lambda xy: xy / PICTURE)


def flat(keypoints: np.ndarray) -> list[float]:
    return [float(number) for number in keypoints.ravel()]


def alphapose(keypoints: np.ndarray, name: str = "{}.jpg", first: int = 0) -> list[dict]:
    return [
        {"image_id": name.format(first + frame), "keypoints": flat(one), "score": 2.9}
        for frame, one in enumerate(keypoints)
    ]


ROWS = [[frame, *flat(one)] for frame, one in enumerate(CLIP)]
COLUMNS = [f"{name}_{c}" for name in NAMES for c in ("x", "y", "confidence")]


# --- Writers: each takes a folder and returns what --keypoints is given -------------------------


def js(content: object, encoding: str = "utf-8") -> Write:
    return raw(json.dumps(content).encode(encoding), "a.json")


def npz(**arrays: object) -> Write:
    def write(folder: Path) -> Path:
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz"

    return write


def table(header: list[str], rows: Rows, separator: str = ",", encoding: str = "utf-8") -> Write:
    lines = [separator.join(map(str, row)) for row in ([header] if header else []) + list(rows)]
    return raw("\n".join(lines).encode(encoding), "a.csv")


def text(content: str, name: str = "a.json") -> Write:
    return raw(content.encode(), name)


def raw(content: bytes, name: str) -> Write:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def folder_of(name: str, contents: list[object]) -> Write:
    """A file for each image: JSON, an array or a line of text."""

    def write(folder: Path) -> Path:
        for number, content in enumerate(contents):
            path = folder / name.format(number)
            if isinstance(content, np.ndarray):
                np.save(path, content)
            else:
                path.write_text(content if isinstance(content, str) else json.dumps(content))
        return folder

    return write


def packed(write: Write) -> Write:
    def write_packed(folder: Path) -> Path:
        path = write(folder)
        target = path.with_name(path.name + ".gz")
        target.write_bytes(gzip.compress(path.read_bytes()))
        return target

    return write_packed


# --- Parts of files ---


def landmarks(one: np.ndarray, *, confidence: bool = True) -> list[dict]:
    return [
        {"x": x / PICTURE[0], "y": y / PICTURE[1], "z": -0.01 * joint}
        | ({"visibility": c} if confidence else {})
        for joint, (x, y, c) in enumerate(one.tolist())
    ]


def mmpose(one: np.ndarray) -> dict:
    return {"keypoints": one[:, :2].tolist(), "keypoint_scores": one[:, 2].tolist()}


def check(
    people: People, expected: np.ndarray, frames: Iterable[int], unseen: np.ndarray | None = None
) -> None:
    """expected: (F, J, 3), in `frames`; unseen: (F, J) or nothing."""
    assert people.frame.tolist() == list(frames)
    seen = people.keypoints[..., 2] > 0
    np.testing.assert_array_equal(seen, np.ones_like(seen) if unseen is None else ~unseen)
    np.testing.assert_allclose(people.keypoints[seen], expected[seen], rtol=0, atol=0.006)
