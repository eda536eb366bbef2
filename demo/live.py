"""Live: the newest frame of a camera, stream or file, lifted with the moments before it.

A thread keeps only the newest frame, so a slow machine drops frames rather than lagging behind.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path
from threading import Condition, Thread

import cv2
import numpy as np
from einops import rearrange

from demo.framing import Framing
from demo.lifting import Lifter
from demo.live_people import LivePeople
from demo.people import Pose2D, bounding_box
from demo.readers import is_stream
from demo.smoothing import STRONG, OneEuro, Strength
from demo.tracking import same_person
from demo.video import Video, ahead
from demo.world import millimetres_per_unit
from lib.camera import camera_to_world
from lib.drawing import FONT, Room, View, draw_2d
from lib.film import Film, Frame

ROOM_RADIUS_MM = 1150.0
WINDOW = "MDTF"
CAMERA_FPS = 30.0  # of cameras that do not say
FORGET_SECONDS = 1.0  # a person unseen for this long starts anew
SIZE_MOMENTS = 50  # the body's size is averaged over about as many moments


@dataclass(frozen=True)
class Moment:
    """A frame and when it was taken, in seconds of the source's own clock and of ours."""

    frame: Frame
    source_time: float
    arrived: float


class Newest:
    """The newest frame of a source, read in a thread. Files are played at their own pace."""

    def __init__(self, source: str | int) -> None:
        """Raises UserError where nothing can be read."""
        self._video = Video(source)
        self.size, self.fps = self._video.size, self._video.fps or CAMERA_FPS
        self._is_file = isinstance(source, str) and not is_stream(source)
        self.read = 0  # frames taken from the source so far
        self._newest: Moment | None = None
        self._ended = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        started = time.monotonic()
        # Closed by the thread that reads: another one must not close what FFmpeg is reading.
        try:
            with self._video:
                while not self._ended and (frame := self._video.read()) is not None:
                    source_time = self._video.times[-1]
                    if self._is_file:
                        time.sleep(max(0.0, started + source_time - time.monotonic()))
                    with self._changed:
                        self._newest = Moment(frame, source_time, time.monotonic())
                        self.read += 1
                        self._changed.notify()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def __iter__(self) -> Iterator[Moment]:
        """Moments as they come; those that came while the last was worked on are dropped."""
        self._thread.start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._ended)
                moment, self._newest = self._newest, None
            if moment is None:
                return
            yield moment

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread.ident is None:
            self._video.close()
        else:
            self._thread.join(timeout=2)


class SlidingLifter:
    """3D poses of one person, frame by frame, each from the T moments up to it."""

    def __init__(
        self,
        lifter: Lifter,
        size: tuple[int, int],
        smooth: bool,
        strength: Strength = STRONG,
    ) -> None:
        self._lifter, self._size, self._smooth, self._strength = lifter, size, smooth, strength
        self._span = lifter.n_frames / lifter.frame_rate  # seconds that a clip shows
        self._last = np.zeros((17, 3))  # the latest keypoints as they came
        self._start_anew()

    def _start_anew(self) -> None:
        """Forget the past, the filter and the size: they are another person's."""
        self._past: deque[tuple[float, np.ndarray]] = deque()
        self._filter: OneEuro | None = None
        self._scale, self._moments = 0.0, 0

    def __call__(self, keypoints: np.ndarray, seconds: float) -> np.ndarray:
        """Keypoints (17, 3) in pixels at a time -> pose (17, 3) in camera axes, mm, root at 0."""
        if self._past:
            elapsed = seconds - self._past[-1][0]
            if elapsed > FORGET_SECONDS or not same_person(self._last, keypoints, elapsed):
                self._start_anew()
        self._last = keypoints
        if self._smooth:
            keypoints = self._smoothed(keypoints, seconds)
        self._past.append((seconds, keypoints))
        while seconds - self._past[0][0] > self._span:
            self._past.popleft()
        pose = self._lifter.lift(self._window(seconds)[None])[0, -1]
        pose = pose - pose[0]
        # One size for the person: the mean over their first moments, then a moving average.
        self._moments = min(self._moments + 1, SIZE_MOMENTS)
        self._scale += (millimetres_per_unit(pose[None]) - self._scale) / self._moments
        return pose * self._scale

    def _smoothed(self, keypoints: np.ndarray, seconds: float) -> np.ndarray:
        if self._filter is None:
            box = bounding_box(keypoints)
            self._filter = OneEuro(float((box[2:] - box[:2]).max()), self._strength)
        elapsed = max(seconds - self._past[-1][0], 1e-3) if self._past else 1e-3
        return np.concatenate([self._filter(keypoints[:, :2], elapsed), keypoints[:, 2:]], axis=-1)

    def _window(self, seconds: float) -> np.ndarray:
        """(T, 17, 3) normalised, at the network's own frame rate whatever the source's."""
        times = np.array([moment for moment, _ in self._past])
        known = rearrange([keypoints for _, keypoints in self._past], "n j d -> n (j d)")
        wanted = seconds - np.arange(self._lifter.n_frames)[::-1] / self._lifter.frame_rate
        points = np.stack([np.interp(wanted, times, column) for column in known.T], axis=-1)
        points = rearrange(points, "t (j d) -> t j d", d=3)
        return Framing.still(points, self._size).to_screen(points)


@dataclass
class Report:
    """What a live run did; latencies in seconds, from a frame's arrival to its picture."""

    shown: int = 0
    dropped: int = 0
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=30))

    def note(self, moment: Moment) -> None:
        """A moment's picture is ready."""
        self._recent.append(time.monotonic())
        self.latencies.append(self._recent[-1] - moment.arrived)
        self.shown += 1

    def now(self) -> str:
        """Rate and latency of the last pictures, to be shown on them."""
        seconds = self._recent[-1] - self._recent[0]
        rate = (len(self._recent) - 1) / seconds if seconds > 0 else 0.0
        return f"{rate:.0f} frames/s, latency {1000 * self.latencies[-1]:.0f} ms"

    def line(self) -> str:
        if not self.shown:
            return "no frame was shown"
        return (
            f"{self.shown} frames shown, {self.dropped} dropped, {self.shown / self.seconds:.1f}"
            f" frames/s, latency {1000 * np.median(self.latencies):.0f} ms (median),"
            f" {1000 * np.percentile(self.latencies, 95):.0f} ms (95 %)"
        )


def run_live(
    source: str | int,
    detector: Pose2D,
    lifter: Lifter,
    view: View,
    *,
    camera_pitch: float = 0.0,
    smooth: bool = False,
    strength: Strength = STRONG,
    window: bool = True,
    film_path: Path | None = None,
    everybody: bool = False,
) -> Report:
    """Show poses as they happen, until the source ends, or Escape or q is pressed.

    camera_pitch: degrees the camera looks down; window: whether to show one; film_path: also
    write what is shown; everybody: not only the largest person. Raises UserError.
    """
    newest = Newest(source)
    panel = (min(newest.size) // 2 * 2, newest.size[1] // 2 * 2)
    centre = np.array([0.0, 0.0, ROOM_RADIUS_MM * 0.8])
    room = Room(centre, ROOM_RADIUS_MM * (2 if everybody else 1), panel, view)
    crowd = LivePeople(
        lambda: SlidingLifter(lifter, newest.size, smooth, strength),
        detector.layout,
        newest.size,
        newest.fps,
    )
    size = (newest.size[0] // 2 * 2 + panel[0], panel[1])
    report, started = Report(), time.monotonic()
    moments, shown = tee(newest)
    detections = zip(moments, detector(moment.frame for moment in shown), strict=False)
    # Control-C is the usual way to end a camera: the film is closed as at the source's end.
    with closing(newest), Film(film_path, size, newest.fps) if film_path else nullcontext() as film:
        with suppress(KeyboardInterrupt):
            # The next frame's people are looked for while this one's are lifted.
            for moment, people in ahead(detections):
                picture = _draw(moment, people, crowd, room, camera_pitch, everybody)
                report.note(moment)
                _caption(picture, report.now())
                # The film shows the picture for the dropped frames before it, too.
                while film and film.written <= round(moment.source_time * newest.fps):
                    film.write(picture)
                if window and _closed_by_key(picture):
                    break
        report.seconds = time.monotonic() - started
        report.dropped = max(0, newest.read - report.shown)
    if window:
        cv2.destroyAllWindows()
    return report


def _closed_by_key(picture: Frame) -> bool:
    cv2.imshow(WINDOW, picture)
    return cv2.waitKey(1) & 0xFF in (27, ord("q"))


def _caption(picture: Frame, text: str) -> None:
    for color, thickness in (((255, 255, 255), 4), ((60, 50, 40), 1)):
        cv2.putText(picture, text, (12, 24), FONT, 0.6, color, thickness, cv2.LINE_AA)


def _draw(
    moment: Moment,
    people: np.ndarray,
    crowd: LivePeople,
    room: Room,
    camera_pitch: float,
    everybody: bool,
) -> Frame:
    """The picture of a moment: left the frame, right the room."""
    seconds = moment.source_time
    if everybody:
        numbers, keypoints, poses = crowd.everybody(moment.frame, people, seconds)
    else:
        numbers, keypoints, poses = crowd.largest(people, seconds)
    spots = crowd.spots(numbers, keypoints, poses, seconds)
    poses = camera_to_world(poses, camera_pitch)
    poses[..., :2] += spots[:, None]
    poses[..., 2] -= poses[..., 2].min(axis=1, keepdims=True)
    labels = [str(number + 1) if everybody else "" for number in numbers]
    for label, points in zip(labels, keypoints, strict=True):
        draw_2d(moment.frame, points, label)
    width, height = room.size
    picture = np.empty((height, moment.frame.shape[1] // 2 * 2 + width, 3), dtype=np.uint8)
    left, right = np.split(picture, [picture.shape[1] - width], axis=1)
    left[:] = moment.frame[: left.shape[0], : left.shape[1]]
    room.draw(right, poses, keypoints[..., 2] > 0, seconds, labels=labels)
    return picture
