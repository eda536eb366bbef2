"""Poses as files that other tools read: each kind has a module, and a line in EXPORTERS."""

import glob
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from demo.export.angles import write_angles
from demo.export.arrays import write_json, write_npz
from demo.export.bvh import write_bvh
from demo.export.film import write_film
from demo.export.gltf import write_glb
from demo.export.page import write_page
from demo.export.trc import write_trc
from demo.poses import Poses
from demo.timeline import evenly, is_even
from lib.drawing import View


@dataclass(frozen=True)
class Export:
    """What is exported; all but the poses is for the film."""

    poses: Poses
    video: str | None  # None: a dark picture
    view: View
    on_frame: Callable[[], object]  # called after each frame


Writer = Callable[[Path, Export], str | None]


def one_file_a_person(write: Callable[[Path, Poses, int], None]) -> Writer:
    """A writer of several files from one that writes a row of the people into a path.

    One person's file has the name itself, several people's have their numbers, too.
    """

    def write_all(path: Path, job: Export) -> str:
        numbers = job.poses.persons
        paths = [path]
        if len(numbers) > 1:
            paths = [path.with_name(f"{path.stem}_{number}{path.suffix}") for number in numbers]
        for row, place in enumerate(paths):
            write(place, job.poses, row)
        return ", ".join(place.name for place in paths)

    return write_all


def _bvh(path: Path, poses: Poses, row: int) -> None:
    # BVH knows an even rate only.
    if is_even(poses.times):
        write_bvh(path, poses.pose_world[row], poses.fps)
    else:
        write_bvh(path, *evenly(poses.pose_world[row], poses.times, poses.stretch[row]))


def _trc(path: Path, poses: Poses, row: int) -> None:
    write_trc(path, poses.pose_world[row], poses.present[row], poses.times, poses.fps)


# Kind -> (the file's name, its writer). In the name, {name} is the video's name, and * stands for
# the numbers of several people. A writer may return how to name the result to the user. The film
# takes longest, so it comes last.
EXPORTERS: dict[str, tuple[str, Writer]] = {
    "npz": ("poses.npz", lambda path, job: write_npz(path, job.poses)),
    "json": ("poses.json", lambda path, job: write_json(path, job.poses)),
    "bvh": ("{name}*.bvh", one_file_a_person(_bvh)),
    "glb": ("{name}.glb", lambda path, job: write_glb(path, job.poses)),
    "trc": ("{name}*.trc", one_file_a_person(_trc)),
    "csv": ("{name}_angles.csv", lambda path, job: write_angles(path, job.poses)),
    "html": ("{name}.html", lambda path, job: write_page(path, job.poses)),
    "mp4": (
        "{name}.mp4",
        lambda path, job: write_film(path, job.poses, job.view, job.video, job.on_frame),
    ),
}


def export_poses(job: Export, folder: Path, name: str, formats: Iterable[str]) -> list[str]:
    """Writes the chosen formats; returns what was written. Raises UserError."""
    written = []
    for files, write in (EXPORTERS[kind] for kind in EXPORTERS if kind in formats):
        path = folder / files.replace("*", "").format(name=name)
        written.append(write(path, job) or path.name)
    return written


def result_paths(folder: Path, name: str, formats: Iterable[str]) -> list[Path]:
    """The files that may be written; where each person has one, all such files that exist."""
    patterns = [EXPORTERS[kind][0] for kind in formats]
    alone = [folder / files.replace("*", "").format(name=name) for files in patterns]
    there = [folder.glob(f.format(name=glob.escape(name))) for f in patterns if "*" in f]
    return [*alone, *(path for paths in there for path in paths)]
