"""The Triton kernels: interpreted on the CPU, compiled for GPUs, and run where there is one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib.errors import UserError
from model.ops import backend as seam
from model.ops import resolve_backend, upstream
from model.ops.check import check
from model.ops.triton import backend as triton_backend
from model.ops.triton.backend import Triton
from tests.scan_cases import assert_close, inner_inputs, results, run_inner
from tests.skips import NEEDS_GPU

ROOT = Path(__file__).resolve().parents[1]
CUDA = torch.device("cuda")
F32, F64 = torch.float32, torch.float64
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason=NEEDS_GPU)
needs_triton = pytest.mark.skipif(
    sys.platform != "linux", reason="triton is for Linux (requirements-dev.txt)"
)


# --- in the interpreter ---------------------------------------------------------------------------
@pytest.fixture(scope="module")
def interpreted() -> dict[str, object]:
    """What tests/triton_interpreted.py finds, by case."""
    command = [sys.executable, "-m", "tests.triton_interpreted"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(line) for line in done.stdout.splitlines())


@needs_triton
@pytest.mark.parametrize("length", [1, 2, 9, 10, 17, 27, 81])
def test_every_length_has_the_output_and_gradients_of_the_definition(interpreted, length):
    errors = interpreted[f"length {length}"]
    assert len(errors) == 16 and max(errors.values()) < 1e-5, errors


@needs_triton
@pytest.mark.parametrize(
    ("case", "bound"),
    [("20 channels", 1e-5), ("model", 1e-5), ("bfloat16", 4e-2), ("float16", 4e-3)],
)
def test_other_sizes_types_and_the_whole_model_have_them_too(interpreted, case, bound):
    """The bounds of reduced precision: some units of 2^-8 and 2^-11."""
    errors = interpreted[case]
    assert max(errors.values()) < bound, errors


@needs_triton
def test_nan_reaches_what_it_reaches_in_the_definition(interpreted):
    assert interpreted["nan"] == []


@needs_triton
def test_the_operators_keep_what_the_seam_promises(interpreted):
    found = interpreted["seam"]
    assert found["empty"] == "(0, 2, 16) (0, 2, 16)"
    assert found["opcheck"] == ""
    assert "differentiated only once" in found["second derivative"]
    assert found["two runs"] == "equal"
    assert found["autocast"] == "torch.bfloat16"
    assert "torch.bfloat16" in found["wrong dtypes"] and "is wanted" in found["wrong dtypes"]
    assert found["wrong weight"].startswith("D: torch.float32 (16,)")
    assert "float64" in found["float64"]


# --- compiled for GPUs ----------------------------------------------------------------------------
@needs_triton
@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:120"])
def test_what_tiny_launches_compiles_without_spills(target):
    """A training step over 17 joints; registers leave room for the warps that hide latencies."""
    from tests.triton_compiled import compile_launch, launches_of, resources

    most = {"conv_silu": 64, "conv_silu_backward": 192, "scan_forward": 240, "scan_backward": 255}
    launches = launches_of(17, 64)
    assert launches.keys() == most.keys()
    for name, launch in launches.items():
        used = resources(compile_launch(launch, target))
        assert used["STACK"] == 0 and 0 < used["REG"] <= most[name], (name, used)


@needs_triton
@pytest.mark.parametrize("channels", [8, 32, 128])
def test_the_scan_of_other_widths_compiles_without_spills(channels):
    """Those of stage 1 and of Large, each with another rank of dt."""
    from tests.triton_compiled import compile_launch, launches_of, resources

    launches = launches_of(17, channels)
    for name in ("scan_forward", "scan_backward"):
        used = resources(compile_launch(launches[name], "cuda:90"))
        assert used["STACK"] == 0, (name, used)


# --- which backend, with faked devices ------------------------------------------------------------
@pytest.fixture
def faked(monkeypatch):
    """Says what stands in the way of triton and of mamba_ssm on a CUDA device."""
    monkeypatch.setattr(seam, "_default", None)
    monkeypatch.delenv(seam.ENVIRONMENT_VARIABLE, raising=False)

    def fake(triton: str | None, mamba_ssm: str | None) -> None:
        monkeypatch.setattr(triton_backend, "_unavailable", lambda *_: triton)
        monkeypatch.setattr(upstream, "missing", lambda: mamba_ssm)

    return fake


@pytest.mark.parametrize(
    ("triton", "mamba_ssm", "name", "reason"),
    [
        (None, None, "triton", "the fastest for cuda"),
        (None, "none", "triton", "the fastest for cuda"),
        ("no compiler", None, "mamba_ssm", "not triton: no compiler"),
        ("no compiler", "no nvcc", "torch", "not triton: no compiler; not mamba_ssm: no nvcc"),
    ],
)
def test_auto_on_cuda_prefers_triton_then_mamba_ssm_then_the_loop(
    faked, triton, mamba_ssm, name, reason
):
    faked(triton, mamba_ssm)
    assert resolve_backend("auto", CUDA, F32) == (name, reason)


def test_auto_on_cuda_in_float64_says_why_it_is_the_loop(faked):
    faked(None, "no nvcc")
    name, reason = resolve_backend("auto", CUDA, F64)
    assert name == "torch" and "float64" in reason


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(triton_backend, "_verdicts", {})
    return monkeypatch


def test_without_triton_the_reason_says_so(fresh):
    fresh.setitem(sys.modules, "triton", None)  # import raises
    assert "triton does not import" in Triton().obstacle(CUDA, F32)
    with pytest.raises(UserError, match="'triton' cannot run: triton does not import"):
        resolve_backend("triton", CUDA, F32)


@needs_triton
def test_on_a_cpu_it_is_refused_by_name_and_never_taken_by_auto(fresh):
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match="need CUDA tensors, these are on cpu"):
        resolve_backend("triton", cpu, F32)
    assert "triton" not in str(resolve_backend("auto", cpu, F32))


@needs_triton
@pytest.mark.parametrize(
    ("capability", "reason"), [((6, 1), "compute capability"), ((9, 0), "do not run here")]
)
def test_a_device_that_the_kernels_do_not_run_on_is_a_reason_not_a_crash(fresh, capability, reason):
    """The second device is only claimed, so whatever is launched there fails."""
    fresh.setattr(torch.cuda, "is_available", lambda: True)
    fresh.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)
    obstacle = Triton().obstacle(torch.device("cuda", 0), F32)
    assert reason in obstacle and "\n" not in obstacle


@needs_triton
def test_wrong_results_are_a_reason(fresh):
    fresh.setattr(torch.cuda, "is_available", lambda: True)
    fresh.setattr(torch.cuda, "get_device_capability", lambda _=None: (9, 0))
    fresh.setattr(triton_backend, "check", lambda *_: "its self-check is off by 1")
    assert Triton().obstacle(CUDA, F32) == "its self-check is off by 1"


# --- on a GPU -------------------------------------------------------------------------------------
@needs_gpu
def test_the_kernels_pass_their_check_on_the_gpu():
    assert Triton().obstacle(CUDA, F32) is None
    assert check(Triton(), "cuda") is None


@needs_gpu
@pytest.mark.parametrize("axis", [-2, -3])
@pytest.mark.parametrize(
    ("length", "channels"), [(17, 64), (27, 128), (81, 48), (243, 64), (10, 8)]
)
def test_on_the_gpu_outputs_and_gradients_are_those_of_the_definition(axis, length, channels):
    inputs = {k: t.cuda() for k, t in inner_inputs((2, 5), length, channels, rank=4).items()}
    if axis == -3:
        inputs["xz"] = inputs["xz"].transpose(-2, -3).contiguous()
    exact = results(run_inner, inputs, "sequential", F64, axis=axis, graph=True)
    found = [results(run_inner, inputs, "triton", F32, axis=axis, graph=True) for _ in range(2)]
    assert_close(found[0], exact, 1e-5)
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name


@needs_gpu
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 4e-2), (torch.float16, 4e-3)])
def test_on_the_gpu_reduced_precision_keeps_its_bound(dtype, bound):
    inputs = {k: t.to(dtype).double().cuda() for k, t in inner_inputs((3, 5), 27, 64).items()}
    exact = results(run_inner, inputs, "sequential", F64)
    assert_close(results(run_inner, inputs, "triton", dtype), exact, bound)
