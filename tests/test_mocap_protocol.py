"""The motion capture benchmark's protocol: numbers worked by hand, and a loop over frames."""

import json
import math

import numpy as np
import pytest

from data.clips import clip_index
from data.store import ArrayClips, ArrayWriter
from lib import metrics
from lib.errors import UserError
from lib.evaluation.frames import TestFrames, mean_of_parts
from lib.evaluation.mocap import VERSION, angle_error, evaluate_mocap, mean_of_clips
from lib.skeleton import H36M
from tests.test_metrics import best_rotation_error, loop_mpjpe

SIZE = 1000  # pixels: a normalised unit is 500 pixels
FACTOR = 2.0  # mm per pixel: 1 mm is 0.001


def make_frames(rng, videos, subjects):
    """Videos of these lengths, of these subjects."""
    lengths = np.array(videos)
    count = int(lengths.sum())
    return TestFrames(
        actions=["all"],
        videos=[f"v{k}" for k in range(len(videos))],
        action=np.zeros(count, np.int32),
        video=np.repeat(np.arange(len(videos), dtype=np.int32), lengths),
        factor=np.full(count, FACTOR),
        pose_3d_mm=rng.normal(0, 300, (count, 17, 3)),
        image_size=np.full((count, 2), SIZE, np.float32),
        subjects=subjects,
        test_set="toy (of noise)",
    )


def normalised(pose_mm):
    """What a network would have to predict: root at 0, in the screen's unit."""
    return (pose_mm - pose_mm[:, :1]) / (FACTOR * SIZE / 2)


def corner(degrees, radius=100.0):
    """A pose whose left knee has this angle, in the x-y plane; all other joints are at 0."""
    pose = np.zeros((17, 3))
    hip, knee, ankle = (H36M.index(f"left_{name}") for name in ("hip", "knee", "ankle"))
    pose[knee] = [0, 0, 50]
    pose[hip] = pose[knee] + [radius, 0, 0]
    turned = math.radians(degrees)
    pose[ankle] = pose[knee] + [radius * math.cos(turned), radius * math.sin(turned), 0]
    return pose


@pytest.mark.parametrize("degrees", [0, 1e-4, 30, 90, 143, 179.9999, 180])
def test_an_angle_by_hand(degrees):
    joints = [H36M.index(f"left_{name}") for name in ("hip", "knee", "ankle")]
    assert metrics.angle(corner(degrees), *joints) == pytest.approx(degrees, abs=1e-9)


def test_the_knee_error_is_the_mean_of_both_knees():
    """The left knee 161° instead of 143°, the right one right: 9°, with one side's mirror alike."""
    pred, target = corner(161), corner(143)
    assert angle_error(pred, target, H36M, "knee") == pytest.approx(9)
    assert angle_error(target, pred, H36M, "knee") == pytest.approx(9)
    swapped = list(H36M.flip_order)
    assert angle_error(pred[swapped], target[swapped], H36M, "knee") == pytest.approx(9)


def test_the_hip_angle_is_between_trunk_and_thigh():
    """Upright 180°; the thighs lifted until level: 90°. The elbows do not take part."""
    standing = np.zeros((17, 3))
    standing[H36M.index("thorax")] = [0, 500, 0]
    standing[[H36M.index(f"{side}_knee") for side in ("left", "right")]] = [0, -400, 0]
    sitting = standing.copy()
    sitting[[H36M.index(f"{side}_knee") for side in ("left", "right")]] = [0, 0, 400]
    assert angle_error(sitting, standing, H36M, "hip") == pytest.approx(90)
    assert angle_error(sitting, standing, H36M, "elbow") == 0


def by_loops(poses, clips, frames):
    """Every number of the protocol, frame by frame."""
    scale = FACTOR * SIZE / 2
    known = {}
    for clip, pose in zip(clips, poses, strict=True):
        for t, frame in enumerate(clip):
            known.setdefault(int(frame), []).append(np.concatenate([np.zeros((1, 3)), pose[t, 1:]]))
    pred = {frame: scale * np.mean(found, axis=0) for frame, found in known.items()}
    truth = {frame: frames.pose_3d_mm[frame] - frames.pose_3d_mm[frame][0] for frame in pred}
    errors = {}

    def note(name, frame, value):
        errors.setdefault(name, {})[frame] = value

    def interior(pose, *names):
        a, b, c = (pose[H36M.index(name)] for name in names)
        cosine = (a - b) @ (c - b) / math.dist(a, b) / math.dist(c, b)
        return math.degrees(math.acos(cosine))

    for frame in pred:
        p, g = pred[frame], truth[frame]
        note("mpjpe", frame, loop_mpjpe(p, g))
        note("p_mpjpe", frame, best_rotation_error(p, g))
        for name, corners in {
            "knee": ("{}_hip", "{}_knee", "{}_ankle"),
            "elbow": ("{}_shoulder", "{}_elbow", "{}_wrist"),
            "hip": ("thorax", "{}_hip", "{}_knee"),
        }.items():
            both = []
            for side in ("left", "right"):
                joints = [corner.format(side) for corner in corners]
                both.append(abs(interior(p, *joints) - interior(g, *joints)))
            note(name, frame, sum(both) / 2)

        def is_next(later, frame=frame):
            return later in pred and frames.video[later] == frames.video[frame]

        if is_next(frame + 1):
            step = [x[frame + 1] - x[frame] for x in (pred, truth)]
            note("mpjve", frame, loop_mpjpe(*step))
            if is_next(frame + 2):
                bend = [x[frame + 2] - 2 * x[frame + 1] + x[frame] for x in (pred, truth)]
                note("acceleration", frame, loop_mpjpe(*bend))
    return errors


def test_the_protocol_against_loops(rng):
    """Overlapping clips of every second frame, one repeating its frames; some frames in none."""
    frames = make_frames(rng, [11, 9, 3, 6], ["Ann", "Bob", "Bob", "Cy"])
    clips = np.array(
        [[0, 2, 4, 6], [1, 3, 5, 7], [4, 6, 8, 10], [11, 12, 13, 14], [20, 20, 21, 22]]
    )
    poses = rng.normal(0, 0.3, (*clips.shape, 17, 3))
    report = evaluate_mocap(poses.astype(np.float32), clips, frames, H36M)
    expected = by_loops(poses.astype(np.float32).astype(float), clips, frames)
    assert report.averages.keys() == expected.keys()
    for name, errors in expected.items():
        assert report.averages[name] == pytest.approx(np.mean([*errors.values()]), rel=1e-6), name
        for subject in ("Ann", "Bob"):
            own = [e for f, e in errors.items() if frames.subjects[frames.video[f]] == subject]
            assert report.per_subject[subject][name] == pytest.approx(np.mean(own), rel=1e-6)
    assert "Cy" not in report.per_subject  # none of whose frames was predicted
    assert (report.frames, report.left_out) == (10 + 4 + 3, 1 + 5 + 6)


def test_a_perfect_prediction_has_no_error(rng):
    frames = make_frames(rng, [8, 5], ["Ann", "Bob"])
    clips = clip_index(frames.video, 4, 4)
    report = evaluate_mocap(normalised(frames.pose_3d_mm)[clips], clips, frames, H36M)
    for name, value in report.scores().items():
        assert value == pytest.approx(0, abs=1e-6), name
    assert list(report.per_subject) == ["Ann", "Bob"]


def test_all_frames_count_alike(rng):
    """Ann's 8 frames 17 mm off in one of 17 joints, Bob's 2 exact: 8 / 10 mm, not 1 / 2."""
    frames = make_frames(rng, [8, 2], ["Ann", "Bob"])
    clips = clip_index(frames.video, 2, 2)
    poses = normalised(frames.pose_3d_mm)
    poses[:8, 16, 2] += 17 / 1000
    report = evaluate_mocap(poses[clips], clips, frames, H36M)
    assert report.averages["mpjpe"] == pytest.approx(0.8)
    assert {s: e["mpjpe"] for s, e in report.per_subject.items()} == pytest.approx(
        {"Ann": 1.0, "Bob": 0.0}, abs=1e-9
    )
    assert report.per_joint["right_wrist"] == pytest.approx(8 / 10 * 17)
    assert report.averages["mpjve"] == pytest.approx(0, abs=1e-9)


def test_velocity_and_acceleration_by_hand(rng):
    """The wrist 17 mm off in every second frame: all steps are wrong by 1 mm of mean joint error,
    all bends by 2 mm. No step leads from one video to the next."""
    frames = make_frames(rng, [6, 6], ["Ann", "Bob"])
    clips = clip_index(frames.video, 3, 3)
    poses = normalised(frames.pose_3d_mm)
    poses[[0, 2, 4, 6, 8, 10], 16, 0] += 17 / 1000
    report = evaluate_mocap(poses[clips], clips, frames, H36M)
    assert report.averages["mpjve"] == pytest.approx(1)
    assert report.averages["acceleration"] == pytest.approx(2)


def test_a_frame_of_two_clips_has_their_mean(rng):
    """10 mm too far and 10 mm too near: right."""
    frames = make_frames(rng, [3], ["Ann"])
    clips = np.array([[0, 1, 2], [0, 1, 2]])
    poses = normalised(frames.pose_3d_mm)[clips]
    poses[0, ..., 1:, 2] += 0.01
    poses[1, ..., 1:, 2] -= 0.01
    assert evaluate_mocap(poses, clips, frames, H36M).averages["mpjpe"] == pytest.approx(
        0, abs=1e-6
    )
    mean, seen = mean_of_clips(np.ones((1, 2, 17, 3)), np.array([[2, 2]]), 4)
    assert seen.tolist() == [False, False, True, False]
    assert (mean[2] == 1).all()


def test_where_the_videos_are_cut_does_not_matter(rng):
    """The same frames in long clips and in short ones: the same numbers."""
    frames = make_frames(rng, [12, 12], ["Ann", "Bob"])
    poses = rng.normal(0, 0.3, (24, 17, 3)).astype(np.float32)
    one, two = (
        evaluate_mocap(poses[clips], clips, frames, H36M).as_dict()
        for clips in (np.arange(24).reshape(4, 6), np.arange(24).reshape(8, 3))
    )
    assert one == two


def test_parts_that_were_predicted_apart_meet_in_the_middle(rng):
    """The even frames 10 mm too far, the odd ones 10 mm too near: wrong at the ends only, where
    the motion goes on as it was: by the 10 mm, in 2 of 12 frames and 16 of 17 joints."""
    frames = make_frames(rng, [12], ["Ann"])
    frames.pose_3d_mm[:] = frames.pose_3d_mm[0]
    clips = np.array([range(0, 12, 2), range(1, 12, 2)])
    poses = normalised(frames.pose_3d_mm)[clips]
    poses[0, ..., 1:, 2] += 0.01
    poses[1, ..., 1:, 2] -= 0.01
    report = evaluate_mocap(poses, clips, frames, H36M)
    assert report.averages["mpjpe"] == pytest.approx(10 * 16 / 17 * 2 / 12, rel=1e-5)
    in_order = evaluate_mocap(normalised(frames.pose_3d_mm)[clips], clips, frames, H36M)
    assert in_order.averages["mpjpe"] == pytest.approx(0, abs=1e-6)


def test_the_mean_of_parts_by_hand():
    two = np.array([0.0, 8, 0, 8, 0])
    np.testing.assert_allclose(mean_of_parts(two, 2), [0, 4, 4, 4, 0])
    three = np.array([0.0, 3, 6, 0, 3, 6])
    np.testing.assert_allclose(mean_of_parts(three, 3), [0, 3, 3, 3, 3, 6])
    line = np.arange(9.0)[:, None] * [1, -2]
    for parts in range(1, 6):
        np.testing.assert_allclose(mean_of_parts(line, parts), line, atol=1e-12)
    assert mean_of_parts(two[:1], 2) == two[:1]


def test_the_table_and_the_report_name_the_protocol_and_the_set(rng):
    frames = make_frames(rng, [8, 1], ["Ann", "Bob"])
    clips = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 8, 8, 8]])
    poses = rng.normal(0, 0.3, (*clips.shape, 17, 3))
    report = evaluate_mocap(poses, clips, frames, H36M)
    assert report.per_subject["Bob"].keys() == report.averages.keys() - {"mpjve", "acceleration"}
    lines = report.table().splitlines()
    assert lines[-1] == f"protocol mocap {VERSION}, test set toy (of noise)"
    averages = [f"{value:.2f}" for value in report.averages.values()]
    assert lines[-3].split() == ["all", "frames", *averages]
    assert lines[-4].split()[0] == "Bob" and lines[-4].count("–") == 2
    found = json.loads(json.dumps(report.as_dict()))
    assert found["protocol"] == {"name": "mocap", "version": VERSION}
    assert found["test_set"] == "toy (of noise)"
    assert found["per_subject"] == report.per_subject


def test_a_store_keeps_subjects_and_says_which_set_it_is(rng, tmp_path):
    frames = make_frames(rng, [8, 5], ["Ann", "Bob"])
    clips = clip_index(frames.video, 4, 4)
    pose = frames.pose_3d_mm.astype(np.float32)
    with ArrayWriter(tmp_path / "set-4", 4, "benchmark 1") as writer:
        writer.add("test", pose, pose, clips, frames)
    stored = ArrayClips(tmp_path / "set-4", "test").test_frames()
    assert (stored.subjects, stored.test_set) == (["Ann", "Bob"], "set-4 (of benchmark 1)")


def test_sets_that_cannot_be_scored_are_told(rng):
    frames = make_frames(rng, [4], ["Ann"])
    clips = np.arange(4)[None]
    poses = np.zeros((1, 4, 17, 3))
    with pytest.raises(UserError, match="does not name its videos' subjects"):
        evaluate_mocap(poses, clips, make_frames(rng, [4], []), H36M)
    poses[0, 2, 3] = np.nan
    with pytest.raises(UserError, match="not finite in 1 of 1 test clips"):
        evaluate_mocap(poses, clips, frames, H36M)
    with pytest.raises(UserError, match="holds no clips"):
        evaluate_mocap(poses[:0], clips[:0], frames, H36M)
