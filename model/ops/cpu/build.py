"""Compiles the C kernels at first use, for this CPU, and remembers the result.

The library lies in the user's cache folder, under a name made of the sources, the compiler, its
flags and the CPU, so any change of these builds anew. It is written under another name and then
renamed: of processes that build at the same time, each does the work, and none sees half a file.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

log = logging.getLogger("mdtf")

SOURCES = Path(__file__).parent / "csrc"
EXTRA_FLAGS_VARIABLE = "MDTF_KERNEL_CFLAGS"  # for sanitizers and experiments
BUILD_TIMEOUT = 300  # seconds, against a hang: a build takes two or three on an idle machine

_FLAGS = ["-O2", "-std=gnu11", "-shared", "-fPIC", "-fvisibility=hidden", "-w"]
# The first variant that compiles is taken: for this CPU (on ARM, GCC and clang spell that
# differently) and with threads, then without what a compiler may lack.
_VARIANTS = [
    ["-march=native", "-fopenmp"],
    ["-mcpu=native", "-fopenmp"],
    ["-march=native"],
    ["-mcpu=native"],
    [],
]


class KernelUnavailable(Exception):
    """Why there is no compiled kernel, in one line."""


def find_compiler() -> list[str]:
    """The command of the C compiler: $CC, else cc, gcc or clang. Raises KernelUnavailable."""
    asked = shlex.split(os.environ.get("CC", ""))
    for command in [asked] if asked else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    raise KernelUnavailable(f"no C compiler ({asked[0] if asked else 'cc, gcc or clang'}) found")


def _describe_cpu() -> str:
    """The CPU model and its instruction sets: a home folder may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return platform.machine() + "".join(sorted({s for s in lines if s.startswith(wanted)}))


def _is_private(path: Path) -> bool:
    """Whether nobody but this user (or root) can have written `path`."""
    if not hasattr(os, "getuid"):
        return True
    info = path.lstat()
    shared = stat.S_IWGRP | stat.S_IWOTH
    return info.st_uid in (os.getuid(), 0) and not info.st_mode & shared


def _writable_folder(path: Path) -> Path | None:
    """`path`, created if need be, if it is private and can be written to."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.is_symlink() and _is_private(path) and os.access(path, os.W_OK | os.X_OK):
            return path
    except OSError:
        pass
    return None


def cache_folder() -> Path:
    """Where libraries are kept; a temporary folder if the home folder cannot be written."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    candidates = [Path(tempfile.gettempdir()) / f"mdtf-{user}"]
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        candidates.insert(0, home / "mdtf")
    except RuntimeError:  # no home folder at all
        pass
    for candidate in candidates:
        folder = _writable_folder(candidate)
        if folder:
            return folder
    return Path(tempfile.mkdtemp(prefix="mdtf-"))


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # What is preloaded into Python (a sanitizer, an allocator) is not meant for the compiler.
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
        env=environment,
    )


def _compile(compiler: list[str], structures: str, target: Path) -> None:
    """Build `target`, atomically. Raises KernelUnavailable with the compiler's first error."""
    extra = shlex.split(os.environ.get(EXTRA_FLAGS_VARIABLE, ""))
    reasons = []
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
        (Path(folder) / "structures.h").write_text(structures)
        temporary = Path(folder) / target.name
        for variant in _VARIANTS:
            command = [*compiler, *_FLAGS, *variant, *extra, "-I", folder]
            result = _run([*command, str(SOURCES / "kernel.c"), "-o", str(temporary), "-lm"])
            if result.returncode == 0:
                temporary.chmod(0o700)
                try:
                    ctypes.CDLL(str(temporary))  # clang may accept -fopenmp without its library
                except OSError as error:
                    reasons.append(str(error))
                    continue
                os.replace(temporary, target)
                return
            lines = result.stderr.splitlines() or ["no message"]
            reasons.append(next((line for line in lines if "error" in line), lines[0]))
    raise KernelUnavailable(f"{compiler[0]} failed: {reasons[-1]}")


def load_library(structures: str) -> ctypes.CDLL:
    """The compiled kernels, built if this machine has not built them yet.

    structures: what the sources include as structures.h. Raises KernelUnavailable.
    """
    try:
        compiler = find_compiler()
        version = _run([*compiler, "--version"]).stdout.split("\n", 1)[0]
        key = hashlib.sha256(structures.encode())
        for source in sorted(SOURCES.iterdir()):
            key.update(source.read_bytes())
        extra = os.environ.get(EXTRA_FLAGS_VARIABLE, "")
        key.update(repr((compiler, version, _FLAGS, _VARIANTS, extra, _describe_cpu())).encode())
        library = cache_folder() / f"kernel-{key.hexdigest()[:24]}.so"
        if not library.exists():
            start = time.perf_counter()
            _compile(compiler, structures, library)
            seconds = time.perf_counter() - start
            log.info("compiled the C kernels in %.1f s (%s) to %s", seconds, version, library)
        if not _is_private(library):
            raise KernelUnavailable(f"{library} could have been written by somebody else")
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError) as error:
        raise KernelUnavailable(f"{type(error).__name__}: {error}".splitlines()[0]) from error
