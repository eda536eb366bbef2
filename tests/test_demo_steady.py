"""The light filter of the default detector's keypoints: less jitter, no delay, nothing smeared."""

import numpy as np
import pytest

from demo.detectors import choose_detector
from demo.people import Detector, People
from demo.pipeline import people_in_video
from demo.smoothing import steady
from demo.video import Video
from lib.keypoints import COCO_17, H36M_17
from tests.demo_samples import make_video
from tests.skips import SHARED, needs_shared

MEDIA = SHARED / "media" / "video_juggle.mp4"
KEYPOINTS = SHARED / "media" / "keypoints_video_juggle.npz"


def jitter(track: np.ndarray) -> float:
    """(F, J, 2) -> the median length of the second difference, in pixels."""
    return float(np.median(np.linalg.norm(np.diff(track, 2, axis=0), axis=-1)))


def somebody(frames: int, speed: float, noise: float) -> np.ndarray:
    """(F, 17, 3): someone 200 px tall who walks to the right, as a noisy detector sees them."""
    rng = np.random.default_rng(3)
    body = np.concatenate([rng.random((17, 2)) * [80, 200] + 100, np.full((17, 1), 0.9)], axis=1)
    walk = body + np.arange(frames)[:, None, None] * [speed, 0, 0]
    walk[..., :2] += rng.normal(0, noise, (frames, 17, 2))
    return walk.astype(np.float32)


def people_of(*walks: np.ndarray) -> People:
    return People.of_array(np.stack(walks), COCO_17).filmed(25.0, (640, 480))


@pytest.mark.parametrize("speed", [0, 4])
def test_jitter_goes_and_nobody_lags_behind(speed):
    noisy, true = somebody(60, speed, 2.0), somebody(60, speed, 0.0)
    (rows,) = [steady(people_of(noisy)).keypoints]
    assert jitter(rows[..., :2]) < 0.6 * jitter(noisy[..., :2])
    lag = np.median((rows - true)[10:50, :, 0])
    assert abs(lag) < 0.3  # pixels
    np.testing.assert_array_equal(rows[..., 2], noisy[..., 2])


def test_people_and_shots_do_not_pull_at_each_other():
    """Two people, of whom one is elsewhere after a cut: each stretch as if it were alone."""
    left, right = somebody(40, 1, 1.0), somebody(40, -1, 1.0) + np.float32([300, 0, 0])
    left[20:] += np.float32([0, 220, 0])
    both = steady(people_of(left, right)).keypoints
    alone = [steady(people_of(part)).keypoints for part in (left[:20], left[20:], right)]
    np.testing.assert_allclose(both[0::2], np.concatenate(alone[:2]), atol=1e-4)
    np.testing.assert_allclose(both[1::2], alone[2], atol=1e-4)


class Trembling:
    layout = H36M_17

    def __call__(self, frames):
        for _, keypoints in zip(frames, somebody(30, 0, 2.0), strict=False):
            yield keypoints[None]


@pytest.mark.parametrize(
    ("jitters", "raw", "filtered"),
    [(True, False, True), (True, True, False), (False, False, False)],
)
def test_only_a_detector_that_jitters_is_filtered_and_not_where_raw_is_wanted(
    tmp_path, jitters, raw, filtered
):
    with Video(str(make_video(tmp_path / "video.mp4", 30))) as video:
        people = people_in_video(video, Detector(Trembling, jitters=jitters), "largest", raw=raw)
    same = np.array_equal(people.keypoints, somebody(30, 0, 2.0))
    assert same != filtered


@needs_shared(MEDIA, KEYPOINTS)
def test_the_juggler_trembles_no_more_than_with_mediapipe(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    with np.load(KEYPOINTS, allow_pickle=False) as sample:
        reference = sample["kp33"][:40, :, :2]
    with Video(str(MEDIA)) as video:
        frames = video.frames()
        monkeypatch.setattr(video, "frames", lambda: (next(frames) for _ in range(40)))
        video.count = 40
        people = people_in_video(video, choose_detector("blazepose"), "largest")
    assert people.frame.tolist() == list(range(40))
    found = people.keypoints[..., :2]
    assert jitter(found) < 1.1 * jitter(reference)
    assert np.median(np.linalg.norm(found - reference, axis=-1)) < 6  # pixels of 555
