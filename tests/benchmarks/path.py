"""How wrong are the paths of people in the room? Real motion, seen by a known camera.

    python -m tests.benchmarks.path --mocap FOLDER [--fps 25] [--every 1]

Recordings of the motion capture benchmark's validation subjects are filmed by a still camera
drawn for each (1280 x 720, 1 to 2 m high, 40 to 75 degrees wide) that sees all of the motion, with
a detector's noise, and go the demo's own way from keypoints to poses in the room. The way of the
root is compared after its mean is put upon the true one's: in mm, and, where at least 2 m were
walked, as a share of that. Slide: of ankles that truly rest. Jumps: how far the pelvis rises.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.cameras import View, image_and_depth, middle_of
from data.detector_noise import detect, draw_detector, shift_joints
from data.mocap_benchmark import VALIDATION, limit_of, set_of
from data.sources.mocap import Clip, read_mocap
from demo.grounding import walk
from demo.path import DEFAULT_FOV, FEET, Sight, runs
from demo.pipeline import DEFAULT_CHECKPOINT, VideoLifter
from demo.world import AVERAGE_HEIGHT, estimate_pitch, millimetres_per_unit
from lib.camera import H36M_FPS, Camera
from lib.cli import run_main
from lib.errors import UserError
from lib.numbers import whole_number
from tests.benchmarks.timing import parser, report

SIZE, BORDER = (1280, 720), 15.0
FOV, HEIGHT, DISTANCE, NEAREST = (40.0, 75.0), (1000.0, 2000.0), (2500.0, 4000.0), 1200.0
FARTHER = 1.08
LONGEST = 1000  # frames of a recording
WALKED = 2000.0  # mm: less is no way that errors could be a share of
STEP_SECONDS = 0.2  # the way is measured in steps of it, without the sway
RESTS = 200.0  # mm/s: a true foot that is slower rests
ANKLE = 80.0  # mm above the floor that of somebody who stands is, in these recordings
JUMPED, AIR_SECONDS = 150.0, 0.12  # mm that both feet leave the floor, and for how long


@dataclass(frozen=True)
class Filmed:
    """A recording before a camera. world: (F, 17, 3) mm, x to the camera's right, y away from it, z
    up; keypoints: (F, 17, 3); fov and pitch: degrees."""

    name: str
    world: np.ndarray
    camera: np.ndarray
    keypoints: np.ndarray
    fov: float
    pitch: float
    fps: float


def film(clip: Clip, fps: float) -> Filmed:
    """All follows from the recording's name."""
    rng = np.random.default_rng(zlib.crc32(clip.name.encode()))
    step = round(H36M_FPS / fps)
    motion = clip.motion[: limit_of(clip.subject).frames][:LONGEST:step].astype(np.float64)
    fov, heading = rng.uniform(*FOV), rng.uniform(0, 2 * math.pi)
    focal = SIZE[0] / 2 / math.tan(math.radians(fov / 2))
    camera = Camera("known", SIZE, (focal, focal), (SIZE[0] / 2, SIZE[1] / 2))
    middle, height, distance = middle_of(motion), rng.uniform(*HEIGHT), rng.uniform(*DISTANCE)
    while True:
        x, y = middle[:2] + distance * np.array([math.cos(heading), math.sin(heading)])
        view = View(camera, np.array([x, y, height]), middle)
        points = view.to_camera(motion)
        if points[..., 2].min() > NEAREST:
            pixels = camera.project(points)
            if (pixels > BORDER).all() and (pixels < np.array(SIZE) - BORDER).all():
                break
        distance *= FARTHER
    image, factor = image_and_depth(points, camera)
    meant = np.concatenate([shift_joints(rng, image[..., :2]), image[..., 2:]], axis=-1)
    joints, confidence = detect(rng, meant, factor, draw_detector(rng), H36M_FPS / step)
    right, forward = view.rotation[0], view.rotation[2] * [1, 1, 0]
    axes = np.stack([right, forward / np.linalg.norm(forward), [0, 0, 1]])
    return Filmed(
        clip.name,
        (motion - view.position * [1, 1, 0]) @ axes.T,
        points,
        np.concatenate([joints, confidence[..., None]], axis=-1).astype(np.float32),
        fov,
        math.degrees(math.asin(-view.rotation[2, 2])),
        H36M_FPS / step,
    )


def true_height(filmed: Filmed) -> float:
    """Metres: that of an average person times the ratio of their bones."""
    return AVERAGE_HEIGHT / millimetres_per_unit(filmed.world)


@dataclass(frozen=True)
class Scores:
    """Of one recording. off: of the path, mm, and way, its true length; slides: mm from frame to
    frame of each ankle that truly rests; pitch: degrees it is off; jumps: (N, 2) how far the pelvis
    rises, found and true."""

    off: float
    way: float
    slides: np.ndarray
    pitch: float
    jumps: np.ndarray

    @property
    def share(self) -> float | None:
        """Percent of the way that the path is off; None where nobody goes far."""
        return 100 * self.off / self.way if self.way > WALKED else None


def scores(filmed: Filmed, found: np.ndarray, pitch: float) -> Scores:
    """found: (F, 17, 3), like filmed.world but for where x = y = 0 is."""
    off = found[:, 0] - filmed.world[:, 0]
    off = float(np.linalg.norm((off - off.mean(axis=0))[:, :2], axis=-1).mean())
    every = max(1, round(STEP_SECONDS * filmed.fps))
    way = float(np.linalg.norm(np.diff(filmed.world[::every, 0, :2], axis=0), axis=-1).sum())
    true_feet = filmed.world[:, FEET]
    slow = np.linalg.norm(np.diff(true_feet, axis=0), axis=-1) * filmed.fps < RESTS
    slides = np.linalg.norm(np.diff(found[:, FEET, :2], axis=0), axis=-1)[slow]
    air = true_feet[..., 2].min(axis=1) - ANKLE
    jumps = []
    for start, end in runs(air > JUMPED / 3):
        high = end - start >= AIR_SECONDS * filmed.fps and air[start:end].max() > JUMPED
        if high and start > 0 and end < len(found):
            pelvis = np.stack([found[:, 0, 2], filmed.world[:, 0, 2]], axis=-1)
            jumps.append(pelvis[start:end].max(axis=0) - pelvis[[start - 1, end]].mean(axis=0))
    error = abs(pitch - filmed.pitch)
    return Scores(off, way, slides, error, np.reshape(jumps, (-1, 2)))


@dataclass(frozen=True)
class Condition:
    """What the demo is told of the true numbers; exact: it is given the true poses, too."""

    name: str
    fov: bool = True
    height: bool = True
    in_place: bool = False
    exact: bool = False

    def of(self, lifter: VideoLifter, filmed: Filmed) -> Scores:
        fov = filmed.fov if self.fov else DEFAULT_FOV
        if self.exact:
            times = np.arange(len(filmed.world)) / filmed.fps
            pose = filmed.camera - filmed.camera[:, :1]
            pitch = estimate_pitch([pose], [times])
            sight = Sight.of(pose, filmed.keypoints, times, SIZE, fov)
            (found,), pitch = walk([sight], pitch, refine=True)
            return scores(filmed, found, pitch)
        poses = lifter.lift_keypoints(
            filmed.keypoints,
            SIZE,
            filmed.fps,
            fov=None if self.in_place else fov,
            height=true_height(filmed) if self.height else None,
        )
        return scores(filmed, poses.pose_world[0].astype(np.float64), poses.camera_pitch)


CONDITIONS = (
    Condition("--fov and --height given"),
    Condition("--fov given", height=False),
    Condition("neither given", fov=False, height=False),
    Condition("--in-place", in_place=True),
    Condition("true poses", exact=True),
)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return round(float(np.mean(values)), 2) if len(values) else math.nan


def table(lifter: VideoLifter, recordings: Sequence[Filmed]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for condition in CONDITIONS:
        found = [condition.of(lifter, filmed) for filmed in recordings]
        jumps = np.concatenate([one.jumps for one in found])
        shares = [one.share for one in found if one.share is not None]
        rows.append(
            {
                "condition": condition.name,
                "path % of the way": _mean(shares),
                "path mm": _mean([one.off for one in found]),
                "slide mm/frame": _mean(np.concatenate([one.slides for one in found])),
                "pitch ° (median)": round(float(np.median([one.pitch for one in found])), 2),
                "jump mm": _mean(np.abs(jumps[:, 0] - jumps[:, 1])),
                "of mm": _mean(jumps[:, 1]),
            }
        )
    return rows


def recordings(folder: Path, fps: float, every: int) -> list[Filmed]:
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise UserError(f"--mocap {folder}: no .npz files there; give the motion capture's folder")
    clips = [clip for file in files for clip in read_mocap(file)]
    own = [clip for clip in clips if set_of(clip.subject) == VALIDATION and len(clip.motion) >= 50]
    if not own:
        raise UserError(f"--mocap {folder}: nobody of the validation subjects is there")
    return [film(clip, fps) for clip in own[::every]]


def main(argv: Sequence[str] | None = None) -> None:
    command = parser(__doc__)
    command.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT)
    command.add_argument("--mocap", type=Path, required=True, metavar="FOLDER")
    command.add_argument("--every", type=whole_number(1), default=1, help="n-th recording of it")
    command.add_argument("--fps", type=float, default=25.0, choices=(50.0, 25.0, 12.5))
    options = command.parse_args(argv)
    filmed = recordings(options.mocap, options.fps, options.every)
    lifter = VideoLifter.from_checkpoint(options.checkpoint, device="cpu")
    walkers = sum(len(one.world) for one in filmed)
    title = f"{len(filmed)} recordings, {walkers} frames at {options.fps:g}/s"
    report(options, {title: table(lifter, filmed)})


if __name__ == "__main__":
    run_main(main)
