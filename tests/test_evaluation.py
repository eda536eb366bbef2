"""Human3.6M's protocol against a loop over clips, frames, joints and actions."""

import math

import numpy as np
import pytest
import torch

from data.benchmarks import BENCHMARKS
from data.clips import ClipDataset
from data.sources.h36m import read_split
from lib.errors import UserError
from lib.evaluation.frames import to_millimetres
from lib.evaluation.h36m import evaluate_h36m, evaluated_clips
from lib.evaluation.predict import predict, predict_batch
from lib.geometry import flip_pose
from lib.skeleton import H36M
from tests.samples import CAMERAS, h36m_rows, h36m_tables, write_pickle
from tests.test_metrics import best_rotation_error, loop_mpjpe

T = 9
EXCLUDED = ("s_09_act_05_subact_02", "s_09_act_10_subact_02", "s_09_act_13_subact_01")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The rows of a small test split, its clips' frame ids, and the protocol's frames."""
    folder = tmp_path_factory.mktemp("evaluation")
    tables = h36m_tables()
    path = write_pickle(folder / "a.pkl", tables)
    benchmark = BENCHMARKS["h36m"]
    benchmark.slice(path, folder / "H36M-9", T)
    clips, frames = benchmark.test_frames(ClipDataset(folder / "H36M-9", "test", T).source, path)
    return tables["test"], clips, frames


def by_loops(rows, clips, poses, root_rel=True):
    """The whole protocol, a number at a time, from the rows of the file."""
    per_frame = {}  # (metric, frame) -> errors
    joints = [{} for _ in range(17)]

    def note(table, key, value):
        table.setdefault(key, []).append(value)

    for clip, pose in zip(clips, poses, strict=True):
        if rows["source"][clip[0]].startswith(EXCLUDED):
            continue
        width, height = CAMERAS[rows["camera_name"][clip[0]]]
        pred, target = [], []
        for t, frame in enumerate(clip):
            p = pose[t].astype(np.float64)
            if root_rel:
                p[0] = 0
            pixels = np.empty((17, 3))
            pixels[:, 0] = (p[:, 0] + 1) * width / 2
            pixels[:, 1] = (p[:, 1] + height / width) * width / 2
            pixels[:, 2] = p[:, 2] * width / 2
            p = pixels * float(rows["2.5d_factor"][frame])
            g = rows["joints_2.5d_image"][frame].astype(np.float64)
            pred.append(p - p[0])
            target.append(g - g[0])
        for t, frame in enumerate(clip):
            note(per_frame, ("mpjpe", frame), loop_mpjpe(pred[t], target[t]))
            note(per_frame, ("p_mpjpe", frame), best_rotation_error(pred[t], target[t]))
            for j in range(17):
                note(joints[j], frame, math.dist(pred[t][j], target[t][j]))
            if t < T - 1:
                velocity = loop_mpjpe(pred[t + 1] - pred[t], target[t + 1] - target[t])
                note(per_frame, ("mpjve", frame), velocity)
            if t < T - 2:
                bend = [x[t + 2] - 2 * x[t + 1] + x[t] for x in (pred, target)]
                note(per_frame, ("acceleration", frame), loop_mpjpe(*bend))

    def of_actions(errors):
        by_action = {}
        for frame, values in errors.items():
            note(by_action, rows["action"][frame], sum(values) / len(values))
        return {action: sum(v) / len(v) for action, v in by_action.items()}

    result = {"protocol": "", "per_action": {}, "per_joint": {}}
    for metric in ("mpjpe", "p_mpjpe", "mpjve", "acceleration"):
        found = of_actions({f: v for (m, f), v in per_frame.items() if m == metric})
        result[metric] = sum(found.values()) / len(found)
        for action, value in found.items():
            result["per_action"].setdefault(action, {})[metric] = value
    for name, errors in zip(H36M.names, joints, strict=True):
        found = of_actions(errors)
        result["per_joint"][name] = sum(found.values()) / len(found)
    result["frames"] = len({frame for _, frame in per_frame})
    return result


def compare(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, dict):
            compare(found[key], value)
        elif isinstance(value, str):
            assert found[key] == value
        else:
            assert found[key] == pytest.approx(value, rel=1e-6), key


@pytest.mark.parametrize("root_rel", [True, False])
def test_the_protocol_against_loops(data, rng, root_rel):
    rows, clips, frames = data
    poses = rng.normal(0, 0.3, (*clips.shape, 17, 3)).astype(np.float32)
    report = evaluate_h36m(poses, clips, frames, H36M, root_rel=root_rel)
    expected = by_loops(rows, clips, poses, root_rel)
    compare(report.as_dict(), expected)
    # All frames of the four videos that count, short ones included.
    assert expected["frames"] == 27 + 5 + 18 + 7
    assert sorted(expected["per_action"]) == ["Directions", "Eating", "Sitting"]


def test_overlapping_clips_share_their_frames(data, rng):
    """A frame in two clips has the mean of its two errors, whatever the number of clips."""
    rows, clips, frames = data
    overlapping = np.concatenate([clips, clips[:2] + 4, clips[:1]])
    poses = rng.normal(0, 0.3, (*overlapping.shape, 17, 3)).astype(np.float32)
    report = evaluate_h36m(poses, overlapping, frames, H36M)
    compare(report.as_dict(), by_loops(rows, overlapping, poses))


def exact_poses(rows, clips, frames):
    """Normalised poses that come out as the ground truth, root at 0."""
    target = rows["joints_2.5d_image"].astype(np.float64)
    target = (target - target[:, :1]) / rows["2.5d_factor"].astype(np.float64)[:, None, None]
    return (target * 2 / frames.image_size[:, :1, None])[clips]


def test_a_perfect_prediction_has_no_error(data):
    rows, clips, frames = data
    report = evaluate_h36m(exact_poses(rows, clips, frames), clips, frames, H36M)
    for name, value in report.scores().items():
        assert value == pytest.approx(0, abs=1e-3), name
    assert all(value < 1e-3 for value in report.per_joint.values())


def test_one_wrong_joint_by_hand(data):
    """The right wrist 1/1000 of the half width too deep: factor / 2 mm, over 17 joints."""
    rows, clips, frames = data
    poses = exact_poses(rows, clips, frames)
    poses[..., 16, 2] += 1e-3
    report = evaluate_h36m(poses, clips, frames, H36M)
    errors = rows["2.5d_factor"].astype(float) * 0.5
    used = {"Directions": range(27), "Eating": range(47, 70), "Sitting": range(79, 86)}
    by_action = {action: np.mean([errors[i] for i in ids]) for action, ids in used.items()}
    for action, error in by_action.items():
        assert report.per_action[action]["mpjpe"] == pytest.approx(error / 17, rel=1e-4)
    assert report.per_joint["right_wrist"] == pytest.approx(
        np.mean([*by_action.values()]), rel=1e-4
    )
    assert report.per_joint["left_wrist"] == pytest.approx(0, abs=1e-3)


def test_a_shifted_root_is_forgiven(data, rng):
    """The predicted root is set to 0, so that a value there changes nothing."""
    _, clips, frames = data
    poses = rng.normal(0, 0.3, (*clips.shape, 17, 3)).astype(np.float32)
    other = poses.copy()
    other[..., 0, :] = 7
    one, two = (evaluate_h36m(p, clips, frames, H36M) for p in (poses, other))
    assert one == two


def test_the_prediction_is_left_alone(data, rng):
    _, clips, frames = data
    poses = rng.normal(0, 0.3, (*clips.shape, 17, 3)).astype(np.float32)
    before = poses.copy()
    evaluate_h36m(poses, clips, frames, H36M)
    assert np.array_equal(poses, before)


def test_excluded_videos_by_hand(data):
    rows, clips, frames = data
    kept = evaluated_clips(frames, clips)
    for clip, is_kept in zip(clips, kept, strict=True):
        assert is_kept == (not rows["source"][clip[0]].startswith(EXCLUDED))
    assert kept.tolist() == [True] * 3 + [False] * 2 + [True] * 3 + [False] * 1 + [True] * 1


def test_millimetres_by_hand():
    """A joint half the width (500 px) beside the root at 4 mm/px is 2000 mm beside it."""
    rng = np.random.default_rng(0)
    rows = h36m_rows(rng, [("v", "54138969", "A", T)], is_test=True)
    rows["2.5d_factor"][:] = 4
    frames = read_split(rows, "test", "a").test_frames()
    poses = np.zeros((1, T, 17, 3), np.float32)
    poses[..., 5, :] = [1.0, -0.5, 0.25]
    found = to_millimetres(poses, np.arange(T)[None], frames, H36M)
    assert np.allclose(found[..., 5, :], [2000, -1000, 500])
    assert np.allclose(np.delete(found, 5, axis=-2), 0)


def test_the_table_ends_with_the_averages(data, rng):
    _, clips, frames = data
    poses = rng.normal(0, 0.3, (*clips.shape, 17, 3)).astype(np.float32)
    report = evaluate_h36m(poses, clips, frames, H36M)
    lines = report.table().splitlines()
    assert lines[-2].split() == ["average", *(f"{v:.2f}" for v in report.scores().values())]
    for name in (*H36M.names, *report.per_action):
        assert any(line.startswith(name) for line in lines)
    assert len({len(line) for line in lines if line[:1].isupper() or "average" in line}) == 1


def test_a_model_that_predicts_nan_is_told(data):
    _, clips, frames = data
    poses = np.zeros((*clips.shape, 17, 3), np.float32)
    poses[1, 2, 3] = np.nan
    with pytest.raises(UserError, match="not finite"):
        evaluate_h36m(poses, clips, frames, H36M)


def test_a_test_set_of_excluded_videos_alone_is_told(data):
    _, clips, frames = data
    only = clips[~evaluated_clips(frames, clips)]
    with pytest.raises(UserError, match=r"all 3 test clips .* leaves out"):
        evaluate_h36m(np.zeros((*only.shape, 17, 3), np.float32), only, frames, H36M)


# --- Flip averaging ---------------------------------------------------------------------------


class Lopsided(torch.nn.Module):
    """A model that treats left and right, and each call, as differently as can be."""

    def forward(self, pose):
        weights = torch.arange(1.0, 18)[:, None] * torch.tensor([1.0, 2.0, 3.0])
        return torch.sin(pose * weights) + pose[..., :1] ** 2


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_flip_averaging_by_hand(rng, batch_size):
    clips = rng.normal(0, 0.5, (5, 3, 17, 3)).astype(np.float32)
    model = Lopsided().eval()
    found = predict(model, clips, H36M, flip=True, batch_size=batch_size)
    swap = [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]
    seen = clips[:, :, swap] * [-1, 1, 1]
    turned = model(torch.from_numpy(seen.astype(np.float32))).numpy()[:, :, swap] * [-1, 1, 1]
    direct = model(torch.from_numpy(clips)).numpy()
    assert np.allclose(found, (direct + turned) / 2, atol=1e-6)
    assert found.dtype == np.float32
    plain = predict(model, clips, H36M, flip=False, batch_size=batch_size)
    assert np.allclose(plain, direct, atol=1e-6)
    assert not np.allclose(found, plain, atol=1e-2)


def test_flip_averaging_is_mirror_symmetric(rng):
    clips = torch.from_numpy(rng.normal(0, 0.5, (2, 3, 17, 3)).astype(np.float32))
    model = Lopsided().eval()
    one = predict_batch(model, clips, H36M, flip=True)
    other = predict_batch(model, flip_pose(clips, H36M), H36M, flip=True)
    assert torch.allclose(flip_pose(other, H36M), one, atol=1e-6)


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="eval"):
        predict(Lopsided().train(), np.zeros((1, 3, 17, 3), np.float32), H36M, flip=True)
