"""The GPU's benchmark: without a GPU one line, and its tables' code tried on the CPU."""

import itertools
import sys

import pytest
import torch

from lib.skeleton import H36M
from lib.timing import table
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.mdtf import MDTF
from tests.benchmarks import gpu

CPU = torch.device("cpu")


def test_without_a_gpu_it_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    gpu.main()
    assert capsys.readouterr().out == "no CUDA device\n"


@pytest.fixture
def once(monkeypatch):
    """Measured once, without a turn that warms up; each takes a microsecond more."""
    times = itertools.count(1)
    monkeypatch.setattr(gpu, "microseconds", lambda run, *_: (run(), float(next(times)))[1])
    monkeypatch.setattr(gpu, "bytes_a_second", lambda _: 1e9)


def test_the_tables_of_the_inner_block(once):
    rows = gpu.kernels(CPU, 1, ["torch"], [(17, 16, 1)], clocks=1.0)
    assert [row["axis"] for row in rows] == ["joints", "frames"] and table(rows)
    (row,) = gpu.errors(CPU, ["torch"], (9,))
    assert row["two runs"] == "equal" and float(row["output"]) < 1e-5


def test_floors_of_an_h100_by_hand():
    """135 million steps of a state: 0.4 instructions each, on 132 times 4 issuers at 1.755 GHz."""
    shares = gpu.floors(135_000_000, 100.0, 1000.0, clocks=132 * 1755)
    forward = 135e6 * 0.4 / (132 * 4 * 1755e6) / 100e-6
    assert shares["instructions"].split()[0] == f"{forward:.2f}" == "0.58"
    assert shares["exponentials"].split()[0] == "0.36"  # 16 a clock of each of 132


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_table_of_a_model(once, monkeypatch, precision):
    def build(_: str) -> MDTF:
        return MDTF(BoneAwareModule(16, 1), Lifter(H36M, 3, 16, 1), H36M)

    monkeypatch.setattr(gpu, "build", build)
    monkeypatch.setattr(gpu, "clips", lambda batch: torch.rand(batch, 3, 17, 3))
    rows = gpu.model_rows("tiny", precision, CPU, 1, batch=2)
    assert [row["what"] for row in rows] == [
        "1 clip",
        "step, 2 clips",
        "step, 2 clips, blocks recomputed",
        "step, 2 clips from the CPU",
    ]
    assert table(rows)
