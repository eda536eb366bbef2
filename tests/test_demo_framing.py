"""What the network is shown of a picture: the whole, or people as large as it knows them."""

import numpy as np
import pytest

from demo.lifting import EXTENT, MIDDLE, Framing
from lib.camera import to_screen

SIZE = (1280, 720)


def person(height: float, middle: tuple[float, float], frames: int = 9) -> np.ndarray:
    """(F, 17, 3): joints in a box of that height, half as wide, in pixels."""
    spots = np.random.default_rng(0).random((17, 2)) - 0.5
    spots[:2] = [[-0.5, -0.5], [0.5, 0.5]]
    points = np.ones((frames, 17, 3), dtype=np.float32)
    points[..., :2] = spots * [height / 2, height] + middle
    return points


def test_a_person_of_usual_size_and_place_is_shown_the_whole_picture():
    keypoints = person(500, (700, 380))
    screen = Framing.of(keypoints, SIZE).to_screen(keypoints)
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
    keypoints = person(height, middle)
    screen = Framing.of(keypoints, size).to_screen(keypoints)[..., :2]
    extent = np.ptp(screen, axis=1)
    assert (extent.max(axis=-1) > EXTENT[0] - 1e-5).all()
    assert (extent.max(axis=-1) < EXTENT[1] + 1e-5).all()
    np.testing.assert_allclose(extent[:, 1], 2 * extent[:, 0], rtol=1e-4)  # nothing is stretched
    centre = (screen.min(axis=1) + screen.max(axis=1)) / 2
    assert (centre > MIDDLE[0] - 1e-5).all() and (centre < MIDDLE[1] + 1e-5).all()


def test_one_window_for_the_whole_video():
    keypoints = person(500, (640, 360), frames=60)
    keypoints[..., 0] += np.arange(60)[:, None] * 20 - 600
    keypoints[:7, :, 2] = 0  # unseen: does not count
    keypoints[:7, :, :2] = 1e6
    screen = Framing.of(keypoints, SIZE).to_screen(keypoints)
    steps = np.diff(screen[7:, :, 0], axis=0)
    np.testing.assert_allclose(steps, 20 / 640, atol=1e-5)
