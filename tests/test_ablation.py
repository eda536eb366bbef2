"""The ablation: its runs are the project's own, can be resumed, and are compared seed by seed."""

import itertools
import json
import math

import pytest
import torch

import train
from data.loader import ClipLoader
from lib.geometry import bone_features, flip_pose, polar_bins
from lib.skeleton import H36M
from lib.training.options import Options
from lib.training.session import Session
from tests.benchmarks import ablation, budget, variants
from tests.training import make_data, run_command

TOY = {
    "dataset": "h36m",
    "subset_list": "[H36M-9]",
    "dt_file": "synthetic.pkl",
    "n_frames": 9,
    "channel": 8,
    "st_depth": 2,
    "d_state": 4,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("ablation")
    make_data(root)
    return root


def overrides(root):
    return [f"{key}={value}" for key, value in {**TOY, "data_root": root}.items()]


def run(root, out, *names, seeds=1):
    flags = [f for key, value in TOY.items() for f in ("--set", f"{key}={value}")]
    flags += ["--data-root", root, "--out", out, "--seeds", seeds, "--variants", *names]
    threads = torch.get_num_threads()
    try:
        return run_command(ablation.main, [*flags, "--seconds", 1, "--stage1-seconds", 1])
    finally:
        torch.set_num_threads(threads)


def lines_of(out, kind="run"):
    lines = map(json.loads, (out / ablation.RESULTS).read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


@pytest.fixture(scope="module")
def done(root, tmp_path_factory):
    """A finished ablation of two variants, with what it printed; a step costs a third of it all."""
    out = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "step_costs", lambda fits: dict.fromkeys(fits, 0.33))
        status, printed, errors = run(root, out, "no bone branch")
    assert status == 0, errors
    return out, printed


def copied(out, other):
    """What a later call needs, in a folder of its own."""
    other.mkdir()
    for file in (*out.glob("stage1-*"), out / ablation.RESULTS):
        (other / file.name).write_bytes(file.read_bytes())
    return other


def test_every_finished_run_is_a_line(done):
    out, printed = done
    runs = lines_of(out)
    assert [(r["variant"], r["seed"]) for r in runs] == [("base", 0), ("no bone branch", 0)]
    for one in runs:
        assert one["steps"] == 3
        assert one["cpu_seconds"] > 0
        assert f"{one['scores']['mpjpe']:.1f}" in printed
    assert [line["variant"] for line in lines_of(out, "stage1")] == ["stage 1 of 6 bins"]
    assert printed.strip().endswith((out / ablation.TABLE).read_text().strip())
    plot = (out / ablation.PLOT).read_text()
    assert plot.startswith("<?xml") and "no bone branch" in plot
    assert not (out / ablation.RUNNING).exists()


def test_a_later_variant_is_measured_in_the_unit_of_the_first(root, done, tmp_path, monkeypatch):
    """The machine takes twice as long today: 0.9 s a step are 0.45 s of then, so 2 steps."""
    out, _ = done
    other = copied(out, tmp_path / "later")
    costs = {"base": 0.66, "graph: none": 0.9}
    monkeypatch.setattr(ablation, "step_costs", lambda fits: {name: costs[name] for name in fits})
    assert run(root, other, "no bone branch", "graph: none")[0] == 0
    new = {line["variant"]: line for line in lines_of(other, "cost")}
    assert new["graph: none"]["cpu_seconds_per_step"] == pytest.approx(0.45)
    assert new["base"]["cpu_seconds_per_step"] == 0.33
    assert [(line["variant"], line["steps"]) for line in lines_of(other)][2:] == [
        ("graph: none", 2)
    ]


def test_a_second_call_runs_nothing(root, done, monkeypatch):
    out, printed = done
    monkeypatch.setattr(ablation, "make_fit", None)  # to call it would fail
    before = (out / ablation.RESULTS).read_bytes()
    status, again, _ = run(root, out, "no bone branch")
    assert status == 0
    assert again.splitlines()[-5:] == printed.splitlines()[-5:]
    assert (out / ablation.RESULTS).read_bytes() == before


def test_an_interrupted_run_starts_anew_and_ends_the_same(root, done, tmp_path, monkeypatch):
    """Without its last run's line, and with half a run's folder, the same numbers come out."""
    out, _ = done
    other = copied(out, tmp_path / "again")
    kept = (out / ablation.RESULTS).read_text().splitlines(keepends=True)
    (other / ablation.RESULTS).write_text("".join(kept[:-1]))
    (other / ablation.RUNNING).mkdir()
    (other / ablation.RUNNING / "best_epoch.pth.tr").write_bytes(b"half")
    assert run(root, other, "no bone branch")[0] == 0
    for old, new in zip(lines_of(out), lines_of(other), strict=True):
        assert {**old, "cpu_seconds": 0} == {**new, "cpu_seconds": 0}


def test_other_settings_are_refused(root, done):
    out, _ = done
    flags = ("--set", "batch_size=4", "--data-root", root, "--out", out, "--seconds", 1)
    flags += ("--variants", "no bone branch")
    toys = [f for key, value in TOY.items() for f in ("--set", f"{key}={value}")]
    status, _, errors = run_command(ablation.main, [*toys, *flags])
    assert (status, errors.count("\n")) == (2, 1)
    assert "was run with another batch_size" in errors


def test_a_folder_in_use_is_refused(root, done):
    out, _ = done
    with ablation.held(out):
        status, _, errors = run(root, out, "no bone branch")
    assert (status, errors.count("\n")) == (2, 1)
    assert "another ablation is running there" in errors


def test_an_unknown_variant_is_named_with_the_nearest(root, tmp_path):
    status, _, errors = run(root, tmp_path, "no bone brunch")
    assert (status, errors.count("\n")) == (2, 1)
    assert "did you mean 'no bone branch'" in errors


def test_a_damaged_file_of_results_is_told(root, tmp_path):
    (tmp_path / ablation.RESULTS).write_text('{"kind": ')
    status, _, errors = run(root, tmp_path, "base")
    assert (status, errors.count("\n")) == (2, 1)
    assert "results.jsonl: cannot be read" in errors


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_a_variant_changes_what_it_says_and_nothing_else(name):
    variant = variants.VARIANTS[name]
    base, changed = (variants.stage2_config(v).as_dict() for v in (variants.BASE, variant))
    differing = {key: value for key, value in changed.items() if value != base[key]}
    assert differing == variant.keys
    assert variant.keys or variant.true_bins or variant is variants.BASE
    first, own = (variants.stage1_config(v).as_dict() for v in (variants.BASE, variant))
    assert {key for key in own if own[key] != first[key]} <= set(variants.SHARED_KEYS)


def test_differences_are_between_equal_seeds():
    """By hand: -10, -6 and -11 are -9 ± 2.65 / √3 = 1.53. The fourth seed has no base."""

    def line(variant, seed, mpjpe):
        return {"variant": variant, "seed": seed, "steps": 7, "scores": {"mpjpe": mpjpe}}

    runs = [line("base", seed, m) for seed, m in enumerate((100.0, 104.0, 102.0))]
    runs += [line("better", seed, m) for seed, m in enumerate((90.0, 98.0, 91.0, 5.0))]
    runs += [line("worse", 1, 110.0)]
    base, better, worse = ablation.compare(runs)
    assert (base.name, better.name, worse.name) == ("base", "better", "worse")
    assert better.differences == [-10, -6, -11]
    assert (better.difference, better.error) == pytest.approx((-9, 1.5275), abs=1e-3)
    assert math.isnan(worse.error)
    table = ablation.markdown([base, better, worse], 120, 480)
    assert "| base | 7 | 102.0 ± 1.2 | – | 3 |" in table
    assert "| better | 7 | 93.0 ± 2.5 | -9.0 ± 1.5 | 3 |" in table
    assert "| worse | 7 | 110.0 | +6.0 | 1 |" in table


def test_every_kind_of_stage_is_scored_on_fewer_clips(root, done):
    """Of 16 test clips the first, fifth, ninth … remain, with their frames."""
    out, _ = done
    (stage1,) = out.glob("stage1-6-0-*")
    first = variants.stage1_config(variants.BASE, overrides(root))
    bones = budget.make_fit(first, out / "x", 1, 0, silent=True).stage
    whole = train.make_stage(Session(Options(), train.complete(first))).test
    numbers = range(0, len(whole), budget.EVERY)
    assert 2 < len(numbers) < len(whole)
    expected = whole.__getitems__(list(numbers)).pose_3d
    assert torch.equal(bones.test.__getitems__(range(len(bones.test))).pose_3d, expected)
    for name in ("base", "stage 1 trained along"):
        config = variants.stage2_config(variants.VARIANTS[name], overrides(root))
        stage = budget.make_fit(config, out / "x", 1, 0, stage1=stage1, silent=True).stage
        assert torch.equal(stage.test.__getitems__(range(len(stage.test))).pose_3d, expected)
        report = stage.evaluate(stage.model).as_dict()
        assert report["frames"] == 9 * len(numbers)


# --- One run ----------------------------------------------------------------------------------


def test_epochs_become_one_of_so_many_steps(root):
    config = train.complete(variants.stage2_config(variants.BASE, overrides(root)))
    loader = train.make_loader(Session(Options(), config, seed=3), H36M)
    assert isinstance(loader, ClipLoader)
    count = len(loader)
    steps = budget.Steps(loader, count + 2)
    expected = [*loader.batches(0), *itertools.islice(loader.batches(1), 2)]
    found = list(steps.batches(0))
    assert [b.clips for b in found] == [b.clips for b in expected]
    assert len(steps) == len(found)
    assert [b.clips for b in steps.batches(0, count)] == [b.clips for b in expected[count:]]


# The toy's clips are stored, so its views cannot be fixed.
@pytest.mark.parametrize("name", [name for name in variants.VARIANTS if name != "fixed views"])
def test_every_variant_can_be_trained(root, tmp_path, name):
    """One step moves the weights, and leaves them finite."""
    variant, stage1 = variants.VARIANTS[name], tmp_path / "stage1.pth.tr"
    first = variants.stage1_config(variant, overrides(root))
    budget.save_weights(budget.make_fit(first, tmp_path, 1, 0, silent=True), stage1)
    config = variants.stage2_config(variant, overrides(root))
    flags = {"true_bins": variant.true_bins, "silent": True}
    fit = budget.make_fit(
        config, tmp_path, 1, 0, stage1=stage1 if config.bone_branch else None, **flags
    )
    before = {key: value.clone() for key, value in fit.stage.model.state_dict().items()}
    fit.time_step(next(iter(fit.loader.batches(0))))
    after = fit.stage.model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert "lifter.embed.weight" in moved
    assert any(key.startswith("bone_aware") for key in moved) == config.train_bone_aware


def test_a_step_is_timed_without_its_data(root, done, monkeypatch):
    """By a clock that says 1, 2, 3 … when asked: each step takes 1, the median of all too."""
    out, _ = done
    config = variants.stage2_config(variants.VARIANTS["no bone branch"], overrides(root))
    fits = {n: budget.make_fit(config, out / "x", 9, 0, silent=True) for n in ("one", "two")}
    clock = itertools.count()
    monkeypatch.setattr(budget.time, "process_time", lambda: next(clock))
    assert budget.step_costs(fits) == {"one": 1, "two": 1}
    assert fits["one"].cpu_seconds == budget.WARM + budget.TIMED == fits["one"].at.step


def test_the_oracle_knows_the_bins_of_every_clip(root, done):
    """In training, in evaluation and mirrored: the features are those of the labels' bins."""
    out, _ = done
    (stage1,) = out.glob("stage1-6-0-*")
    config = variants.stage2_config(variants.VARIANTS["true bins"], overrides(root))
    fit = budget.make_fit(config, out / "x", 1, 0, stage1=stage1, true_bins=True, silent=True)
    stage, poses, features = fit.stage, [], []
    stage.model.register_forward_pre_hook(lambda _, given: poses.append(given[0]))
    stage.model.lifter.register_forward_pre_hook(lambda _, given: features.append(given[1]))
    batch = next(fit.loader.batches(0))
    stage.losses(batch)
    stage.evaluate(stage.model)
    labels = [batch.pose_3d]
    for start in range(0, len(stage.test), config.batch_size):
        numbers = range(start, min(start + config.batch_size, len(stage.test)))
        clips = stage.test.__getitems__(list(numbers))
        labels.append(torch.cat((clips.pose_3d, flip_pose(clips.pose_3d, H36M))))
    for pose_2d, found, label in zip(poses, features, labels, strict=True):
        own = pose_2d / unit_by_hand(pose_2d)
        assert torch.allclose(found, bone_features(own, polar_bins(label, H36M), H36M), atol=1e-5)
    assert not list((out / "x").glob("*"))  # silent: nothing written


def unit_by_hand(pose_2d):
    """(B, 1, 1, 1): by hand, the root mean square of the root-relative x and y over 0.3."""
    own = pose_2d[..., :2] - pose_2d[..., :1, :2]
    return own.square().mean((1, 2, 3), keepdim=True).sqrt() / 0.3
