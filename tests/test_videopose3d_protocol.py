"""VideoPose3D's protocol: windows, scores and commands, against loops of the tests' own."""

import json

import numpy as np
import pytest

from data.benchmarks import BENCHMARKS
from data.clips import ClipDataset, centred_windows, covering_windows
from data.preprocess import h36m_videopose3d
from data.sequences import Sequences, Video
from lib.camera import H36M_CAMERAS
from lib.checkpoint import BEST
from lib.config import load_config
from lib.evaluation.frames import TestFrames
from lib.evaluation.predict import predict
from lib.evaluation.videopose3d import evaluate_videopose3d
from lib.skeleton import H36M
from model.build import load_mdtf
from tests.mistakes import told
from tests.training import CONFIG, read_run, run_command, run_train
from tests.videopose3d_files import CAMERA_NAMES, make_content, write_content

BENCHMARK = BENCHMARKS["h36m_videopose3d"]
T = 9

# --- Windows ----------------------------------------------------------------------------------


def videos_of(*lengths):
    camera = H36M_CAMERAS[CAMERA_NAMES[0]]
    videos = [Video(str(n), camera, "", "", 50.0, length) for n, length in enumerate(lengths)]
    nothing = np.empty(0)
    return Sequences(videos, nothing, nothing, nothing)


def test_windows_by_hand():
    """Videos of 7 and 2 frames and windows of 4: the first sticks out by one frame, at its end."""
    training = [[0, 1, 2, 3], [4, 5, 6, 6], [7, 7, 8, 8]]
    assert centred_windows(videos_of(7, 2), 4).tolist() == training
    assert covering_windows(videos_of(7, 2), 4).tolist() == [
        [0, 1, 2, 3],
        [3, 4, 5, 6],
        [7, 8, 8, 8],
    ]
    assert centred_windows(videos_of(6), 4).tolist() == [[0, 0, 1, 2], [3, 4, 5, 5]]
    assert covering_windows(videos_of(8), 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 243])
def test_windows_against_a_loop(frames):
    lengths = [1, 2, 3, 4, 5, 9, 10, 11, 16, 31, 32, 33, 243, 244, 500]
    training, test, start = [], [], 0
    for length in lengths:
        count = -(-length // frames)
        offset = (count * frames - length) // 2
        for window in range(count):
            places = range(window * frames - offset, (window + 1) * frames - offset)
            training.append([start + min(max(place, 0), length - 1) for place in places])
        for window in range(count):
            first = window * frames if window < count - 1 else max(0, length - frames)
            test.append([start + min(first + k, length - 1) for k in range(frames)])
        start += length
    assert centred_windows(videos_of(*lengths), frames).tolist() == training
    assert covering_windows(videos_of(*lengths), frames).tolist() == test


@pytest.fixture
def frames(rng):
    """Eight videos of three actions, of 5 to 14 frames."""
    lengths = [11, 7, 9, 14, 5, 9, 10, 12]
    video = np.repeat(np.arange(8), lengths)
    count = len(video)
    return TestFrames(
        actions=["Directions", "WalkDog", "Walking"],
        videos=[str(number) for number in range(8)],
        action=np.array([0, 0, 1, 2, 0, 1, 2, 2])[video],
        video=video,
        factor=np.full(count, 2.0),
        pose_3d_mm=rng.normal(0, 300, (count, 17, 3)).astype(np.float32),
        image_size=np.full((count, 2), [1000.0, 1002.0]),
    )


# --- The protocol -----------------------------------------------------------------------------


def scale_to(pose, target):
    scale = (pose * target).sum() / (pose * pose).sum()
    return np.linalg.norm(scale * pose - target, axis=-1).mean()


def aligned(pose, target):
    """P-MPJPE by the textbook: orthogonal Procrustes through the SVD of the covariance."""
    p, t = pose - pose.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(t.T @ p)
    d = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation, scale = u @ d @ vt, np.trace(np.diag(s) @ d) / (p * p).sum()
    return np.linalg.norm(scale * p @ rotation.T - t, axis=-1).mean()


def scored_one_by_one(poses, clips, frames, last_window, predicted_root):
    """Video by video, frame by frame, by the words of the protocol."""
    by_action = {}
    for video in np.unique(frames.video):
        shown, previous, seen = [], None, set()
        for clip, pose in zip(clips, poses, strict=True):
            if frames.video[clip[0]] == video:
                shown += list(zip(clip.tolist(), pose.astype(float), strict=True))
        for frame, pose in shown:
            if last_window == "once" and frame in seen:
                continue
            seen.add(frame)
            pred = 1000 * pose
            if predicted_root == "zeroed":
                pred[0] = 0
            target = frames.pose_3d_mm[frame].astype(float)
            target = target - target[0]
            found = by_action.setdefault(frames.actions[frames.action[frame]], ([], [], [], []))
            found[0].append(np.linalg.norm(pred - target, axis=-1).mean())
            found[1].append(aligned(pred, target))
            found[2].append(scale_to(pred, target))
            if previous is not None:
                change = (pred - previous[0]) - (target - previous[1])
                found[3].append(np.linalg.norm(change, axis=-1).mean())
            previous = pred, target
    means = {action: [np.mean(v) for v in values] for action, values in by_action.items()}
    return means, np.mean(list(means.values()), axis=0)


@pytest.mark.parametrize("last_window", ["twice", "once"])
@pytest.mark.parametrize("predicted_root", ["kept", "zeroed"])
@pytest.mark.parametrize("n_frames", [T, 13])
def test_scores_against_a_loop(frames, rng, last_window, predicted_root, n_frames):
    lengths = np.bincount(frames.video)
    clips = covering_windows(videos_of(*lengths), n_frames)
    truth = frames.pose_3d_mm - frames.pose_3d_mm[:, :1]
    truth = truth[clips] / 1000
    poses = (truth + rng.normal(0, 0.2, truth.shape)).astype(np.float32)
    report = evaluate_videopose3d(
        poses, clips, frames, H36M, last_window=last_window, predicted_root=predicted_root
    )
    per_action, average = scored_one_by_one(poses, clips, frames, last_window, predicted_root)
    names = ["mpjpe", "p_mpjpe", "n_mpjpe", "mpjve"]
    assert list(report.averages) == names
    assert list(report.averages.values()) == pytest.approx(average.tolist(), rel=1e-6)
    assert set(report.per_action) == set(per_action) == {"Directions", "WalkDog", "Walking"}
    for action, values in per_action.items():
        assert list(report.per_action[action].values()) == pytest.approx(values, rel=1e-6)
    assert report.frames == 77
    assert (report.per_joint["pelvis"] == 0) == (predicted_root == "zeroed")


def test_scores_by_hand():
    """Five frames and windows of three: frame 2 is in both. All joints but the root are 30 mm off
    in the first window and 60 in the last, so 45 on average if it counts twice, else 42; the root,
    off by 34, is one of 17 joints."""
    frames = TestFrames(
        ["Walking"], ["v"], np.zeros(5, int), np.zeros(5, int), np.full(5, 2.0),
        np.zeros((5, 17, 3), np.float32), np.full((5, 2), 1000.0),
    )  # fmt: skip
    poses = np.zeros((2, 3, 17, 3), np.float32)
    poses[0, :, 1:, 0], poses[1, :, 1:, 1], poses[:, :, 0, 2] = 0.030, 0.060, 0.034
    clips = covering_windows(videos_of(5), 3)

    def score(**choices):
        return evaluate_videopose3d(poses, clips, frames, H36M, **choices).averages

    others = 16 / 17
    assert score()["mpjpe"] == pytest.approx(45 * others + 34 / 17)
    assert score(last_window="once")["mpjpe"] == pytest.approx(42 * others + 34 / 17)
    assert score(predicted_root="zeroed")["mpjpe"] == pytest.approx(45 * others)
    # One change in five (or four) differences: from 30 mm in x to 60 mm in y.
    assert score()["mpjve"] == pytest.approx(np.hypot(30, 60) * others / 5)
    assert score(last_window="once")["mpjve"] == pytest.approx(np.hypot(30, 60) * others / 4)


def test_a_prediction_that_is_not_finite_is_told(frames):
    poses = np.zeros((2, T, 17, 3), np.float32)
    poses[1, 3, 4, 0] = np.nan
    clips = np.arange(2 * T).reshape(2, T)
    assert "not finite in 1 of 2 test clips" in told(
        evaluate_videopose3d, poses, clips, frames, H36M
    )


# --- The commands -----------------------------------------------------------------------------


def test_both_stages_train_and_the_report_says_how_it_was_scored(rng, tmp_path):
    write_content(tmp_path, *make_content(rng, {"Walking": 11}))
    assert run_command(h36m_videopose3d.main, ["--data-root", tmp_path, "--n-frames", T])[0] == 0
    configs = {}
    for stage in (1, 2):
        text = CONFIG.format(stage=stage, root=tmp_path).replace("dt_file: synthetic.pkl", "")
        configs[stage] = tmp_path / f"stage{stage}.yaml"
        configs[stage].write_text(
            text.replace("epochs: 2", "epochs: 1") + "dataset: h36m_videopose3d\n"
        )
    status, out, errors = run_train(
        "--config", configs[1], "--new-checkpoint", tmp_path / "stage1", "--set", "batch_size=50"
    )
    assert status == 0, errors
    assert "40 training and 16 test clips" in out
    stage1 = ("--stage1-checkpoint", tmp_path / "stage1" / BEST)
    status, _, errors = run_train(
        "--config", configs[2], "--new-checkpoint", tmp_path / "stage2", "--set", "batch_size=50",
        *stage1,
    )  # fmt: skip
    assert status == 0, errors
    # 40 clips, plain and mirrored, in batches of 50: two steps.
    assert read_run(tmp_path / "stage2")[0]["training"]["optimizer"]["state"][0]["step"] == 2
    found = {}
    for choice in ("last_window=twice", "last_window=once", "predicted_root=zeroed"):
        report = tmp_path / "report.json"
        flags = ("--eval-only", "--checkpoint", tmp_path / "stage2", "--report", report)
        status, out, errors = run_train(*flags, "--set", choice)
        assert status == 0, errors
        found[choice] = json.loads(report.read_text())
        assert all(remark in out for remark in found[choice]["remarks"])
    last, once, zeroed = found.values()
    assert last["remarks"] != once["remarks"] and last["mpjpe"] != once["mpjpe"]
    assert last["per_joint"]["pelvis"] > 0 == zeroed["per_joint"]["pelvis"]
    assert {"mpjpe", "p_mpjpe", "n_mpjpe", "mpjve"} <= set(last)
    clips = ClipDataset(tmp_path / "data_2d_h36m_cpn_ft_h36m_dbb-9", "test", T)
    model = load_mdtf(tmp_path / "stage2" / BEST)
    poses = predict(model, clips.__getitems__(list(range(16))).pose_2d, H36M, flip=True)
    windows, frames = clips.source.frame_ids, clips.source.test_frames()
    for report, choices in (
        (last, ("twice", "kept")), (once, ("once", "kept")), (zeroed, ("twice", "zeroed")),
    ):  # fmt: skip
        _, (p1, p2, p3, velocity) = scored_one_by_one(poses, windows, frames, *choices)
        scores = [report[name] for name in ("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve")]
        assert scores == pytest.approx([p1, p2, p3, velocity], rel=1e-5)
    history = json.loads((tmp_path / "stage2" / "history.jsonl").read_text().splitlines()[-1])
    assert history["test/mpjpe"] == pytest.approx(last["mpjpe"])


def test_published_configs_name_the_published_file():
    for name, stage in (("first", 1), ("tiny", 2), ("large", 2)):
        config = BENCHMARK.complete(load_config(f"configs/videopose3d/{name}.yaml", stage=stage))
        assert config.dt_file == "data_2d_h36m_cpn_ft_h36m_dbb.npz"
        assert config.clips_dir.name == "data_2d_h36m_cpn_ft_h36m_dbb-243"
        assert (config.last_window, config.predicted_root) == ("twice", "kept")
