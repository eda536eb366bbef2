"""onnxruntime-web as its authors publish it: one npm package, of which two files are needed."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from lib.errors import UserError

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web-{VERSION}.tgz"
# As the registry states it, so that a file from anywhere else is known to be the same.
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# The module, and its WebAssembly with SIMD and, where the browser allows them, threads.
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


REMEDY = f"or give --runtime {PACKAGE}, made elsewhere by npm pack onnxruntime-web@{VERSION}"


def find_npm() -> str:
    """Raises UserError: it is not installed."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"npm is missing, which downloads onnxruntime-web; install Node.js with npm, {REMEDY}"
        )
    return npm


def downloaded() -> dict[str, bytes]:
    """Name -> contents, of the package that npm downloads or has in its cache. Raises UserError."""
    with tempfile.TemporaryDirectory() as folder:
        command = [find_npm(), "pack", f"onnxruntime-web@{VERSION}", "--prefer-offline", "--silent"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"its status is {done.returncode}"]
            raise UserError(
                f"npm cannot download onnxruntime-web ({lines[0]}); is there a network? Try again,"
                f" {REMEDY}"
            )
        return unpacked(Path(folder) / PACKAGE)


def unpacked(package: Path) -> dict[str, bytes]:
    """Name -> contents, of the npm package's file. Raises UserError."""
    if not package.is_file():
        raise UserError(f"--runtime {package}: no such file")
    contents = package.read_bytes()
    if base64.b64encode(hashlib.sha512(contents).digest()).decode() != SHA512:
        raise UserError(
            f"--runtime {package}: is not onnxruntime-web {VERSION} as published; npm pack"
            f" onnxruntime-web@{VERSION} makes the right file"
        )
    with tarfile.open(package) as archive:
        return {name: _member(archive, f"package/dist/{name}") for name in FILES}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, name  # the package is known byte for byte
    return file.read()
