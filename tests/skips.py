"""What a test may skip for; with `--no-skips`, as in CI, one that skips for anything else fails."""

from pathlib import Path

import pytest
import torch

# Reference results, sample media and motion capture, which are not part of the project.
SHARED = Path(__file__).resolve().parents[1].parent / "shared"
NEEDS_SHARED = "needs ../shared"
NEEDS_GPU = "needs a GPU"


def may_skip(reason: str) -> bool:
    """Whether the reason is one of the two, and true on this machine."""
    return (reason == NEEDS_SHARED and not SHARED.exists()) or (
        reason == NEEDS_GPU and not torch.cuda.is_available()
    )


def needs_shared(*files: Path) -> pytest.MarkDecorator:
    """Skip where one of these files of ../shared is missing."""
    return pytest.mark.skipif(not all(f.exists() for f in files), reason=NEEDS_SHARED)


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn the report of a test, or of a whole file, that skipped and may not into a failure."""
    if report.skipped and isinstance(report.longrepr, tuple):  # an expected failure has none
        path, line, reason = report.longrepr
        reason = reason.removeprefix("Skipped: ")
        if not may_skip(reason):
            report.outcome = "failed"
            report.longrepr = f"{path}:{line}: skipped, but --no-skips was given: {reason}"
