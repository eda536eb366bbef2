"""How wrong are the demo's poses where the truth is known and the video is unlike the training?

    python -m tests.benchmarks.demo_truth [--scenes plain rate-5 crossing] [--mocap FOLDER]

Invented motion of the synthetic test subjects, or real motion of the motion capture benchmark's
validation subjects, is filmed by known cameras with a detector's noise, and goes the demo's own way
from keypoints to poses. P-MPJPE in mm: over all frames, and over the worst sixth of the time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.bodies import random_body
from data.cameras import CAMERAS, View, draw_anywhere, image_and_depth, middle_of
from data.detector_noise import detect
from data.filming import draw_view
from data.mocap_benchmark import VALIDATION, set_of
from data.sources.mocap import read_mocap
from data.sources.synthetic import ACTIONS, FIRST_TEST_SUBJECT, perform, rest_pose
from demo.people import People
from demo.pipeline import DEFAULT_CHECKPOINT, VideoLifter
from lib.camera import H36M_FPS, Camera
from lib.cli import run_main
from lib.errors import UserError
from lib.keypoints import H36M_17
from lib.metrics import p_mpjpe
from lib.numbers import whole_number
from tests.benchmarks.timing import parser, report

PARTS = 6  # of the time, the worst of which is reported
WIDE = (1920, 1080)
FOCAL = 1.15 * WIDE[0]
PERSON_MM = 1700.0
STAY_MM = 5000.0
EYE_MM = 1500.0  # height of the cameras in front of which somebody goes somewhere
SHOT = 100  # frames at 50 a second from cut to cut
JUMP = 50  # … from one jump of identity to the next
UNSEEN = 40  # … in which a leg is not seen


@dataclass(frozen=True)
class Filmed:
    """Somebody in a video.

    keypoints: (F, 17, 3) pixels and confidence; truth: (F, 17, 3) mm, in any axes; times: (F,)
    seconds; size: width and height in pixels; aspect: width of a pixel over its height.
    """

    keypoints: np.ndarray
    truth: np.ndarray
    times: np.ndarray
    size: tuple[int, int]
    aspect: float = 1.0

    def only(self, frames: np.ndarray | slice) -> "Filmed":
        parts = self.keypoints[frames], self.truth[frames], self.times[frames]
        return replace(self, keypoints=parts[0], truth=parts[1], times=parts[2])


# --- Filming ----------------------------------------------------------------------------------


def seen_by(rng: np.random.Generator, motion: np.ndarray, view: View) -> Filmed:
    """motion: (F, 17, 3) mm in the world, at 50 frames/s."""
    image, factor = image_and_depth(view.to_camera(motion), view.camera)
    joints, confidence = detect(rng, image, factor)
    keypoints = np.concatenate([joints, confidence[..., None]], axis=-1)
    times = np.arange(len(motion)) / H36M_FPS
    return Filmed(keypoints.astype(np.float32), motion, times, view.camera.size)


def plain(rng: np.random.Generator, motion: np.ndarray) -> Filmed:
    """As Human3.6M is filmed, from farther off where a motion goes far: nothing is in the way."""
    for _ in range(8):
        camera = CAMERAS[int(rng.integers(len(CAMERAS)))]
        view = draw_view(rng, motion, camera, rng.uniform(0, 360))
        if view:
            return seen_by(rng, motion, view)
    return seen_by(rng, motion, draw_anywhere(rng, motion))


def at_rate(rng: np.random.Generator, motion: np.ndarray, rate: float) -> Filmed:
    """Of a video with 50 frames a second, those that are nearest to `rate` a second."""
    filmed = plain(rng, motion)
    frames = np.round(np.arange(0, len(motion) - 1, H36M_FPS / rate)).astype(int)
    return filmed.only(np.unique(frames))


def at_changing_rate(rng: np.random.Generator, motion: np.ndarray) -> Filmed:
    """From 5 to 50 frames a second and back."""
    steps = 1 + np.round(4.5 * (1 + np.sin(np.arange(len(motion)) / 10))).astype(int)
    frames = np.cumsum(steps) - steps[0]
    return plain(rng, motion).only(frames[frames < len(motion)])


def squeezed(rng: np.random.Generator, motion: np.ndarray, aspect: float) -> Filmed:
    """Pixels `aspect` times as wide as high."""
    filmed = plain(rng, motion)
    size = (round(filmed.size[0] / aspect), filmed.size[1])
    return replace(filmed, keypoints=filmed.keypoints / [aspect, 1, 1], size=size, aspect=aspect)


def going(rng: np.random.Generator, motion: np.ndarray, path: np.ndarray) -> Filmed:
    """In front of a wide camera. path: (F, 2) mm to the right of the camera and away from it.

    The detector errs as with somebody who stays in their place: the path is what is tried here.
    """
    turn = rng.uniform(0, 2 * math.pi)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    own = motion.copy()
    own[..., :2] = (own[..., :2] - middle_of(motion)[:2]) @ rotation.T
    camera = Camera("wide", WIDE, (FOCAL, FOCAL), (WIDE[0] / 2, WIDE[1] / 2))
    eye = np.array([0.0, 0.0, EYE_MM])
    view = View(camera, eye, eye + np.array([0.0, 1.0, -0.05]))

    def image_of(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        offset = np.concatenate([places, np.zeros((len(places), 1))], axis=-1)
        return image_and_depth(view.to_camera(own + offset[:, None]), camera)

    still, still_factor = image_of(np.tile([0.0, STAY_MM], (len(motion), 1)))
    joints, confidence = detect(rng, still, still_factor)
    errors_mm = (joints - still[..., :2]) * still_factor[:, None, None]
    image, factor = image_of(path)
    joints = image[..., :2] + errors_mm / factor[:, None, None]
    keypoints = np.concatenate([joints, confidence[..., None]], axis=-1).astype(np.float32)
    return Filmed(keypoints, motion, np.arange(len(motion)) / H36M_FPS, WIDE)


def distance_of(pixels: np.ndarray | float) -> np.ndarray:
    """How far away (mm) a person is who is so many pixels tall."""
    return FOCAL * PERSON_MM / np.asarray(pixels, dtype=np.float64)


def crossing(rng: np.random.Generator, motion: np.ndarray, pixels: float) -> Filmed:
    """From the left border of the picture to the right one, `pixels` tall."""
    away = np.full(len(motion), float(distance_of(pixels)))
    across = np.linspace(-0.46, 0.46, len(motion)) * WIDE[0] / FOCAL * away
    return going(rng, motion, np.stack([across, away], axis=-1))


def approaching(rng: np.random.Generator, motion: np.ndarray, low: float, high: float) -> Filmed:
    """From `low` to `high` pixels tall, growing evenly."""
    away = distance_of(np.linspace(low, high, len(motion)))
    return going(rng, motion, np.stack([np.zeros_like(away), away], axis=-1))


def cut(rng: np.random.Generator, motion: np.ndarray, zoom: float, shift: float) -> Filmed:
    """Another camera every two seconds, each second one with its picture made smaller and moved."""
    shots = []
    for number, start in enumerate(range(0, len(motion), SHOT)):
        shot = plain(rng, motion[start : start + SHOT])
        if number % 2:
            keypoints = shot.keypoints * [zoom, zoom, 1] + [shift, shift, 0]
            shot = replace(shot, keypoints=keypoints.astype(np.float32))
        shots.append(shot)
    return _one_after_the_other(shots)


def jumping(rng: np.random.Generator, motion: np.ndarray) -> Filmed:
    """A detector that goes on with somebody else, a metre and a half aside, every second."""
    shifted = motion[::-1] - middle_of(motion) * [1, 1, 0]
    own = motion - middle_of(motion) * [1, 1, 0]
    pair = [
        going(rng, one, np.tile([side, 5000.0], (len(motion), 1)))
        for one, side in ((own, -750.0), (shifted, 750.0))
    ]
    frames = np.arange(len(motion))
    parts = [pair[n % 2].only(part) for n, part in enumerate(np.split(frames, frames[JUMP::JUMP]))]
    return _one_after_the_other(parts)


def half_seen(rng: np.random.Generator, motion: np.ndarray) -> Filmed:
    """Crossing the picture; now and then a leg is not seen."""
    filmed = crossing(rng, motion, 400.0)
    for start in range(UNSEEN, len(motion), 3 * UNSEEN):
        filmed.keypoints[start : start + UNSEEN, 4:7] = 0
    return filmed


def _one_after_the_other(shots: Sequence[Filmed]) -> Filmed:
    keypoints, truth = (
        np.concatenate([getattr(s, n) for s in shots]) for n in ("keypoints", "truth")
    )
    return replace(
        shots[0], keypoints=keypoints, truth=truth, times=np.arange(len(truth)) / H36M_FPS
    )


SCENES: dict[str, Callable[[np.random.Generator, np.ndarray], Filmed]] = {
    "plain": plain,
    "rate-25": lambda rng, motion: at_rate(rng, motion, 25),
    "rate-10": lambda rng, motion: at_rate(rng, motion, 10),
    "rate-5": lambda rng, motion: at_rate(rng, motion, 5),
    "rate-24": lambda rng, motion: at_rate(rng, motion, 24),
    "rate-changing": at_changing_rate,
    "pixels-2:1": lambda rng, motion: squeezed(rng, motion, 2.0),
    "pixels-1:1.4": lambda rng, motion: squeezed(rng, motion, 1 / 1.4),
    "standing-150": lambda rng, motion: going(rng, motion, _stays(motion, 150)),
    "crossing-150": lambda rng, motion: crossing(rng, motion, 150),
    "crossing-300": lambda rng, motion: crossing(rng, motion, 300),
    "approach-80-800": lambda rng, motion: approaching(rng, motion, 80, 800),
    "leaving-800-80": lambda rng, motion: approaching(rng, motion, 800, 80),
    "cuts": lambda rng, motion: cut(rng, motion, 0.35, 60.0),
    "cuts-alike": lambda rng, motion: cut(rng, motion, 1.0, 0.0),
    "jumps": jumping,
    "half-seen": half_seen,
}


def _stays(motion: np.ndarray, pixels: float) -> np.ndarray:
    return np.tile([0.0, float(distance_of(pixels))], (len(motion), 1))


# --- Motion and scores ------------------------------------------------------------------------


def invented(subjects: int, frames: int) -> list[np.ndarray]:
    """(frames, 17, 3) mm each: every action by every subject."""
    motions = []
    for subject in range(FIRST_TEST_SUBJECT, FIRST_TEST_SUBJECT + subjects):
        body, *rngs = np.random.default_rng([0, subject]).spawn(1 + len(ACTIONS))
        offsets = rest_pose() * random_body(body)[:, None]
        motions += [
            perform(r, name, offsets, frames) for name, r in zip(ACTIONS, rngs, strict=True)
        ]
    return motions


def captured(folder: Path, frames: int, every: int) -> list[np.ndarray]:
    """(up to frames, 17, 3) mm each: every n-th recording of the validation subjects."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise UserError(f"--mocap {folder}: no .npz files there; give the motion capture's folder")
    clips = [clip for file in files for clip in read_mocap(file)]
    own = [
        clip.motion[:frames].astype(np.float64)
        for clip in clips
        if set_of(clip.subject) == VALIDATION
    ]
    return [motion for motion in own if len(motion) >= frames // 2][::every]


def score(lifter: VideoLifter, filmed: Filmed) -> tuple[np.ndarray, np.ndarray, int]:
    """P-MPJPE of each frame, (F,) mm, the sixth of the time each is in, (F,), and the number of
    stretches."""
    people = People.of_array(filmed.keypoints[None].astype(np.float32), H36M_17)
    people = replace(people.filmed(H36M_FPS, filmed.size), pixel_aspect=filmed.aspect)
    poses = lifter.lift_people(people.at(filmed.times))
    part = np.minimum(filmed.times / (filmed.times[-1] + 1e-9) * PARTS, PARTS - 1).astype(int)
    return p_mpjpe(poses.pose_3d[0], filmed.truth), part, int(poses.stretch.max())


def rows(
    lifter: VideoLifter, motions: Sequence[np.ndarray], scenes: Sequence[str]
) -> list[dict[str, object]]:
    table = []
    for name in scenes:
        errors, parts, stretches = [], [], []
        for number, motion in enumerate(motions):
            # The same body, heading and noise in all scenes.
            rng = np.random.default_rng(number)
            error, part, count = score(lifter, SCENES[name](rng, motion))
            errors.append(error)
            parts.append(part)
            stretches.append(count)
        all_errors, part = np.concatenate(errors), np.concatenate(parts)
        sixths = [float(all_errors[part == p].mean()) for p in range(PARTS)]
        table.append(
            {
                "scene": name,
                "P-MPJPE": round(float(all_errors.mean()), 1),
                "worst sixth": round(max(sixths), 1),
                "first": round(sixths[0], 1),
                "last": round(sixths[-1], 1),
                "stretches": round(float(np.mean(stretches)), 1),
            }
        )
    return table


def main(argv: Sequence[str] | None = None) -> None:
    command = parser(__doc__)
    command.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT)
    command.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    command.add_argument("--mocap", type=Path, metavar="FOLDER", help="real motion, of validation")
    command.add_argument("--every", type=whole_number(1), default=10, help="n-th recording of it")
    command.add_argument("--subjects", type=whole_number(1, 39), default=2, help="invented ones")
    command.add_argument("--frames", type=whole_number(30), default=300, help="of each, at 50/s")
    options = command.parse_args(argv)
    if options.mocap:
        motions = captured(options.mocap, options.frames, options.every)
    else:
        motions = invented(options.subjects, options.frames)
    lifter = VideoLifter.from_checkpoint(options.checkpoint, device="cpu")
    title = f"{len(motions)} motions of up to {options.frames} frames, mm"
    report(options, {title: rows(lifter, motions, options.scenes)})


if __name__ == "__main__":
    run_main(main)
