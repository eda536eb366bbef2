"""The demo's flags, checked as far as they can be before anything slow begins."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from demo.detectors import DETECTORS
from demo.export import EXPORTERS
from demo.path import DEFAULT_FOV
from demo.pipeline import DEFAULT_CHECKPOINT
from demo.readers import MAX_FPS, is_stream
from demo.video import find_video, find_videos
from demo.world import AVERAGE_HEIGHT
from lib.cli import CommandParser
from lib.drawing import START, View
from lib.errors import UserError
from lib.keypoints import LAYOUTS
from lib.numbers import parse_whole, whole_number

SAMPLE = "sample_video.mp4"  # what the released demo shows where no source is named
ALL_FORMATS = ",".join(EXPORTERS)


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; is_live is added to the flags. Raises UserError.

    videos: all that --video stands for, as many as there are; video: the only one, or None.
    """
    parser = CommandParser(
        description="3D poses of the people in a video: film, web page, arrays, files for others."
    )
    add = parser.add_argument_group("source").add_argument
    places = "as given, or in demo/video/"
    what = "videos, photos, folders of them or of a video's images, img_%%04d.png, globs"
    what += f" ({places}); one stream's address ({SAMPLE})"
    add("--video", metavar="FILE", nargs="+", help=what)
    add("--webcam", metavar="N", type=whole_number(), help="camera number, live")
    add("--live", action="store_true", help="play --video as if it came from a camera")
    files = "JSON, CSV, arrays or folder of any program (docs/keypoints.md)"
    told = "where the file does not tell"
    add("--keypoints", metavar="FILE", help=f"2D keypoints in place of a detector's: {files}")
    add("--layout", choices=LAYOUTS, help=f"of --keypoints, {told}")
    add("--size", metavar="WxH", type=parse_size, help=f"image size of --keypoints, {told}")
    add("--fps", type=parse_fps, default=0.0, help=f"frames a second, {told}")

    add = parser.add_argument_group("model").add_argument
    whose = f"folder or file, ours or a released one ({DEFAULT_CHECKPOINT})"
    add("-c", "--checkpoint", metavar="DIR", default=DEFAULT_CHECKPOINT, help=whose)
    add("--onnx", metavar="FILE", help="in its place a file of `python -m lib.export`; no torch")
    add("--config", metavar="FILE", help="YAML config, needed for a released checkpoint")
    add("--stage1-checkpoint", metavar="FILE", help="stage 1 in place of the checkpoint's own")
    add("--device", default="auto", help="auto, cpu, cuda … (auto: CUDA where there is one)")
    add("--gpu", metavar="N", type=gpu_number, help="CUDA device N; without CUDA, the CPU")
    add("--no-flip", action="store_true", help="no average with the mirrored view: twice as fast")

    add = parser.add_argument_group("people").add_argument
    add(
        "--detector",
        default=DETECTORS[0],
        choices=DETECTORS,
        help=f"of 2D keypoints ({DETECTORS[0]})",
    )
    add("--weights-dir", metavar="DIR", help="of the hrnet detector (demo/lib/checkpoint)")
    who = "largest (default), all or a number"
    add("--person", default="largest", metavar="N", type=parse_person, help=who)
    add("--free-bones", action="store_true", help="leave bone lengths as the network gives them")
    add("--smooth", action="store_true", help="One-Euro filter on the keypoints")
    raw = "no filter at all; blazepose's keypoints have a light one else"
    add("--raw-keypoints", action="store_true", help=raw)
    pitch = "how far the camera looks down (auto)"
    add("--camera-pitch", default="auto", metavar="DEG", type=parse_pitch, help=pitch)
    roll = "how far what is upright leans to the right in the picture (auto)"
    add("--camera-roll", default="auto", metavar="DEG", type=parse_roll, help=roll)
    seen = f"what the camera sees over the picture's longer side ({DEFAULT_FOV:g})"
    add("--fov", default=DEFAULT_FOV, metavar="DEG", type=parse_fov, help=seen)
    tall = f"how tall everybody is ({AVERAGE_HEIGHT:g})"
    add("--height", metavar="METRES", type=parse_height, help=tall)
    add("--in-place", action="store_true", help="nobody goes anywhere: the root stays where it is")

    add = parser.add_argument_group("result").add_argument
    add("-o", "--output", metavar="DIR", help="folder for the results (demo/output/NAME)")
    add("--formats", default=ALL_FORMATS, type=parse_formats, help=f"any of {ALL_FORMATS} (all)")
    view = "of the film: turning, fixed, or degrees to the side"
    add("--view", default="turning", type=parse_view, help=view)
    saved = "the 2D keypoints as .npz or .json"
    add("--save-keypoints", metavar="FILE", type=parse_save, help=saved)
    add("--no-window", action="store_true", help="live without a window")
    add("--record", action="store_true", help="live: also write what is shown")
    options = parser.parse_args(argv)
    _check(options)
    return options


# --- Flags that belong together -------------------------------------------------------------


def _check(options: argparse.Namespace) -> None:
    """Fills in the source, too."""
    if options.webcam is not None and (options.video or options.keypoints):
        raise UserError("--webcam excludes --video and --keypoints; give one source")
    if options.webcam is None and not options.video and not options.keypoints:
        options.video = [sample_video()]
    options.videos = find_videos(options.video or ())
    options.video = options.videos[0] if len(options.videos) == 1 else None
    if len(options.videos) > 1:
        _check_several(options)
    if options.live and (not options.videos or options.keypoints):
        raise UserError("--live plays a video: give --video FILE, without --keypoints")
    if options.keypoints and is_stream(options.video or ""):
        raise UserError("--keypoints are of a file: give --video FILE, not a stream, or none")
    _check_model(options)
    options.is_live = options.live or options.webcam is not None or is_stream(options.video or "")
    if options.is_live:
        _check_live(options)


def _check_several(options: argparse.Namespace) -> None:
    number = len(options.videos)
    for given, flag in (
        (options.keypoints, "--keypoints"),
        (options.save_keypoints, "--save-keypoints"),
        (options.live, "--live"),
        (any(map(is_stream, options.videos)), "a stream"),
    ):
        if given:
            raise UserError(f"--video: {number} videos, but {flag} goes with one; give one video")


def _check_model(options: argparse.Namespace) -> None:
    if options.in_place and options.fov != DEFAULT_FOV:
        raise UserError("--in-place needs no --fov: nobody goes anywhere; leave one out")
    if options.gpu is not None and options.device != "auto":
        raise UserError("--gpu and --device exclude each other; leave one out")
    for given, flag in (
        (options.checkpoint != DEFAULT_CHECKPOINT, "--checkpoint"),
        (options.config, "--config"),
        (options.stage1_checkpoint, "--stage1-checkpoint"),
        (options.device not in ("auto", "cpu"), "--device"),
        (options.gpu is not None, "--gpu"),
    ):
        if options.onnx and given:
            raise UserError(f"--onnx is the whole model, run on the CPU; leave {flag} out")


def _check_live(options: argparse.Namespace) -> None:
    if not options.no_window and not has_display():
        raise UserError("there is no display for a window; give --no-window (and --record)")
    for given, flag, remedy in (
        (options.person not in ("largest", "all"), "--person", "live, largest or all"),
        (options.save_keypoints, "--save-keypoints", "live, no keypoints are kept"),
        (len(options.formats) < len(EXPORTERS), "--formats", "live, --record writes a film"),
        (options.free_bones, "--free-bones", "live, they always are as the network gives them"),
        (options.camera_roll is not None, "--camera-roll", "live, the camera is taken as level"),
        (options.fov != DEFAULT_FOV, "--fov", "live, everybody stays in place"),
        (options.height is not None, "--height", "live, everybody is of average height"),
        (options.in_place, "--in-place", "live, everybody stays in place anyway"),
    ):
        if given:
            raise UserError(f"{flag}: {remedy}; leave it out")


def sample_video() -> str:
    """What is shown where no source is named. Raises UserError."""
    try:
        return find_video(SAMPLE)
    except UserError:
        raise UserError(
            "no source: give --video FILE, --webcam N or --keypoints FILE (without one,"
            f" demo/video/{SAMPLE} is shown, but it is not there)"
        ) from None


def has_display() -> bool:
    """Whether a window can open; without one OpenCV's toolkit would end the process."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


# --- Single flags: argparse's types, which raise UserError ----------------------------------


def parse_size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    size = parse_whole(width, 1), parse_whole(height, 1)
    if size[0] is None or size[1] is None:
        raise UserError(f"--size {text}: write it as 1280x720")
    return size[0], size[1]


def parse_fps(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) <= MAX_FPS:
            return float(text)
    raise UserError(f"--fps {text}: more than 0, at most {MAX_FPS}")


def gpu_number(text: str) -> int:
    """'0', or the first of '0,1'."""
    first, *_ = map(whole_number(), text.split(","))
    return first


def parse_person(text: str) -> str:
    if text not in ("largest", "all") and parse_whole(text) is None:
        raise UserError(f"--person {text}: largest, all or a number")
    return text


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


def parse_roll(text: str) -> float | None:
    """None: estimate it."""
    if text == "auto":
        return None
    with suppress(ValueError):
        if -180 <= float(text) <= 180:
            return float(text)
    raise UserError(f"--camera-roll {text}: auto, or degrees from -180 to 180")


def parse_fov(text: str) -> float:
    with suppress(ValueError):
        if 5 <= float(text) <= 150:
            return float(text)
    raise UserError(f"--fov {text}: from 5 (a strong zoom) to 150 degrees (a fisheye)")


def parse_height(text: str) -> float:
    with suppress(ValueError):
        if 0.4 <= float(text) <= 2.6:
            return float(text)
    raise UserError(f"--height {text}: in metres, from 0.4 to 2.6, as 1.75")


def parse_formats(text: str) -> list[str]:
    formats = [name.strip() for name in text.split(",")]
    unknown = [name for name in formats if name not in EXPORTERS]
    if unknown:
        raise UserError(f"--formats {text}: no {unknown[0]!r}; any of {ALL_FORMATS}")
    return list(dict.fromkeys(formats))


def parse_view(text: str) -> View:
    if text in ("turning", "fixed"):
        return View(START, turning=text == "turning")
    with suppress(ValueError):
        if math.isfinite(float(text)):
            return View(float(text), turning=False)
    raise UserError(f"--view {text}: turning, fixed or a number of degrees")


def parse_save(text: str) -> Path:
    path = Path(text).expanduser()
    if path.suffix.lower() not in (".npz", ".json"):
        raise UserError(f"--save-keypoints {text}: the name must end in .npz or .json")
    return path
