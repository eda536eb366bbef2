"""The compiled kernels against the definition in float64; and their build, threads and forks."""

import ctypes
import logging
import math
import multiprocessing
import os
import platform
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch

from model.ops import check, resolve_backend
from model.ops.cpu import abi, build
from model.ops.cpu import backend as cpu
from tests.scan_cases import (
    assert_close,
    inner_inputs,
    relative_errors,
    results,
    run_inner,
)

F32, F64 = torch.float32, torch.float64
ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason="no C kernel here")


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# --- right ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 27, 81, 243, 1000])
def test_the_inner_block_at_every_length(length):
    inputs = inner_inputs((2,), length, 16, seed=length)
    want = results(run_inner, inputs, "torch", F64)
    assert_close(results(run_inner, inputs, "c", F32), want, 1e-5)


@pytest.mark.parametrize(
    ("channels", "states", "rank", "taps"),
    [(64, 16, 4, 4), (32, 16, 2, 4), (8, 16, 1, 4), (5, 3, 2, 2), (33, 20, 3, 3), (1, 1, 1, 2)],
)
@pytest.mark.parametrize("graph", [False, True])
def test_the_inner_block_at_every_width(channels, states, rank, taps, graph):
    inputs = inner_inputs((3,), 21, channels, states, rank, taps)
    want = results(run_inner, inputs, "sequential", F64, graph=graph)
    assert_close(results(run_inner, inputs, "c", F32, graph=graph), want, 1e-5)


def test_strong_decay_that_underflows():
    inputs = inner_inputs((2,), 60, 16)
    for direction in ("forward", "backward"):
        inputs[f"{direction}.A_log"] += math.log(300)
        inputs[f"{direction}.dt_bias"] += 4
    want = results(run_inner, inputs, "torch", F64)
    assert_close(results(run_inner, inputs, "c", F32), want, 1e-5)


def test_a_state_is_remembered_for_a_long_time_as_well_as_float32_can():
    """The same decay of 1 - 1e-4 at each step: an exponential that is off by an ulp at 0 drifts."""
    inputs = inner_inputs((1,), 1500, 4)
    for direction in ("forward", "backward"):
        inputs[f"{direction}.A_log"].zero_()
        inputs[f"{direction}.dt_proj"].zero_()
        inputs[f"{direction}.dt_bias"].fill_(math.log(math.expm1(1e-4)))  # softplus gives 1e-4
    want = results(run_inner, inputs, "torch", F64)
    definition = relative_errors(results(run_inner, inputs, "sequential", F32), want)
    kernel = relative_errors(results(run_inner, inputs, "c", F32), want)
    assert max(kernel.values()) < 1.5 * max(definition.values())


@pytest.mark.parametrize("bias", [-300.0, -20.0, 50.0, 1e4])
def test_zero_and_huge_steps(bias):
    """delta = 0 keeps the state; a huge one forgets it: exp underflows to 0, and nothing is NaN."""
    inputs = inner_inputs((2,), 40, 8)
    inputs["forward.dt_bias"].fill_(bias)
    want = results(run_inner, inputs, "sequential", F64)
    assert all(t.isfinite().all() for t in want.values())
    got = results(run_inner, inputs, "c", F32)
    for name in [name for name, t in want.items() if t.abs().max() < 1e-30]:
        assert got[name].abs().max() < 1e-30
        del want[name]  # products of such sizes are no float32
    assert len(want) > 8
    assert_close(got, want, 1e-5)


@pytest.mark.parametrize("axis", [-2, -3])
@pytest.mark.parametrize("graph", [False, True])
def test_either_axis_of_a_clip_without_copies(axis, graph):
    inputs = inner_inputs((2, 7), 9, 8)
    want = results(run_inner, inputs, "sequential", F64, axis=axis, graph=graph)
    got = results(run_inner, inputs, "c", F32, axis=axis, graph=graph)
    assert_close(got, want, 1e-5)
    in_memory = got["output"] if axis == -2 else got["output"].transpose(1, 2)
    assert in_memory.is_contiguous()  # the output lies as the input does


def test_channels_that_are_not_innermost():
    inputs = inner_inputs((2,), 9, 8)
    want = results(run_inner, inputs, "sequential", F64)
    inputs["xz"] = inputs["xz"].transpose(1, 2).contiguous().transpose(1, 2)
    assert_close(results(run_inner, inputs, "c", F32), want, 1e-5)


@pytest.mark.parametrize("batch", [(), (1,), (2, 1, 3)])
def test_any_number_of_batch_dimensions(batch):
    inputs = inner_inputs(batch, 9, 8)
    want = results(run_inner, inputs, "sequential", F64)
    assert_close(results(run_inner, inputs, "c", F32), want, 1e-5)


@pytest.mark.parametrize("batch", [(0,), (2, 0)])
def test_an_empty_batch(batch):
    got = results(run_inner, inner_inputs(batch, 9, 8), "c", F32)
    assert got["output"].shape == (*batch, 9, 8)
    assert not any(t.any() for t in got.values())


def test_results_are_the_same_bit_for_bit_and_nearly_so_for_other_thread_counts():
    inputs = inner_inputs((9,), 40, 24)
    first = results(run_inner, inputs, "c", F32)
    again = results(run_inner, inputs, "c", F32)
    assert all(torch.equal(first[k], again[k]) for k in first)
    torch.set_num_threads(1)
    alone = results(run_inner, inputs, "c", F32)
    assert_close(alone, {k: t.double() for k, t in first.items()}, 1e-5)
    assert torch.equal(alone["output"], first["output"])  # only weight gradients are summed


def test_concurrent_calls_from_python_threads():
    cases = [inner_inputs((5,), 50, 16, seed=i) for i in range(2)]
    want = [results(run_inner, case, "c", F32) for case in cases]
    wrong = []

    def work(i: int) -> None:
        torch.set_num_threads(2)
        for _ in range(10):
            got = results(run_inner, cases[i], "c", F32)
            wrong.extend(k for k in got if not torch.equal(got[k], want[i][k]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_wait_for_its_parents_threads():
    """As a data loader's worker is, after its parent has scanned with two threads."""
    inputs = {k: t.float() for k, t in inner_inputs((5,), 30, 16).items()}
    with torch.no_grad():
        want = run_inner(inputs, "c")
    here, there = multiprocessing.Pipe()

    def scan() -> None:
        with torch.no_grad():
            there.send(run_inner(inputs, "c").tolist())

    child = multiprocessing.get_context("fork").Process(target=scan, daemon=True)
    child.start()
    try:
        assert here.poll(60), "the child hangs"
        assert here.recv() == want.tolist()
    finally:
        child.kill()


# --- a good citizen of torch ----------------------------------------------------------------------
def _operator_arguments(graph: bool, keep: bool):
    inputs = {k: t.float().requires_grad_(keep) for k, t in inner_inputs((2,), 40, 8).items()}
    x, z = (t.detach().clone().requires_grad_(keep) for t in inputs.pop("xz").chunk(2, -1))
    return (
        x,
        z.clone().detach().requires_grad_(keep) if graph else None,
        z,
        [*inputs.values()],
        keep,
    )


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_opcheck_inner(graph, keep):
    torch.library.opcheck(torch.ops.mdtf.inner_forward, _operator_arguments(graph, keep))


def test_a_second_derivative_is_refused_in_so_many_words():
    inputs = {k: t.float().requires_grad_() for k, t in inner_inputs((1,), 5, 4).items()}
    (grad,) = torch.autograd.grad(
        run_inner(inputs, "c").square().sum(), inputs["xz"], create_graph=True
    )
    with pytest.raises(RuntimeError, match="only once"):
        grad.sum().backward()


def test_float64_on_the_c_backend_is_an_error():
    from lib.errors import UserError

    with pytest.raises(UserError, match="float32"):
        run_inner(inner_inputs((1,), 5, 4), "c")


def test_too_wide_a_convolution_is_an_error():
    inputs = {k: t.float() for k, t in inner_inputs((1,), 8, 4, taps=5).items()}
    with pytest.raises(ValueError, match="taps"):
        run_inner(inputs, "c")


def test_no_memory_for_scratch_is_an_exception_not_an_abort():
    huge = abi.Shape(1, 1, 1, 1 << 50, 16, 1, 4)
    with pytest.raises(MemoryError):
        abi.call(abi.library().mdtf_inner_forward, abi.Inner(shape=huge))


# --- the build ------------------------------------------------------------------------------------
def _python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


REPORT = """
    import logging, torch
    torch.inference_mode().__enter__()  # as the demo's first call is
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from model.ops import resolve_backend
    print(*resolve_backend("auto", torch.device("cpu"), torch.float32), sep=": ")
"""


def test_two_processes_building_at_once(tmp_path):
    """Both end up with the kernel, one library lies in the cache, and the build says one line."""
    command = [sys.executable, "-c", textwrap.dedent(REPORT)]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) for _ in range(2)]
    for child in children:
        out, err = child.communicate(timeout=200)
        assert out.startswith("c: "), (out, err)
        assert len(err.strip().splitlines()) <= 1, err
    assert [p.suffix for p in (tmp_path / "mdtf").iterdir()] == [".so"]


@pytest.mark.parametrize(("lanes", "has_avx2"), [(8, True), (8, False), (16, False)])
def test_other_cpus_vectors_give_the_same(tmp_path, lanes, has_avx2):
    """Vectors as with AVX2 and as with AVX-512, with AVX2's instructions or no special ones."""
    flags = f"-DLANES={lanes}"
    if platform.machine() in ("x86_64", "AMD64"):
        flags += " -mno-avx512f" + ("" if has_avx2 else " -mno-avx2")
    elif has_avx2:
        pytest.skip("no AVX2 here")
    code = """
        from model.ops import check
        from model.ops.cpu import backend as cpu
        cases = list(check.cases(cpu.Cpu(), length=21))
        print(cpu.abi.library().mdtf_lanes(), max(map(check.error, cases)))
        for value in (float("nan"), float("inf"), float("-inf")):
            print(*(name for case in cases for name in check.swallowed(case, value)))
    """
    done = _python(code, XDG_CACHE_HOME=str(tmp_path), MDTF_KERNEL_CFLAGS=flags)
    found, error, *swallowed = done.stdout.split()
    assert int(found) == lanes, done.stderr
    assert float(error) < 5e-6  # of a whole block's gradients
    assert not swallowed


def test_without_a_compiler_the_torch_backend_runs_and_one_line_says_why(tmp_path):
    done = _python(REPORT, XDG_CACHE_HOME=str(tmp_path), CC="no-such-compiler")
    assert done.stdout.startswith("torch: ")
    assert "no-such-compiler" in done.stdout
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_failing_compiler_is_named_with_its_error(tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'kernel.c:1: error: no such thing' >&2\nexit 1\n")
    compiler.chmod(0o755)
    done = _python(REPORT, XDG_CACHE_HOME=str(tmp_path / "cache"), CC=str(compiler))
    assert done.stdout.startswith("torch: ")
    assert "error: no such thing" in done.stdout
    assert list((tmp_path / "cache" / "mdtf").iterdir()) == []


def test_a_kernel_with_wrong_answers_is_not_used(monkeypatch, caplog):
    monkeypatch.setattr(cpu, "_verdict", [])
    monkeypatch.setattr(check, "error", lambda case: float("nan"))
    with caplog.at_level(logging.WARNING, logger="mdtf"):
        name, reason = resolve_backend("auto", torch.device("cpu"), F32)
    assert name == "torch"
    assert "self-check" in reason
    assert len(caplog.records) == 1


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_one(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(build.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = build.cache_folder()
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners here")
def test_a_folder_that_others_can_write_is_never_loaded_from(tmp_path, monkeypatch):
    (tmp_path / "mdtf").mkdir()
    (tmp_path / "mdtf").chmod(0o777)
    open_to_all = tmp_path / f"mdtf-{os.getuid()}"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = build.cache_folder()
    assert folder not in (tmp_path / "mdtf", open_to_all)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_structure_with_another_size_than_in_c_is_refused(monkeypatch):
    abi.check_sizes(abi.library())
    for name, structure in list(abi.EXCHANGED.items()):
        longer = type(name, (structure,), {"_fields_": [("more", ctypes.c_int64)]})
        with monkeypatch.context() as patch, pytest.raises(build.KernelUnavailable, match=name):
            patch.setitem(abi.EXCHANGED, name, longer)
            abi.check_sizes(abi.library())


def test_another_list_of_weights_is_another_library(tmp_path, monkeypatch):
    """What C is compiled with follows weights.py, and is part of the library's name."""
    assert "float * conv_weight;" in abi.declarations()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(build.KernelUnavailable, match="error"):
        build.load_library(abi.declarations().replace("conv_weight", "convolution"))


def test_torch_compile_sees_an_opaque_operator():
    inputs = {k: t.float() for k, t in inner_inputs((2,), 9, 8).items()}
    graph = torch.export.export(_Inner(inputs), (inputs["xz"],))
    targets = [str(node.target) for node in graph.graph.nodes]
    assert any("inner_forward" in target for target in targets)
    torch.testing.assert_close(graph.module()(inputs["xz"]), run_inner(inputs, "c"))


class _Inner(torch.nn.Module):
    def __init__(self, inputs) -> None:
        super().__init__()
        self.inputs = {k: t for k, t in inputs.items() if k != "xz"}

    def forward(self, xz):
        return run_inner(self.inputs | {"xz": xz}, "c")
