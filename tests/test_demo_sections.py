"""A detector at work on a video in sections at a time: each frame once, the same person."""

import time
from pathlib import Path

import numpy as np
import pytest

from demo.detection import WARM_UP, detect_people, sections
from demo.people import Detector, People
from demo.video import Video
from lib.errors import UserError
from lib.keypoints import COCO_17
from tests.demo_samples import Reader, make_video, number_in


def detect(path: Path, kind: type, on_frame=lambda: None) -> People:
    with Video(str(path)) as video:
        people = detect_people(video, Detector(kind, sections=True), on_frame)
        np.testing.assert_allclose(video.times, np.arange(people.num_frames) / 25, atol=1e-6)
        return people


def numbers(people: People) -> list[int]:
    """x of the first keypoint of the only person in each frame."""
    assert people.frame.tolist() == list(range(people.num_frames))
    return people.keypoints[:, 0, 0].astype(int).tolist()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_sections_see_every_frame_once_and_in_order(tmp_path, monkeypatch, workers):
    path = make_video(tmp_path / "count.mp4", 200)
    monkeypatch.setattr("demo.detection.usable_cores", lambda: workers)
    calls = []
    people = detect(path, Reader, lambda: calls.append(1))
    assert numbers(people) == list(range(200))
    assert len(calls) == 200
    assert (people.layout, people.fps, people.size) == (COCO_17, 25, (160, 120))


@pytest.mark.parametrize("claimed", [0, 130, 900])
def test_a_file_that_is_wrong_about_its_length_is_read_whole(tmp_path, monkeypatch, claimed):
    path = make_video(tmp_path / "count.mp4", 200)
    monkeypatch.setattr("demo.detection.usable_cores", lambda: 2)
    opened = Video.__init__

    def lying(self, source):
        opened(self, source)
        self.count = claimed

    monkeypatch.setattr(Video, "__init__", lying)
    assert numbers(detect(path, Reader)) == list(range(200))


def test_sections_follow_the_same_person(tmp_path, monkeypatch):
    """Two people: a detector follows whom it finds first, until that person is gone."""
    path = make_video(tmp_path / "count.mp4", 400)

    class Follower(Reader):
        def __call__(self, frames):
            found = None
            for frame, (person,) in (
                (f, next(super(Follower, self).__call__([f]))) for f in frames
            ):
                number = number_in(frame)
                if found is None or (found == "left" and number >= 330):
                    found = "left" if number < 90 else "right"  # who is larger by then
                person[:, 0] = np.arange(17) * 3 + (0 if found == "left" else 500)
                yield person[None]

    found = []
    for cores in (1, 2, 4):
        monkeypatch.setattr("demo.detection.usable_cores", lambda cores=cores: cores)
        found.append(numbers(detect(path, Follower)))
    assert found[0] == [0] * 330 + [500] * 70
    assert found[1] == found[2] == found[0]


def test_a_detector_has_settled_when_its_section_begins(tmp_path, monkeypatch):
    """One that sees everything a pixel to the right in the first frames it is shown."""
    path = make_video(tmp_path / "count.mp4", 200)

    class Settling(Reader):
        def __call__(self, frames):
            for number, people in enumerate(super().__call__(frames)):
                people[..., 0] += number < WARM_UP
                yield people

    monkeypatch.setattr("demo.detection.usable_cores", lambda: 3)
    late = np.arange(200) < WARM_UP
    assert numbers(detect(path, Settling)) == (np.arange(200) + late).tolist()


def test_an_error_in_one_section_ends_all(tmp_path, monkeypatch):
    path = make_video(tmp_path / "count.mp4", 200)
    monkeypatch.setattr("demo.detection.usable_cores", lambda: 2)
    calls = []

    class Failing(Reader):
        def __call__(self, frames):
            for people in super().__call__(frames):
                if people[0, 0, 0] == 3:
                    raise UserError("on purpose")
                time.sleep(0.01)
                yield people

    with pytest.raises(UserError, match="on purpose"):
        detect(path, Failing, lambda: calls.append(1))
    assert len(calls) < 103  # not all of the other section's 100


def test_sections_cover_all():
    assert sections(0, 4) == [(0, None)]
    assert sections(90, 4) == [(0, None)]
    assert sections(1000, 2) == [(0, 500), (500, None)]
    assert sections(200, 8) == [(0, 66), (66, 133), (133, None)]
