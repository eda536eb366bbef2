"""Which layout a file's keypoints have: by their names, their number, or the body they make.

N sightings, J keypoints.
"""

import re
from collections.abc import Sequence

import numpy as np

from demo.keypoint_files.found import Sightings, listed
from lib.keypoints import LAYOUTS, Layout
from lib.skeleton import H36M

# Mean factor (its logarithm) by which bones differ from a body's: below, a layout makes a body;
# and how much larger than twice that it must be in another layout to tell them apart.
FITTING, CLEARLY_WORSE = 0.5, 0.15
ODD = 0.45  # hardly a body
ORDERS_DIFFER = ("coco18", "body25")  # programs have other layouts of as many keypoints

_SIDES = {"l": "left", "left": "left", "r": "right", "right": "right"}
# Other words for a keypoint of ours.
_WORDS = {
    "lefteye": "left_eye", "righteye": "right_eye", "leftear": "left_ear",
    "rightear": "right_ear", "midhip": "mid_hip", "bigtoe": "big_toe", "smalltoe": "small_toe",
    "footindex": "foot_index", "eyeinner": "eye_inner", "eyeouter": "eye_outer",
}  # fmt: skip


def plain(name: str) -> str:
    """'left_shoulder' of 'LeftShoulder', 'LShoulder', 'shoulder.l' or 'SHOULDER (LEFT)'."""
    split = re.sub(r"([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])", r"\1\3_\2\4", name.strip())
    words = [word for word in re.split(r"[^a-z0-9]+", split.lower()) if word]
    if len(words) == 1:
        for side in ("left", "right"):
            if words[0].startswith(side) and words[0] != side:
                words = [side, words[0].removeprefix(side)]
    sides = [word for word in words if word in _SIDES]
    others = [_WORDS.get(word, word) for word in words if word not in _SIDES]
    return "_".join([_SIDES[word] for word in sides] + others)


def layout_of_names(names: Sequence[str]) -> tuple[Layout, list[int]] | None:
    """The layout all of whose keypoints are among `names`, and where each of them is found.

    Of several the one with the most keypoints; None: there is none.
    """
    place = {plain(name): number for number, name in reversed(list(enumerate(names)))}
    fitting = [
        layout for layout in LAYOUTS.values() if all(plain(name) in place for name in layout.names)
    ]
    if not fitting:
        # As in 'PoseLandmark.NOSE', 'PoseLandmark.LEFT_EYE'.
        before = re.match(r"\w+\.", names[0])
        if before and all(name.startswith(before[0]) for name in names):
            return layout_of_names([name.removeprefix(before[0]) for name in names])
        return None
    best = max(fitting, key=lambda layout: layout.num_keypoints)
    return best, [place[plain(name)] for name in best.names]


def choose_layout(sightings: Sightings, wanted: Layout | None) -> tuple[Layout, np.ndarray]:
    """The layout, and its keypoints (N, J, C) in its order. Raises UserError."""
    keypoints = sightings.array
    count = keypoints.shape[1]
    names = sightings.names or sightings.facts.names
    if len(names) == count and not wanted:
        found = layout_of_names(names)
        if found:
            layout, order = found
            return layout, keypoints[:, order]
        raise sightings.wrong(
            f"{count} keypoints of no known layout ({listed(names)}); known are"
            f" {', '.join(LAYOUTS)}{_hint(count)}"
        )
    name = sightings.facts.layout
    if name and name not in LAYOUTS and not wanted:
        raise sightings.wrong(f"says layout {name!r}; known are {', '.join(LAYOUTS)} (--layout)")
    layout = wanted or LAYOUTS.get(name) or _by_count(sightings, keypoints)
    if count not in (layout.in_files, layout.num_keypoints):
        raise sightings.wrong(
            f"{count} keypoints a person, but {layout.name} has {layout.in_files}; give the right"
            f" --layout ({', '.join(LAYOUTS)})"
        )
    return layout, keypoints[:, : layout.num_keypoints]


def _hint(count: int) -> str:
    """What to do with keypoints of other names, if a layout has as many."""
    fitting = [name for name, x in LAYOUTS.items() if count in (x.in_files, x.num_keypoints)]
    if not fitting:
        return ""
    return f"; if they are in the order of {' or '.join(fitting)}, give it as --layout"


def _by_count(sightings: Sightings, keypoints: np.ndarray) -> Layout:
    count = keypoints.shape[1]
    fitting = [x for x in LAYOUTS.values() if x.in_files == count]
    fitting = fitting or [x for x in LAYOUTS.values() if x.num_keypoints == count]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise sightings.wrong(
            f"{count} keypoints a person, of no known layout; known are {', '.join(LAYOUTS)}"
        )
    layout = sightings.usual or best_body(fitting, keypoints)
    if layout is None:
        names = " or ".join(layout.name for layout in fitting)
        raise sightings.wrong(f"{count} keypoints; say which with --layout {names}")
    if not sightings.usual:
        others = listed([x.name for x in fitting if x != layout])
        sightings.assumed.append(
            f"{count} keypoints that make a body as {layout.name}, not as {others}"
        )
    return layout


def doubt_layout(sightings: Sightings, layout: Layout, keypoints: np.ndarray, told: bool) -> None:
    """Ask whether another layout of as many keypoints makes a much better body.

    told: whether the user or the file named it. Raises UserError where nobody did.
    """
    count = layout.num_keypoints
    best = best_body([x for x in LAYOUTS.values() if x.num_keypoints == count], keypoints)
    if not told and layout.name in ORDERS_DIFFER and _misfit(layout, keypoints) > ODD:
        raise sightings.wrong(
            f"{count} keypoints that hardly make a body as {layout.name}; --layout {layout.name}"
            " says that they are in its order"
        )
    if best is None or best.names == layout.names:
        return
    if not told:
        raise sightings.wrong(
            f"{count} keypoints that make a body as {best.name}, but none as {layout.name}, which"
            " such files have; give --layout"
        )
    sightings.assumed.append(f"these look like {best.name}, not like {layout.name}")


def best_body(layouts: Sequence[Layout], keypoints: np.ndarray) -> Layout | None:
    """The layout in which keypoints (N, J, 2 or more) make a body, if they do in one only."""
    if len({layout.names for layout in layouts}) < 2:
        return layouts[0]
    places = np.where(np.isfinite(keypoints[..., :2]), keypoints[..., :2], 0)
    seen = (places != 0).any(axis=-1, keepdims=True)
    points = np.concatenate([places, seen], axis=-1)
    order = sorted((_misfit(layout, points), place) for place, layout in enumerate(layouts))
    (best, place), (second, _) = order[:2]
    return layouts[place] if best < FITTING and second > 2 * best + CLEARLY_WORSE else None


# Lengths of bones against each other, as people have them.
_BODY = {
    ("left_hip", "left_knee"): 450, ("right_hip", "right_knee"): 450,
    ("left_knee", "left_ankle"): 450, ("right_knee", "right_ankle"): 450,
    ("left_hip", "left_shoulder"): 490, ("right_hip", "right_shoulder"): 490,
    ("left_shoulder", "left_elbow"): 290, ("right_shoulder", "right_elbow"): 290,
    ("left_elbow", "left_wrist"): 260, ("right_elbow", "right_wrist"): 260,
    ("thorax", "neck"): 150,
}  # fmt: skip


def _misfit(layout: Layout, keypoints: np.ndarray) -> float:
    """How far the bones' lengths are from a body's, read in a layout: a mean factor's logarithm."""
    joints = layout.to_h36m(keypoints)
    factors = []
    for (one, other), length in _BODY.items():
        a, b = joints[:, H36M.index(one)], joints[:, H36M.index(other)]
        seen = (a[:, 2] > 0) & (b[:, 2] > 0)
        lengths = np.linalg.norm(a[seen, :2] - b[seen, :2], axis=-1)
        if len(lengths):
            factors.append(np.log(max(float(np.median(lengths)), 1e-6) / length))
    return float(np.mean(np.abs(factors - np.median(factors)))) if factors else np.inf
