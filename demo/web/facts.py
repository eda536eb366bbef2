"""What the page's JavaScript must know of ours, so that no table stands there a second time."""

import numpy as np

from demo import framing, live, tracking
from demo.detectors import blazepose, landmarks, multipose
from demo.world import REFERENCE_MM
from lib.keypoints import LAYOUTS, Layout
from lib.skeleton import H36M

Json = dict[str, object]
JOINS = {np.min: "min", np.mean: "mean"}


def page_facts(frames: int, rate: float) -> Json:
    """frames: the lifter's T; rate: frames a second of its clips."""
    return {
        "skeleton": {
            "names": H36M.names,
            "parents": H36M.parents,
            "colors": [f"rgb({r},{g},{b})" for r, g, b in H36M.colors],
        },
        "layouts": {name: _layout(layout) for name, layout in LAYOUTS.items()},
        "lifter": {"frames": frames, "rate": rate},
        "framing": {"extent": framing.EXTENT, "middle": framing.MIDDLE.tolist()},
        "tracking": {
            "reach": tracking.REACH,
            "speed": tracking.SPEED,
            "growth": tracking.GROWTH,
            "minAgreement": tracking.MIN_AGREEMENT,
        },
        "live": {
            "forgetSeconds": live.FORGET_SECONDS,
            "sizeMoments": live.SIZE_MOMENTS,
            "roomRadius": live.ROOM_RADIUS_MM,
        },
        # The bones that a body's size is taken from, by the joint each ends at: mm.
        "reference": [[H36M.index(name), length] for name, length in REFERENCE_MM.items()],
        "detector": {
            "layout": blazepose.BlazePose.layout.name,
            "present": blazepose.PRESENT,
            "settle": blazepose.SETTLE,
            "multipose": {
                "file": multipose.FILE,
                "size": multipose.SIZE,
                "minScore": multipose.MIN_SCORE,
            },
            "landmarks": {
                "file": landmarks.FILE,
                "side": landmarks.SIDE,
                "keypoints": landmarks.NUM_KEYPOINTS,
                "hips": landmarks.HIPS,
                "rim": landmarks.RIM,
                "margin": landmarks.MARGIN,
                "smallest": landmarks.SMALLEST,
                "seen": landmarks.SEEN,
            },
        },
    }


def _layout(layout: Layout) -> Json:
    return {
        "names": layout.names,
        "join": JOINS[layout.join],
        "joints": [
            {"x": _sparse(x), "y": _sparse(y), "parts": parts} for x, y, parts in layout.joints
        ],
    }


def _sparse(weights: np.ndarray) -> list[list[float]]:
    return [[int(k), float(weights[k])] for k in np.flatnonzero(weights)]
