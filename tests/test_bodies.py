"""Bodies and other motions: what changes and what stays, by independent formulas."""

import numpy as np
import pytest

from data.bodies import (
    BODY_SIZE,
    MEAN_LENGTH,
    bones_of,
    draw_lengths,
    joined,
    mix,
    rotations,
    turn_limbs,
    with_lengths,
)
from data.sources.synthetic import perform, rest_pose
from lib.skeleton import H36M

JOINT = {name: index for index, name in enumerate(H36M.names)}
BONE = {H36M.names[child]: number for number, child in enumerate(H36M.bone_children)}
LOWER = [number for name, number in BONE.items() if name.endswith(("hip", "knee", "ankle"))]
UPPER = [number for number in range(16) if number not in LOWER]


def motion(action="walk", seed=0, num_frames=60):
    return perform(np.random.default_rng(seed), action, rest_pose(), num_frames)


def lengths_of(pose):
    return np.linalg.norm(bones_of(pose), axis=-1)


def test_bones_are_joined_to_the_motion_they_came_from():
    world = motion()
    np.testing.assert_allclose(joined(world[:, 0], bones_of(world)), world, atol=1e-9)
    knee, hip = JOINT["left_knee"], JOINT["left_hip"]
    np.testing.assert_array_equal(
        bones_of(world)[:, BONE["left_knee"]], world[:, knee] - world[:, hip]
    )


def test_people_have_the_proportions_of_the_table():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_lengths(rng) for _ in range(3000)])
    for name, number in BONE.items():
        side, _, kind = name.rpartition("_")
        if side == "left":
            np.testing.assert_array_equal(drawn[:, number], drawn[:, BONE[f"right_{kind}"]])
        mean = MEAN_LENGTH[kind][0] * np.mean(BODY_SIZE)
        assert drawn[:, number].mean() == pytest.approx(mean, rel=0.015)  # 4 standard errors
    # Thigh and shin of one person vary by several percent, but less than those of two people.
    thigh, shin = drawn[:, BONE["left_knee"]], drawn[:, BONE["left_ankle"]]
    assert 0.04 < (thigh / shin).std() < 0.1 < (thigh / np.roll(shin, 1)).std()


def test_a_body_of_other_lengths_moves_alike():
    """Given lengths, old directions, and steps that grow with the legs."""
    world = motion()
    lengths = draw_lengths(np.random.default_rng(5))
    other = with_lengths(world[:, 0], bones_of(world), lengths)
    np.testing.assert_allclose(lengths_of(other), np.tile(lengths, (60, 1)), rtol=1e-9)
    cross = np.cross(bones_of(world), bones_of(other))
    np.testing.assert_allclose(cross, 0, atol=1e-6)
    legs = [BONE[f"{side}_{kind}"] for side in ("left", "right") for kind in ("knee", "ankle")]
    step = lengths[legs].sum() / lengths_of(world)[0, legs].sum()
    np.testing.assert_allclose(other[:, 0], step * world[:, 0], rtol=1e-9)


def test_rotations_turn_by_the_right_hand():
    quarter = np.array([np.pi / 2])
    (about_z,) = rotations(np.array([[0, 0, 7.0]]), quarter)
    np.testing.assert_allclose(about_z @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    (about_x,) = rotations(np.array([[0.1, 0, 0]]), quarter)
    np.testing.assert_allclose(about_x @ [0, 1, 0], [0, 0, 1], atol=1e-12)


def test_turned_limbs_keep_their_lengths_and_stay_turned():
    bones = bones_of(motion())
    turned = turn_limbs(np.random.default_rng(1), bones, 0.3)
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=-1), np.linalg.norm(bones, axis=-1), rtol=1e-9
    )
    for name in ("left_hip", "right_hip"):
        np.testing.assert_array_equal(turned[:, BONE[name]], bones[:, BONE[name]])
    # One rotation for all frames: it takes each frame's bone to the turned one.
    for number in (BONE["left_elbow"], BONE["head"]):
        u, _, v = np.linalg.svd(turned[:, number].T @ bones[:, number])
        rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v
        np.testing.assert_allclose(bones[:, number] @ rotation.T, turned[:, number], atol=1e-6)
    angles = rotation_angles(bones[:, BONE["left_wrist"]], turned[:, BONE["left_wrist"]])
    assert angles.min() > 0.01


def rotation_angles(a, b):
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.arccos(np.clip(cosine, -1, 1))


def test_a_mixed_body_has_the_legs_of_one_and_all_else_of_the_other():
    lower, upper = bones_of(motion("squat", 1)), bones_of(motion("wave", 2))
    mixed = mix(lower, upper)
    np.testing.assert_array_equal(mixed[:, LOWER], lower[:, LOWER])
    # All of the upper body is turned by one angle about the vertical …
    np.testing.assert_allclose(mixed[:, UPPER, 2], upper[:, UPPER, 2], atol=1e-9)
    flat, before = (bones[:, UPPER, 0] + 1j * bones[:, UPPER, 1] for bones in (mixed, upper))
    turn = flat / before
    np.testing.assert_allclose(turn, turn[0, 0], atol=1e-6)
    # … which is that between the two lines of the hips.
    line = [bones[:, BONE["left_hip"]] - bones[:, BONE["right_hip"]] for bones in (lower, upper)]
    expected = np.subtract(*(np.angle(np.dot(a.mean(0)[:2], [1, 1j])) for a in line))
    assert np.angle(turn[0, 0] * np.exp(-1j * expected)) == pytest.approx(0, abs=1e-9)
