"""NAME.html: the poses in one page that needs nothing else, neither a network nor other files."""

import base64
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from demo.export.focus import TRAIL_SECONDS, Focus
from demo.poses import Poses
from lib.files import write_atomic
from lib.skeleton import H36M

# Styles and scripts are pasted into page.html, so that it opens as a file. page.css and drawing.js
# are the live page's (demo/web), too.
VIEWER = Path(__file__).parent / "viewer"
STYLES = ("page.css", "viewer.css")
SCRIPTS = (
    "drawing.js",
    "npz.js",
    "results.js",
    "fitting.js",
    "comparing.js",
    "own.js",
    "curves.js",
    "second.js",
    "page.js",
    "comparison.js",
    "keys.js",
    "start.js",
)
# 2D coordinates as 16-bit numbers: this many steps over the image's longer side, and three times
# as far outside of it.
STEPS = 10_000


def write_page(path: Path, poses: Poses) -> None:
    """Raises UserError where it cannot be written."""
    pixel = max(poses.size) / STEPS
    focus = Focus.of(poses)
    roots = poses.pose_world[:, :, :1]
    joints = poses.pose_world - roots
    # The unit of the joints as 16-bit numbers: a twentieth of a millimetre, about.
    mm = max(1e-3, float(np.abs(joints).max()) / np.iinfo(np.int16).max)
    data = {
        "names": H36M.names,
        "parents": H36M.parents,
        "colors": [f"rgb({r},{g},{b})" for r, g, b in H36M.colors],
        "fps": poses.fps,
        "times": np.round(poses.times, 4).tolist(),
        # Numbers that tell one stretch from the next; 0: not there.
        "stretch": _base64(np.where(poses.present, (poses.stretch - 1) % 255 + 1, 0).astype("u1")),
        "size": poses.size,
        "frames": poses.num_frames,
        "persons": poses.persons.tolist(),
        "pixel": pixel,
        "mm": mm,
        "roots": _base64(roots.astype("<f4")),
        "joints": _int16(joints / mm),
        "middle": _base64(focus.middle.astype("<f4")),
        "radius": focus.radius,
        "step": max(1, round(TRAIL_SECONDS * poses.fps)),
        "flat": _int16(poses.keypoints_2d[..., :2] / pixel),
        # Rounded up: only what was not seen at all may read 0.
        "confidence": _base64(np.ceil(np.clip(poses.confidence, 0, 1) * 255).astype(np.uint8)),
    }
    page = _template().replace("{{data}}", json.dumps(data))
    with write_atomic(path, "w") as file:
        file.write(page.replace("{{title}}", html.escape(path.stem)))


def _template() -> str:
    def joined(names: Iterable[str]) -> str:
        return "\n".join((VIEWER / name).read_text(encoding="utf-8") for name in names)

    # The page's script is no module, so that it runs from a file.
    scripts = re.sub("^export ", "", joined(SCRIPTS), flags=re.MULTILINE)
    page = (VIEWER / "page.html").read_text(encoding="utf-8")
    return page.replace("{{styles}}", joined(STYLES)).replace("{{scripts}}", scripts)


def _int16(values: np.ndarray) -> str:
    limit = np.iinfo(np.int16)
    return _base64(np.clip(np.round(values), limit.min, limit.max).astype("<i2"))


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
