"""For tests that train: a tiny data set, and command lines run here or in a forked process."""

import io
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import torch

import train
from data.benchmarks import BENCHMARKS
from data.preprocess import synthetic
from lib.checkpoint import BEST, LATEST
from lib.cli import exit_status

CONFIG = """\
stage: {stage}
learning_rate: 0.002
batch_size: 8
epochs: 2
lr_decay: 0.9
channel: 8
st_depth: 2
d_state: 4
n_frames: 9
data_root: {root}
dt_file: synthetic.pkl
"""


def make_data(root: Path) -> None:
    """A synthetic data set of 60 training clips below `root`, and configs of both stages."""
    arguments = ["--data-root", str(root), "--dt-file", "synthetic.pkl", "--frames", "12"]
    arguments += ["--train-subjects", "1", "--test-subjects", "1"]
    run_command(synthetic.main, arguments)
    BENCHMARKS["h36m"].slice(root / "synthetic.pkl", root / "H36M-9", 9)
    for stage in (1, 2):
        (root / f"stage{stage}.yaml").write_text(CONFIG.format(stage=stage, root=root))


def stage2_flags(data: Path, folder: Path, *more) -> list[str]:
    """A training of stage 2 on what the fixture `data` made."""
    arguments = ("--config", data / "stage2.yaml", "--new-checkpoint", folder)
    stage1 = ("--stage1-checkpoint", data / "stage1" / BEST, "--seed", 5)
    return [str(argument) for argument in (*arguments, *stage1, *more)]


def run_command(main: Callable[[list[str]], int], arguments: list) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command line run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = exit_status(partial(main, [str(argument) for argument in arguments]))
    return status, out.getvalue(), err.getvalue()


def run_train(*arguments) -> tuple[int, str, str]:
    return run_command(train.main, list(arguments))


def fork_train(*arguments, before: Callable[[], object] | None = None) -> int:
    """Start a training in a forked process (no second import of torch); returns its pid.

    before: called there first.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        if before:
            before()
        signal.alarm(300)  # a training that hangs fails its test
        status = run_train(*arguments)[0]
    finally:
        os._exit(status)


def train_in_processes(world: int, *arguments, before=lambda rank: None) -> list[int]:
    """A training in `world` forked processes that find each other as torchrun's do; their statuses.

    before: called in each with its rank.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def become(rank: int) -> None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        before(rank)

    pids = [fork_train(*arguments, before=partial(become, rank)) for rank in range(world)]
    return [wait_for(pid) for pid in pids]


class Lines:
    """Counts the lines of some modules that this process runs; `then` is called at number `at`."""

    def __init__(self, *modules, at: int = -1, then: Callable[[], object] | None = None) -> None:
        self.files = {module.__file__ for module in modules}
        self.count, self.at, self.then = 0, at, then
        self._last: tuple[object, int] | None = None

    def start(self) -> None:
        sys.settrace(self._enter)

    def __enter__(self) -> "Lines":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        sys.settrace(None)

    def _enter(self, frame, event, argument):
        is_counted = frame.f_code.co_filename in self.files and frame.f_code.co_name[0] != "<"
        return self._line if is_counted else None

    def _line(self, frame, event, argument):
        place = (frame.f_code, frame.f_lineno)
        if event == "line" and place != self._last:  # a comprehension counts once
            self._last = place
            self.count += 1
            if self.count == self.at:
                self.then()
        return self._line


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def wait_for(pid: int) -> int:
    """Exit status as a shell reports it: 128 + N after signal N."""
    _, status = os.waitpid(pid, 0)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def read_run(folder: Path) -> tuple[dict, list[dict]]:
    """The latest checkpoint as it is, and the history."""
    checkpoint = torch.load(folder / LATEST, weights_only=True)
    lines = (folder / "history.jsonl").read_text().splitlines()
    return checkpoint, [json.loads(line) for line in lines]


def differences(a, b, path: str = "") -> list[str]:
    """Where two nested structures of containers, tensors and numbers differ, bit for bit."""
    if type(a) is not type(b):
        return [f"{path}: {type(a)} and {type(b)}"]
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [f"{path}: tensors differ"]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{path}: keys {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [d for k in a for d in differences(a[k], b[k], f"{path}.{k}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [f"{path}: {len(a)} and {len(b)} items"]
        pairs = zip(a, b, strict=True)
        return [d for i, (x, y) in enumerate(pairs) for d in differences(x, y, f"{path}[{i}]")]
    return [] if a == b else [f"{path}: {a!r} and {b!r}"]


def assert_same_end(folder: Path, uninterrupted) -> None:
    checkpoint, history = read_run(folder)
    assert not differences(checkpoint, uninterrupted[0])
    assert history == uninterrupted[1]
