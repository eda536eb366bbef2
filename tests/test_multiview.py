"""The geometry of several cameras, and what the benchmark makes of them."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from demo.detectors.landmarks import HIPS, MARGIN, RIM, Region, find_landmarks
from lib.errors import UserError
from lib.keypoints import BLAZEPOSE_33
from lib.skeleton import H36M
from tests.benchmarks.multiview import errors, main, path_of
from tests.benchmarks.rig import Calibrated, read_qualisys, triangulate, turned
from tests.benchmarks.scene import Scene, Truth, joints_of, scenes
from tests.benchmarks.seen import Heard, Seen, own_3d
from tests.training import run_command


def ring(count: int = 4) -> list[Calibrated]:
    """Cameras around the origin that look at a point a metre above it, with distorting lenses."""
    cameras = []
    for number in range(count):
        angle = 2 * np.pi * number / count + 0.3
        position = np.array([4000 * np.cos(angle), 3000 * np.sin(angle), 1500 + 200 * number])
        forward = np.array([0, 0, 1000]) - position
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        matrix = np.array([[1600.0 + 10 * number, 0, 530], [0, 1610, 970], [0, 0, 1]])
        distortion = np.array([-0.05, 0.13, 0.0006, -0.0007, 0.0])
        cameras.append(
            Calibrated(f"cam{number}", (1080, 1920), matrix, distortion, rotation, position)
        )
    return cameras


def somewhere(count: int = 50) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal([0, 0, 1000], [300, 300, 400], (count, 3))


def seen(cameras: list[Calibrated], points: np.ndarray) -> np.ndarray:
    return np.stack([camera.project(points) for camera in cameras])


def test_points_come_back_from_their_pictures():
    cameras, points = ring(), somewhere()
    pixels = seen(cameras, points)
    # A point by hand: through the middle of the lens, so without distortion.
    camera = cameras[0]
    axis = camera.position + 2000 * camera.rotation[2]
    np.testing.assert_allclose(camera.project(axis[None]), [[530, 970]], atol=1e-9)
    found = triangulate(cameras, pixels, np.ones(pixels.shape[:2]))
    np.testing.assert_allclose(found.places, points, atol=1e-6)
    assert found.used.all() and found.miss.max() < 1e-6
    # Twice in a row as well as all at once; one camera alone tells nothing.
    alone = np.ones(pixels.shape[:2])
    alone[1:, 3] = 0
    grid = triangulate(cameras, pixels.reshape(4, 5, 10, 2), alone.reshape(4, 5, 10))
    assert np.isnan(grid.places[0, 3]).all() and not grid.used[:, 0, 3].any()
    np.testing.assert_allclose(grid.places[1:], points.reshape(5, 10, 3)[1:], atol=1e-6)


def test_the_camera_that_is_wrong_is_left_out():
    cameras, points = ring(), somewhere()
    pixels = seen(cameras, points)
    pixels[2, 7] += [90, -60]
    weights = np.ones(pixels.shape[:2])
    misled = triangulate(cameras, pixels, weights)
    assert np.linalg.norm(misled.places[7] - points[7]) > 20 and misled.miss[7] > 20
    found = triangulate(cameras, pixels, weights, limit=20.0)
    np.testing.assert_allclose(found.places, points, atol=1e-6)
    expected = np.ones((4, 50), dtype=bool)
    expected[2, 7] = False
    np.testing.assert_array_equal(found.used, expected)
    # What is left is the least sum of squares: no step makes it less.
    pixels = seen(cameras, points) + np.random.default_rng(1).normal(0, 5, pixels.shape)
    found = triangulate(cameras, pixels, weights)
    undone = [camera.to_screen(p) * camera.focal for camera, p in zip(cameras, pixels, strict=True)]

    def cost(places):
        own = [camera.to_camera(places) for camera in cameras]
        flat = [o[:, :2] / o[:, 2:] * c.focal for o, c in zip(own, cameras, strict=True)]
        return ((np.stack(flat) - np.stack(undone)) ** 2).sum(axis=(0, 2))

    for step in np.concatenate([np.eye(3), -np.eye(3)]):
        assert (cost(found.places + step) > cost(found.places)).all()


def test_turned_cameras_are_turned_back():
    cameras, points = ring(), somewhere()
    pixels, weights = seen(cameras, points), np.ones((4, 50))
    wrong = [
        replace(camera, rotation=cv2.Rodrigues(np.deg2rad(turn))[0] @ camera.rotation)
        for camera, turn in zip(
            cameras, np.random.default_rng(2).normal(0, 0.7, (4, 3)), strict=True
        )
    ]
    assert triangulate(wrong, pixels, weights).miss.mean() > 5
    # Half of the way where pictures count as much as what is missed; all of it where they do not.
    half = triangulate(turned(wrong, pixels, weights, stiff=1.0), pixels, weights).miss.mean()
    assert 1 < half < triangulate(wrong, pixels, weights).miss.mean()
    mended = turned(wrong, pixels, weights, stiff=0.0)
    for one, camera in zip(mended, cameras, strict=True):
        np.testing.assert_allclose(one.rotation, camera.rotation, atol=1e-6)
    np.testing.assert_allclose(triangulate(mended, pixels, weights).places, points, atol=1e-3)


QUALISYS = """<?xml version='1.0' encoding='ASCII'?>
<calibration><results std-dev="0"/><cameras>{cameras}</cameras></calibration>"""
CAMERA = """<camera active="1" serial="{name}">
<fov_video bottom="1929" left="4" right="1083" top="10"/>
<transform r11="1" r12="0" r13="0" r21="0" r22="0" r23="1" r31="0" r32="-1" r33="0"
 x="100" y="-3000" z="1200"/>
<intrinsic centerPointU="34816" centerPointV="61440" focalLengthU="102400" focalLengthV="108800"
 radialDistortion1="-0.04" radialDistortion2="0.1" radialDistortion3="0.01"
 tangentalDistortion1="0.001" tangentalDistortion2="0.002" skew="0"/></camera>"""


def test_a_calibration_file_by_hand(tmp_path):
    path = tmp_path / "Calib.qca.txt"
    path.write_text(
        QUALISYS.format(cameras="".join(CAMERA.format(name=f"cam{n}") for n in range(3)))
    )
    camera = read_qualisys(path)[1]
    assert camera.name == "cam1" and camera.size == (1080, 1920)
    assert camera.fov == pytest.approx(2 * np.degrees(np.arctan(960 / 1650)))
    np.testing.assert_allclose(camera.matrix, [[1600, 0, 540], [0, 1700, 950], [0, 0, 1]])
    np.testing.assert_allclose(camera.distortion, [-0.04, 0.1, 0.001, 0.002, 0.01])
    # It stands 3 m before the origin and looks along +y: x is right, z is up.
    np.testing.assert_allclose(camera.to_camera(np.array([100.0, 0, 1200])), [0, 0, 3000])
    np.testing.assert_allclose(camera.to_camera(np.array([400.0, 0, 1700])), [300, -500, 3000])
    np.testing.assert_allclose(camera.project(np.array([[100.0, 0, 1200]])), [[540, 950]])
    for content, words in (
        ("<calibration/>", "0 cameras"),
        ("<a", "not a Qualisys"),
        ("", "not a"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=words):
            read_qualisys(path)
    path.write_text(QUALISYS.format(cameras=CAMERA.replace("focalLengthU", "focal")))
    with pytest.raises(UserError, match="not a Qualisys"):
        read_qualisys(path)


def body(seed: int, place: tuple[float, float], frames: int = 40) -> np.ndarray:
    """(F, 33, 3): somebody who goes evenly, 10 mm from frame to frame."""
    rng = np.random.default_rng(seed)
    points = rng.normal([*place, 1000], [200, 200, 400], (33, 3))
    return points + np.arange(frames)[:, None, None] * [8.0, 6.0, 0.0]


def view_of(camera: Calibrated, people: list[np.ndarray]) -> Seen:
    pixels = np.stack([camera.project(points) for points in people])
    keypoints = np.concatenate([pixels, np.ones((*pixels.shape[:-1], 1))], axis=-1)
    times = np.arange(len(people[0])) / 50
    return Seen(keypoints.astype(np.float32), np.stack(people), camera.size, times)


def test_people_are_matched_and_their_joints_found():
    """Two people in another order in each camera; one camera has left and right wrong at times."""
    cameras, two = ring(), [body(1, (-600, 0)), body(2, (600, 300))]
    views = [view_of(camera, two if n % 2 else two[::-1]) for n, camera in enumerate(cameras)]
    flipped = views[2].keypoints[1, 10:15].copy()
    views[2].keypoints[1, 10:15] = flipped[:, list(BLAZEPOSE_33.mirror)]
    found = scenes(cameras, views)
    assert set(found) == {(0, 1, 0, 1), (1, 0, 1, 0)}
    scene = found[1, 0, 1, 0]
    np.testing.assert_array_equal(scene.keypoints[2, 10:15], flipped)
    np.testing.assert_allclose(scene.truth().places, two[0], atol=0.05)
    truth = Truth.of(scene, 2, views[2].times)
    assert truth.sure.all()
    np.testing.assert_allclose(truth.joints, joints_of(two[0]), atol=0.05)
    left, right = (BLAZEPOSE_33.names.index(f"{side}_hip") for side in ("left", "right"))
    np.testing.assert_allclose(
        joints_of(two[0])[:, 0], (two[0][:, left] + two[0][:, right]) / 2, atol=1e-9
    )
    # What another camera sees is not in a camera's own truth.
    views[2].keypoints[1, :, :, :2] += 9
    again = Truth.of(Scene(scene.cameras, scene.keypoints.copy()), 2, views[2].times)
    np.testing.assert_array_equal(again.joints, truth.joints)


def test_the_errors_by_hand():
    camera, points = ring()[1], body(1, (0, 0))
    times = np.arange(40) / 50
    truth = Truth(camera, joints_of(points), np.ones(40, dtype=bool), times)
    same = errors(truth, 0.8 * truth.pose + 3)
    assert same.position.max() < 1e-6 and np.abs(same.aligned).max() < 1e-6
    assert same.size == pytest.approx(20) and same.bones < 1e-6
    assert max(angle.max() for angle in same.angles.values()) < 1e-6
    assert same.acceleration.max() < 1e-6
    # A wrist that jumps forth and back: 17 mm of one joint of 17, twice 1 mm from frame to frame.
    pose = truth.pose.copy()
    pose[:, H36M.index("left_wrist")] += 17.0 * (np.arange(40) % 2)[:, None] * [0, 0, 1]
    moved = errors(truth, pose)
    np.testing.assert_allclose(moved.position, np.arange(40) % 2, atol=1e-6)
    np.testing.assert_allclose(moved.acceleration, 2 * 50**2 / 1000)
    assert moved.angles["knee"].max() < 1e-6 < moved.angles["elbow"].max()
    # Frames in which the truth is not sure do not count.
    sure = np.arange(40) % 2 == 0
    assert errors(replace(truth, sure=sure), pose).position.max() < 1e-6


def test_a_path_is_measured_from_where_the_camera_looks():
    camera, points = ring()[1], body(1, (0, 0))
    truth = Truth(camera, joints_of(points), np.ones(40, dtype=bool), np.arange(40) / 50)
    forward = camera.rotation[2] * [1, 1, 0] / np.linalg.norm(camera.rotation[2, :2])
    axes = np.stack([[forward[1], -forward[0], 0], forward, [0, 0, 1]])
    pitch = float(np.degrees(np.arcsin(-camera.rotation[2, 2])))
    found = path_of(truth, truth.joints @ axes.T + [500, 70, 0], pitch - 3)
    assert found.off < 1e-6 and found.pitch == pytest.approx(3)
    assert found.way == pytest.approx(10 * 30, rel=0.05)  # in steps of 0.2 s
    stays = (truth.joints - truth.joints[:, :1]) @ axes.T
    expected = 10 * np.abs(np.arange(40) - 19.5).mean()
    assert path_of(truth, stays, pitch).off == pytest.approx(expected)


def test_what_is_missing_is_said(tmp_path):
    def told() -> str:
        status, _, said = run_command(main, [tmp_path, "--keep", tmp_path / "kept"])
        assert status == 2
        return said

    assert "one .qca.txt file is needed" in told()
    (tmp_path / "calibration").mkdir()
    cameras = "".join(CAMERA.format(name=f"other{n}") for n in range(3))
    (tmp_path / "calibration" / "a.qca.txt").write_text(QUALISYS.format(cameras=cameras))
    assert "three videos or more are needed (no folder)" in told()
    (tmp_path / "videos").mkdir()
    for number in range(3):
        (tmp_path / "videos" / f"cam{number}.mp4").write_bytes(b"")
    assert "no camera is called cam0, cam1, cam2" in told()


class Fixed:
    """A landmark network that finds the same in each crop: somebody upright, in its middle."""

    points = np.random.default_rng(3).uniform(60, 196, (39, 5)).astype(np.float32)
    points[HIPS, :2], points[RIM, :2] = (128, 128), (128, 128 - 128 / MARGIN)
    metres = np.random.default_rng(4).normal(0, 0.5, (39, 3)).astype(np.float32)

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="crops")]

    def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        count = len(inputs["crops"])
        answers = self.points.reshape(1, -1), np.ones((1, 1)), self.metres.reshape(1, -1)
        return [np.repeat(answer, count, axis=0) for answer in answers]


def test_the_detectors_own_3d_is_turned_with_its_crop_and_goes_with_left_and_right():
    network, frame = Heard(Fixed()), np.zeros((300, 400, 3), dtype=np.uint8)
    upright = Region(np.array([200.0, 150.0]), 200.0, 0.0)
    (found,) = find_landmarks(network, frame, [upright])
    mirror, mm = list(BLAZEPOSE_33.mirror), 1000 * Fixed.metres[:33]
    # Their shoulders are above their hips.
    keypoints = found.keypoints[None].copy()
    keypoints[0, [11, 12, 23, 24], :2] = [[210, 110], [190, 110], [210, 150], [190, 150]]
    np.testing.assert_allclose(own_3d(network, frame, keypoints), mm[None], rtol=1e-5)
    np.testing.assert_allclose(
        own_3d(network, frame, keypoints[:, mirror]), mm[None, mirror], rtol=1e-5
    )
    # Lying, the head to the right: what was up is to the right, what was to the right is down.
    lying = keypoints.copy()
    lying[..., 0], lying[..., 1] = 200 - (keypoints[..., 1] - 150), keypoints[..., 0] - 50
    expected = np.stack([-mm[:, 1], mm[:, 0], mm[:, 2]], axis=-1)[None]
    np.testing.assert_allclose(own_3d(network, frame, lying), expected, atol=1e-2)
