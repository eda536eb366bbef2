"""Screen coordinates by hand and by round trip."""

import numpy as np
import pytest

from lib.camera import H36M_CAMERAS, camera_to_world, from_screen, to_screen


def test_to_screen_by_hand():
    """A 1000 x 1002 image: corners at ±1 and ±1.002, 250 pixels of depth are 0.5."""
    corners = np.array([[[0.0, 0.0, 0.0], [1000.0, 1002.0, 250.0], [500.0, 501.0, -500.0]]])
    expected = [[[-1, -1.002, 0], [1, 1.002, 0.5], [0, 0, -1]]]
    assert np.allclose(to_screen(corners, (1000, 1002)), expected, atol=1e-15)


def test_to_screen_of_a_wide_image_by_hand():
    """1920 x 1080: y runs over ±0.5625."""
    points = np.array([[480.0, 0.0], [1920.0, 1080.0]])
    assert np.allclose(to_screen(points, (1920, 1080)), [[-0.5, -0.5625], [1, 0.5625]])


@pytest.mark.parametrize("coordinates", [2, 3])
def test_round_trip_with_a_size_for_each_frame(rng, coordinates):
    pixels = rng.uniform(-200, 1500, (7, 17, coordinates))
    sizes = rng.choice([[1000, 1002], [1000, 1000], [1920, 1080]], 7)
    screen = to_screen(pixels, sizes)
    assert np.allclose(from_screen(screen, sizes), pixels, atol=1e-10)
    for frame in range(7):
        assert np.allclose(screen[frame], to_screen(pixels[frame], tuple(sizes[frame])))


def test_the_argument_is_left_alone(rng):
    pixels = rng.uniform(0, 1000, (2, 17, 3)).astype(np.float32)
    before = pixels.copy()
    screen = to_screen(pixels, (1000, 1000))
    from_screen(screen, (1000, 1000))
    assert (pixels == before).all()
    assert screen.dtype == np.float32


def test_whole_pixels_do_not_become_whole_screen_coordinates():
    screen = to_screen(np.array([[750, 250]]), (1000, 1000))
    assert np.allclose(screen, [[0.5, -0.5]])


def test_image_sizes_of_the_four_cameras():
    sizes = {name: camera.size for name, camera in H36M_CAMERAS.items()}
    assert sizes == {
        "54138969": (1000, 1002),
        "60457274": (1000, 1002),
        "55011271": (1000, 1000),
        "58860488": (1000, 1000),
    }


def test_a_pinhole_projects_by_similar_triangles():
    camera = H36M_CAMERAS["55011271"]
    x, y = camera.project(np.array([500.0, -250.0, 5000.0]))
    assert x == pytest.approx(camera.center[0] + 0.1 * camera.focal[0])
    assert y == pytest.approx(camera.center[1] - 0.05 * camera.focal[1])


def test_a_level_camera_sees_down_as_minus_z_and_depth_as_y():
    points = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert np.allclose(camera_to_world(points, 0.0), [[1, 0, 0], [0, 0, -1], [0, 1, 0]])


def test_a_camera_that_looks_30_degrees_down():
    """Its optical axis points 30° below the horizon, its picture's up stays above it."""
    forward, down = camera_to_world(np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), 30.0)
    assert np.allclose(forward, [0, np.cos(np.pi / 6), -0.5])
    assert np.allclose(down, [0, -0.5, -np.cos(np.pi / 6)])


def test_camera_to_world_keeps_lengths_and_handedness(rng):
    points = rng.standard_normal((5, 3))
    world = camera_to_world(points, 17.0)
    assert np.allclose(np.linalg.norm(world, axis=-1), np.linalg.norm(points, axis=-1))
    rotation = camera_to_world(np.eye(3), 17.0)
    assert np.linalg.det(rotation) == pytest.approx(1)
