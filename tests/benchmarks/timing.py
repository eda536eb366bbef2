"""What all benchmarks share: their options, and their results as tables and JSON."""

import argparse

import torch

import lib.timing
from lib.cli import CommandParser
from lib.files import write_json
from lib.numbers import whole_number
from lib.timing import table
from model.ops import resolve_backend


def machine() -> dict[str, object]:
    """As lib.timing's, and the backend that `auto` means here."""
    backend, reason = resolve_backend("auto", torch.device("cpu"), torch.float32)
    return lib.timing.machine() | {"backend": f"{backend} ({reason})"}


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    command = CommandParser(description=(description or "").partition("\n")[0])
    command.add_argument("--threads", type=whole_number(1), default=2)
    command.add_argument("--repeats", type=whole_number(1), default=5, help="turns of each variant")
    command.add_argument("--json", metavar="FILE", help="also write the results there")
    return command


def report(options: argparse.Namespace, sections: dict[str, list[dict[str, object]]]) -> None:
    """Print every section as a table, and write them all as JSON where that is asked for."""
    where = machine()
    print(" · ".join(f"{key} {value}" for key, value in where.items()))
    for title, rows in sections.items():
        if rows:
            print(f"\n{title}\n{table(rows)}")
    if options.json:
        write_json(options.json, {"machine": where, **sections})
