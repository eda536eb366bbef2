"""What was found is said, and next to nothing is no film."""

import numpy as np
import pytest

from demo.people import People
from demo.summary import summary
from demo.tracking import choose
from lib.errors import UserError
from lib.keypoints import H36M_17
from tests.demo_samples import Known, walking


def seen(frames: dict[int, range], length: int) -> People:
    """Each person of these numbers in their frames."""
    rows = [(frame, person) for person, theirs in frames.items() for frame in theirs]
    frame, person = np.array(sorted(rows)).T
    keypoints = walking(length, 3)[person - 1, frame]
    return People(keypoints, frame, person, length, H36M_17, 25.0, (900, 480))


def told(people: People) -> list[str]:
    return summary(people, Known().lift_people(people))


def test_who_was_found_where_and_who_follows_whom():
    people = seen({1: range(40), 2: range(60), 3: range(120, 150)}, 200)
    lines = told(choose(people, "largest"))
    assert lines == [
        "3 people in 200 frames: 1 in 40, 2 in 60, 3 in 30",
        "lifted: 2, then 3 from frame 120",
        "person 2: 2 stretches, each lifted by itself; new at frame 120 (cuts, jumps or absences)",
    ]
    assert told(choose(people, "1")) == lines[:1]
    assert told(choose(people, "all")) == lines[:1]
    alone = choose(seen({1: range(30)}, 30), "largest")
    assert told(alone) == ["1 person in 30 frames: 1 in 30"]


def test_a_crowd_of_as_many_as_the_detector_follows_is_told():
    people = choose(seen({1: range(30), 2: range(20, 60), 3: range(40, 60)}, 60), "all")
    poses = Known().lift_people(people)
    assert summary(people, poses) == summary(people, poses, most=3)
    assert summary(people, poses, most=2)[1:] == [
        "2 people at once are as many as are followed; there may be more"
    ]


def test_slips_that_are_left_out_are_told():
    people = choose(seen({1: range(50)}, 50), "largest")
    people.keypoints[20:23, :, 0] += 400
    assert told(people)[1:] == [
        "person 1: in 3 frames somewhere else for a moment, taken for slips of the detector and"
        " left out"
    ]


@pytest.mark.parametrize("where", [range(700, 708), range(0, 2330, 300)], ids=["at once", "apart"])
@pytest.mark.parametrize("person", ["largest", "all"])
def test_somebody_in_8_of_2330_frames_is_a_sentence(where, person):
    people = seen({1: where}, 2330)
    with pytest.raises(UserError, match=r"in 8 of 2330 frames only .* --person 1"):
        choose(people, person)
    assert len(choose(people, "1").frame) == 8  # who insists gets them


@pytest.mark.parametrize(("frames", "length"), [(1, 1), (8, 60), (30, 2330), (8, 300)])
def test_short_but_somebody(frames, length):
    people = seen({1: range(frames)}, length)
    assert len(choose(people, "largest").frame) == frames
