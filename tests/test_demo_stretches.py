"""A stretch is one person in one shot: found, filled and lifted by itself."""

from dataclasses import replace

import numpy as np
import pytest

from demo.filling import fill_gaps, standing
from demo.people import People
from demo.stretches import leaps, split
from demo.tracks import Timeline, filled, tracks_of
from lib.keypoints import BLAZEPOSE_33, COCO_17, H36M_17, LAYOUTS

NO_CUTS = np.zeros(0, dtype=np.int64)


def body(frames: int, x: float = 200.0, height: float = 170.0, pace: float = 0.0) -> np.ndarray:
    """(F, 17, 3) in COCO's layout: who stands, swings the arms and goes `pace` px a frame."""
    points = np.ones((frames, 17, 3))
    points[..., :2] = standing(COCO_17) * height / 3.4 + [x, 200]
    arms = [COCO_17.names.index(f"{side}_wrist") for side in ("left", "right")]
    points[:, arms, 0] += 0.06 * height * np.sin(np.arange(frames) / 3)[:, None]
    points[..., 0] += pace * np.arange(frames)[:, None]
    return points


def stretches(keypoints: np.ndarray, fps: float = 25.0, cuts=NO_CUTS) -> list[list[int]]:
    frame = np.flatnonzero((keypoints[..., 2] > 0).any(axis=-1))
    found = split(keypoints[frame], frame, frame / fps, np.asarray(cuts))
    return [frame[rows].tolist() for rows in found]


@pytest.mark.parametrize("fps", [5, 10, 25, 50])
@pytest.mark.parametrize("speed", [0.0, 1.0, 5.0])
def test_who_walks_runs_and_starts_stays_one(fps, speed):
    """speed: body heights a second, 5 is a sprint; the start is sudden."""
    noise = np.random.default_rng(0).normal(0, 1.5, (60, 17, 2))
    path = np.maximum(np.arange(60) - 30, 0) * speed / fps * 170
    keypoints = body(60)
    keypoints[..., 0] += path[:, None]
    keypoints[..., :2] += noise
    assert stretches(keypoints, fps) == [list(range(60))]


@pytest.mark.parametrize("fps", [10, 25, 50])
@pytest.mark.parametrize(("x", "height"), [(320, 170), (200, 320), (200, 85), (110, 170)], ids=str)
def test_somebody_else_is_another_stretch(fps, x, height):
    """Aside, near, far: as from one shot to the next, or from one person to another."""
    keypoints = np.concatenate([body(20), body(25, x, height), body(15)])
    expected = [list(range(20)), list(range(20, 45)), list(range(45, 60))]
    assert stretches(keypoints, fps) == expected


def test_a_slip_of_the_detector_is_left_out():
    keypoints = body(40, pace=3.0)
    keypoints[17:19, :, 0] += 300
    assert stretches(keypoints) == [[*range(17), *range(19, 40)]]
    # A longer one is somebody else.
    keypoints[19:28, :, 0] += 300
    assert stretches(keypoints) == [list(range(17)), list(range(17, 28)), list(range(28, 40))]


def test_a_detector_that_jumps_to_and_fro_is_left_out():
    """Several slips close together; what lies between them for a frame goes with them."""
    keypoints = body(60, pace=1.0)
    keypoints[[20, 22, 24], :, 0] += 300
    keypoints[[40, 42], :, 0] += [[300], [-300]]
    expected = [*range(20), *range(25, 40), *range(43, 60)]
    assert stretches(keypoints, fps=50) == [expected]


def test_an_absence_and_a_cut_end_a_stretch():
    keypoints = body(200)
    keypoints[40:80] = 0  # 1.6 s
    assert len(stretches(keypoints)) == 1
    keypoints[40:100] = 0  # 2.4 s
    assert [s[0] for s in stretches(keypoints)] == [0, 100]
    assert [s[0] for s in stretches(keypoints, cuts=[150])] == [0, 100, 150]
    assert [s[0] for s in stretches(keypoints, cuts=[50])] == [0, 100]


def test_the_arms_do_not_make_a_leap_and_few_keypoints_do_not_either():
    keypoints = body(2)
    keypoints[1, 9:11, 1] -= 80
    assert not leaps(keypoints, np.arange(2) / 25).any()
    keypoints[1] = body(1, x=900)
    assert leaps(keypoints, np.arange(2) / 25).all()
    keypoints[1, 1:, 2] = 0  # one keypoint in common tells nothing
    assert not leaps(keypoints, np.arange(2) / 25).any()


# --- Filling ----------------------------------------------------------------------------------


def test_what_is_not_seen_goes_with_the_body():
    """A face seen in the first frames only does not stay behind when the body walks on."""
    truth = body(80, pace=5.0)
    keypoints = truth.copy()
    keypoints[10:, :5] = 0
    found = fill_gaps(keypoints, np.arange(80), np.arange(80) / 25, COCO_17)
    np.testing.assert_allclose(found[..., :2], truth[..., :2], atol=3.0)
    assert (found[10:, :5, 2] == 0).all() and (found[:10, :5, 2] == 1).all()


def test_what_is_not_seen_grows_with_the_body():
    """Of someone who comes near: in the picture twice as large, twice as far from the middle."""
    truth = body(60)
    size = np.linspace(1, 2, 60)[:, None, None]
    truth[..., :2] = (truth[..., :2] - [200, 120]) * size + [200, 120]
    keypoints = truth.copy()
    keypoints[20:50, 13:17] = 0  # the legs
    found = fill_gaps(keypoints, np.arange(60), np.arange(60) / 25, COCO_17)
    np.testing.assert_allclose(found[..., :2], truth[..., :2], atol=5.0)


def test_the_body_is_followed_though_ever_other_keypoints_are_seen():
    truth = body(60, pace=4.0)
    rng = np.random.default_rng(0)
    keypoints = truth * (rng.random((60, 17, 1)) > 0.5)
    found = fill_gaps(keypoints, np.arange(60), np.arange(60) / 25, COCO_17)
    arms = [9, 10]
    np.testing.assert_allclose(
        np.delete(found[..., :2], arms, axis=1), np.delete(truth[..., :2], arms, axis=1), atol=3.0
    )


def test_a_frame_without_anything_lies_between_its_neighbours():
    truth = body(30, pace=4.0)
    seen = np.array([*range(12), *range(18, 30)])
    found = fill_gaps(truth[seen], seen, np.arange(30) / 25, COCO_17)
    body_joints = np.delete(np.arange(17), [9, 10])
    np.testing.assert_allclose(found[:, body_joints, :2], truth[:, body_joints, :2], atol=0.5)
    assert (found[12:18, :, 2] == 0).all()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
@pytest.mark.parametrize("side", [1, -1], ids=["front", "behind"])
def test_what_is_never_seen_is_where_it_is_on_somebody_who_stands(layout, side):
    """The head of one seen from behind, without a head: above the shoulders, not in the middle."""
    truth = np.ones((5, layout.num_keypoints, 3))
    truth[..., :2] = standing(layout) * [side * 60, 60] + [300, 300]
    head = ("nose", "eye", "ear", "mouth", "head")
    hidden = [k for k, name in enumerate(layout.names) if any(part in name for part in head)]
    keypoints = truth.copy()
    keypoints[:, hidden] = 0
    found = fill_gaps(keypoints, np.arange(5), np.arange(5) / 25, layout)
    np.testing.assert_allclose(found[..., :2], truth[..., :2], atol=0.5)


def test_every_layouts_keypoints_have_a_place_on_somebody_who_stands():
    for layout in LAYOUTS.values():
        places = standing(layout)
        assert places.shape == (layout.num_keypoints, 2)
        np.testing.assert_array_equal(places[list(layout.mirror)], places * [-1, 1])


# --- Tracks in the video ----------------------------------------------------------------------


def two_shots() -> People:
    """One person in frames 5 to 29 and, in another shot, 40 to 59; 70 frames."""
    keypoints = np.zeros((1, 70, 17, 3))
    keypoints[0, 5:30], keypoints[0, 40:60] = body(25), body(20, x=500, height=90)
    return People.of_array(keypoints, COCO_17).filmed(25.0, (640, 480))


def test_nothing_glides_from_one_stretch_to_the_next():
    people = two_shots()
    (whole,) = filled(people)
    nose = whole[:, 0, 0]
    assert set(np.round(nose).astype(int)) == {200, 500}
    assert (np.round(nose[:35]) == 200).all() and (np.round(nose[35:]) == 500).all()
    assert np.flatnonzero(whole[..., 2].any(axis=-1)).tolist() == [*range(5, 30), *range(40, 60)]


def test_stretches_are_numbered_where_the_person_is():
    people = two_shots()
    tracks = tracks_of(people)
    timeline = Timeline.of(tracks, people)
    expected = [0] * 5 + [1] * 25 + [0] * 10 + [2] * 20 + [0] * 10
    assert timeline.stretch.tolist() == [expected]
    assert timeline.mean([1.0, 10.0]).tolist() == pytest.approx([(25 + 200) / 45])
    starts = timeline.whole([np.arange(25), 100 + np.arange(20)])
    assert starts[0, [0, 4, 5, 29, 34, 35, 40, 69]].tolist() == [0, 0, 0, 24, 24, 100, 100, 119]


def test_what_is_never_seen_in_a_stretch_is_not_taken_from_another():
    people = two_shots()
    second = people.frame >= 40
    people.keypoints[second, 11:17] = 0  # from the hips on
    _, track = tracks_of(people)
    assert np.ptp(track.keypoints[0, :, 0]) < 90  # around 500, not from 200 to 500


def test_shots_are_those_of_the_video():
    people = replace(two_shots(), cuts=np.array([20]))
    assert [track.start for track in tracks_of(people)] == [5, 20, 40]


def test_a_face_of_many_keypoints_does_not_outweigh_the_body():
    truth = np.ones((50, 33, 3))
    truth[..., :2] = standing(BLAZEPOSE_33) * 60 + [300, 300]
    nod = 10 * np.sin(np.arange(50) / 4)
    truth[:, :11, 1] += nod[:, None]
    keypoints = truth.copy()
    keypoints[10:40, 27:33] = 0  # the feet
    found = fill_gaps(keypoints, np.arange(50), np.arange(50) / 25, BLAZEPOSE_33)
    assert np.abs(found - truth)[:, 27:].max() < 6


def test_one_keypoint_alone_can_be_lifted():
    keypoints = np.zeros((3, 17, 3))
    keypoints[1, 4] = [50, 60, 0.5]
    people = People.of_array(keypoints[None], H36M_17).filmed(25.0, (640, 480))
    assert np.isfinite(filled(people)).all()
