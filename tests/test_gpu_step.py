"""What a training step on a GPU must not do, and data that lies there; tried out on the CPU."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from data.clips import ClipDataset
from data.loader import ClipLoader
from data.resident import on_device
from lib.batch import SharedBatch
from lib.cuda_graphs import Replayed
from lib.device import numerics
from lib.errors import UserError
from lib.losses import lifting_losses
from lib.processes import Processes
from lib.skeleton import H36M
from lib.training.compiled import Graphed, check_graphs, graph_model
from lib.training.optim import make_optimizer
from lib.training.step import BadNumber, Stepper
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.mdtf import MDTF
from tests.stores import T, write_arrays
from tests.training import run_train, stage2_flags

CPU = torch.device("cpu")
# What makes the host wait for a GPU: a number or a bool is read, or a size depends on values.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")


class Waits(TorchDispatchMode):
    """Counts the operations inside that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            t is not None and t.dtype == torch.bool
            for t in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if name.startswith(WAITS) or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("parts", [1, 2])
def test_nothing_in_a_step_waits_for_the_device(precision, parts):
    model = MDTF(BoneAwareModule(16, 1), Lifter(H36M, 3, 16, 1), H36M).train()
    weights = {"n_mpjpe": 0.5, "velocity": 20.0, "bone_angle": 1.0}
    step = Stepper(
        lambda batch: lifting_losses(model(batch.pose_2d).float(), batch.pose_3d, H36M, weights),
        make_optimizer(model, 1e-3, 0.01, "all"),
        device=CPU,
        processes=Processes(),
        precision=precision,
        grad_clip=1.0,
    )
    pose = torch.rand(2, 3, 17, 3)
    shares = [(0, 2)] if parts == 1 else [(0, 1), (1, 2)]
    batch = SharedBatch(pose, pose.clone(), [0, 1], shares, 2)
    step(batch)  # the first one makes the optimizer's state
    before = [p.clone() for p in model.lifter.parameters()]
    with Waits() as waits:
        step(batch)
    assert waits.seen == []
    if precision != "fp16":  # whose scale begins too high for a step
        assert any(
            not torch.equal(a, b) for a, b in zip(before, model.lifter.parameters(), strict=True)
        )
    with waits:
        step.check()
    assert waits.seen  # so they are counted


def adamw_stepper(losses) -> tuple[Stepper, nn.Parameter]:
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.AdamW([model.weight], lr=0.1, fused=True)
    found = Stepper(
        lambda batch: {"total": losses(model.weight, batch.pose_2d)},
        optimizer,
        device=CPU,
        processes=Processes(),
    )
    return found, model.weight


def numbers(*values: float) -> SharedBatch:
    pose = torch.tensor(values)
    clips = list(range(len(values)))
    return SharedBatch(pose, pose, clips, [(0, len(values))], len(values))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_step_is_left_out_and_told_later(bad):
    """Its neighbours count as if there had been none."""
    (step, weight), (alone, expected) = (
        adamw_stepper(lambda w, x: (w * x).square().mean()) for _ in range(2)
    )
    for batch in (numbers(1.0, 2.0), numbers(3.0, bad), numbers(5.0, 6.0)):
        step(batch)
    for batch in (numbers(1.0, 2.0), numbers(5.0, 6.0)):
        alone(batch)
    assert torch.equal(weight, expected)
    alone.check()
    with pytest.raises(BadNumber, match=rf"the loss is {bad} \(clips \[0, 1\]\)") as caught:
        step.check()
    assert caught.value.ago == 1
    step.check()  # told once


def test_an_infinite_loss_with_finite_gradients_is_left_out_too():
    step, weight = adamw_stepper(lambda w, x: (w * x).mean() + 1 / x.detach().sum())
    step(numbers(1.0, -1.0))
    assert weight.tolist() == [1.0, 2.0]
    with pytest.raises(BadNumber, match="the loss is inf"):
        step.check()


def test_a_gradient_that_is_not_finite_is_told_by_its_norm():
    step, weight = adamw_stepper(lambda w, x: (w - w.detach()).sqrt().sum())
    step(numbers(1.0))
    assert weight.tolist() == [1.0, 2.0]
    with pytest.raises(BadNumber, match=r"the gradient's norm is (inf|nan)"):
        step.check()


def test_a_run_is_stopped_with_the_step_that_went_wrong(data, tmp_path):
    """The first step overflows the weights, the second one's loss is not finite; it is told after
    the sixth, the epoch's last."""
    huge = ("--set", "learning_rate=1e30")
    status, _, errors = run_train(*stage2_flags(data, tmp_path / "run", *huge))
    assert status == 2
    assert re.search(r"the loss is (nan|inf) \(clips .*\) in epoch 1, step 2; nothing was", errors)
    assert not (tmp_path / "run" / "latest_epoch.pth.tr").exists()


# --- data on the device ---------------------------------------------------------------------------
def loaders(dataset: ClipDataset, **settings) -> list[ClipLoader]:
    return [
        ClipLoader(clips, 8, skeleton=H36M, seed=3, flip=True, **settings)
        for clips in (dataset, on_device(dataset, CPU, True))
    ]


@pytest.mark.parametrize("projected", [False, True])
def test_clips_on_the_device_are_those_of_the_files(tmp_path, projected):
    for name, frames in (("A", 60), ("B", 30)):
        write_arrays(tmp_path / name, frames=frames)
    dataset = ClipDataset([tmp_path / "A", tmp_path / "B"], "train", T, projected)
    read, resident = loaders(dataset)
    assert len(read) == len(resident) > 3
    for one, other in zip(read.batches(1, 1), resident.batches(1, 1), strict=True):
        assert one.clips == other.clips and one.shares == other.shares
        assert torch.equal(one.pose_2d, other.pose_2d) and torch.equal(one.pose_3d, other.pose_3d)


def test_picking_and_mirroring_wait_for_nothing(tmp_path):
    write_arrays(tmp_path / "A")
    _, resident = loaders(ClipDataset(tmp_path / "A", "train", T))
    with Waits() as waits:
        next(resident.batches(0))
    assert waits.seen == []


def test_a_clip_that_is_not_finite_is_named_when_it_is_put_there(tmp_path):
    poses, clips = write_arrays(tmp_path / "A")
    (path,) = (tmp_path / "A").glob("arrays-*/train_pose_3d.npy")
    poses[0, 1, clips[2, 0], 4, 1] = np.nan
    np.save(path, poses[0, 1])
    with pytest.raises(UserError, match=r"clip [0-2]: holds a number that is not finite"):
        on_device(ClipDataset(tmp_path / "A", "train", T), CPU, True)


def test_what_is_drawn_anew_stays_where_it_is_and_says_so():
    assert on_device(object(), torch.device("cuda"), None) is None
    with pytest.raises(UserError, match="--data-on-device: these clips are no stored frames"):
        on_device(object(), CPU, True)


@pytest.mark.parametrize(("free", "is_taken"), [(1 << 40, True), (1 << 10, False)])
def test_a_gpu_takes_them_by_itself_if_they_fill_a_quarter_of_its_memory(
    tmp_path, monkeypatch, free, is_taken
):
    write_arrays(tmp_path / "A")
    taken = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    monkeypatch.setattr("data.resident.ResidentClips", lambda *_: taken.append(True))
    dataset = ClipDataset(tmp_path / "A", "train", T)
    on_device(dataset, torch.device("cuda", 0), None)
    assert bool(taken) == is_taken
    taken.clear()
    on_device(dataset, CPU, None)
    on_device(dataset, torch.device("cuda", 0), False)
    assert not taken


def test_tf32_without_a_gpu_is_refused():
    with pytest.raises(UserError, match="--precision tf32: cpu has no TF32"), numerics(CPU, "tf32"):
        pass


def test_a_gpu_computes_in_float32_and_deterministically_unless_told_otherwise():
    cudnn, before = torch.backends.cudnn, torch.get_float32_matmul_precision()
    for precision, name, is_tf32 in (("fp32", "highest", False), ("tf32", "high", True)):
        with numerics(torch.device("cuda", 0), precision):
            assert torch.get_float32_matmul_precision() == name
            assert cudnn.allow_tf32 == is_tf32
            assert cudnn.deterministic and not cudnn.benchmark
        assert torch.get_float32_matmul_precision() == before


# --- CUDA graphs, with stand-ins for what records and replays -------------------------------------
def test_a_replayed_function_takes_each_input_through_the_place_it_was_recorded_with(monkeypatch):
    records = []

    def record(self, x):
        """As a graph does: replaying computes anew from what lies in x now."""
        y = self.function(x)
        graph = SimpleNamespace(replay=lambda: y.copy_(self.function(x)))
        records.append(x.shape)
        return x, graph, y

    monkeypatch.setattr(Replayed, "_record", record)
    double = Replayed(lambda x: 2 * x)
    kept = [double(torch.full((n,), value)) for n, value in ((2, 1.0), (2, 3.0), (3, 4.0))]
    assert [y.tolist() for y in kept] == [[2, 2], [6, 6], [8, 8, 8]]
    assert records == [(2,), (3,)]


def test_a_graphed_model_replays_batches_of_its_size_in_training_only(monkeypatch):
    model, replayed = nn.Linear(3, 3), []

    def record(module, arguments, **_):
        plain = module.forward
        module.forward = lambda x: replayed.append(x.shape) or plain(x)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    graphed = Graphed(model, torch.zeros(4, 3))
    assert "forward" not in vars(model)  # a copy, for a moving average, must not replay
    x = torch.rand(4, 3)
    assert torch.equal(graphed(x), model(x))
    assert replayed == [(4, 3)]
    graphed(x[:3])
    graphed.eval()(x)
    model(x)
    assert replayed == [(4, 3)]


def test_graphs_that_cannot_be_recorded_are_told_and_nothing_has_changed(monkeypatch):
    model = MDTF(BoneAwareModule(16, 1), Lifter(H36M, 3, 16, 1), H36M).train()
    stage = SimpleNamespace(model=model, train_model=model, losses=lambda _: {})
    before, lines = {k: v.clone() for k, v in model.state_dict().items()}, []

    def fail(*_, **__):
        model(torch.rand(1, 3, 17, 3))  # moves running statistics
        raise RuntimeError("no device")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    pose = torch.rand(2, 3, 17, 3)
    batch = SharedBatch(pose, pose, [0, 1], [(0, 2)], 2)
    state = torch.get_rng_state()
    graph_model(stage, batch, SimpleNamespace(log=lines.append))
    assert lines == ["--cuda-graphs: recording fails here (RuntimeError); going on without"]
    assert stage.train_model is model and torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "cpu is no GPU"),
        ({"device": torch.device("cuda"), "accumulate": 2}, "accumulate: 1"),
        ({"device": torch.device("cuda"), "processes": Processes(0, 2)}, "one process"),
        ({"device": torch.device("cuda"), "compile": True}, "exclude each other"),
    ],
)
def test_where_graphs_cannot_be_is_said_before_anything_is_written(settings, reason):
    session = SimpleNamespace(
        options=SimpleNamespace(cuda_graphs=True, compile=settings.get("compile", False)),
        config=SimpleNamespace(accumulate=settings.get("accumulate", 1)),
        processes=settings.get("processes", Processes()),
        device=settings.get("device", CPU),
    )
    with pytest.raises(UserError, match=reason):
        check_graphs(session)
