"""Any video in, 3D poses out: `python demo/vis.py --video sample_video.mp4`."""

import argparse
import glob
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    # Run as a script. This folder holds a `lib` too (detector weights), so the project's root
    # takes its place in the search, from whatever directory it is run.
    sys.path[0] = str(ROOT)

# Threads that wait must sleep: spinning, torch's take the cores that detection works on. Read when
# torch is loaded, which is later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from demo.detectors import DETECTORS, choose_detector
from demo.keypoint_files import files_of, read_keypoints, save_keypoints
from demo.pipeline import (
    DEFAULT_CHECKPOINT,
    MAX_FPS,
    People2D,
    VideoLifter,
    people_in_file,
    people_in_video,
)
from demo.poses import Poses
from demo.video import Video, blank_frames, find_video, is_stream
from lib.cli import CommandParser, run_main
from lib.drawing import START, View
from lib.errors import UserError
from lib.files import find_path, refuse_same_file
from lib.keypoints import LAYOUTS
from lib.numbers import parse_whole, whole_number

FORMATS = ("mp4", "npz", "json", "bvh", "html")
OUTPUT = ROOT / "demo" / "output"
SAMPLE = "sample_video.mp4"  # what the released demo shows where no source is named


def parse_options() -> argparse.Namespace:
    parser = CommandParser(
        description="3D poses of the people in a video: film, arrays, BVH and a web page."
    )
    source = parser.add_argument_group("source")
    add = source.add_argument
    add(
        "--video",
        metavar="FILE",
        help="video file (as given, or in demo/video/) or stream address; without any source:"
        f" {SAMPLE}",
    )
    add("--webcam", metavar="N", type=whole_number(), help="camera number, live")
    add("--live", action="store_true", help="play --video as if it came from a camera")
    add(
        "--keypoints",
        metavar="FILE",
        help="2D keypoints instead of a detector: .npz, .npy, .json,"
        " AlphaPose's JSON, OpenPose's JSON or folder; with --video, drawn on it",
    )
    add("--layout", choices=LAYOUTS, help="of --keypoints, where the file does not tell")
    add("--size", metavar="WxH", help="image size of --keypoints, where the file does not tell")
    add("--fps", type=float, default=0.0, help="frames a second, where the source does not tell")
    model = parser.add_argument_group("model")
    add = model.add_argument
    add(
        "-c",
        "--checkpoint",
        metavar="DIR",
        default=DEFAULT_CHECKPOINT,
        help=f"folder or file, ours or a released one ({DEFAULT_CHECKPOINT})",
    )
    add("--config", metavar="FILE", help="YAML config, needed for a released checkpoint")
    add(
        "--stage1-checkpoint",
        metavar="FILE",
        help="stage-1 weights, in place of the checkpoint's own",
    )
    add("--device", default="auto", help="auto, cpu, cuda … (auto: CUDA where there is one)")
    add(
        "--gpu",
        metavar="N",
        type=gpu_number,
        help="in place of --device: the CUDA device of that number; without CUDA, the CPU",
    )
    add("--no-flip", action="store_true", help="no average with the mirrored view: twice as fast")
    people = parser.add_argument_group("people")
    add = people.add_argument
    add("--detector", default="mediapipe", choices=DETECTORS, help="of 2D keypoints (mediapipe)")
    add("--weights-dir", metavar="DIR", help="of the hrnet detector (demo/lib/checkpoint)")
    add("--person", default="largest", metavar="N", help="largest (default), all or a number")
    add("--free-bones", action="store_true", help="leave bone lengths as the network gives them")
    add("--smooth", action="store_true", help="One-Euro filter on the keypoints")
    add(
        "--camera-pitch", default="auto", metavar="DEG", help="how far the camera looks down (auto)"
    )
    result = parser.add_argument_group("result")
    add = result.add_argument
    add("-o", "--output", metavar="DIR", help="folder for the results (demo/output/NAME)")
    add("--formats", default=",".join(FORMATS), help=f"any of {','.join(FORMATS)} (all)")
    add("--view", default="turning", help="of the film: turning, fixed, or degrees to the side")
    add("--save-keypoints", metavar="FILE", help="the 2D keypoints as .npz or .json")
    add("--no-window", action="store_true", help="live without a window")
    add("--record", action="store_true", help="live: also write what is shown")
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    """Raises UserError for flags that do not go together, before anything slow begins."""
    if options.webcam is not None and (options.video or options.keypoints):
        raise UserError("--webcam excludes --video and --keypoints; give one source")
    if options.webcam is None and not options.video and not options.keypoints:
        options.video = sample_video()
    if options.live and (not options.video or options.keypoints):
        raise UserError("--live plays a video: give --video FILE, without --keypoints")
    if options.video:
        options.video = find_video(options.video)
    options.is_live = options.live or options.webcam is not None or is_stream(options.video or "")
    if options.is_live and not options.no_window and not has_display():
        raise UserError("there is no display for a window; give --no-window (and --record)")
    if not 0 <= options.fps <= MAX_FPS:
        raise UserError(f"--fps {options.fps}: from 1 to {MAX_FPS}")
    formats = [name.strip() for name in options.formats.split(",")]
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(
            f"--formats {options.formats}: no {unknown[0]!r}; any of {','.join(FORMATS)}"
        )
    options.formats = formats
    if options.is_live:
        for given, flag, remedy in (
            (options.person != "largest", "--person", "live, the largest person is followed"),
            (options.save_keypoints, "--save-keypoints", "live, no keypoints are kept"),
            (set(formats) != set(FORMATS), "--formats", "live, --record writes a film"),
            (options.free_bones, "--free-bones", "live, they always are as the network gives them"),
        ):
            if given:
                raise UserError(f"{flag}: {remedy}; leave it out")
    if options.gpu is not None and options.device != "auto":
        raise UserError("--gpu and --device exclude each other; leave one out")
    options.view = parse_view(options.view)
    options.camera_pitch = parse_pitch(options.camera_pitch)
    options.size = parse_size(options.size)
    if options.person not in ("largest", "all") and parse_whole(options.person) is None:
        raise UserError(f"--person {options.person}: largest, all or a number")
    save = options.save_keypoints
    if save and Path(save).suffix.lower() not in (".npz", ".json"):
        raise UserError(f"--save-keypoints {save}: the name must end in .npz or .json")
    if not options.keypoints:  # last: flags that are wrong anywhere, then what is missing here
        choose_detector(options.detector, options.weights_dir)


def check_writable(path: Path) -> None:
    """Whether something can be written there; told before the detector runs. Raises UserError."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {place}: {error.strerror or error}; choose another place"
        ) from None


def check_results(options: argparse.Namespace, folder: Path, name: str) -> None:
    """Raises UserError where a result would replace what it is made from, or another result."""
    from lib.checkpoint import DEFAULT_STAGE1

    results = (
        [folder / f"{name}_live.mp4"] if options.is_live else result_paths(options, folder, name)
    )
    if options.save_keypoints:
        saved = Path(options.save_keypoints).expanduser()
        if saved.resolve() in [path.resolve() for path in results]:
            raise UserError(f"--save-keypoints {saved}: a result in --output has the same name")
        results.append(saved)
    sources = [
        options.video,
        options.config and find_path(options.config),
        model_file(options.checkpoint),
        model_file(options.stage1_checkpoint or DEFAULT_STAGE1),
        *(files_of(options.keypoints) if options.keypoints else ()),
    ]
    for path in results:
        refuse_same_file(path, sources)


def result_paths(options: argparse.Namespace, folder: Path, name: str) -> list[Path]:
    """What may be written; of one BVH file a person, those that are there already."""
    one = [folder / f"{name}.{kind}" for kind in ("mp4", "html", "bvh")]
    several = folder.glob(f"{glob.escape(name)}_*.bvh")
    results = [folder / "poses.npz", folder / "poses.json", *one, *several]
    return [path for path in results if path.suffix[1:] in options.formats]


def model_file(place: str) -> Path:
    """The file that is read where a checkpoint, or the folder of one, is named."""
    from lib.checkpoint import BEST

    found = find_path(place)
    return found / BEST if found.is_dir() else found


def sample_video() -> str:
    """What is shown where no source is named. Raises UserError."""
    try:
        return find_video(SAMPLE)
    except UserError:
        raise UserError(
            "no source: give --video FILE, --webcam N or --keypoints FILE (without one,"
            f" demo/video/{SAMPLE} is shown, but it is not there)"
        ) from None


def gpu_number(text: str) -> int:
    """An argparse type: '0', or the first of '0,1'."""
    first, *_ = map(whole_number(), text.split(","))
    return first


def choose_place(device: str, gpu: int | None) -> str:
    """Where the model computes: --device, or as the released demo says it, --gpu."""
    from torch import cuda

    if gpu is None:
        return device
    if cuda.is_available():
        return f"cuda:{gpu}"
    print(f"--gpu {gpu}: no CUDA here; the CPU computes")
    return "cpu"


def parse_view(text: str) -> View:
    if text in ("turning", "fixed"):
        return View(START, turning=text == "turning")
    with suppress(ValueError):
        if math.isfinite(float(text)):
            return View(float(text), turning=False)
    raise UserError(f"--view {text}: turning, fixed or a number of degrees")


def parse_pitch(text: str) -> float | None:
    """None: estimate it."""
    if text == "auto":
        return None
    try:
        pitch = float(text)
    except ValueError:
        raise UserError(f"--camera-pitch {text}: auto or a number of degrees") from None
    if not -90 <= pitch <= 90:
        raise UserError(f"--camera-pitch {text}: from -90 (looks up) to 90 (looks down)")
    return pitch


def parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    size = parse_whole(width, 1), parse_whole(height, 1)
    if size[0] is None or size[1] is None:
        raise UserError(f"--size {text}: write it as 1280x720")
    return size[0], size[1]


def name_of(source: str) -> str:
    """What the result files are called."""
    return Path(source.rstrip("/")).stem or "video"


T = TypeVar("T")


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
        return (
            f"{frames} frames in {total:.1f} s ({frames / max(total, 1e-9):.1f} frames/s): {parts}"
        )


def people_from_file(options: argparse.Namespace) -> People2D:
    size, fps, count = options.size, options.fps, 0
    if options.video:
        with Video(options.video) as video:
            size, fps, count = video.size, fps or video.fps, video.count
    file = read_keypoints(options.keypoints, options.layout, fps)
    if not (fps or file.fps):
        print(f"{options.keypoints}: does not say its frame rate; 25 frames/s assumed (--fps)")
    if count and abs(file.frames - count) > 0.05 * count:
        print(
            f"{options.keypoints}: {file.frames} frames, but {options.video} has {count};"
            " are they of this video?"
        )
    return people_in_file(file, options.person, fps, size)


def people_from_video(options: argparse.Namespace, progress: Progress) -> People2D:
    with Video(options.video) as video:
        count, fps = video.count, options.fps or video.fps
    if not fps:
        print(f"{options.video}: does not say its frame rate; 25 frames/s assumed (--fps)")
    people = progress.step(
        "detect",
        count,
        lambda on_frame: people_in_video(
            options.video, options.detector, options.person, options.weights_dir, fps, on_frame
        ),
    )
    if people.num_frames < 0.95 * count:
        print(f"{options.video}: ends after {people.num_frames} of {count} frames; damaged?")
    return people


def write_results(
    options: argparse.Namespace, poses: Poses, name: str, folder: Path, progress: Progress
) -> list[str]:
    """Writes the chosen formats; returns the names of the files."""
    from demo.export.arrays import write_json, write_npz
    from demo.export.bvh import write_bvh
    from demo.export.page import write_page
    from demo.film import write_film

    written = []
    for kind, write in (("npz", write_npz), ("json", write_json)):
        if kind in options.formats:
            write(folder / f"poses.{kind}", poses)
            written.append(f"poses.{kind}")
    if "bvh" in options.formats:
        several = len(poses.persons) > 1
        for number, pose in zip(poses.persons, poses.pose_world, strict=True):
            file = f"{name}_{number}.bvh" if several else f"{name}.bvh"
            write_bvh(folder / file, pose, poses.fps)
            written.append(file)
    if "html" in options.formats:
        write_page(folder / f"{name}.html", poses, name)
        written.append(f"{name}.html")
    if "mp4" in options.formats:
        with Video(options.video) if options.video else nullcontext() as video:
            frames = video.frames() if video else blank_frames(poses.size, poses.num_frames)
            codec = progress.step(
                "film",
                poses.num_frames,
                lambda on_frame: write_film(
                    folder / f"{name}.mp4", frames, poses, options.view, on_frame
                ),
            )
        written.append(f"{name}.mp4 ({codec})")
    return written


def main() -> int:
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    options = parse_options()
    check(options)
    progress = Progress()
    people = people_from_file(options) if options.keypoints else None
    # Before the detector runs: a wrong checkpoint should be told at once.
    lifter = VideoLifter.from_checkpoint(
        options.checkpoint,
        options.config,
        options.stage1_checkpoint,
        # Live, every moment is a clip of its own: the mirrored view would double the delay.
        flip=not (options.no_flip or options.is_live),
        device=choose_place(options.device, options.gpu),
    )
    print(f"{options.checkpoint}: clips of {lifter.n_frames} frames, scan: {lifter.backend}")
    if options.is_live:
        return live(options, lifter)
    name = name_of(options.video or options.keypoints)
    folder = Path(options.output).expanduser() if options.output else OUTPUT / name
    check_results(options, folder, name)
    check_writable(folder)
    if options.save_keypoints:
        check_writable(Path(options.save_keypoints).expanduser().parent)
    if people is None:
        people = people_from_video(options, progress)
    if options.save_keypoints:
        save_keypoints(
            options.save_keypoints, people.stacked, people.layout, people.fps, people.size
        )
    poses = progress.step(
        "lift",
        people.num_frames,
        lambda _: lifter.lift_people(
            people,
            smooth=options.smooth,
            camera_pitch=options.camera_pitch,
            constant_bones=not options.free_bones,
        ),
    )
    written = write_results(options, poses, name, folder, progress)
    print(progress.line(people.num_frames))
    fixed = "" if options.free_bones else " (constant in the results; --free-bones keeps them)"
    print(
        f"camera looks down {poses.camera_pitch:.0f}°; the network's bone lengths vary by"
        f" {poses.bone_variation.mean():.1%}{fixed}"
    )
    print(f"{folder}: {', '.join(written)}")
    return 0


def live(options: argparse.Namespace, lifter: VideoLifter) -> int:
    from demo.live import run_live

    source = options.video if options.webcam is None else options.webcam
    name = f"webcam{source}" if isinstance(source, int) else name_of(source)
    folder = Path(options.output).expanduser() if options.output else OUTPUT / name
    if options.record:
        check_results(options, folder, name)
    report = run_live(
        source,
        choose_detector(options.detector, options.weights_dir).make(),
        lifter,
        options.view,
        camera_pitch=options.camera_pitch or 0.0,
        smooth=options.smooth,
        window=not options.no_window,
        film_path=folder / f"{name}_live.mp4" if options.record else None,
    )
    print(report.line())
    return 0


def has_display() -> bool:
    """Whether a window can open; without one OpenCV's toolkit would end the process."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    run_main(main)
