"""Where people go: the root's path, feet that rest, the floor, jumps; seen by a known camera."""

import numpy as np
import pytest

from demo.grounding import bend_leg, find_touches, hold_feet, refine_pitch, walk
from demo.path import (
    FEET,
    Sight,
    _Bands,
    fit_places,
    focal_length,
    resting_feet,
    runs,
    smooth_path,
    turned_back,
)
from demo.poses import bone_lengths
from lib.skeleton import H36M
from tests.demo_samples import in_camera, standing

SIZE, FOV, HEIGHT = (1280, 720), 60.0, 1500.0
PLACE = np.array([0.0, 4000, 900])


def filmed(world: np.ndarray, pitch: float, fov: float = FOV, fps: float = 25.0) -> Sight:
    """World poses, the camera HEIGHT above the origin, as exact poses and keypoints."""
    camera = in_camera(world - [0, 0, HEIGHT], pitch)
    focal = max(SIZE) / 2 / np.tan(np.deg2rad(fov / 2))
    pixels = camera[..., :2] / camera[..., 2:] * focal + np.array(SIZE) / 2
    keypoints = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)
    times = np.arange(len(world)) / fps
    return Sight.of(camera - camera[:, :1], keypoints, times, SIZE, fov)


def walking(frames=125, fps=25.0, heading=20.0, start=(0.0, 3000.0)) -> np.ndarray:
    """(F, 17, 3) mm: steps of 600 mm and 0.6 s from a place (x, y) on, heading away and so many
    degrees to the right; the foot that does not swing stands still at z = 0."""
    seconds = np.arange(frames) / fps
    pose = standing(frames)
    pose += -pose[:, :1] + [0, 0, 880]
    ahead = np.array([np.sin(np.deg2rad(heading)), np.cos(np.deg2rad(heading)), 0])
    across = np.array([ahead[1], -ahead[0], 0])
    turned = pose[..., :1] * across + pose[..., 1:2] * ahead + pose[..., 2:] * [0, 0, 1]
    root = np.array([*start, 0]) + 1000 * seconds[:, None] * ahead
    world = turned + root[:, None]
    for side, (name, first) in enumerate((("left", 0.0), ("right", 0.6))):
        # Each foot swings 1200 mm in 0.6 s, then stands for 0.6 s.
        phase = (seconds - first) / 1.2
        swing = np.clip((phase % 1) / 0.5, 0, 1)
        eased = swing**2 * (3 - 2 * swing)
        travelled = 1200 * (np.floor(phase) + eased) + (0 if side == 0 else 600)
        foot = np.array([*start, 0]) + (travelled - 300)[:, None] * ahead
        foot = foot + (100 if side else -100) * across
        foot[:, 2] = 120 * np.sin(np.pi * swing)
        hip, knee, ankle = (H36M.index(f"{name}_{part}") for part in ("hip", "knee", "ankle"))
        before = world[:, hip] + [0, 0, -450] + 100 * ahead
        world[:, knee], world[:, ankle] = bend_leg(
            world[:, hip], before, foot, foot, np.tile(ahead, (frames, 1))
        )
    return world


def test_exact_views_give_the_exact_places():
    rng = np.random.default_rng(5)
    pose = rng.normal(0, 300, (40, 17, 3))
    pose -= pose[:, :1]
    place = rng.uniform([-1500, -500, 2500], [1500, 500, 9000], (40, 3))
    focal = focal_length(SIZE, FOV)
    seen = (pose + place[:, None])[..., :2] / (pose + place[:, None])[..., 2:]
    keypoints = np.concatenate([seen * focal + [640, 360], np.ones((40, 17, 1))], axis=-1)
    sight = Sight.of(pose, keypoints, np.arange(40) / 25, SIZE, FOV)
    found, weight = fit_places(sight)
    np.testing.assert_allclose(found, place, rtol=1e-5)
    np.testing.assert_allclose(weight, 1)
    # What the detector did not see does not count, and an arm that is elsewhere little.
    per_mm = (focal / place[:, 2])[:, None]
    keypoints[:, 3:7, :2] += np.array([800, 400]) * per_mm[..., None]
    keypoints[:, 3:7, 2] = 0
    keypoints[:, 13, :2] += 500 * per_mm
    found, weight = fit_places(Sight.of(pose, keypoints, np.arange(40) / 25, SIZE, FOV))
    off = np.linalg.norm(found - place, axis=-1) / place[:, 2]
    assert off.max() < 0.02
    np.testing.assert_allclose(weight, 13 / 17, rtol=1e-3)


@pytest.mark.parametrize(("size", "fov"), [((1000, 600), 90.0), ((600, 1000), 90.0)])
def test_the_field_of_view_is_that_of_the_longer_side(size, fov):
    assert focal_length(size, fov) == pytest.approx(500)  # 45° to either side


def test_a_pose_that_is_seen_at_the_border_is_turned_back():
    """Half the picture's width to the right at 90 degrees: 45 degrees, so forward is right, too."""
    pose = np.zeros((2, 17, 3))
    pose[:, 1:4] = np.eye(3)
    found = turned_back(pose, np.array([[1000, 300], [500, 800]]), (1000, 600), 90.0)
    s = np.sqrt(0.5)
    np.testing.assert_allclose(found[0, 1:4], [[s, 0, -s], [0, 1, 0], [s, 0, s]], atol=1e-12)
    np.testing.assert_allclose(found[1, 1:4], [[1, 0, 0], [0, s, -s], [0, s, s]], atol=1e-12)
    still = turned_back(pose, np.full((2, 2), [500, 300]), (1000, 600), 90.0)
    np.testing.assert_allclose(still, pose)


@pytest.mark.parametrize("count", [3, 4, 7, 10])
def test_the_bands_are_solved_as_any_solver_does(count):
    """Each term as rows of a plain least-squares problem."""
    rng = np.random.default_rng(count)
    times = np.cumsum(rng.uniform(0.01, 0.08, count))
    wanted, moves = rng.normal(size=(count, 3)), rng.normal(size=(count - 1, 3))
    near, stay = rng.uniform(0.5, 2, (count, 3)), rng.uniform(0, 2, count - 1)
    bend = rng.uniform(1e-7, 1e-5, (count, 3))
    bands = _Bands(count)
    bands.add_points(near[..., None] * np.eye(3), wanted)
    bands.add_steps(stay, moves)
    bands.add_bends(times, bend[..., None] * np.eye(3))
    for axis in range(3):
        rows, right = [], []

        def add(weight, coefficients, value, rows=rows, right=right):
            row = np.zeros(count)
            for index, factor in coefficients.items():
                row[index] = factor
            rows.append(np.sqrt(weight) * row)
            right.append(np.sqrt(weight) * value)

        for f in range(count):
            add(near[f, axis], {f: 1}, wanted[f, axis])
        for f in range(count - 1):
            add(stay[f], {f: -1, f + 1: 1}, moves[f, axis])
        for f in range(1, count - 1):
            a, b = times[f] - times[f - 1], times[f + 1] - times[f]
            second = {f - 1: 2 / (a * (a + b)), f: -2 / (a * b), f + 1: 2 / (b * (a + b))}
            add(bend[f, axis] * (a + b) / 2 / 0.1, second, 0)
        expected = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
        np.testing.assert_allclose(bands.solve()[:, axis], expected, atol=1e-9)


@pytest.mark.parametrize(
    ("heading", "start", "told"), [(0.0, 3000, 14.0), (80.0, 5000, 10.0), (200.0, 8000, 7.0)]
)
def test_somebody_who_walks_is_where_they_are(heading, start, told):
    """Path within 1 % of the way, resting feet on the floor and still, the camera's pitch found
    where they go away or come near."""
    world = walking(heading=heading, start=(-500 * (heading > 45), start))
    sight = filmed(world, pitch=10.0)
    (found,), pitch = walk([sight], pitch=told, refine=True)
    assert pitch == pytest.approx(10, abs=1.0)
    way = np.linalg.norm(world[-1, 0] - world[0, 0])
    assert np.linalg.norm(found[:, 0] - world[:, 0], axis=-1).mean() < 0.01 * way
    np.testing.assert_allclose(bone_lengths(found), bone_lengths(world), rtol=1e-6)
    stands = np.linalg.norm(np.diff(world[:, FEET], axis=0), axis=-1) < 1e-6
    slide = np.linalg.norm(np.diff(found[:, FEET], axis=0), axis=-1)
    assert stands.mean() > 0.4 and slide[stands].mean() < 0.5
    both = stands[1:] & stands[:-1]
    assert np.abs(found[1:-1, FEET, 2][both]).mean() < 5


def test_noise_along_the_line_of_sight_is_smoothed():
    """Poses whose size pulsates by 2 % seem to come and go by 60 mm; a smooth path does not."""
    world = walking()
    exact = filmed(world, pitch=10.0)
    rng = np.random.default_rng(0)
    pulse = 1 + 0.02 * rng.standard_normal((len(world), 1, 1))
    sight = Sight(exact.pose * pulse, exact.keypoints, exact.times)
    true = in_camera(world - [0, 0, HEIGHT], 10.0)[:, 0]
    places, weight = fit_places(sight)
    rests = np.zeros((len(world), 2), dtype=bool)
    path = smooth_path(sight, places, weight, rests)
    alone = np.linalg.norm(places - true, axis=-1).mean()
    assert alone > 50 and np.linalg.norm(path - true, axis=-1).mean() < alone / 3


def test_a_jump_leaves_the_floor_by_its_height():
    """Up by 4 m/s · t - 9.81/2 m/s² · t² and twice: 300 mm and 0.5 s in the air."""
    fps = 50.0
    seconds = np.arange(150) / fps
    rise = np.zeros(150)
    for start in (0.8, 1.9):
        t = seconds - start
        flight = 1000 * (2.426 * t - 9.81 / 2 * t**2)
        rise = np.maximum(rise, np.where((t > 0) & (t < 0.5), flight, 0))
    world = standing(150) - standing(150)[:, :1]
    world = world - [0, 0, world[..., 2].min()] + [300, 3500, 0]
    world[..., 2] += rise[:, None]
    (found,), _ = walk([filmed(world, 8.0, fps=fps)], pitch=8.0, refine=False)
    height = found[:, FEET, 2].min(axis=1)
    assert height.max() == pytest.approx(300, abs=15)
    assert np.abs(height - rise).mean() < 10
    rises = resting_feet(filmed(world, 8.0, fps=fps), in_camera(world - [0, 0, HEIGHT], 8.0)[:, 0])
    assert not rises[(rise > 30)].any() and rises[rise == 0].mean() > 0.8


def test_frames_that_are_not_even_in_time_give_the_same_path():
    world = walking(frames=250, fps=50.0)
    whole = filmed(world, 10.0, fps=50.0)
    keep = np.sort(np.random.default_rng(2).permutation(250)[:170])
    part = Sight(whole.pose[keep], whole.keypoints[keep], whole.times[keep])
    (every,), (some,) = (walk([sight], 10.0, refine=False)[0] for sight in (whole, part))
    assert np.linalg.norm(every[keep, 0] - some[:, 0], axis=-1).max() < 20


@pytest.mark.parametrize(
    "world", [standing(40, lean=20.0) * [1, 1, -1], standing(40, lean=80.0)], ids=["head", "back"]
)
def test_whoever_stands_on_their_head_or_lies_is_on_the_floor(world):
    """The lowest of all joints is at the floor, the crown of somebody upside down."""
    world = world - [0, 0, world[..., 2].min()] + [200, 4000, 0]
    (found,), _ = walk([filmed(world, 10.0)], 10.0, refine=False)
    assert found[..., 2].min() == pytest.approx(0, abs=40)
    assert np.linalg.norm(found[:, 0] - world[:, 0], axis=-1).max() < 120


def test_several_people_share_the_camera():
    """Two who stand 1.5 m apart, one of them a metre behind."""
    people = [standing(30) + place for place in ([-500, 3500, 0], [1000, 4500, 0])]
    people = [one - [0, 0, one[..., 2].min()] for one in people]
    found, _ = walk([filmed(one, 5.0) for one in people], 5.0, refine=False)
    apart = found[1][:, 0] - found[0][:, 0]
    np.testing.assert_allclose(apart.mean(axis=0), [1500, 1000, 0], atol=20)


def test_a_foot_that_rests_is_held_and_the_leg_keeps_its_bones():
    """An ankle that trembles by some centimetres about one place, and swings before and after."""
    rng = np.random.default_rng(1)
    world = standing(60) - [0, 0, standing(60)[..., 2].min()] - [0, 0, 30]
    ankle = H36M.index("left_ankle")
    world[:, ankle] += rng.normal(0, 8, (60, 3))
    rests = np.zeros((60, 2), dtype=bool)
    rests[20:40, 0] = True
    held = hold_feet(world, np.arange(60) / 25, rests, rests)
    assert np.ptp(held[20:40, ankle], axis=0).max() < 1e-6
    assert held[20:40, ankle, 2] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(bone_lengths(held), bone_lengths(world), atol=1e-6)
    away = np.linalg.norm(held - world, axis=-1)
    others = [j for j in range(17) if H36M.names[j] not in ("left_knee", "left_ankle")]
    assert away[:, others].max() < 1e-9
    assert away[:14].max() < 0.01  # more than LET_GO before


def test_a_foot_that_creeps_along_is_let_go_now_and_then():
    """At 200 mm/s it would be 400 mm off after two seconds; nor does it leap to a new place."""
    world = standing(50) - [0, 0, standing(50)[..., 2].min()] - [0, 0, 30]
    ankle = H36M.index("right_ankle")
    world[:, :, 0] += 8.0 * np.arange(50)[:, None]
    rests = np.ones((50, 2), dtype=bool)
    held = hold_feet(world, np.arange(50) / 25, rests, rests)
    assert np.abs(held[:, ankle] - world[:, ankle])[..., :2].max() < 110
    steps = np.linalg.norm(np.diff(held[:, ankle], axis=0), axis=-1)
    assert steps.max() < 60 and (steps < 1e-6).mean() > 0.3


def test_a_leg_bends_by_hand():
    """Thigh 3, shin 4, foot at distance 5: a right angle at the knee, on the side where it was."""
    hip, foot, ahead = np.zeros((1, 3)), np.array([[0.0, 0, -5]]), np.array([[0.0, 1, 0]])
    for side in (1.0, -1.0):
        leg = hip, np.array([[0, 3 * side, 0.0]]), np.array([[0, 3 * side, -4.0]])
        knee, ankle = bend_leg(*leg, foot, ahead)
        np.testing.assert_allclose(knee, [[0, 2.4 * side, -1.8]], atol=1e-3)
        np.testing.assert_allclose(ankle, foot, atol=1e-12)
    # It reaches for 10 beyond the 5 of its own, of which 2 are there: 2 (1 - exp(-10 / 2)) of them.
    _, ankle = bend_leg(*leg, 3 * foot, ahead)
    np.testing.assert_allclose(ankle, [[0, 0, -5 - 2 * (1 - np.exp(-5))]], atol=1e-9)
    straight = hip, np.array([[0, 0, -3.0]]), np.array([[0, 0, -7.0]])
    knee, _ = bend_leg(*straight, foot, ahead)
    np.testing.assert_allclose(knee, [[0, 2.4, -1.8]], atol=1e-9)


def test_no_knee_snaps():
    """The foot is wanted ever farther away, from 6 to 8 of 7: the leg stretches less and less."""
    wanted = np.linspace(6, 8, 81)
    out = np.sqrt(9 - 29**2 / 144)  # of a knee between hip and foot at a distance of 6
    hip, ahead = np.zeros((81, 3)), np.tile([0.0, 1, 0], (81, 1))
    knee, foot = np.tile([0.0, out, -29 / 12], (81, 1)), np.tile([0.0, 0, -6], (81, 1))
    _, ankle = bend_leg(hip, knee, foot, wanted[:, None] * [0, 0, -1], ahead)
    steps = np.diff(-ankle[:, 2])
    assert steps[0] == pytest.approx(wanted[1] - wanted[0], rel=0.03)
    assert (steps > 0).all() and -ankle[-1, 2] < 7
    assert (np.diff(steps) < 0).all() and np.abs(np.diff(steps)).max() < 0.05 * steps[0]


def test_the_pitch_is_left_alone_where_feet_do_not_tell():
    """Somebody who stays in one place: any pitch makes one place level."""
    sight = filmed(standing(50) + PLACE, 10.0)
    places, _ = fit_places(sight)
    assert refine_pitch([find_touches(sight, places, 14.0)], 14.0) == pytest.approx(14, abs=0.5)


def test_legs_that_nobody_saw_tell_nothing():
    """Somebody behind a desk walks by; the legs that were filled in kick about."""
    world = walking(heading=80.0, start=(-500, 5000))
    exact = filmed(world, 10.0)
    rng = np.random.default_rng(4)
    legs = [
        H36M.index(f"{side}_{part}") for side in ("left", "right") for part in ("knee", "ankle")
    ]
    pose, keypoints = exact.pose.copy(), exact.keypoints.copy()
    keypoints[:, legs, 2] = 0
    keypoints[:, legs, :2] += rng.normal(0, 0.05, (len(world), 4, 2))
    pose[:, legs] += rng.normal(0, 200, (len(world), 4, 3))
    (found,), pitch = walk([Sight(pose, keypoints, exact.times)], 10.0, refine=True)
    assert pitch == 10
    off = found[:, 0, :2] - world[:, 0, :2]
    assert np.linalg.norm(off, axis=-1).max() < 30


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_moment_has_a_place_too(frames):
    world = standing(frames) + PLACE
    (found,), _ = walk([filmed(world, 10.0)], 10.0, refine=True)
    assert found.shape == world.shape
    np.testing.assert_allclose(found[..., :2], world[..., :2], atol=60)


def test_runs():
    assert runs(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert runs(np.zeros(3, dtype=bool)) == []
