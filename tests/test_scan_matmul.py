"""The choice of the library for float32 matrix products."""

import pytest
import torch

from model.ops import matmul


@pytest.fixture(autouse=True)
def _fresh():
    matmul.medium_is_float32.cache_clear()
    yield
    matmul.medium_is_float32.cache_clear()


def test_products_inside_are_float32_and_the_setting_is_restored():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), matmul.fast_matmul():
        assert matmul._error() < matmul.TOLERANCE
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


def test_a_cpu_that_rounds_to_bfloat16_keeps_the_exact_path(monkeypatch):
    def error_of_a_cpu_with_amx():
        return 5e-3 if torch.get_float32_matmul_precision() == "medium" else 1e-7

    monkeypatch.setattr(matmul, "_error", error_of_a_cpu_with_amx)
    with matmul.fast_matmul():
        assert torch.get_float32_matmul_precision() == "highest"


def test_other_devices_and_earlier_choices_are_left_alone():
    with matmul.fast_matmul("cuda"):
        assert torch.get_float32_matmul_precision() == "highest"
    with matmul.matmul_precision("high"), matmul.fast_matmul():
        assert torch.get_float32_matmul_precision() == "high"


def test_rounding_to_bfloat16_is_seen(monkeypatch):
    real = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda a, b: real(a.bfloat16(), b.bfloat16()).float()
    )
    assert not matmul.medium_is_float32()
