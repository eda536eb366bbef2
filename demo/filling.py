"""Where a person's unseen keypoints are: they go with the rest of the body.

F frames of a stretch, J keypoints of a layout: x, y in pixels and a confidence, 0 where it was not
found.
"""

import numpy as np

from demo.timeline import averaged
from lib.errors import UserError
from lib.keypoints import Layout
from lib.skeleton import H36M

BODY_SECONDS = 0.5  # over which the body's size is averaged
ROUNDS = 20  # of fitting where the keypoints are on the body, and where the body is
LEAST = 0.2  # of the most that is ever known: less does not tell the body's size
LEG = 0.9  # length of a thigh or shin against the trunk's

# Where keypoints of somebody are who stands and looks at the camera: x to the person's left and y
# down from the middle of the hips, in lengths of the trunk. Left ones; the right ones mirror them.
STANDING = {
    **dict.fromkeys(("pelvis", "hip", "mid_hip"), (0.0, 0.0)),
    "spine": (0.0, -0.5),
    "thorax": (0.0, -1.0),
    "neck": (0.0, -1.15),
    "nose": (0.0, -1.35),
    "head": (0.0, -1.55),
    "left_mouth": (0.05, -1.28),
    **{f"left_eye{part}": (0.06, -1.4) for part in ("", "_inner", "_outer")},
    "left_ear": (0.14, -1.37),
    "left_shoulder": (0.33, -1.0),
    "left_elbow": (0.4, -0.43),
    "left_wrist": (0.45, 0.07),
    **{f"left_{finger}": (0.47, 0.22) for finger in ("pinky", "index", "thumb")},
    "left_hip": (0.2, 0.0),
    "left_knee": (0.22, LEG),
    "left_ankle": (0.24, 2 * LEG),
    "left_heel": (0.24, 2 * LEG + 0.1),
    **{f"left_{toe}": (0.3, 2 * LEG + 0.15) for toe in ("big_toe", "small_toe", "foot_index")},
}


def standing(layout: Layout) -> np.ndarray:
    """(J, 2): STANDING's place of each keypoint."""
    left = [STANDING[name.replace("right_", "left_")] for name in layout.names]
    sides = [-1.0 if name.startswith("right_") else 1.0 for name in layout.names]
    return np.array(left) * np.stack([sides, np.ones(len(sides))], axis=-1)


def fill_gaps(
    keypoints: np.ndarray, frame: np.ndarray, times: np.ndarray, layout: Layout
) -> np.ndarray:
    """Sightings (N, J, 3) in the frames (N,) of a stretch -> (F, J, 3).

    A keypoint that was not seen in a frame lies where it is on the body in the frames around it,
    with confidence 0; one that was never seen lies on its mirror image, or else where it is on
    somebody who stands. times: (F,) seconds. Raises UserError: nothing is seen at all.
    """
    filled = np.zeros((len(times), layout.num_keypoints, 3), dtype=np.float32)
    filled[frame] = keypoints
    seen: np.ndarray = np.asarray(filled[..., 2] > 0)  # (F, J)
    if seen.all():
        return filled
    if not seen.any():
        raise UserError("no keypoint has a confidence above 0; nothing can be lifted")
    middle, size = follow_body(filled[..., :2].astype(np.float64), seen, times)
    on_body = (filled[..., :2] - middle[:, None]) / size[:, None, None]
    ever: np.ndarray = np.asarray(seen.any(axis=0))
    for joint in np.flatnonzero(ever):
        known = seen[:, joint]
        for axis in (0, 1):
            on_body[:, joint, axis] = np.interp(times, times[known], on_body[known, joint, axis])
    usual = _usual_places(on_body[:, ever], standing(layout), ever)
    for joint in np.flatnonzero(~ever):
        other = layout.mirror[joint]
        on_body[:, joint] = on_body[:, other] if ever[other] else usual[:, joint]
    found = on_body * size[:, None, None] + middle[:, None]
    filled[..., :2] = np.where(seen[..., None], filled[..., :2], found)
    filled[~seen, 2] = 0
    return filled


def follow_body(
    points: np.ndarray, seen: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the body is in each frame and how large: (F, 2) and (F,) in pixels.

    points: (F, J, 2); seen: (F, J) which are known. All keypoints together tell it, whichever are
    seen: in turns, each one's place on the body is averaged over the frames, and the body is laid
    on those that are seen.
    """
    weight = seen.astype(np.float64)
    some = seen.any(axis=1)
    points = np.where(seen[..., None], points, 0.0)
    middle = _mean(points, weight)
    size = np.ones(len(points))
    for _ in range(ROUNDS):
        on_body = _mean(
            ((points - middle[:, None]) / size[:, None, None]).swapaxes(0, 1), weight.T
        )  # (J, 2)
        on_body -= on_body[seen.any(axis=0)].mean(axis=0)
        places = np.broadcast_to(on_body, points.shape)
        centre = _mean(places, weight)
        off = (places - centre[:, None]) * weight[..., None]
        knows = (off**2).sum(axis=(1, 2))
        enough = some & (knows >= LEAST * knows.max())
        if knows.max() == 0:
            break  # never two keypoints in a frame: the size is not known
        fitted = (off * points).sum(axis=(1, 2))[enough] / knows[enough]
        size = np.interp(times, times[enough], np.maximum(fitted, 1e-6))
        size = np.maximum(averaged(size, times, BODY_SECONDS), size.min())
        middle = _mean(points, weight) - centre * size[:, None]
    for axis in (0, 1):
        middle[:, axis] = np.interp(times, times[some], middle[some, axis])
    return middle, size


def _mean(points: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Means of points (A, B, 2) over the second axis with weights (A, B); 0 where all are 0."""
    return (points * weight[..., None]).sum(1) / np.maximum(weight.sum(1), 1e-9)[:, None]


def _usual_places(known: np.ndarray, usual: np.ndarray, ever: np.ndarray) -> np.ndarray:
    """Somebody who stands (J, 2), laid on the keypoints that were seen, (F, K, 2) -> (F, J, 2).

    ever: (J,) which those are. In width and in height by itself: people turn, and turn over.
    """
    centre, place = known.mean(axis=1), usual[ever].mean(axis=0)
    off = usual[ever] - place
    scale = (off * (known - centre[:, None])).mean(axis=(0, 1))
    spread = (off**2).mean(axis=0)
    # A single line of keypoints tells one of the two only.
    tall = scale[1] / spread[1] if spread[1] > 0.01 else abs(scale[0]) / max(spread[0], 0.01)
    wide = scale[0] / spread[0] if spread[0] > 0.01 else 0.0
    return centre[:, None] + (usual - place) * [wide, tall]


def with_straight_legs(track: np.ndarray) -> np.ndarray:
    """(F, 17, 3): knees and ankles that are never seen are straight below the hips."""
    never = (track[..., 2] == 0).all(axis=0)
    standing = track.copy()
    trunk = track[:, H36M.index("thorax"), :2] - track[:, H36M.index("pelvis"), :2]
    for side in ("left", "right"):
        for above, below in (("hip", "knee"), ("knee", "ankle")):
            joint = H36M.index(f"{side}_{below}")
            if never[joint]:
                standing[:, joint, :2] = standing[:, H36M.index(f"{side}_{above}"), :2]
                standing[:, joint, 1] += LEG * np.linalg.norm(trunk, axis=-1)
    return standing
