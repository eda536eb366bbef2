"""How people look: colours of clothes, not of what is around them."""

import numpy as np
import pytest

from demo.looks import describe
from lib.keypoints import COCO_17, LAYOUTS


def somebody(x: float, layout=COCO_17) -> np.ndarray:
    """(1, J, 3): trunk from (x, 40) to (x + 40, 120), thighs down to 200."""
    places = {"shoulder": 40, "hip": 120, "knee": 200}
    points = np.zeros((1, layout.num_keypoints, 3), np.float32)
    for part, y in places.items():
        for side, step in (("left", 0), ("right", 40)):
            points[0, layout.names.index(f"{side}_{part}")] = x + step, y, 1
    return points


def picture(seed: int, *clothes: tuple[int, tuple, tuple]) -> np.ndarray:
    """Noise, and people at x in a shirt and trousers of these colours (BGR)."""
    frame = np.random.default_rng(seed).integers(0, 255, (240, 400, 3), dtype=np.uint8)
    for x, shirt, trousers in clothes:
        frame[40:120, x : x + 41], frame[120:201, x : x + 41] = shirt, trousers
    return frame


NAVY, GREY, RED = (70, 40, 30), (120, 120, 120), (40, 40, 200)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_equal_clothes_look_alike_wherever_they_are(layout):
    frame = picture(0, (20, GREY, NAVY), (140, RED, NAVY), (260, GREY, NAVY))
    people = np.concatenate([somebody(x, layout) for x in (20, 140, 260)])
    looks = describe(frame, people, layout)
    alike = looks @ looks.T
    np.testing.assert_allclose(np.diag(alike), 1, rtol=1e-5)
    assert alike[0, 2] == pytest.approx(1, abs=1e-5) and alike[0, 1] < 0.85
    darker = describe((0.9 * picture(1, (60, GREY, NAVY))).astype(np.uint8), somebody(60), COCO_17)
    assert (looks[0] @ darker[0]) > 0.85


def test_who_is_outside_the_picture_does_no_harm():
    frame = picture(0)
    far = np.full((2, 17, 3), 1e7, np.float32)
    far[1] = np.nan
    assert np.isfinite(describe(frame, far, COCO_17)).all()
    assert describe(frame, far[:0], COCO_17).shape == (0, 48)
