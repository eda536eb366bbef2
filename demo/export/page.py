"""NAME.html: the poses in one page that needs nothing else, neither a network nor other files."""

import base64
import html
import json
import re
from pathlib import Path

import numpy as np

from demo.export.focus import TRAIL_SECONDS, Focus
from demo.poses import Poses
from lib.files import write_atomic
from lib.skeleton import H36M

HERE = Path(__file__).parent
# 2D coordinates as 16-bit numbers: this many steps over the image's longer side, and three times
# as far outside of it.
STEPS = 10_000


def write_page(path: Path, poses: Poses) -> None:
    """Raises UserError where it cannot be written."""
    pixel = max(poses.size) / STEPS
    focus = Focus.of(poses)
    # Of the 16-bit numbers' unit: 1, more where people are farther away than 32 m.
    mm = max(1.0, float(np.abs(poses.pose_world).max()) / np.iinfo(np.int16).max)
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
        "world": _int16(poses.pose_world / mm),
        "middle": _int16(focus.middle / mm),
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
    """The page with the style and the drawing that the live page (demo/web) has, too, inside."""
    page, style, drawing = (
        (HERE / name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "drawing.js")
    )
    # The page's script is no module, so that it runs from a file.
    drawing = re.sub("^export ", "", drawing, flags=re.MULTILINE)
    return page.replace("{{page.css}}", style).replace("{{drawing.js}}", drawing)


def _int16(values: np.ndarray) -> str:
    limit = np.iinfo(np.int16)
    return _base64(np.clip(np.round(values), limit.min, limit.max).astype("<i2"))


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
