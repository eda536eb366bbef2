"""Poses into files that other tools read: a module, and a line in EXPORTERS, for each kind."""

import glob
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from demo.export.arrays import write_json, write_npz
from demo.export.bvh import write_everybody
from demo.export.film import write_film
from demo.export.page import write_page
from demo.poses import Poses
from lib.drawing import View


@dataclass(frozen=True)
class Export:
    """What is exported; and of the film the video beside the poses, the view, and who is told."""

    poses: Poses
    video: str | None  # None: a dark picture
    view: View
    on_frame: Callable[[], object]


# Kind -> the file's name, where {name} is the video's and * something for each of several people;
# what writes it, and may return what to call the result. The film takes longest, so it comes last.
EXPORTERS: dict[str, tuple[str, Callable[[Path, Export], str | None]]] = {
    "npz": ("poses.npz", lambda path, job: write_npz(path, job.poses)),
    "json": ("poses.json", lambda path, job: write_json(path, job.poses)),
    "bvh": ("{name}*.bvh", lambda path, job: write_everybody(path, job.poses)),
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
    """What may be written; of one file a person, those that are there already."""
    patterns = [EXPORTERS[kind][0] for kind in formats]
    alone = [folder / files.replace("*", "").format(name=name) for files in patterns]
    there = [folder.glob(f.format(name=glob.escape(name))) for f in patterns if "*" in f]
    return [*alone, *(path for paths in there for path in paths)]
