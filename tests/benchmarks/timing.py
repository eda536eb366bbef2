"""Measuring on shared machines: variants interleaved in one run, medians, and what they ran on."""

import argparse
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lib.cli import CommandParser
from lib.files import write_json
from lib.numbers import whole_number
from model.ops import resolve_backend


def machine() -> dict[str, object]:
    """The CPU, its load by others, threads, versions and the backend that `auto` means here."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = (
            s.partition(":")[2].strip() for s in info.read_text().splitlines() if "model name" in s
        )
        name = next(models, name)
    backend, reason = resolve_backend("auto", torch.device("cpu"), torch.float32)
    return {
        "cpu": name,
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "unset"),
        "torch": torch.__version__,
        "backend": f"{backend} ({reason})",
    }


def interleaved(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
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


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    command = CommandParser(description=(description or "").partition("\n")[0])
    command.add_argument("--threads", type=whole_number(1), default=2)
    command.add_argument("--repeats", type=whole_number(1), default=5, help="turns of each variant")
    command.add_argument("--json", metavar="FILE", help="also write the results there")
    return command


def table(rows: list[dict[str, object]]) -> str:
    """Rows with the same keys, as aligned columns."""
    cells = [list(rows[0])] + [
        [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells
    )


def report(options: argparse.Namespace, sections: dict[str, list[dict[str, object]]]) -> None:
    """Print every section as a table, and write them all as JSON where that is asked for."""
    where = machine()
    print(" · ".join(f"{key} {value}" for key, value in where.items()))
    for title, rows in sections.items():
        if rows:
            print(f"\n{title}\n{table(rows)}")
    if options.json:
        write_json(options.json, {"machine": where, **sections})
