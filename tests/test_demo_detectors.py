"""The detectors' common face, and what is said where one is missing."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from demo.detectors import DETECTORS, choose_detector
from demo.detectors.mediapipe import _settle
from demo.detectors.rtmpose import RTMPose
from demo.video import Video
from lib.errors import UserError
from lib.keypoints import COCO_17, HALPE_26
from tests.skips import SHARED, needs_shared

MEDIA = SHARED / "media" / "video_juggle.mp4"


def test_an_unknown_detector_is_told_with_the_likely_one():
    with pytest.raises(UserError, match="did you mean 'mediapipe'"):
        choose_detector("media-pipe")
    assert DETECTORS[0] == "mediapipe"


@pytest.mark.parametrize(
    ("name", "package", "remedy"),
    [("mediapipe", "mediapipe", "requirements-demo.txt"), ("rtmpose", "rtmlib", "pip install")],
)
def test_a_missing_package_is_told_with_the_remedy(monkeypatch, name, package, remedy):
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    with pytest.raises(UserError, match=remedy):
        choose_detector(name)


def test_a_mediapipe_without_the_pose_solution_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", SimpleNamespace())
    with pytest.raises(UserError, match=r"mediapipe==0\.10\.14"):
        choose_detector("mediapipe")


def test_rtmpose_leaves_out_people_it_does_not_believe_in():
    """rtmlib takes the whole frame for a person where it finds none: with low scores."""
    points = np.arange(2 * 26 * 2, dtype=float).reshape(2, 26, 2)
    scores = np.stack([np.full(26, 0.8), np.full(26, 0.1)])
    answers = iter([(points, scores), (points[:0], scores[:0])])
    first, second = RTMPose(lambda frame: next(answers), HALPE_26)([None, None])
    assert first.shape == (1, 26, 3) and second.shape == (0, 26, 3)
    np.testing.assert_allclose(first[0, :, :2], points[0])
    np.testing.assert_allclose(first[0, :, 2], 0.8)


def test_rtmpose_in_coco_keypoints():
    detector = RTMPose(lambda frame: (np.ones((1, 17, 2)), np.full((1, 17), 1.7)), COCO_17)
    (people,) = detector([None])
    assert people.shape == (1, 17, 3) and people[0, 0, 2] == 1  # a confidence is at most 1


def test_instances_that_follow_nobody_or_the_same_person_are_closed():
    class Pose:
        closed = False

        def close(self):
            self.closed = True

    poses = [Pose() for _ in range(4)]
    one = np.random.default_rng(0).random((33, 3)) * [100, 200, 1]
    again, other = one + np.array([2, 0, 0]), one + np.array([500, 0, 0])
    kept, people = _settle(list(zip(poses, [one, None, again, other], strict=True)))
    assert kept == [poses[0], poses[3]] and len(people) == 2
    assert [pose.closed for pose in poses] == [False, True, True, False]


@needs_shared(MEDIA)
def test_mediapipe_follows_two_people_side_by_side():
    """The juggler beside his mirror image: two people, left and right."""
    pytest.importorskip("mediapipe")
    with Video(str(MEDIA)) as video:
        frames = [frame for _, frame in zip(range(4), video.frames(), strict=False)]
    pairs = [np.hstack([f[:, 400:1000], f[:, 1000:400:-1]]) for f in frames]
    detector = choose_detector("mediapipe", several_people=True).make()
    found = list(detector(pairs))
    assert [len(people) for people in found] == [2, 2, 2, 2]
    for people in found:
        noses = sorted(people[:, 0, 0])
        assert noses[0] < 600 < noses[1]
        assert noses[0] + noses[1] == pytest.approx(1199, abs=25)


@needs_shared(MEDIA)
def test_mediapipe_finds_the_juggler():
    pytest.importorskip("mediapipe")
    with np.load(MEDIA.with_name("keypoints_video_juggle.npz"), allow_pickle=False) as sample:
        expected = sample["h36m17"][:20]
    detector = choose_detector("mediapipe").make()
    with Video(str(MEDIA)) as video:
        frames = [frame for _, frame in zip(range(20), video.frames(), strict=False)]
    found = np.stack([detector.layout.to_h36m(people[0]) for people in detector(frames)])
    assert np.abs(found - expected)[..., :2].mean() < 2  # pixels
