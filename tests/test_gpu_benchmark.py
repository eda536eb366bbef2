"""The GPU's benchmark: without a GPU one line, and its tables' code tried on the CPU."""

import sys

import pytest
import torch

from lib.skeleton import H36M
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.mdtf import MDTF
from tests.benchmarks import gpu
from tests.benchmarks.timing import table

CPU = torch.device("cpu")


def test_without_a_gpu_it_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    gpu.main()
    assert capsys.readouterr().out == "no CUDA device\n"


@pytest.fixture
def once(monkeypatch):
    """Measured once, without a turn that warms up."""
    monkeypatch.setattr(gpu, "microseconds", lambda run, *_: (run(), 1.0)[1])
    monkeypatch.setattr(gpu, "bytes_a_second", lambda _: 1e9)


def test_the_tables_of_the_inner_block(once):
    rows = gpu.kernels(CPU, 1, ["torch"], [(17, 16, 1)])
    assert [row["axis"] for row in rows] == ["joints", "frames"] and table(rows)
    (row,) = gpu.errors(CPU, ["torch"], (9,))
    assert row["two runs"] == "equal" and float(row["output"]) < 1e-5


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
