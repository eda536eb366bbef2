"""The demo's command: from flags to files, or to a live window."""

import argparse
import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from demo.batch import Done, folders, run_all
from demo.detectors import choose_detector
from demo.export import Export, export_poses, result_paths
from demo.images import images_of
from demo.keypoint_files import files_of, read_keypoints, save_keypoints
from demo.matching import match
from demo.onnx_lifter import OnnxLifter
from demo.options import parse_options
from demo.people import ASSUMED_FPS, Detector, People
from demo.pipeline import VideoLifter, people_in_video
from demo.readers import is_stream
from demo.smoothing import LIGHT, STRONG
from demo.summary import in_words, summary
from demo.tracking import choose, follow
from demo.video import Video
from lib.errors import UserError
from lib.files import (
    PROJECT_ROOT,
    check_file_writable,
    check_folder_writable,
    find_path,
    refuse_same_file,
)

OUTPUT = PROJECT_ROOT / "demo" / "output"

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own; returns its status. Raises UserError."""
    # Threads that wait must sleep, not spin: detection needs their cores. torch reads this when it
    # is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    options = parse_options(argv)
    source: Detector | People
    if options.keypoints:
        source = people_in_file(options)
    else:
        source = choose_detector(options.detector, options.weights_dir)
    # Before the detector runs, so that a wrong checkpoint is reported at once.
    lifter = lifter_of(options)
    print(
        f"{options.onnx or options.checkpoint}: clips of {lifter.n_frames} frames, scan:"
        f" {lifter.backend}"
    )
    if isinstance(source, Detector) and options.is_live:
        show_live(options, source, lifter)
    elif isinstance(source, Detector) and len(options.videos) > 1:
        return write_all(options, source, lifter)
    else:
        name = name_of(options.video or options.keypoints)
        folder = Path(options.output).expanduser() if options.output else OUTPUT / name
        check_results(options, result_paths(folder, name, options.formats))
        check_folder_writable(folder)
        write_files(options, source, lifter, folder, name)
    return 0


def write_all(options: argparse.Namespace, detector: Detector, lifter: VideoLifter) -> int:
    """Each of several videos into its folder; returns the status."""
    names = [name_of(video) for video in options.videos]
    place = Path(options.output).expanduser() if options.output else OUTPUT
    targets = folders(names, place)
    for folder, name in zip(targets, names, strict=True):
        check_results(options, result_paths(folder, name, options.formats))
    check_folder_writable(place)

    def work(index: int) -> Done:
        one = argparse.Namespace(**{**vars(options), "video": options.videos[index]})
        return write_files(one, detector, lifter, targets[index], names[index])

    return run_all(options.videos, targets, work)


def lifter_of(options: argparse.Namespace) -> VideoLifter:
    # Live, every moment is a clip of its own: the mirrored view would double the delay.
    flip = not (options.no_flip or options.is_live)
    if options.onnx:
        return OnnxLifter(options.onnx, flip=flip)
    return VideoLifter.from_checkpoint(
        options.checkpoint,
        options.config,
        options.stage1_checkpoint,
        flip=flip,
        device=choose_place(options.device, options.gpu),
    )


def write_files(
    options: argparse.Namespace,
    source: Detector | People,
    lifter: VideoLifter,
    folder: Path,
    name: str,
) -> Done:
    """source: people of a keypoint file, or what finds them in the video. Raises UserError."""
    progress = Progress()
    people = source if isinstance(source, People) else detect(options, source, progress)
    if options.save_keypoints:
        save_keypoints(options.save_keypoints, people)
    poses = progress.step(
        "lift",
        people.num_frames,
        lambda _: lifter.lift_people(
            people,
            smooth=options.smooth,
            camera_pitch=options.camera_pitch,
            camera_roll=options.camera_roll,
            fov=None if options.in_place else options.fov,
            height=options.height,
            constant_bones=not options.free_bones,
        ),
    )
    written = progress.step(
        "write",
        poses.num_frames if "mp4" in options.formats else 0,
        lambda on_frame: export_poses(
            Export(poses, options.video, options.view, on_frame), folder, name, options.formats
        ),
    )
    for line in summary(people, poses, source.most if isinstance(source, Detector) else 0):
        print(line)
    print(progress.line(people.num_frames))
    fixed = "" if options.free_bones else " (constant in the results; --free-bones keeps them)"
    sees = f"sees {poses.fov:g}° (--fov)" if poses.fov else "nobody goes anywhere (--in-place)"
    print(
        f"camera looks down {poses.camera_pitch:.0f}°{_tilt(poses.camera_roll)}, {sees}; the"
        f" network's bone lengths vary by"
        f" {poses.bone_variation.mean():.1%}{fixed}"
    )
    print(f"{folder}: {', '.join(written)}")
    return Done(people.num_frames, len(poses.persons), sum(progress.seconds.values()))


def _tilt(roll: float) -> str:
    if not roll:
        return ""
    side = "right" if roll > 0 else "left"
    return f" and is tilted: upright leans {abs(roll):.0f}° to the {side} (--camera-roll)"


def show_live(options: argparse.Namespace, detector: Detector, lifter: VideoLifter) -> None:
    from demo.live import run_live

    source = options.video if options.webcam is None else options.webcam
    name = f"webcam{source}" if isinstance(source, int) else name_of(source)
    folder = Path(options.output).expanduser() if options.output else OUTPUT / name
    film = folder / f"{name}_live.mp4" if options.record else None
    check_results(options, [film] if film else [])
    report = run_live(
        source,
        detector.make(),
        lifter,
        options.view,
        camera_pitch=options.camera_pitch or 0.0,
        smooth=options.smooth or (detector.jitters and not options.raw_keypoints),
        strength=STRONG if options.smooth else LIGHT,
        window=not options.no_window,
        film_path=film,
        everybody=options.person == "all",
    )
    print(report.line())
    if film:
        print(film)


# --- Who is lifted --------------------------------------------------------------------------


def people_in_file(options: argparse.Namespace) -> People:
    """The wanted people of --keypoints, with the times and size of --video, if there is one."""
    if options.video:
        with Video(options.video) as video:
            size, shown = video.stored_size, video.size
            people = read_keypoints(options.keypoints, options.layout, size, video.count, shown)
            people, told = match(people, video, options.fps)
    else:
        people = read_keypoints(options.keypoints, options.layout, options.size)
        people, told = people.filmed(options.fps), []
    for line in (*people.assumed, *told):
        print(f"{options.keypoints}: {line}")
    if not people.fps:
        tell_assumed_rate(options.keypoints)
    people = people.filmed(people.fps or ASSUMED_FPS)
    people.check_facts()
    return choose(follow(people), options.person)


def detect(options: argparse.Namespace, detector: Detector, progress: "Progress") -> People:
    """The wanted people of --video."""
    with Video(options.video) as video:
        if not (options.fps or video.fps or video.count == 1):
            tell_assumed_rate(options.video)
        people = progress.step(
            "detect",
            video.count,
            lambda on_frame: people_in_video(
                video, detector, options.person, options.fps, on_frame, raw=options.raw_keypoints
            ),
        )
        if people.num_frames < 0.95 * video.count:
            print(
                f"{options.video}: ends after {people.num_frames} of {video.count} frames; damaged?"
            )
    return people


def tell_assumed_rate(source: str) -> None:
    print(f"{source}: does not say its frame rate; {ASSUMED_FPS:.0f} frames/s assumed (--fps)")


# --- Where to -------------------------------------------------------------------------------


def name_of(source: str) -> str:
    """What the result files are called."""
    path = Path(source.rstrip("/"))
    if path.is_dir():
        return path.resolve().name or "video"
    if is_stream(source) or path.is_file():
        return path.stem or "video"
    # Images by a glob or pattern: what they have in common, else their folder's name.
    common = re.sub(r"[*?]|\[.*?\]|%\d*d", "", path.stem).strip("_-. ")
    return common or path.absolute().parent.name or "video"


def check_results(options: argparse.Namespace, results: list[Path]) -> None:
    """Raises UserError where a result would replace what it is made from, or another result."""
    saved: Path | None = options.save_keypoints
    if saved:
        if saved.resolve() in [path.resolve() for path in results]:
            raise UserError(f"--save-keypoints {saved}: a result in --output has the same name")
        check_file_writable(saved)
    sources = [
        *(file for video in options.videos for file in (images_of(video) or [video])),
        *model_files(options),
        *(files_of(options.keypoints) if options.keypoints else ()),
    ]
    for path in [*results, saved] if saved else results:
        refuse_same_file(path, sources)


def model_files(options: argparse.Namespace) -> list[Path]:
    """The files that the model is read from."""
    if options.onnx:
        return [find_path(options.onnx)]
    from lib.checkpoint import BEST, DEFAULT_STAGE1  # loads torch

    named = (options.checkpoint, options.stage1_checkpoint or DEFAULT_STAGE1, options.config)
    found = [find_path(place) for place in named if place]
    return [place / BEST if place.is_dir() else place for place in found]


def choose_place(device: str, gpu: int | None) -> str:
    """The device of the model: --device, or the released demo's --gpu."""
    from torch import cuda

    if gpu is None:
        return device
    if cuda.is_available():
        return f"cuda:{gpu}"
    print(f"--gpu {gpu}: no CUDA here; the CPU computes")
    return "cpu"


class Progress:
    """A bar on the terminal, and how long each step took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def step(self, name: str, total: int, work: Callable[[Callable[[], object]], T]) -> T:
        """Runs work(on_frame) under a bar."""
        from tqdm import tqdm

        started = time.monotonic()
        with tqdm(total=total or None, desc=name, unit=" frames", disable=None) as bar:
            result = work(lambda: bar.update())
        self.seconds[name] = time.monotonic() - started
        return result

    def line(self, frames: int) -> str:
        total = sum(self.seconds.values())
        parts = ", ".join(f"{name} {spent:.1f} s" for name, spent in self.seconds.items())
        rate = frames / max(total, 1e-9)
        return f"{in_words(frames)} in {total:.1f} s ({rate:.1f} frames/s): {parts}"
