"""A film of one sequence of a data set: the 2D skeleton beside the 3D one.

    python data/preprocess/visualize.py data/motion3d/mocap.pkl --sequence 3
    python data/preprocess/visualize.py data/motion3d/H36M-243 --split train --output clip.gif

The camera is taken as level, and the body as one of average size.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import cv2
import numpy as np

from data.benchmark import Benchmark
from data.benchmarks import BENCHMARKS
from data.motions import read_motions
from data.sequences import SPLITS
from data.store import open_clips
from data.views import RenderedClips, Rendering
from lib.arrays import Floats
from lib.camera import H36M_FPS, camera_to_world, from_screen
from lib.cli import CommandParser, run_main
from lib.drawing import FONT, TEXT, Room, View, draw_2d
from lib.errors import UserError
from lib.files import find_path, refuse_same_file
from lib.film import Film, Frame, write_gif
from lib.numbers import parse_whole, whole_number
from lib.skeleton import Skeleton

PANEL = 480  # pixels: height and width of each half
PAPER = (255, 255, 255)
GIF_FPS = 25  # faster ones are played slowly
BODY_MM = 4100.0  # all bones of a person of average size, laid end to end


@dataclass(frozen=True)
class Motion:
    """pose_2d: (F, J, 3) x and y on the normalised screen, confidence; pose_3d: (F, J, 3) in the
    camera's axes, in the data set's unit.
    """

    name: str
    pose_2d: Floats
    pose_3d: Floats
    fps: float
    skeleton: Skeleton


def read_motion(benchmark: Benchmark, path: Path, split: str, wanted: str) -> Motion:
    """Sequence `wanted` of a split: a clip of a folder or a video of a file. Raises UserError."""
    read = read_clip if path.is_dir() else read_video
    return read(benchmark, path, split, wanted)


def read_clip(benchmark: Benchmark, folder: Path, split: str, wanted: str) -> Motion:
    """A clip by its number. Clips do not say their frame rate; it is taken as Human3.6M's.

    Of training clips that are rendered: as the first epoch of a training with seed 0 shows it.
    """
    if benchmark.rendered and split == "train":
        return read_rendered(benchmark, folder, wanted)
    joints = benchmark.skeleton.num_joints
    clips = open_clips(folder, split, None, num_joints=joints, door=benchmark.door)
    number = clip_number(wanted, len(clips), folder)
    pose_2d, pose_3d = clips.read([number])
    name = f"{folder.name} {split} {number}"
    return Motion(name, pose_2d[0], pose_3d[0], H36M_FPS, benchmark.skeleton)


def read_rendered(benchmark: Benchmark, folder: Path, wanted: str) -> Motion:
    joints = benchmark.skeleton.num_joints
    n_frames = open_clips(folder, "test", None, num_joints=joints, door=benchmark.door).n_frames
    motions = read_motions(folder, "train", joints, benchmark.door)
    clips = RenderedClips(motions, n_frames, Rendering(frame_rates=(H36M_FPS, H36M_FPS)))
    number = clip_number(wanted, len(clips), folder)
    pose_2d, pose_3d = clips.render(number, seed=0, epoch=0)
    name = f"{folder.name} train {number}"
    return Motion(name, pose_2d, pose_3d, H36M_FPS, benchmark.skeleton)


def clip_number(wanted: str, count: int, folder: Path) -> int:
    number = parse_whole(wanted, 0, count - 1)
    if number is None:
        raise UserError(f"--sequence {wanted}: {folder} has the clips 0 to {count - 1}")
    return number


def read_video(benchmark: Benchmark, path: Path, split: str, wanted: str) -> Motion:
    """A video by its name, or by its number in the order of the file."""
    ((_, sequences),) = benchmark.read(path, [split])
    names = [video.name for video in sequences.videos]
    number = parse_whole(wanted, 0, len(names) - 1)
    if number is None and wanted in names:
        number = names.index(wanted)
    if number is None:
        raise UserError(
            f"--sequence {wanted}: the {split} split of {path} has the videos 0 to"
            f" {len(names) - 1}: {', '.join(names[:3])} …"
        )
    pose_2d, pose_3d = benchmark.units(sequences.part(number))
    fps = sequences.videos[number].fps
    return Motion(names[number], pose_2d, pose_3d, fps, benchmark.skeleton)


def to_room(pose_3d: Floats, skeleton: Skeleton) -> Floats:
    """(F, J, 3) in the camera's axes -> mm, z up, the lowest joint on the floor in each frame."""
    bones = pose_3d[:, list(skeleton.bone_children)] - pose_3d[:, list(skeleton.bone_parents)]
    size = float(np.median(np.linalg.norm(bones, axis=-1).sum(-1)))
    relative = pose_3d.astype(np.float64) - pose_3d[:, skeleton.root, None]
    world: Floats = camera_to_world(relative * BODY_MM / max(size, 1e-9), 0.0)
    world[..., 2] -= world[..., 2].min(-1, keepdims=True)
    return world


def pictures(motion: Motion) -> Iterator[Frame]:
    """The film's pictures; each is overwritten by the next one."""
    keypoints = motion.pose_2d.astype(np.float64)
    keypoints[..., :2] = from_screen(keypoints[..., :2], (PANEL, PANEL))
    world = to_room(motion.pose_3d, motion.skeleton)
    room = Room.around(world, (PANEL, PANEL), View(turning=False), motion.skeleton)
    seen = np.ones((1, world.shape[1]), dtype=bool)
    picture = np.empty((PANEL, 2 * PANEL, 3), dtype=np.uint8)
    left, right = np.split(picture, 2, axis=1)
    for index in range(len(world)):
        seconds = index / motion.fps
        left[:] = PAPER
        draw_2d(left, keypoints[index], skeleton=motion.skeleton)
        room.draw(right, world[index, None], seen, seconds)
        for panel, text in ((left, motion.name), (right, f"{seconds:.2f} s")):
            cv2.putText(panel, text, (12, PANEL - 14), FONT, 0.45, TEXT, 1, cv2.LINE_AA)
        yield picture


def cut(motion: Motion, frames: slice) -> Motion:
    return replace(motion, pose_2d=motion.pose_2d[frames], pose_3d=motion.pose_3d[frames])


def write_film(path: Path, motion: Motion) -> None:
    """As MP4 or GIF, by the name's ending. Raises UserError."""
    if path.suffix.lower() == ".gif":
        step = math.ceil(motion.fps / GIF_FPS)
        fewer = replace(cut(motion, slice(None, None, step)), fps=motion.fps / step)
        write_gif(path, pictures(fewer), fewer.fps)
        return
    with Film(path, (2 * PANEL, PANEL), motion.fps) as film:
        for picture in pictures(motion):
            film.write(picture)


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="a pickle (Human3.6M's, mocap.pkl …) or a folder of clips")
    parser.add_argument("--dataset", choices=BENCHMARKS, default="h36m", help="its format (h36m)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="(test)")
    parser.add_argument(
        "--sequence", default="0", metavar="N", help="its number, or a video's name (0)"
    )
    parser.add_argument("--frames", type=whole_number(1), help="at most so many (all)")
    parser.add_argument(
        "--output", type=Path, default=Path("sequence.mp4"), help=".mp4 or .gif (sequence.mp4)"
    )
    options = parser.parse_args(argv)
    if options.output.suffix.lower() not in (".mp4", ".gif"):
        raise UserError(f"--output {options.output}: the name must end in .mp4 or .gif")
    source = find_path(options.source)
    refuse_same_file(options.output, [source])
    benchmark = BENCHMARKS[options.dataset].at(source)
    motion = read_motion(benchmark, source, options.split, options.sequence)
    motion = cut(motion, slice(options.frames))
    write_film(options.output, motion)
    print(f"{options.output}: {motion.name}, {len(motion.pose_2d)} frames")
    return 0


if __name__ == "__main__":
    run_main(main)
