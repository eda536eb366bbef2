"""Time: any frame rate is lifted at the network's own, and every frame keeps its time."""

import numpy as np
import pytest

from demo.lifting import lift_screen
from demo.people import People
from demo.timeline import at_times, averaged, even_times, evenly, is_even
from lib.errors import UserError
from lib.keypoints import H36M_17
from tests.demo_samples import walking

UNEVEN = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.2, 40))


def test_a_parabola_is_met_between_uneven_frames():
    values = np.stack([3 + 2 * UNEVEN, UNEVEN**2], axis=-1)[:, None]
    wanted = np.linspace(UNEVEN[0], UNEVEN[-1], 333)
    expected = np.stack([3 + 2 * wanted, wanted**2], axis=-1)[:, None]
    np.testing.assert_allclose(at_times(values, UNEVEN, wanted), expected, atol=1e-9)
    np.testing.assert_array_equal(at_times(values, UNEVEN, UNEVEN), values)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_before_the_first_and_after_the_last_frame_nothing_changes(frames):
    values = np.arange(frames) * 2.0
    found = at_times(values, np.arange(frames) / 10, np.array([-1.0, 0, 5.0]))
    assert found.tolist() == [0, 0, 2.0 * (frames - 1)]


def test_an_average_keeps_a_steady_course_up_to_the_ends():
    line = np.stack([5 * UNEVEN, 1 - UNEVEN], axis=-1)
    np.testing.assert_allclose(averaged(line, UNEVEN, 0.5), line, atol=1e-9)
    noisy = np.random.default_rng(1).normal(size=2000)
    # Of white noise remains 1 / (2 sigma sqrt(pi)) of the variance, sigma in frames.
    left = averaged(noisy, np.arange(2000) / 25, 0.4).var()
    assert left == pytest.approx(1 / (2 * 10 * np.sqrt(np.pi)), rel=0.25)


class Recorder:
    """A network that copies, and keeps what it was shown."""

    n_frames = 9

    def __init__(self, frame_rate: float) -> None:
        self.frame_rate, self.seen = frame_rate, []

    def lift(self, clips: np.ndarray) -> np.ndarray:
        self.seen.append(clips)
        return clips


def course(times: np.ndarray) -> np.ndarray:
    """(F, 17, 3): joints on parabolas, the root at 0."""
    joints = np.arange(17)[:, None] * [1.0, 0.5, 0.2]
    return (joints * (times + times**2 / 5)[:, None, None]).astype(np.float32)


@pytest.mark.parametrize("rate", [50.0, 25.0, 16.6667])
@pytest.mark.parametrize("fps", [5, 10, 24, 25, 29.97, 50, 60, 120])
def test_the_network_sees_its_own_rate_whatever_the_videos(rate, fps):
    times = np.arange(round(3 * fps)) / fps
    network = Recorder(rate)
    lifted = lift_screen(network, course(times), times)
    np.testing.assert_allclose(lifted, course(times), atol=2e-3)
    for clip in np.concatenate(network.seen):
        # x of joint 1 tells the time of each frame: t + t²/5 = x.
        shown = (np.sqrt(1 + 0.8 * clip[:, 1, 0]) - 1) / 0.4
        np.testing.assert_allclose(np.diff(shown), 1 / rate, atol=2e-3)


def test_a_faster_video_is_seen_frame_by_frame():
    """At twice the network's rate it is lifted in two parts, and each frame has their mean: what
    one frame shows alone is half there, and a quarter in its neighbours."""
    times = np.arange(60) / 100
    screen = course(times)
    screen[20:22, 4] += [[0.4], [0.8]]
    expected = course(times)
    expected[19:23, 4] += np.array([[0.1], [0.2 + 0.2], [0.1 + 0.4], [0.2]])
    lifted = lift_screen(Recorder(50.0), screen, times)
    np.testing.assert_allclose(lifted, expected, atol=1e-3)


def test_a_single_frame_has_no_time():
    screen = course(np.array([0.7]))
    np.testing.assert_allclose(lift_screen(Recorder(50.0), screen, np.zeros(1)), screen, atol=1e-6)


def test_even_times_meet_the_frames_of_a_multiple_and_both_ends():
    expected = [2.0 + k / 50 for k in range(9)]
    assert even_times(2.0, 2.0 + 4 / 25, 50).tolist() == pytest.approx(expected)
    assert even_times(0, 0.05, 60).tolist() == pytest.approx([0, 0.05 / 3, 0.1 / 3, 0.05])
    assert even_times(3.0, 3.001, 50).tolist() == [3.0, 3.001]


def test_people_have_the_times_of_their_video():
    people = People.of_array(walking(5)[:, :4], H36M_17).filmed(30.0, (640, 480))
    np.testing.assert_allclose(people.seconds, np.arange(4) / 30)
    timed = people.at([7.0, 7.1, 7.4, 7.5, 9.0])  # of one frame more
    np.testing.assert_allclose(timed.seconds, [0, 0.1, 0.4, 0.5])
    assert timed.fps == pytest.approx(3 / 0.5)
    # Who names a rate has the last word.
    np.testing.assert_allclose(timed.filmed(10.0).seconds, np.arange(4) / 10)
    for wrong in ([0.0, 0.1], [0, 0.2, 0.2, 0.3], [0, np.nan, 1, 2]):
        with pytest.raises(UserError, match="one for each"):
            people.at(wrong)


def test_uneven_poses_become_even_and_do_not_mix_shots():
    times = np.array([0, 0.02, 0.04, 0.1, 0.16, 0.18, 0.2])
    shot = np.array([1, 1, 1, 1, 2, 2, 2])
    values = np.where(shot == 1, times, 100 + times)
    assert not is_even(times) and is_even(np.arange(9) / 25 + 1e-3 * (np.arange(9) % 2))
    even, rate = evenly(values, times, shot)
    assert rate == pytest.approx(50)
    wanted = np.arange(11) / 50
    expected = np.where(wanted <= 0.11, wanted, 100 + wanted)
    apart = (wanted > 0.1 + 1e-9) & (wanted < 0.16 - 1e-9)  # 0.12 and 0.14: those of the ends
    np.testing.assert_allclose(even[~apart], expected[~apart], atol=1e-9)
    assert even[apart].tolist() == pytest.approx([0.1, 100.16])
