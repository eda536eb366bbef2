"""2D keypoint layouts of the common detectors, and how each becomes the 17 joints of Human3.6M.

A layout gives every Human3.6M joint as a weighted sum of its keypoints, so a conversion is one
matrix product. Left and right are the person's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lib.arrays import Floats
from lib.errors import UserError, did_you_mean
from lib.skeleton import H36M

# A joint's weights of the keypoints, for x and for y, and the keypoints that give its confidence.
Recipe = dict[str, tuple[Floats, Floats, tuple[str, ...]]]
Keypoints = Mapping[str, Floats]  # keypoint name -> its unit vector (J,)


@dataclass(frozen=True)
class Layout:
    """Named keypoints in a detector's order, and how they become Human3.6M's joints."""

    name: str
    names: tuple[str, ...]
    recipe: Callable[[Keypoints], Recipe]
    # How several confidences become one: np.min or np.mean.
    join: Callable[..., Floats] = np.min
    # Keypoints in a program's files where hands and face follow the ones named here; 0: none do.
    with_hands_and_face: int = 0

    @property
    def num_keypoints(self) -> int:
        return len(self.names)

    @property
    def in_files(self) -> int:
        """Keypoints of a person in the files of the program, of which `names` are the first."""
        return self.with_hands_and_face or self.num_keypoints

    @cached_property
    def mirror(self) -> tuple[int, ...]:
        """Where each keypoint's counterpart on the other side is found."""
        other = {"left": "right", "right": "left"}
        order = []
        for name in self.names:
            side, _, rest = name.partition("_")
            order.append(self.names.index(f"{other[side]}_{rest}" if side in other else name))
        return tuple(order)

    @cached_property
    def joints(self) -> list[tuple[Floats, Floats, list[int]]]:
        unit = np.eye(self.num_keypoints)
        recipe = self.recipe({name: unit[i] for i, name in enumerate(self.names)})
        return [
            (x, y, [self.names.index(part) for part in parts])
            for x, y, parts in (recipe[joint] for joint in H36M.names)
        ]

    def to_h36m(self, keypoints: Floats) -> Floats:
        """(..., J, 3) x, y, confidence -> (..., 17, 3) float32."""
        if keypoints.shape[-2:] != (self.num_keypoints, 3):
            raise ValueError(f"{self.name} wants (..., {self.num_keypoints}, 3)")
        points = keypoints.astype(np.float64)
        joints = np.empty((*points.shape[:-2], len(H36M.names), 3), dtype=np.float32)
        for joint, (x, y, parts) in enumerate(self.joints):
            joints[..., joint, 0] = points[..., 0] @ x
            joints[..., joint, 1] = points[..., 1] @ y
            joints[..., joint, 2] = self.join(points[..., parts, 2], axis=-1)
        return joints


def _same(weights: Floats, *parts: str) -> tuple[Floats, Floats, tuple[str, ...]]:
    return weights, weights, parts


_LIMBS = tuple(
    f"{side}_{part}"
    for side in ("left", "right")
    for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
)
_HIPS = ("left_hip", "right_hip")
_SHOULDERS = ("left_shoulder", "right_shoulder")
_EARS = ("left_ear", "right_ear")
_EYES_AND_EARS = ("left_eye", "right_eye", *_EARS)


def _middle(k: Keypoints, parts: tuple[str, ...]) -> Floats:
    middle: Floats = np.mean([k[part] for part in parts], axis=0)
    return middle


def _limbs(k: Keypoints) -> Recipe:
    return {name: _same(k[name], name) for name in _LIMBS}


def _from_h36m(k: Keypoints) -> Recipe:
    return {name: _same(k[name], name) for name in H36M.names}


def _from_coco(k: Keypoints) -> Recipe:
    """As in the released demo, which computes x and y of the trunk's joints differently."""
    hips, shoulders = _middle(k, _HIPS), _middle(k, _SHOULDERS)
    eyes, nose = _middle(k, ("left_eye", "right_eye")), k["nose"]
    thorax = shoulders + (nose - shoulders) / 3
    spine = (hips + shoulders) / 2
    return _limbs(k) | {
        "pelvis": _same(hips, *_HIPS),
        "spine": (3 * spine - hips - thorax, spine, _HIPS + _SHOULDERS),
        "thorax": (thorax, thorax - (eyes - nose) * 2 / 3, _SHOULDERS),
        "neck": _same(0.75 * nose + 0.25 * shoulders, "nose"),
        "head": (_middle(k, _EYES_AND_EARS), 2 * eyes - nose, _EYES_AND_EARS),
    }


def _from_halpe(k: Keypoints) -> Recipe:
    """As MotionBERT converts AlphaPose's Halpe-26, which has detected joints in the trunk."""
    return _limbs(k) | {
        "pelvis": _same(k["hip"], "hip"),
        "spine": _same((k["hip"] + k["neck"]) / 2, "hip", "neck"),
        "thorax": _same(k["neck"], "neck"),
        "neck": _same(k["nose"], "nose"),
        "head": _same(k["head"], "head"),
    }


def _from_openpose(k: Keypoints) -> Recipe:
    """BODY_25 has a keypoint between the hips; of COCO's 18 it is computed."""
    eyes = _middle(k, ("left_eye", "right_eye"))
    hips = ("mid_hip",) if "mid_hip" in k else _HIPS
    pelvis = _middle(k, hips)
    return _limbs(k) | {
        "pelvis": _same(pelvis, *hips),
        "spine": _same((pelvis + k["neck"]) / 2, *hips, "neck"),
        "thorax": _same(k["neck"], "neck"),
        "neck": _same(0.75 * k["nose"] + 0.25 * k["neck"], "nose"),
        "head": (_middle(k, _EYES_AND_EARS), 2 * eyes - k["nose"], _EYES_AND_EARS),
    }


def _from_blazepose(k: Keypoints) -> Recipe:
    """The factors were chosen to match the joints of the motion capture we train on."""
    hips, shoulders = _middle(k, _HIPS), _middle(k, _SHOULDERS)
    ears = _middle(k, _EARS)
    face = (ears + k["nose"]) / 2
    thorax = hips + 1.10 * (shoulders - hips)
    return _limbs(k) | {
        "pelvis": _same(hips, *_HIPS),
        "spine": _same(hips + 0.476 * (thorax - hips), *_HIPS, *_SHOULDERS),
        "thorax": _same(thorax, *_SHOULDERS),
        "neck": _same(shoulders + 0.82 * (face - shoulders), *_EARS, "nose"),
        "head": _same(ears + 0.6 * (ears - shoulders), *_EARS),
    }


def _names(words: str) -> tuple[str, ...]:
    return tuple(words.split())


H36M_17 = Layout("h36m17", H36M.names, _from_h36m)
COCO_17 = Layout(
    "coco17",
    _names(
        "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow"
        " right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle"
        " right_ankle"
    ),
    _from_coco,
    np.mean,
)
HALPE_26 = Layout(
    "halpe26",
    COCO_17.names
    + _names(
        "head neck hip left_big_toe right_big_toe left_small_toe right_small_toe left_heel"
        " right_heel"
    ),
    _from_halpe,
)
BODY_25 = Layout(
    "body25",
    _names(
        "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist"
        " mid_hip right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye"
        " right_ear left_ear left_big_toe left_small_toe left_heel right_big_toe right_small_toe"
        " right_heel"
    ),
    _from_openpose,
)
COCO_18 = Layout(
    "coco18",
    _names(
        "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist"
        " right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye"
        " right_ear left_ear"
    ),
    _from_openpose,
)
BLAZEPOSE_33 = Layout(
    "blazepose33",
    _names(
        "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer"
        " left_ear right_ear left_mouth right_mouth left_shoulder right_shoulder left_elbow"
        " right_elbow left_wrist right_wrist left_pinky right_pinky left_index right_index"
        " left_thumb right_thumb left_hip right_hip left_knee right_knee left_ankle right_ankle"
        " left_heel right_heel left_foot_index right_foot_index"
    ),
    _from_blazepose,
)

# Of whole bodies the keypoints without hands and face.
HALPE_136 = Layout("halpe136", HALPE_26.names, _from_halpe, with_hands_and_face=136)
WHOLEBODY_133 = Layout(
    "wholebody133",
    COCO_17.names
    + _names("left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel"),
    _from_coco,
    np.mean,
    with_hands_and_face=133,
)

LAYOUTS = {
    layout.name: layout
    for layout in (
        H36M_17, COCO_17, COCO_18, HALPE_26, HALPE_136, BODY_25, BLAZEPOSE_33, WHOLEBODY_133
    )
}  # fmt: skip


def find_layout(name: str) -> Layout:
    """The layout of that name. Raises UserError."""
    if name not in LAYOUTS:
        hint = did_you_mean(name, LAYOUTS)
        raise UserError(f"no keypoint layout {name!r}; there are {', '.join(LAYOUTS)}{hint}")
    return LAYOUTS[name]
