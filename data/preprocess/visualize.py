"""A film of one sequence of a data set: the 2D skeleton beside the 3D one.

python data/preprocess/visualize.py data/motion3d/mocap.pkl --sequence 3
python data/preprocess/visualize.py data/motion3d/H36M-243 --split train --output clip.gif
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import cv2
import numpy as np

from data.clips import SPLITS, open_clips
from data.h36m import read_frames, read_pickle
from data.projection import FPS
from lib.arrays import Floats
from lib.camera import camera_to_world, from_screen
from lib.cli import CommandParser, run_main
from lib.drawing import FONT, TEXT, Room, View, draw_2d
from lib.errors import UserError
from lib.files import find_path, refuse_same_file
from lib.film import Film, Frame, write_gif
from lib.numbers import parse_whole, whole_number
from lib.skeleton import H36M

PANEL = 480  # pixels: height and width of each half
PAPER = (255, 255, 255)
GIF_FPS = 25  # faster ones are played slowly
BODY_MM = 4100.0  # all bones of a person of average size, laid end to end


@dataclass(frozen=True)
class Motion:
    """pose_2d: (F, J, 3) x and y on the normalised screen, confidence; pose_3d: (F, J, 3) in the
    camera's axes, root-relative, in the data set's unit.
    """

    name: str
    pose_2d: Floats
    pose_3d: Floats


def read_motion(path: Path, split: str, wanted: str) -> Motion:
    """Sequence `wanted` of a split: a video of a pickle or a clip of a folder. Raises UserError."""
    return read_clip(path, split, wanted) if path.is_dir() else read_video(path, split, wanted)


def read_clip(folder: Path, split: str, wanted: str) -> Motion:
    clips = open_clips(folder, split, None)
    number = parse_whole(wanted, 0, len(clips) - 1)
    if number is None:
        raise UserError(f"--sequence {wanted}: {folder} has the clips 0 to {len(clips) - 1}")
    pose_2d, pose_3d = clips.read([number])
    name = f"{folder.name} {split} {number}"
    return Motion(name, pose_2d[0], pose_3d[0] - pose_3d[0][:, H36M.root, None])


def read_video(path: Path, split: str, wanted: str) -> Motion:
    """By name, or by number in the order of the file."""
    rows = read_pickle(path)[split]
    sources = np.asarray(rows.get("source", ()))
    if not len(sources):
        raise UserError(f"{path}: no frames in table {split!r}")
    starts = np.flatnonzero(np.concatenate([[True], sources[1:] != sources[:-1]]))
    names = [str(name) for name in sources[starts]]
    number = parse_whole(wanted, 0, len(names) - 1)
    if number is None and wanted in names:
        number = names.index(wanted)
    if number is None:
        raise UserError(
            f"--sequence {wanted}: the {split} split of {path} has the videos 0 to"
            f" {len(names) - 1}: {', '.join(names[:3])} …"
        )
    end = starts[number + 1] if number + 1 < len(starts) else len(sources)
    video = {name: column[starts[number] : end] for name, column in rows.items()}
    frames = read_frames(video, path)
    pose_3d = frames.pose_3d - frames.pose_3d[:, H36M.root, None]
    return Motion(names[number], frames.pose_2d, pose_3d)


def to_room(pose_3d: Floats) -> Floats:
    """(F, J, 3) in the camera's axes -> mm, z up, the lowest joint on the floor in each frame.

    The camera is taken as level. One scale for the whole motion makes an average body of it.
    """
    bones = pose_3d[:, list(H36M.bone_children)] - pose_3d[:, list(H36M.bone_parents)]
    size = float(np.median(np.linalg.norm(bones, axis=-1).sum(-1)))
    world: Floats = camera_to_world(pose_3d.astype(np.float64) * BODY_MM / max(size, 1e-9), 0.0)
    world[..., 2] -= world[..., 2].min(-1, keepdims=True)
    return world


def pictures(motion: Motion, fps: float) -> Iterator[Frame]:
    """The film's pictures; each is overwritten by the next one."""
    keypoints = motion.pose_2d.astype(np.float64)
    keypoints[..., :2] = from_screen(keypoints[..., :2], (PANEL, PANEL))
    world = to_room(motion.pose_3d)
    room = Room.around(world, (PANEL, PANEL), View(turning=False))
    seen = np.ones((1, world.shape[1]), dtype=bool)
    picture = np.empty((PANEL, 2 * PANEL, 3), dtype=np.uint8)
    left, right = np.split(picture, 2, axis=1)
    for index in range(len(world)):
        left[:] = PAPER
        draw_2d(left, keypoints[index])
        room.draw(right, world[index, None], seen, index / fps)
        for panel, text in ((left, motion.name), (right, f"{index / fps:.2f} s")):
            cv2.putText(panel, text, (12, PANEL - 14), FONT, 0.45, TEXT, 1, cv2.LINE_AA)
        yield picture


def write_film(path: Path, motion: Motion, fps: float) -> None:
    """As MP4 or GIF, by the name's ending. Raises UserError."""
    if path.suffix.lower() == ".gif":
        step = math.ceil(fps / GIF_FPS)
        fewer = Motion(motion.name, motion.pose_2d[::step], motion.pose_3d[::step])
        write_gif(path, pictures(fewer, fps / step), fps / step)
        return
    with Film(path, (2 * PANEL, PANEL), fps) as film:
        for picture in pictures(motion, fps):
            film.write(picture)


def main() -> None:
    parser = CommandParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="a pickle (Human3.6M's, mocap.pkl …) or a folder of clips")
    parser.add_argument("--split", choices=SPLITS, default="test", help="(test)")
    parser.add_argument(
        "--sequence", default="0", metavar="N", help="its number, or a video's name (0)"
    )
    parser.add_argument("--frames", type=whole_number(1), help="at most so many (all)")
    parser.add_argument(
        "--output", type=Path, default=Path("sequence.mp4"), help=".mp4 or .gif (sequence.mp4)"
    )
    options = parser.parse_args()
    if options.output.suffix.lower() not in (".mp4", ".gif"):
        raise UserError(f"--output {options.output}: the name must end in .mp4 or .gif")
    source = find_path(options.source)
    refuse_same_file(options.output, [source])
    motion = read_motion(source, options.split, options.sequence)
    shown = slice(options.frames)
    motion = Motion(motion.name, motion.pose_2d[shown], motion.pose_3d[shown])
    write_film(options.output, motion, FPS)
    print(f"{options.output}: {motion.name}, {len(motion.pose_2d)} frames")


if __name__ == "__main__":
    run_main(main)
