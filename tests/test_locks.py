"""Locks that are free as soon as their holder has ended, however it ended."""

import os
import signal

from lib.locks import locked, try_lock


def fork_and_lock(path, end):
    """A child that takes the lock, says so, and then ends by `end` when told to."""
    (told, tell), (go, stop) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        lock = try_lock(path)
        os.write(tell, b"1" if lock else b"0")
        os.read(go, 1)
        os.kill(os.getpid(), end)
    assert os.read(told, 1) == b"1"
    return child, stop


def test_a_lock_dies_with_its_process(tmp_path):
    path = tmp_path / "lock"
    child, stop = fork_and_lock(path, signal.SIGKILL)
    assert try_lock(path) is None
    os.write(stop, b"1")
    os.waitpid(child, 0)
    assert try_lock(path) is not None


def test_two_holders_in_one_process_exclude_each_other(tmp_path):
    first = try_lock(tmp_path / "lock")
    assert try_lock(tmp_path / "lock") is None
    first.release()
    assert try_lock(tmp_path / "lock") is not None


def test_those_who_wait_get_it_one_after_the_other(tmp_path):
    """Each adds 1 by reading and writing: without a lock, additions get lost."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    children = []
    for _ in range(4):
        children.append(os.fork())
        if not children[-1]:
            try:
                for _ in range(25):
                    with locked(tmp_path / "lock"):
                        before = int(counter.read_text())
                        os.sched_yield()
                        counter.write_text(str(before + 1))
                os._exit(0)
            finally:
                os._exit(1)
    assert [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children] == [0] * 4
    assert counter.read_text() == "100"
    assert os.listdir(tmp_path) == ["counter"]
