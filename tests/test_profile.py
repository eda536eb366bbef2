"""The profiler's counts against what a forward computes, and its command."""

import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lib.profile import main
from lib.skeleton import H36M, MPI_INF_3DHP
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.macs import count
from model.mdtf import MDTF
from model.ops import backend_asked_for, reference
from tests.mistakes import told

aten = torch.ops.aten


class Multiplications(TorchDispatchMode):
    """Counts those of all matrix products; where `inside` is set, all elementwise ones too."""

    def __init__(self):
        super().__init__()
        self.products, self.elementwise, self.inside = 0, 0, False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in (aten.mm.default, aten.bmm.default):
            self.products += result.numel() * args[0].shape[-1]
        elif function in (aten.addmm.default, aten.baddbmm.default):
            self.products += result.numel() * args[1].shape[-1]
        elif function in (aten.linear.default, aten.convolution.default, aten.matmul.default):
            raise AssertionError(f"{function} is not counted")
        elif function is aten.mul.Tensor and self.inside:
            self.elementwise += result.numel()
        return result


@pytest.fixture
def counted(monkeypatch):
    """Runs a model by the definition; returns (products, multiplications of convs and scans)."""
    mode = Multiplications()

    def watched(function):
        def run(*args, **kwargs):
            mode.inside = True
            try:
                return function(*args, **kwargs)
            finally:
                mode.inside = False

        return run

    monkeypatch.setattr(reference, "causal_conv", watched(reference.causal_conv))
    scan = watched(reference.scan)
    direction = reference.direction
    monkeypatch.setattr(
        reference, "direction", lambda *args, **kwargs: direction(*args, **kwargs | {"scan": scan})
    )

    def run(model, pose):
        with torch.no_grad(), backend_asked_for("sequential"), mode:
            model.eval()(pose)
        return mode.products, mode.elementwise

    return run


def lifter(skeleton, **ablation):
    bone_aware = BoneAwareModule(32, 2, root=skeleton.root)
    return MDTF(bone_aware, Lifter(skeleton, 5, 24, 3, **ablation), skeleton)


@pytest.mark.parametrize(
    ("skeleton", "ablation"),
    [
        (H36M, {}),
        (MPI_INF_3DHP, {"graph": "forward", "fusion": "mean", "d_conv": 3, "d_state": 5}),
        (H36M, {"graph": "none", "bone_features": 3}),
    ],
)
def test_the_counts_are_what_is_computed(counted, skeleton, ablation):
    model = lifter(skeleton, **ablation)
    counts = count(model.bone_aware, 17) + count(model.lifter, 17)
    products, elementwise = counted(model, torch.randn(2, 5, 17, 3))
    frames = 2 * 5
    of_scans = sum(c.macs for c in counts if c.part in ("conv", "scan"))
    assert frames * of_scans == elementwise
    assert frames * sum(c.macs for c in counts) == products + elementwise
    everything = sum(p.numel() for p in model.parameters())
    assert sum(c.parameters for c in counts) == everything


def profiled(tmp_path, *arguments):
    out = tmp_path / "profile.json"
    assert main([*map(str, arguments), "--json", str(out)]) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    ("config", "parameters", "paper"),
    [
        ("configs/h36m/tiny.yaml", 933_795, "12.8 M"),
        ("configs/h36m/large.yaml", 4_424_307, "58.7 M"),
        ("configs/h36m/first.yaml", 110_526, "no number"),
    ],
)
def test_the_published_models(tmp_path, capsys, config, parameters, paper):
    rows = profiled(tmp_path, "--config", config, "--count-only")["parts"]
    whole = {row["part"]: row for row in rows if row["stage"] == "whole"}
    assert whole["all"]["parameters"] == parameters
    twice = whole["all, averaged with the mirrored clip"]
    assert twice["MACs/frame"] == 2 * whole["all"]["MACs/frame"]
    assert f"{parameters:,}" in (shown := capsys.readouterr().out) and paper in shown


def test_measurements_of_a_checkpoint(checkpoint, tmp_path):
    flags = "--batch 2 --repeats 1 --training-batch 2 --device cpu --threads 1 --backends torch"
    found = profiled(tmp_path, "--checkpoint", checkpoint, *flags.split())
    (row,) = found["speed"]
    assert (row["backend"], row["T"], row["clips"]) == ("torch", 9, 2)
    assert row["frames/s"] == pytest.approx(1e3 * 9 * 2 / row["ms"])
    assert row["peak MB"] > 100  # PyTorch itself
    everything, *operators = found["training step"]
    assert everything["share"] == 1 and sum(row["share"] for row in operators) <= 1
    assert any("AdamW" in row["operator"] or "mdtf" in row["operator"] for row in operators)


def test_mistakes(tmp_path):
    assert "--config FILE or --checkpoint DIR" in told(main, [])
    assert "no such config" in told(main, ["--config", "nowhere.yaml"])
    assert "no such checkpoint" in told(main, ["--checkpoint", "nowhere"])
    wrong = ["--config", "configs/h36m/tiny.yaml", "--backends", "fast"]
    assert "invalid choice" in told(main, wrong)
    # Told before anything is measured, even of a checkpoint that is not there.
    (tmp_path / "file").touch()
    nowhere = ["--checkpoint", "nowhere", "--json", str(tmp_path / "file" / "x.json")]
    assert "cannot write" in told(main, nowhere)
