"""The command that writes the live page's folder: mistakes, and folders that are there already."""

import base64
import hashlib
import io
import tarfile

import pytest

from demo.web import runtime
from demo.web.command import main
from tests.mistakes import told


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for the npm package that passes for it."""
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in (*runtime.FILES, "more"):
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(runtime, "SHA512", digest)
    return path


def program(folder, text):
    """An executable called npm in an otherwise empty PATH."""
    folder.mkdir()
    path = folder / "npm"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(folder)


def test_a_folder_is_written_again_and_nobody_elses_is(tmp_path, package, exported, capsys):
    folder = tmp_path / "page"
    rest = ["--runtime", str(package), "--onnx", str(exported[1])]
    assert main(["--output", str(folder), *rest]) == 0
    assert f"python -m http.server --directory {folder}" in capsys.readouterr().out
    assert {path.name for path in (folder / "runtime").iterdir()} == set(runtime.FILES)
    assert (folder / "models" / "lifter.onnx").read_bytes() == exported[1].read_bytes()
    (folder / "app.js").unlink()  # as if the command had been stopped
    (folder / "runtime" / runtime.FILES[0]).write_text("old")
    assert main(["--output", str(folder), *rest]) == 0
    assert (folder / "app.js").is_file()
    assert (folder / "runtime" / runtime.FILES[0]).read_text() == runtime.FILES[0]

    home = tmp_path / "home"
    home.mkdir()
    (home / "index.html").write_text("mine")
    assert "holds other files" in told(main, ["--output", str(home), *rest])
    assert [path.read_text() for path in home.iterdir()] == ["mine"]
    assert "is a file" in told(main, ["--output", str(home / "index.html"), *rest])
    (tmp_path / "no.onnx").touch()
    inside = ["--output", str(home / "index.html" / "page"), "--onnx", str(tmp_path / "no.onnx")]
    assert "cannot write" in told(main, inside)  # before anything is made or downloaded


def test_the_package_is_the_published_one(tmp_path, package, exported, monkeypatch):
    monkeypatch.undo()
    rest = ["--output", str(tmp_path / "page"), "--onnx", str(exported[1])]
    assert "no such file" in told(main, [*rest, "--runtime", str(tmp_path / "nowhere.tgz")])
    assert "is not onnxruntime-web" in told(main, [*rest, "--runtime", str(package)])
    assert not (tmp_path / "page").exists()


def test_the_package_comes_from_npm(tmp_path, package, exported, monkeypatch):
    rest = ["--output", str(tmp_path / "page"), "--onnx", str(exported[1])]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert "npm is missing" in told(main, rest)
    monkeypatch.setenv("PATH", program(tmp_path / "broken", "echo no network >&2; exit 1"))
    assert "(no network)" in told(main, rest)
    assert not (tmp_path / "page").exists()
    cp = f'/bin/cp {package} {runtime.PACKAGE} && [ "$2" = onnxruntime-web@{runtime.VERSION} ]'
    monkeypatch.setenv("PATH", program(tmp_path / "works", cp))
    assert main(rest) == 0
    assert (tmp_path / "page" / "runtime" / runtime.FILES[0]).is_file()


def test_mistakes_with_the_network(tmp_path, package, exported):
    rest = ["--output", str(tmp_path / "page"), "--runtime", str(package)]
    both = ["--onnx", str(exported[1]), "--checkpoint", str(exported[0])]
    assert "give one of the two" in told(main, [*rest, *both])
    assert "no such file" in told(main, [*rest, "--onnx", str(tmp_path / "nowhere.onnx")])
    assert "no such checkpoint" in told(main, [*rest, "--checkpoint", str(tmp_path / "nowhere")])
    assert not (tmp_path / "page").exists()
