"""How wrong are the demo's poses of a real video, and the detector's own? Several cameras tell.

    python -m tests.benchmarks.multiview FOLDER … [--checkpoint DIR]

FOLDER has videos/*.mp4 of one scene and calibration/*.qca.txt (Qualisys), as the demos have in the
package Pose2Sim: `pip download --no-deps pose2sim`, unzip it, Pose2Sim/Demo_SinglePerson. The truth
for each camera is triangulated from what the default detector sees in the others: so it has the
detector's idea of where a joint is, but not this camera's errors. Cameras that were moved since
they were calibrated are turned back, left and right exchanged where one camera has them wrong. Each
video goes the demo's way from keypoints to poses. What was detected is kept for the next run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demo.path import DEFAULT_FOV, runs, turned_back
from demo.pipeline import DEFAULT_CHECKPOINT, VideoLifter
from demo.poses import Poses, bone_variation, unit
from demo.smoothing import steady
from demo.timeline import averaged
from demo.world import AVERAGE_HEIGHT, millimetres_per_unit
from lib.cli import run_main
from lib.files import PROJECT_ROOT
from lib.metrics import acceleration_error, angle, mpjpe, procrustes_align
from lib.skeleton import H36M
from tests.benchmarks.path import Filmed, Scores, scores
from tests.benchmarks.scene import STEADY_SECONDS, Folder, Truth, check, joints_of, scenes
from tests.benchmarks.seen import Seen, see
from tests.benchmarks.timing import parser, report

ANGLES = {
    "knee": ("hip", "knee", "ankle"),
    "elbow": ("shoulder", "elbow", "wrist"),
    "hip": ("shoulder", "hip", "knee"),
}


# --- Scores -----------------------------------------------------------------------------------


def body_axes(pose: np.ndarray) -> np.ndarray:
    """(F, 17, 3) -> (F, 3, 3): rows right, forward, up of the pelvis."""
    right = unit(pose[:, H36M.index("right_hip")] - pose[:, H36M.index("left_hip")])
    spine = pose[:, H36M.index("spine")] - pose[:, H36M.index("pelvis")]
    forward = unit(np.cross(spine, right))
    return np.stack([right, forward, np.cross(right, forward)], axis=1)


@dataclass(frozen=True)
class Errors:
    """Of N frames. position: (N,) mm, root-relative, at the person's size; size: percent that it is
    off; aligned: (N, 17, 3) mm after the best similarity, along the body's axes; angles: (N, 2)
    degrees, left and right, of each of ANGLES; bones: percent that their lengths vary;
    acceleration: m/s², in frames that have neighbours.
    """

    position: np.ndarray
    size: float
    aligned: np.ndarray
    angles: dict[str, np.ndarray]
    bones: float
    acceleration: np.ndarray


def errors(truth: Truth, pose: np.ndarray) -> Errors:
    """pose: (F, 17, 3) mm in the camera's axes."""
    sure = truth.sure
    pose, true = pose - pose[:, :1], truth.pose
    scale = millimetres_per_unit(pose[sure]) / millimetres_per_unit(true[sure])
    seconds = float(np.median(np.diff(truth.times)))
    neighbours = sure[2:] & sure[1:-1] & sure[:-2]
    acceleration = acceleration_error(scale * pose, true)[neighbours] / seconds**2 / 1000
    pose, true = pose[sure], true[sure]
    off = procrustes_align(pose, true) - true
    angles = {}
    for name, parts in ANGLES.items():
        sides = []
        for side in ("left", "right"):
            corner = [H36M.index(f"{side}_{part}") for part in parts]
            sides.append(np.abs(angle(pose, *corner) - angle(true, *corner)))
        angles[name] = np.stack(sides, axis=-1)
    return Errors(
        mpjpe(scale * pose, true),
        100 * abs(1 / scale - 1),
        np.einsum("fij,fnj->fni", body_axes(true), off),
        angles,
        100 * bone_variation(pose),
        acceleration,
    )


def combined(found: Sequence[Errors]) -> dict[str, object]:
    aligned = np.concatenate([one.aligned for one in found])
    angles = {
        f"{name} °": float(np.concatenate([one.angles[name] for one in found]).mean())
        for name in ANGLES
    }
    values = {
        "MPJPE": float(np.concatenate([one.position for one in found]).mean()),
        "P-MPJPE": float(np.linalg.norm(aligned, axis=-1).mean()),
        "… without constant part": float(np.linalg.norm(aligned - aligned.mean(0), axis=-1).mean()),
        **angles,
        "size %": float(np.mean([one.size for one in found])),
        "bones %": float(np.mean([one.bones for one in found])),
        "m/s²": float(np.median(np.concatenate([one.acceleration for one in found]))),
    }
    return {"frames": len(aligned)} | {name: round(value, 1) for name, value in values.items()}


def by_joint(found: Sequence[Errors]) -> list[dict[str, object]]:
    """Errors after the best similarity, and their mean: right, forward and up of the body."""
    aligned = np.concatenate([one.aligned for one in found])
    size, mean = np.linalg.norm(aligned, axis=-1).mean(axis=0), aligned.mean(axis=0)
    return [
        {"joint": name, "mm": round(float(size[j]), 1)}
        | {axis: round(float(mean[j, k]), 1) for k, axis in enumerate(("right", "forward", "up"))}
        for j, name in enumerate(H36M.names)
    ]


# --- What is scored ---------------------------------------------------------------------------

OURS, OWN, ALONE = "ours", "the detector's own 3D", "ours, of the truth's 2D"


def lifted(
    lifter: VideoLifter, view: Seen, row: int, fov: float | None, height: float | None = None
) -> Poses:
    """As the demo lifts this person of the video, raw keypoints steadied."""
    return lifter.lift_people(steady(view.person(row)), fov=fov, height=height)


def lifted_alone(lifter: VideoLifter, truth: Truth) -> np.ndarray:
    """(F, 17, 3) as the demo lifts keypoints without a detector's errors."""
    pixels = truth.camera.project(truth.joints)
    keypoints = np.concatenate([pixels, np.ones((*pixels.shape[:-1], 1))], axis=-1)
    fps = 1 / float(np.median(np.diff(truth.times)))
    poses = lifter.lift_keypoints(keypoints, truth.camera.size, fps, fov=truth.camera.fov)
    return poses.pose_3d[0].astype(np.float64)


def own_pose(view: Seen, row: int, fov: float) -> np.ndarray:
    """The detector's 3D (F, 17, 3) mm, averaged as the truth is; turned from the axes of a camera
    that looks at the hips into those of the camera that filmed, as the demo turns its poses.
    """
    seen = np.flatnonzero(np.isfinite(view.own[row]).all(axis=(1, 2)))
    nearest = seen[np.abs(np.arange(len(view.times))[:, None] - seen).argmin(axis=1)]
    pose = averaged(joints_of(view.own[row, nearest]), view.times, STEADY_SECONDS)
    hips = joints_of(view.keypoints[row, nearest])[:, 0, :2]
    return turned_back(pose, hips, view.size, fov)


def before_the_camera(truth: Truth, points: np.ndarray) -> np.ndarray:
    """(..., 3) in the world -> x to the camera's right, y away from it, z up."""
    forward = unit(truth.camera.rotation[2] * [1, 1, 0])
    return points @ np.stack([np.cross(forward, [0, 0, 1]), forward, [0, 0, 1]]).T


def longest(flags: np.ndarray) -> slice:
    """The longest run of True."""
    start, end = max(runs(flags), key=lambda run: run[1] - run[0], default=(0, 0))
    return slice(start, end)


def path_of(truth: Truth, world: np.ndarray, pitch: float) -> Scores:
    """world: (F, 17, 3), x to the camera's right, y away, z up."""
    part = longest(truth.sure)
    camera = truth.camera
    filmed = Filmed(
        camera.name,
        before_the_camera(truth, truth.joints)[part],
        truth.pose[part],
        np.zeros((0, 17, 3)),
        camera.fov,
        float(np.rad2deg(np.arcsin(-camera.rotation[2, 2]))),
        1 / float(np.median(np.diff(truth.times))),
    )
    return scores(filmed, world[part].astype(np.float64), pitch)


def paths(lifter: VideoLifter, truth: Truth, view: Seen, row: int) -> dict[str, Scores]:
    """Of one person and camera, by what the demo was told."""
    height = AVERAGE_HEIGHT / millimetres_per_unit(truth.joints[truth.sure])
    told = {
        "--fov and --height given": (truth.camera.fov, height),
        "neither given": (DEFAULT_FOV, None),
        "--in-place": (None, height),
    }
    found = {}
    for name, (fov, size) in told.items():
        poses = lifted(lifter, view, row, fov, size)
        found[name] = path_of(truth, poses.pose_world[0], poses.camera_pitch)
    own = own_pose(view, row, truth.camera.fov) @ truth.camera.rotation
    found[OWN] = path_of(truth, before_the_camera(truth, own), math.nan)
    return found


def path_rows(found: Sequence[dict[str, Scores]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name in found[0]:
        ones = [one[name] for one in found]
        off, way = (sum(getattr(one, key) for one in ones) for key in ("off", "way"))
        values = {
            "path % of the way": 100 * off / way,
            "path mm": off / len(ones),
            "of mm": way / len(ones),
            "slide mm/frame": float(np.concatenate([one.slides for one in ones]).mean()),
            "pitch °": float(np.median([one.pitch for one in ones])),
        }
        rows.append({"told": name} | {key: round(value, 1) for key, value in values.items()})
    return rows


def measure(lifter: VideoLifter, folders: Sequence[Path], keep: Path) -> dict[str, list[dict]]:
    """The tables, by their titles."""
    checks, people, ways = [], [], []
    everybody: dict[str, list[Errors]] = {OURS: [], OWN: [], ALONE: []}
    for path in folders:
        folder = Folder(path)
        cameras = folder.cameras()
        views = [see(video, keep / path.name / f"{video.stem}.npz") for video in folder.videos]
        for number, (rows, scene) in enumerate(scenes(cameras, views).items(), 1):
            name = f"{path.name}, person {number}"
            checks.append(check(name, cameras, scene))
            found: dict[str, list[Errors]] = {method: [] for method in everybody}
            for camera, (view, row) in enumerate(zip(views, rows, strict=True)):
                truth = Truth.of(scene, camera, view.times)
                pose = lifted(lifter, view, row, truth.camera.fov).pose_3d[0]
                found[OURS].append(errors(truth, pose.astype(np.float64)))
                found[OWN].append(errors(truth, own_pose(view, row, truth.camera.fov)))
                found[ALONE].append(errors(truth, lifted_alone(lifter, truth)))
                ways.append(paths(lifter, truth, view, row))
            for method, ones in found.items():
                people.append({"who": name, "3D": method} | combined(ones))
                everybody[method] += ones
    people += [{"who": "all", "3D": method} | combined(ones) for method, ones in everybody.items()]
    return {
        "The truth: how well the cameras agree": checks,
        "Poses; mm at the person's size": people,
        "Where they go": path_rows(ways),
        **{f"By joint, {method}": by_joint(ones) for method, ones in everybody.items()},
    }


def main(argv: Sequence[str] | None = None) -> None:
    command = parser(__doc__)
    command.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    command.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT)
    command.add_argument(
        "--keep",
        type=Path,
        default=PROJECT_ROOT / "demo" / "output" / "multiview",
        metavar="DIR",
        help="what was detected, read again by the next run",
    )
    options = command.parse_args(argv)
    lifter = VideoLifter.from_checkpoint(options.checkpoint, device="cpu")
    report(options, measure(lifter, options.folders, options.keep))


if __name__ == "__main__":
    run_main(main)
