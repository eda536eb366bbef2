"""Several videos in one call: each into a folder of its own, and a table of them all."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.errors import UserError


@dataclass(frozen=True)
class Done:
    """What became of a video: frames and people that were lifted, seconds it took."""

    frames: int
    people: int
    seconds: float

    def cells(self) -> tuple[str, ...]:
        rate = self.frames / max(self.seconds, 1e-9)
        return str(self.frames), str(self.people), f"{self.seconds:.1f}", f"{rate:.1f}"


HEADER = ("video", "frames", "people", "seconds", "frames/s", "")


def folders(names: Sequence[str], place: Path) -> list[Path]:
    """Where the results of each go: place/NAME, with a number where names are equal."""
    taken: dict[str, int] = {}
    found = []
    for name in names:
        taken[name] = taken.get(name, 0) + 1
        while taken[name] > 1 and f"{name}_{taken[name]}" in names:
            taken[name] += 1
        found.append(place / (name if taken[name] == 1 else f"{name}_{taken[name]}"))
    return found


def run_all(videos: Sequence[str], targets: Sequence[Path], work: Callable[[int], Done]) -> int:
    """Runs work(index) on each video; one that fails does not stop the others.

    Prints a table in the end; returns the status: 1 if any failed.
    """
    from tqdm import tqdm

    rows: list[tuple[str, ...]] = [HEADER]
    failed = 0
    with tqdm(videos, desc="all", unit=" videos", disable=None) as bar:
        for index, video in enumerate(bar):
            print(f"--- {video}")
            try:
                rows.append((video, *work(index).cells(), str(targets[index])))
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
                reason = str(error).removeprefix(f"{video}: ")
                rows.append((video, "-", "-", "-", "-", f"failed: {reason}"))
                failed += 1
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER) - 1)]
    for row in rows:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True))
        print("  ".join((row[0].ljust(widths[0]), *numbers, row[-1])).rstrip())
    print(f"{len(videos) - failed} of {len(videos)} videos done")
    return min(failed, 1)
