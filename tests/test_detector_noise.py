"""A detector's noise: what each of its settings does, and joints that are elsewhere or missing."""

from dataclasses import replace

import numpy as np
import pytest

from data import detector_noise
from data.detector_noise import (
    ALONG_LIMB,
    LOST,
    Detector,
    detect,
    draw_detector,
    hidden,
    lose_joints,
    shift_joints,
)
from data.sources.synthetic import perform, rest_pose
from lib.skeleton import H36M

JOINT = {name: index for index, name in enumerate(H36M.names)}
DETECTOR = Detector()


def seen(num_frames=100):
    """A 2.5D pose in pixels at 4 mm a pixel, and its factor."""
    world = perform(np.random.default_rng(0), "walk", rest_pose(), num_frames)
    image = np.stack([world[..., 1], -world[..., 2], -world[..., 0]], axis=-1) / 4 + [500, 500, 0]
    image[..., 2] -= image[:, :1, 2]
    return image, np.full(num_frames, 4.0)


def errors(detector, seed=0, fps=50.0, image=None):
    image, factor = seen() if image is None else image
    joint_2d, confidence = detect(np.random.default_rng(seed), image, factor, detector, fps)
    return joint_2d - image[..., :2], confidence


def test_errors_grow_with_the_strength_and_confidence_does_not():
    weak, strong = (errors(replace(DETECTOR, strength=s)) for s in (1.0, 1.6))
    np.testing.assert_allclose(strong[0], 1.6 * weak[0], atol=1e-9)
    np.testing.assert_array_equal(strong[1], weak[1])


def test_a_bias_stays_for_the_whole_clip():
    still = seen()[0][:1].repeat(50, axis=0), np.full(50, 4.0)
    error, _ = errors(Detector(drifting=0.0, jitter=0.0, bias=1.0), image=still)
    # The same direction in each frame; its size changes with the joint's difficulty.
    unit = error / np.linalg.norm(error, axis=-1, keepdims=True)
    np.testing.assert_allclose(unit, unit[:1].repeat(50, axis=0), atol=1e-9)


def test_a_sure_detector_is_surer_of_the_same_errors():
    unsure, sure = (errors(replace(DETECTOR, sure_mm=mm)) for mm in (60.0, 150.0))
    np.testing.assert_array_equal(unsure[0], sure[0])
    assert sure[1].mean() > unsure[1].mean() + 0.03


def test_speed_is_that_of_the_video_not_of_its_frames():
    """Every second frame of a motion at 25 frames a second is as blurred as all at 50."""
    image, factor = seen(400)
    spread = [
        np.abs(errors(DETECTOR, seed, fps, (image[::step], factor[::step]))[0]).mean()
        for step, fps in ((1, 50.0), (2, 25.0), (2, 50.0))
        for seed in range(1)
    ]
    assert spread[1] == pytest.approx(spread[0], rel=0.1)
    assert spread[2] > 1.1 * spread[1]


def test_detectors_are_drawn_from_precise_to_rough():
    rng = np.random.default_rng(0)
    drawn = [draw_detector(rng) for _ in range(500)]
    strengths = np.array([detector.strength for detector in drawn])
    assert strengths.min() < 0.25 < 1.4 < strengths.max()
    for detector in drawn:
        variance = detector.drifting**2 + detector.jitter**2 + detector.bias**2
        assert variance == pytest.approx(1) or detector.drifting**2 == pytest.approx(0.1)


def test_hidden_joints_in_single_precision():
    image, factor = seen()
    pose = image * factor[:, None, None]
    single = hidden(pose.astype(np.float32))
    assert single.dtype == np.float32
    close = np.isclose(single, hidden(pose), atol=1e-3)
    assert close.mean() > 0.999  # a depth just at the limit may fall on either side


def test_another_convention_moves_joints_along_the_body_by_the_same_shares_in_all_frames():
    pixels = seen()[0][..., :2]
    for seed in range(5):
        moved = shift_joints(np.random.default_rng(seed), pixels) - pixels
        for above, joint, below in (("pelvis", "hip", "knee"), ("thorax", "shoulder", "elbow")):
            shares = []
            for side in ("left", "right"):
                here, next_one = JOINT[f"{side}_{joint}"], JOINT[f"{side}_{below}"]
                down = pixels[:, next_one] - pixels[:, here]
                out = pixels[:, here] - pixels[:, JOINT[above]]
                design = np.stack([down.ravel(), 2 * out.ravel()], axis=1)
                solved, rest, *_ = np.linalg.lstsq(design, moved[:, here].ravel(), rcond=None)
                assert rest == pytest.approx(0, abs=1e-6)
                shares.append(solved)
            np.testing.assert_allclose(*shares, atol=1e-9)
            assert np.abs(shares).max() <= ALONG_LIMB
        limbs = [
            JOINT[f"{side}_{name}"] for side in ("left", "right") for name in ("knee", "wrist")
        ]
        np.testing.assert_array_equal(moved[:, limbs], 0)
        trunk = pixels[:, JOINT["thorax"]] - pixels[:, JOINT["pelvis"]]
        up = moved[:, JOINT["neck"]] / trunk
        np.testing.assert_allclose(up, up[0, 0], atol=1e-9)


def test_lost_joints_have_no_confidence_and_go_with_the_body(monkeypatch):
    monkeypatch.setattr(detector_noise, "MOST_LOSSES", 1)
    image, _ = seen(40)
    lost_ones = set()
    for seed in range(40):
        pixels, confidence = image[..., :2].copy(), np.full(image.shape[:2], 0.9)
        lose_joints(np.random.default_rng(seed), pixels, confidence)
        lost = confidence == 0
        names = tuple(H36M.names[joint] for joint in np.flatnonzero(lost.any(0)))
        assert not names or names in LOST
        lost_ones |= set(names)
        np.testing.assert_array_equal(pixels[~lost], image[..., :2][~lost])
        for joint in np.flatnonzero(lost.any(0)):
            frames = np.flatnonzero(lost[:, joint])
            assert np.ptp(frames) == len(frames) - 1
            bone = pixels[:, joint] - pixels[:, H36M.parents[joint]]
            # As it was last seen; never seen: at its parent.
            last = bone[frames[0] - 1] if frames[0] else np.zeros(2)
            np.testing.assert_allclose(bone[frames], last[None].repeat(len(frames), 0), atol=1e-9)
    assert lost_ones == {name for names in LOST for name in names}
