"""Files that appear whole or not at all, and errors that are one line."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from lib.cli import run_main
from lib.errors import UserError, did_you_mean
from lib.files import (
    PROJECT_ROOT,
    check_file_writable,
    check_folder_writable,
    find_path,
    listing,
    refuse_same_file,
    write_atomic,
    write_json,
)


def test_a_failure_in_the_middle_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), write_atomic(path) as file:
        file.write(b"half of the n")
        file.flush()
        assert path.read_bytes() == b"old"
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_new_file_is_whole_and_readable_by_others(tmp_path):
    path = tmp_path / "deep" / "er" / "a.json"
    write_json(path, {"π": [1, 2.5, None]})
    assert json.loads(path.read_text()) == {"π": [1, 2.5, None]}
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert os.listdir(path.parent) == ["a.json"]


def test_a_link_stays_a_link_to_what_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "run.json"
    for target in (Path("disk") / "new.json", Path("disk") / "old.json"):
        (tmp_path / "disk" / "old.json").write_text("old")
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        write_json(link, [1])
        assert link.readlink() == target
        assert json.loads((tmp_path / target).read_text()) == [1]
    assert sorted(os.listdir(tmp_path / "disk")) == ["new.json", "old.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_json(pipe, [1])
    reader.join(60)
    assert [json.loads(text) for text in read] == [[1]]
    assert pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert json.loads(path.read_text()) == [1]


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(UserError, match=r"cannot write .*file/a\.bin: ") as caught,
        write_atomic(tmp_path / "file" / "a.bin") as file,
    ):
        file.write(b"x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["file/a.bin", "file/more/a.bin", "folder"])
def test_a_place_that_cannot_be_written_is_known_beforehand(tmp_path, name):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"cannot write .*{name}: "):
        check_file_writable(tmp_path / name)
    for possible in ("file", "new", "folder/more/new"):
        check_file_writable(tmp_path / possible)
    check_file_writable(os.devnull)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and not any(
        (tmp_path / "folder").iterdir()
    )
    check_folder_writable(tmp_path / "folder")
    with pytest.raises(UserError, match=r"cannot write .*file: "):
        check_folder_writable(tmp_path / "file")


def test_a_full_disk_is_a_user_error_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with (
        pytest.raises(UserError, match="No space left on device; free space"),
        write_atomic(path) as file,
    ):
        file.write(b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_relative_paths_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_path("configs/h36m/tiny.yaml") == PROJECT_ROOT / "configs/h36m/tiny.yaml"
    (tmp_path / "configs" / "h36m").mkdir(parents=True)
    (tmp_path / "configs" / "h36m" / "tiny.yaml").touch()
    assert find_path("configs/h36m/tiny.yaml").samefile(tmp_path / "configs/h36m/tiny.yaml")
    assert str(find_path("nowhere/at.all")) == "nowhere/at.all"


def test_listing(tmp_path):
    assert listing(tmp_path / "none") == "no such folder"
    assert listing(tmp_path) == "nothing"
    for number in range(10):
        (tmp_path / f"{number}.txt").touch()
    assert listing(tmp_path) == ", ".join(f"{n}.txt" for n in range(8)) + " and 2 more"
    assert listing(tmp_path, "3*") == "3.txt"


def test_a_user_error_is_one_line_and_status_2(capsys):
    def wrong():
        raise UserError("a.yaml: no key 'chanel'")

    with pytest.raises(SystemExit) as stop:
        run_main(wrong)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.err == "error: a.yaml: no key 'chanel'\n"
    assert captured.out == ""


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (130, 130)])
def test_other_statuses_pass_through(returned, status):
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: returned)
    assert stop.value.code == status


def test_did_you_mean():
    assert did_you_mean("chanel", ["channel", "epochs"]) == "; did you mean 'channel'?"
    assert did_you_mean("xyz", ["channel", "epochs"]) == ""


def _same(kind, tmp_path, monkeypatch):
    """A source and another way to name it."""
    source = tmp_path / "in" / "poses.npz"
    source.parent.mkdir()
    source.write_bytes(b"precious")
    other = tmp_path / "other.npz"
    if kind == "link":
        other.symlink_to(source)
    elif kind == "hard link":
        os.link(source, other)
    elif kind == "linked folder":
        (tmp_path / "alias").symlink_to(source.parent)
        other = tmp_path / "alias" / "poses.npz"
    elif kind == "dots":
        other = source.parent / ".." / "in" / "poses.npz"
    elif kind == "relative":
        monkeypatch.chdir(source.parent)
        other = Path("poses.npz")
    elif kind == "home":
        monkeypatch.setenv("HOME", str(source.parent))
        other = "~/poses.npz"
    elif kind == "in a source folder":
        source, other = source.parent, source
    return source, other


@pytest.mark.parametrize(
    "kind", ["link", "hard link", "linked folder", "dots", "relative", "home", "in a source folder"]
)
def test_a_result_never_replaces_its_source(tmp_path, monkeypatch, kind):
    source, other = _same(kind, tmp_path, monkeypatch)
    for output, read in (
        ((other, source), (source, other)) if kind[0] != "i" else ((other, source),)
    ):
        with pytest.raises(UserError, match="is read from too") as caught:
            refuse_same_file(output, [None, tmp_path / "no such", read])
        assert "\n" not in str(caught.value)


def test_other_files_may_be_replaced(tmp_path):
    for name in ("source", "result"):
        (tmp_path / name).write_bytes(b"equal")
    refuse_same_file(tmp_path / "result", [tmp_path / "source", "rtsp://host/stream", None])
    refuse_same_file(tmp_path / "new", [tmp_path / "source", tmp_path])


@pytest.mark.parametrize("refuses", ["open", "fsync"])
def test_a_system_that_cannot_sync_folders_writes_files_all_the_same(
    tmp_path, monkeypatch, refuses
):
    """Windows opens no folders; some network file systems do not sync them."""
    real_open, real_fsync = os.open, os.fsync

    def no_folder(path, *arguments, **settings):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        return real_open(path, *arguments, **settings)

    def no_sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        real_fsync(descriptor)

    if refuses == "open":
        monkeypatch.setattr(os, "open", no_folder)
    else:
        monkeypatch.setattr(os, "fsync", no_sync)
    write_json(tmp_path / "a.json", [1])
    assert json.loads((tmp_path / "a.json").read_text()) == [1]
