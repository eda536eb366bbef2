"""Following people: an entry for every frame, gaps filled from their neighbours, no mix-ups."""

import numpy as np
import pytest

from demo.filling import fill_gaps
from demo.people import People
from demo.smoothing import OneEuro, smooth_track
from demo.tracking import agreement, choose, follow
from demo.tracks import filled
from lib.errors import UserError
from lib.keypoints import COCO_17, H36M_17


def person(x: float, y: float = 100.0, size: float = 60.0) -> np.ndarray:
    """(17, 3): a fixed cloud of keypoints, `size` wide and high."""
    points = np.random.default_rng(5).random((17, 3)).astype(np.float32)
    points[:2, :2] = [[0, 0], [1, 1]]
    return np.concatenate([points[:, :2] * size + [x, y], np.full((17, 1), 0.9)], 1).astype("f4")


NOBODY = np.zeros((0, 17, 3), dtype=np.float32)


def followed(detections: list[np.ndarray]) -> People:
    """Of a video with 25 frames a second."""
    return follow(People.of_frames(detections, COCO_17).filmed(25.0, (640, 480)))


def each(people: People) -> list[People]:
    return [people.only(people.person == number) for number in people.numbers]


def test_agreement_is_one_for_the_same_and_falls_with_distance():
    scores = [agreement(person(0), person(step)) for step in (0, 5, 20, 60, 500)]
    assert scores[0] == pytest.approx(1)
    assert scores == sorted(scores, reverse=True) and scores[-1] == pytest.approx(0)


def test_two_people_who_pass_each_other_keep_their_numbers():
    """One walks right in the upper half, one left in the lower; the detector's order is random."""
    rng = np.random.default_rng(0)
    detections = [
        np.stack([person(4.0 * t, 100), person(400 - 4.0 * t, 130)])[rng.permutation(2)]
        for t in range(100)
    ]
    people = followed(detections)
    assert people.num_frames == 100 and [len(p.frame) for p in each(people)] == [100, 100]
    for one in each(people):
        steps = np.diff(one.keypoints[:, 0, 0])
        assert np.allclose(np.abs(steps), 4) and (np.sign(steps) == np.sign(steps[0])).all()


def test_people_are_told_apart_by_where_they_were_going():
    """Two cross, one hides the other for 0.6 s; both look the same and the detector is noisy."""
    rng = np.random.default_rng(0)
    detections = []
    for t in range(100):
        pair = np.stack([person(6.0 * t), person(600 - 6.0 * t)])
        pair[..., :2] += rng.normal(0, 1.5, (2, 17, 2))
        detections.append(pair[:1] if 43 <= t < 58 else pair[rng.permutation(2)])
    both = each(followed(detections))
    assert sorted(len(one.frame) for one in both) == [85, 100]
    for one in both:
        speed = np.polyfit(one.frame, one.keypoints[:, 0, 0], 1)[0]
        assert abs(speed) == pytest.approx(6, rel=0.02)


def test_who_stopped_behind_something_is_known_again():
    walk = [person(5.0 * t)[None] for t in range(30)]
    stopped = [person(145.0)[None]] * 20
    assert followed([*walk, *[NOBODY] * 25, *stopped]).numbers.tolist() == [1]


@pytest.mark.parametrize(("x", "size", "count"), [(25, 60, 1), (25, 180, 2), (120, 60, 2)])
def test_who_turns_over_is_the_same_and_who_is_elsewhere_or_larger_is_not(x, size, count):
    """Upside down after 0.2 s unseen, as in a somersault: no keypoint is where it was."""
    over = person(x, size=size)
    over[:, :2] = over[:, :2].min(axis=0) + over[:, :2].max(axis=0) - over[:, :2]
    people = followed([*[person(0)[None]] * 20, *[NOBODY] * 5, *[over[None]] * 20])
    assert len(people.numbers) == count


def test_nobody_at_first_and_in_between():
    detections = [NOBODY] * 3 + [person(10)[None]] + [NOBODY] * 3 + [person(18)[None]] * 9
    people = followed(detections)
    assert people.numbers.tolist() == [1] and people.frame.tolist() == [3, *range(7, 16)]
    (whole,) = filled(people)
    assert whole.shape == (16, 17, 3)
    np.testing.assert_allclose(whole[:4, 0, 0], 10)  # the first that was seen
    np.testing.assert_allclose(whole[3:8, 0, 0], [10, 12, 14, 16, 18], rtol=1e-6)
    assert (whole[[0, 1, 2, 4, 5, 6], :, 2] == 0).all()
    assert (whole[[3, 7, 15], :, 2] > 0).all()


def test_a_single_keypoint_that_is_missing_is_filled_alone():
    points = [person(0), person(2), person(4)]
    points[1][7] = [999, 999, 0]
    for frame in points:
        frame[15] = 0  # left ankle: never seen
    filled = fill_gaps(np.stack(points), np.arange(3), np.arange(3) / 25, COCO_17)
    np.testing.assert_allclose(filled[1, 7, :2], (filled[0, 7, :2] + filled[2, 7, :2]) / 2)
    assert filled[1, 7, 2] == 0 and filled[1, 8, 2] > 0
    np.testing.assert_allclose(filled[:, 15, :2], filled[:, 16, :2])  # its mirror image
    assert (filled[:, 15, 2] == 0).all()


def test_nobody_in_the_whole_video_is_an_error():
    with pytest.raises(UserError, match="nobody was found in the whole video"):
        choose(followed([NOBODY] * 50), "largest")


def test_choosing_people():
    detections = [
        np.stack([person(0, size=40), person(300, size=90)])[: 1 if t < 10 else 2]
        for t in range(60)
    ]
    people = followed(detections)
    assert choose(people, "all").numbers.tolist() == [1, 2]
    assert choose(people, "2").numbers.tolist() == [2]
    largest = choose(people, "largest")
    assert largest.numbers.tolist() == [2] and largest.frame.tolist() == list(range(10, 60))
    with pytest.raises(UserError, match=r"1: frames 0 to 59; 2: frames 10 to 59"):
        choose(people, "3")


def test_the_largest_is_followed_across_an_absence():
    """Away for longer than the tracker waits: two tracks, one person to show."""
    detections = [person(0)[None]] * 30 + [NOBODY] * 60 + [person(300)[None]] * 30
    people = followed(detections)
    assert people.numbers.tolist() == [1, 2]
    largest = choose(people, "largest")
    assert largest.numbers.tolist() == [1] and len(largest.frame) == 60


def test_a_flicker_is_no_person():
    detections = [
        np.stack([person(0), person(400, size=30)])[: 2 if t == 20 else 1] for t in range(50)
    ]
    assert followed(detections).numbers.tolist() == [1]
    # But a video of one frame has one.
    assert followed([person(0)[None]]).numbers.tolist() == [1]


def test_one_euro_leaves_rest_and_constant_speed_alone():
    rest = np.full((40, 17, 3), 5.0, dtype=np.float32)
    np.testing.assert_allclose(
        smooth_track(rest + person(0), np.arange(40) / 25), rest + person(0), atol=1e-4
    )
    moving = np.stack([person(3.0 * t) for t in range(60)])
    smoothed = smooth_track(moving, np.arange(60) / 25)
    # Forth and back, the delays cancel.
    np.testing.assert_allclose(smoothed[20:40], moving[20:40], atol=0.5)
    np.testing.assert_array_equal(smoothed[..., 2], moving[..., 2])


def test_one_euro_removes_jitter():
    rng = np.random.default_rng(2)
    noisy = person(0)[None] + rng.normal(0, 1, (200, 17, 3)).astype(np.float32) * [1, 1, 0]
    smoothed = smooth_track(noisy.astype(np.float32), np.arange(200) / 25)
    jitter = [np.diff(track[..., :2], axis=0).std() for track in (noisy, smoothed)]
    assert jitter[1] < 0.4 * jitter[0]


def test_one_euro_formula_by_hand():
    """The second of two samples 0, 1 at 1 s, unit size: speed 1 · a(1 Hz), cutoff 1.5 + 3 · it."""
    gain = 2 * np.pi / (2 * np.pi + 1)  # a(f) = 2πf / (2πf + 1) at f = 1 Hz
    cutoff = 1.5 + 3 * gain
    expected = 2 * np.pi * cutoff / (2 * np.pi * cutoff + 1)
    one_euro = OneEuro(scale=1.0)
    one_euro(np.array([[0.0, 0.0]]), 1.0)
    assert one_euro(np.array([[1.0, 0.0]]), 1.0)[0] == pytest.approx([expected, 0])


def test_layouts_of_unequal_size_fill_alike():
    filled = fill_gaps(person(0)[None], np.array([1]), np.arange(3) / 25, H36M_17)
    assert filled.shape == (3, 17, 3)


def tracks_of(places: dict[int, float]) -> list[list[int]]:
    """The frames of each track of a detector that finds somebody at x in some frames."""
    last = max(places)
    detections = [person(places[t])[None] if t in places else NOBODY for t in range(last + 1)]
    return [one.frame.tolist() for one in each(followed(detections))]


@pytest.mark.parametrize(("away", "tracks"), [(40, 1), (60, 2)])
def test_who_comes_back_within_two_seconds_is_known_again(away, tracks):
    seen = [*range(20), *range(20 + away, 40 + away)]
    assert len(tracks_of(dict.fromkeys(seen, 0.0))) == tracks


def test_speed_is_by_the_frame_though_a_detector_misses_some():
    """Seen in every third frame, 6 px a frame, then hidden for a second."""
    seen = [*range(0, 40, 3), *range(64, 80, 3)]
    assert tracks_of({t: 6.0 * t for t in seen}) == [seen]


def test_speed_is_that_of_the_last_moments_not_of_the_last_step():
    """The last detection before somebody is hidden has jumped on to whoever hides them."""
    places = {t: 4.0 * t for t in [*range(30), *range(42, 60)]}
    places[29] += 12
    assert tracks_of(places) == [sorted(places)]


def test_two_people_do_not_share_a_track():
    """Somebody steps out from behind the only one seen so far."""
    detections = [person(0)[None]] * 10 + [np.stack([person(0), person(15)])] * 10
    frames = [one.frame.tolist() for one in each(followed(detections))]
    assert frames == [list(range(20)), list(range(10, 20))]


RED, BLUE = np.eye(4, dtype=np.float32)[:2]
ALIKE = np.sqrt(np.array([0.9, 0.1, 0, 0], dtype=np.float32))  # nearly red


def dressed(sightings: list[list[tuple[np.ndarray, np.ndarray]]]) -> People:
    """Followed: in each frame the keypoints and the looks of those who are seen."""
    frames = [np.stack([keypoints for keypoints, _ in row]) for row in sightings]
    looks = [np.stack([look for _, look in row]) for row in sightings]
    return follow(People.of_frames(frames, COCO_17, looks).filmed(25.0, (640, 480)))


def test_people_who_meet_and_turn_back_are_told_apart_by_their_looks():
    """By their ways alone they would have passed each other: one hides the other for 0.6 s."""
    sightings = []
    for t in range(100):
        left = (person(3.0 * min(t, 99 - t), 100), RED)
        right = (person(300 - 3.0 * min(t, 99 - t), 100), BLUE)
        sightings.append([left] if 42 <= t < 57 else [left, right])
    people = dressed(sightings)
    assert people.numbers.tolist() == [1, 2]
    is_red = people.looks @ RED > 0.9
    assert (people.person[is_red] == 1).all() and (people.person[~is_red] == 2).all()


@pytest.mark.parametrize(("other", "known"), [(BLUE, True), (ALIKE, False)])
def test_who_comes_back_late_is_known_by_looks_that_nobody_else_has(other, known):
    """Away for four seconds, back at the other side; somebody else stays in the picture."""
    stays = (person(300, 300), other)
    sightings = [
        [stays] + ([(person(0), RED)] if t < 30 else [(person(500), RED)] if t >= 130 else [])
        for t in range(160)
    ]
    people = dressed(sightings)
    above = people.keypoints[:, 0, 1] < 200
    first, back = (people.person[(people.frame == frame) & above] for frame in (10, 150))
    assert (back == first) == known


def test_looks_do_not_lose_somebody_who_is_alone():
    """Out of the sun into the shade: other colours, the same person."""
    sightings = [[(person(2.0 * t), RED if t < 20 else BLUE)] for t in range(40)]
    assert dressed(sightings).numbers.tolist() == [1]
