"""`--no-skips`: a test that skips in CI has failed, except for what CI cannot have."""

import subprocess
import sys
from pathlib import Path

import torch

from tests import skips

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

def test_that_runs(): pass
def test_that_needs_a_program(): pytest.skip("needs chromium")
def test_that_needs_a_package(): pytest.importorskip("no_such_package")
@pytest.mark.skipif(True, reason="not today")
def test_that_is_marked(): pass
@pytest.mark.skip
def test_without_a_reason(): pass
@pytest.mark.xfail(strict=True)
def test_that_is_known_to_fail(): assert False
"""


def run_tests(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", "/dev/null", "-q"]
    return subprocess.run([*command, *flags, str(folder)], cwd=ROOT, capture_output=True, text=True)


def test_a_skip_fails_where_none_is_allowed(tmp_path):
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_file.py").write_text(
        "import pytest\npytest.skip('all of it', allow_module_level=True)\n"
    )
    free = run_tests(tmp_path)
    assert "1 passed, 5 skipped, 1 xfailed" in free.stdout and free.returncode == 0, free.stdout
    strict = run_tests(tmp_path, "--no-skips", "--continue-on-collection-errors")
    # Marked tests and whole files count as errors: nothing of them ran.
    assert "2 failed, 1 passed, 1 xfailed, 3 errors" in strict.stdout and strict.returncode == 1
    for reason in ("needs chromium", "could not import 'no_such", "not today", "all of it"):
        assert f"skipped, but --no-skips was given: {reason}" in strict.stdout


def test_only_a_gpu_and_the_shared_folder_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(skips, "SHARED", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not skips.may_skip(skips.NEEDS_SHARED) and not skips.may_skip(skips.NEEDS_GPU)
    monkeypatch.setattr(skips, "SHARED", tmp_path / "none")
    assert skips.may_skip(skips.NEEDS_SHARED) and not skips.may_skip(skips.NEEDS_GPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert skips.may_skip(skips.NEEDS_GPU) and not skips.may_skip("needs ffmpeg")


def test_a_missing_file_of_the_shared_folder_is_skipped(tmp_path):
    present = tmp_path / "there"
    present.write_text("")
    assert skips.needs_shared(present).args == (False,)
    assert skips.needs_shared(present, tmp_path / "not").args == (True,)
    assert skips.needs_shared(tmp_path / "not").kwargs == {"reason": skips.NEEDS_SHARED}
