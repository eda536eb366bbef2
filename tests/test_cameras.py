"""Cameras anywhere around a person: where they stand and that the person is in the picture."""

import numpy as np
import pytest

from data.cameras import (
    DISTANCE,
    FOCAL,
    HEIGHT,
    IMAGE,
    LARGEST,
    NEAREST,
    ROLL_DEGREES,
    View,
    draw_anywhere,
    middle_of,
)
from data.sources.synthetic import perform, rest_pose
from lib.camera import Camera


def motion(num_frames=27):
    return perform(np.random.default_rng(0), "walk", rest_pose(), num_frames)


def test_a_rolled_camera_turns_the_picture_about_its_centre():
    camera = Camera("ideal", (1000, 1000), (1000.0, 1000.0), (500.0, 500.0))
    place = np.array([4000.0, -1000.0, 1500.0]), np.array([0.0, 0.0, 900.0])
    level, rolled = View(camera, *place), View(camera, *place, roll=0.3)
    assert np.linalg.det(rolled.rotation) == pytest.approx(1)
    world = motion()
    a, b = (camera.project(view.to_camera(world)) - 500 for view in (level, rolled))
    a, b = (pixels[..., 0] + 1j * pixels[..., 1] for pixels in (a, b))
    np.testing.assert_allclose(b, a * np.exp(-0.3j), rtol=1e-9)


def test_cameras_stand_where_the_distribution_says_and_see_the_person():
    world = motion()
    rng = np.random.default_rng(1)
    views = [draw_anywhere(rng, world) for _ in range(400)]
    middle = middle_of(world)
    heights = np.array([view.position[2] for view in views])
    distances = [np.linalg.norm((view.position - middle)[:2]) for view in views]
    focals = np.array([view.camera.focal[0] for view in views])
    rolls = np.rad2deg([view.roll for view in views])
    for values, (low, high) in ((heights, HEIGHT), (focals, FOCAL)):
        assert values.min() >= low and values.max() <= high
        assert values.min() < low * 1.1 and values.max() > high / 1.1
    assert min(distances) >= DISTANCE[0] and np.mean(distances) < 6000
    assert rolls.std() == pytest.approx(ROLL_DEGREES, rel=0.15)
    away = [(view.position - middle)[:2] for view in views]
    quarters = {(x > 0, y > 0) for x, y in away}
    assert len(quarters) == 4
    inside = 0
    for view in views:
        points = view.to_camera(world)
        pixels = view.camera.project(points).reshape(-1, 2)
        assert points[..., 2].min() > NEAREST
        assert np.ptp(pixels, axis=0).max() < LARGEST
        inside += (pixels >= 0).all() and (pixels <= IMAGE).all()
    assert inside > 0.97 * len(views)


def test_who_walks_far_is_seen_whole_from_farther_off():
    world = motion(200) + np.linspace(0, 1, 200)[:, None, None] * [30_000, 0, 0]
    view = draw_anywhere(np.random.default_rng(0), world)
    pixels = view.camera.project(view.to_camera(world)).reshape(-1, 2)
    assert np.ptp(pixels, axis=0).max() < LARGEST
    assert np.linalg.norm((view.position - middle_of(world))[:2]) > DISTANCE[1]
