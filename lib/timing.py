"""Measuring on shared machines: variants take turns in one run, and medians are told."""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

Row = Mapping[str, object]


def processor() -> str:
    """The CPU's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, object]:
    """The CPU, its load by others, threads and versions."""
    return {
        "cpu": processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "unset"),
        "torch": torch.__version__,
    }


def interleaved(variants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each variant. They take turns, so that a slow minute meets them all."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, run in variants.items():
            gc.collect()
            gc.disable()
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            gc.enable()
            if turn:  # the first turn builds kernels and warms caches
                times[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def table(rows: Sequence[Row]) -> str:
    """Rows with the same keys, as aligned columns."""
    cells = [list(rows[0])] + [[_shown(value) for value in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells
    )


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:,}" if type(value) is int else str(value)
