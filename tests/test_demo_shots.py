"""Cuts of a video: every hard one, and nothing that is none."""

import numpy as np
import pytest

from demo.detection import detect_people
from demo.matching import match
from demo.people import Detector, People
from demo.shots import find_cuts, small_picture
from demo.video import Video
from lib.keypoints import H36M_17
from tests.demo_samples import Reader, walking
from tests.media import encode

RNG = np.random.default_rng(0)
SCENES = [
    np.kron(RNG.integers(0, 255, (6, 8, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    for _ in range(3)
]  # (120, 160, 3)


def cuts_of(frames: list[np.ndarray]) -> list[int]:
    return find_cuts([small_picture(frame) for frame in frames]).tolist()


def test_every_hard_cut_is_found():
    frames = [SCENES[0]] * 20 + [SCENES[1]] * 7 + [SCENES[2]] * 30 + [SCENES[0]]
    assert cuts_of(frames) == [20, 27, 57]
    assert cuts_of(frames[:1]) == cuts_of([]) == []
    assert cuts_of([SCENES[0], SCENES[1]]) == [1]


def test_noise_a_flash_and_who_walks_through_are_no_cuts():
    noisy = [np.clip(SCENES[0] + RNG.normal(0, 20, SCENES[0].shape), 0, 255) for _ in range(20)]
    flash = [*noisy[:9], np.full_like(SCENES[0], 255), *noisy[9:]]
    for frame, x in zip(flash, range(0, 160, 8), strict=False):
        frame[:, x : x + 40] = 128
    assert cuts_of([frame.astype(np.uint8) for frame in flash]) == []


@pytest.mark.parametrize("step", [4, 12])
def test_a_fast_camera_is_no_cut(step):
    wide = np.concatenate([*SCENES, *SCENES], axis=1)
    assert cuts_of([wide[:, x : x + 160] for x in range(0, 700, step)]) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_people_know_the_cuts_of_their_video(tmp_path, monkeypatch, workers):
    """From a detector, in sections of the video, and from a file of keypoints."""
    frames = [SCENES[0]] * 50 + [SCENES[1]] * 100
    path = str(encode(tmp_path / "cut.mp4", frames))
    monkeypatch.setattr("demo.detection.usable_cores", lambda: workers)
    with Video(path) as video:
        people = detect_people(video, Detector(Reader, sections=True), lambda: None)
    assert people.cuts.tolist() == [50]
    with Video(path) as video:
        people, _ = match(People.of_array(walking(150), H36M_17), video)
    assert people.cuts.tolist() == [50]
