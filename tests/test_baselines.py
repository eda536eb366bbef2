"""The benchmark's simple methods: formulas, what networks see of a clip, CPU time used."""

import itertools
import json
from functools import partial

import pytest
import torch

from lib.batch import Batch
from lib.evaluation.predict import predict
from lib.geometry import flip_pose
from lib.skeleton import H36M
from tests.benchmarks import baselines, rivals
from tests.training import make_data, run_command

T = 9


def random_batch(seed=0, clips=4, frames=T):
    generator = torch.Generator().manual_seed(seed)
    poses = torch.randn(2, clips, frames, 17, 3, generator=generator)
    return Batch(poses[0], poses[1], list(range(clips)))


def test_the_answer_wanted_of_a_method_is_what_scores_best():
    """Whatever Scaled asks of its inner part gives the root-relative pose back, exactly."""
    batch = random_batch()
    _, answer = rivals.Scaled(torch.nn.Identity(), H36M).task(batch)

    class Knows(torch.nn.Module):
        def forward(self, seen):
            return answer

    model = rivals.Scaled(Knows(), H36M)
    expected = batch.pose_3d - batch.pose_3d[..., :1, :]
    assert torch.allclose(model(batch.pose_2d), expected, atol=1e-5)


def test_the_size_of_a_person_on_the_screen_does_not_matter():
    """Twice as large around the root: the inner part sees the same, its answer counts double."""
    batch = random_batch()
    root = batch.pose_2d[..., :1, :2]
    larger = batch.pose_2d.clone()
    larger[..., :2] = root + 2 * (larger[..., :2] - root)
    model = rivals.Scaled(rivals.FrameMLP(H36M, 16), H36M).eval()
    assert torch.allclose(model(larger), 2 * model(batch.pose_2d), atol=1e-5)


def test_the_mean_pose_by_hand():
    """A person of unit 1 with depth 1, one of unit 2 with depth 4: the mean is 1.5 units."""
    one = random_batch(clips=1)
    one.pose_2d[..., :2] /= rivals.person_unit(one.pose_2d, 0)
    two = Batch(2 * one.pose_2d, torch.zeros_like(one.pose_3d), [0])
    one.pose_3d = torch.zeros_like(one.pose_3d)
    one.pose_3d[..., 5, 2], two.pose_3d[..., 5, 2] = 1.0, 4.0
    mean = rivals.MeanPose(H36M)
    mean.fit(iter([one, two]))
    for batch, depth in ((one, 1.5), (two, 3.0)):
        assert torch.allclose(mean(batch.pose_2d)[..., 5, 2], torch.tensor(depth))
    assert mean(two.pose_2d).count_nonzero() == T


def test_least_squares_finds_a_linear_map():
    """120 clips of 2 frames have more rows than unknowns: the map is found, the constant too."""
    generator = torch.Generator().manual_seed(1)
    size = 2 * 17 * 3
    true = torch.randn(size + 1, size, generator=generator)
    linear = rivals.LeastSquares(H36M, 2)

    def pairs():
        for seed in range(3):
            seen = random_batch(seed, clips=40, frames=2).pose_2d
            yield seen, (seen.flatten(1) @ true[:-1] + true[-1]).view(seen.shape)

    linear.fit(pairs())
    assert torch.allclose(linear.weight, true, atol=1e-3)
    seen, answer = next(pairs())
    assert torch.allclose(linear(seen), answer, atol=1e-3)


def reach(model, frames, of):
    """Which frames of a clip the answer for one of them depends on."""
    seen = random_batch(frames=frames).pose_2d.requires_grad_()
    model.eval()(seen)[:, of].sum().backward()
    return seen.grad.abs().sum((0, 2, 3)).ne(0).tolist()


def test_the_mlp_sees_one_frame():
    assert reach(rivals.FrameMLP(H36M, 32), T, 3) == [t == 3 for t in range(T)]


@pytest.mark.parametrize("frames", [1, T, 27])
def test_the_tcn_sees_the_clip_and_is_of_our_size(frames):
    def make(width):
        return rivals.DilatedTCN(H36M, frames, width)

    width = rivals.widest(make, baselines.PARAMETERS)
    model = make(width)
    sizes = [rivals.count_parameters(make(w)) for w in (width, width + 8)]
    assert sizes[0] <= baselines.PARAMETERS < sizes[1]
    assert sizes[0] > 0.9 * baselines.PARAMETERS
    assert all(reach(model, frames, frames // 2))


def test_single_frames_come_once_each_and_keep_their_pairs():
    batch = random_batch(clips=6)
    numbered = torch.arange(6.0 * T).view(6, T, 1, 1).expand(6, T, 17, 3)
    pairs = iter([(numbered, batch.pose_3d)])
    frames = list(rivals.single_frames(pairs, 9, torch.Generator().manual_seed(0)))
    assert [len(seen) for seen, _ in frames] == [9] * 6
    numbers = torch.cat([seen[:, 0, 0, 0] for seen, _ in frames]).long()
    assert sorted(numbers.tolist()) == list(range(6 * T))
    assert numbers.tolist() != list(range(6 * T))
    poses = torch.cat([answer for _, answer in frames])[:, 0]
    assert torch.equal(poses, batch.pose_3d.flatten(0, 1)[numbers])


def test_training_stops_when_its_cpu_time_is_used():
    """Every step takes 2 seconds of a clock that only steps move: 5 steps for 10 or 9 seconds."""
    model = rivals.Scaled(rivals.FrameMLP(H36M, 8), H36M)
    pair = model.task(random_batch())
    for budget, steps in ((10, 5), (9, 5), (1, 1)):
        clock = itertools.count(step=2.0)
        trained = rivals.train(model.inner, itertools.repeat(pair), budget, lambda c=clock: next(c))
        assert (trained.steps, trained.cpu_seconds) == (steps, 2.0 * steps)
    assert not model.inner.training


def test_training_lowers_the_loss():
    batch = random_batch()
    model = rivals.Scaled(rivals.FrameMLP(H36M, 64), H36M)
    before = rivals.mpjpe_loss(model.eval()(batch.pose_2d), batch.pose_3d)
    clock = itertools.count()
    rivals.train(model.inner, itertools.repeat(model.task(batch)), 60, lambda: next(clock))
    after = rivals.mpjpe_loss(model(batch.pose_2d), batch.pose_3d)
    assert after < 0.9 * before


def test_the_learning_rate_rises_and_falls():
    assert rivals.cosine(0) == rivals.cosine(1) == rivals.cosine(1.2) == 0
    assert rivals.cosine(0.05) == pytest.approx(1, abs=0.01)
    assert rivals.cosine(0.5) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("baselines")
    make_data(root)
    return root


def test_the_command_scores_every_method(data, monkeypatch):
    monkeypatch.setattr(baselines, "PARAMETERS", 20_000)
    clock = itertools.count().__next__  # each step takes a second of it, however fast the machine
    monkeypatch.setattr(baselines, "train", partial(rivals.train, used=clock))
    monkeypatch.setattr(baselines, "step_costs", lambda fits: dict.fromkeys(fits, 15.0))
    threads = torch.get_num_threads()
    config = ("--config", data / "stage2.yaml", "--cpu-seconds", "150")
    status, out, errors = run_command(baselines.main, [*config, "--report", data / "r.json"])
    torch.set_num_threads(threads)
    assert status == 0, errors
    report = json.loads((data / "r.json").read_text())
    assert list(report["sets"]) == ["H36M-9"]
    scores = report["sets"]["H36M-9"]
    assert list(scores) == list(report["trainings"]) == list(baselines.METHODS)
    for method, found in scores.items():
        assert f"{found['mpjpe']:.2f}" in next(
            line for line in out.splitlines()[-6:] if line.startswith(method)
        )
    assert scores["residual MLP, single frames"]["mpjpe"] < scores["mean pose"]["mpjpe"]
    for method in ("residual MLP, single frames", "dilated TCN"):
        trained = report["trainings"][method]
        assert (trained["steps"], trained["cpu_seconds"]) == (150, 150)
    # 0.3 · 150 s of stage 1 at 15 s a step, and what is left of 150 s.
    trained = report["trainings"]["MDTF"]
    assert trained["steps"] in (12, 13) and 0 < trained["cpu_seconds"] < 30


def test_a_data_set_without_test_sets_of_its_own_is_told(data):
    flags = ["--config", data / "stage2.yaml", "--final"]
    status, _, errors = run_command(baselines.main, flags)
    assert (status, errors.count("\n")) == (2, 1)
    assert "--final: h36m has one test split" in errors


def test_the_mirror_image_gets_the_mirrored_pose(data):
    """Every method is averaged with the mirrored clip's answer, as MDTF is."""
    batch = random_batch()
    model = rivals.Scaled(rivals.FrameMLP(H36M, 16), H36M).eval()
    one = predict(model, batch.pose_2d, H36M, flip=True)
    two = predict(model, flip_pose(batch.pose_2d, H36M), H36M, flip=True)
    assert torch.allclose(flip_pose(torch.from_numpy(one), H36M), torch.from_numpy(two), atol=1e-5)
