"""What the network is shown of a picture: the whole, or people as large as it knows them."""

import numpy as np
import pytest

from demo.framing import EXTENT, MIDDLE, Framing
from lib.camera import to_screen

SIZE = (1280, 720)


def person(height: float, middle: tuple[float, float], frames: int = 9) -> np.ndarray:
    """(F, 17, 3): joints in a box of that height, half as wide, in pixels."""
    spots = np.random.default_rng(0).random((17, 2)) - 0.5
    spots[:2] = [[-0.5, -0.5], [0.5, 0.5]]
    points = np.ones((frames, 17, 3), dtype=np.float32)
    points[..., :2] = spots * [height / 2, height] + middle
    return points


def shown(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """At 25 frames a second."""
    return Framing.along(keypoints, np.arange(len(keypoints)) / 25, size).to_screen(keypoints)


def test_a_person_of_usual_size_and_place_is_shown_the_whole_picture():
    keypoints = person(500, (640, 380))
    screen = shown(keypoints, SIZE)
    np.testing.assert_allclose(screen[..., :2], to_screen(keypoints[..., :2], SIZE), atol=1e-6)
    np.testing.assert_array_equal(screen[..., 2], keypoints[..., 2])


@pytest.mark.parametrize(
    ("height", "middle", "size"),
    [
        (620, (210, 360), (420, 720)),  # portrait, filled
        (60, (1200, 40), SIZE),  # tiny, in a corner
        (500, (640, 100), SIZE),  # at the upper border
        (3000, (900, 2500), SIZE),  # larger than the picture
    ],
)
def test_others_are_brought_into_the_known_range(height, middle, size):
    in_range(shown(person(height, middle), size))


def in_range(screen: np.ndarray, slack: float = 1e-5) -> None:
    extent = np.ptp(screen[..., :2], axis=1)
    assert (extent.max(axis=-1) > EXTENT[0] - slack).all()
    assert (extent.max(axis=-1) < EXTENT[1] + slack).all()
    np.testing.assert_allclose(extent[:, 1], 2 * extent[:, 0], rtol=1e-4)  # nothing is stretched
    centre = (screen[..., :2].min(axis=1) + screen[..., :2].max(axis=1)) / 2
    assert (centre > MIDDLE[0] - slack).all() and (centre < MIDDLE[1] + slack).all()


def test_the_window_follows_who_crosses_the_picture_and_who_comes_near():
    frames = np.arange(100)
    crossing = person(90, (0, 400), 100)
    crossing[..., 0] += (40 + 12 * frames)[:, None]
    in_range(shown(crossing, SIZE))
    coming = np.concatenate([person(50 + 6.0 * f, (640, 360), 1) for f in frames])
    in_range(shown(coming, SIZE), slack=0.02)


def test_the_window_does_not_tremble_with_the_limbs():
    """A waving hand widens the box for a moment: on the screen the body stays where it is."""
    keypoints = person(100, (640, 360), 100)
    keypoints[:, 3, 0] += 50 * (np.sin(np.arange(100) * 1.3) > 0.5)
    body = np.delete(shown(keypoints, SIZE)[..., :2], 3, axis=1)
    assert np.abs(np.diff(body, axis=0)).max() < 0.02


def test_joints_that_are_never_seen_do_not_count():

    keypoints = person(500, (640, 360), 60)
    alone = shown(keypoints, SIZE)
    keypoints[:, 5] = [1e6, -1e6, 0]
    others = np.arange(17) != 5
    np.testing.assert_array_equal(shown(keypoints, SIZE)[:, others], alone[:, others])
