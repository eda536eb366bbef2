"""What a run tells its trackers: every epoch once, errors in detail, the best checkpoint."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lib.checkpoint import BEST, PREVIOUS, load_checkpoint
from lib.skeleton import H36M, MPI_INF_3DHP, body_half
from lib.training.stages import BoneStage, LiftingStage
from tests.training import read_run, run_train, stage2_flags


class FakeWandb(types.ModuleType):
    """Remembers what it is told, over several starts of a run."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.lines, self.artifacts, self.starts, self.id = [], [], [], "abc"

    def init(self, **settings) -> "FakeWandb":
        self.starts.append(settings)
        return self

    def log(self, line, step) -> None:
        assert step == line["epoch"]
        self.lines.append(line)

    def log_artifact(self, artifact) -> None:
        self.artifacts.append(artifact)

    def finish(self) -> None: ...

    class Artifact:
        def __init__(self, name, type, metadata) -> None:
            self.name, self.type, self.metadata = name, type, metadata

        def add_file(self, path) -> None:
            self.file, self.content = Path(path).name, Path(path).read_bytes()


@pytest.fixture
def wandb(monkeypatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


TRACKERS = ("--use-wandb", "--use-tensorboard")


def resume(data, folder, *more) -> None:
    arguments = ["--config", data / "stage2.yaml", "--resume", "--checkpoint", folder, *TRACKERS]
    status, _, errors = run_train(*arguments, *more)
    assert status == 0, errors


def in_tensorboard(folder: Path) -> dict[str, list[int]]:
    """The epochs of each curve."""
    events = [EventAccumulator(str(file)) for file in (folder / "tensorboard").glob("events*")]
    curves: dict[str, list[int]] = {}
    for accumulator in events:
        accumulator.Reload()
        for name in accumulator.Tags()["scalars"]:
            curves.setdefault(name, []).extend(e.step for e in accumulator.Scalars(name))
    return curves


def test_every_epoch_is_told_once_however_often_a_run_is_resumed(data, tmp_path, wandb):
    folder = tmp_path / "run"
    run_train(*stage2_flags(data, folder, *TRACKERS, "--set", "epochs=2"))
    resume(data, folder)  # nothing is left to do
    resume(data, folder, "--set", "epochs=3")
    elsewhere = tmp_path / "elsewhere"
    resume(data, folder, "--set", "epochs=4", "--new-checkpoint", elsewhere)
    assert [line["epoch"] for line in wandb.lines] == [1, 2, 3, 4]
    assert wandb.lines == read_run(elsewhere)[1]
    assert [start["id"] for start in wandb.starts] == [None, "abc", "abc", "abc"]
    curves = in_tensorboard(folder)
    assert curves.keys() == wandb.lines[0].keys() - {"epoch"}
    assert all(sorted(epochs) == [1, 2, 3] for epochs in curves.values())
    assert set(map(tuple, in_tensorboard(elsewhere).values())) == {(4,)}


def test_an_epoch_whose_telling_was_cut_off_is_told_by_the_resumed_run(data, tmp_path, wandb):
    """Killed between the save of an epoch and its telling: the history file lacks its line."""
    folder = tmp_path / "run"
    run_train(*stage2_flags(data, folder, *TRACKERS, "--set", "epochs=2"))
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    (folder / "history.jsonl").write_text(lines[0])
    wandb.lines.pop()
    resume(data, folder)
    assert [line["epoch"] for line in wandb.lines] == [1, 2]


def test_an_epoch_done_again_is_not_told_again(data, tmp_path, wandb):
    folder = tmp_path / "run"
    run_train(*stage2_flags(data, folder, *TRACKERS, "--set", "epochs=2"))
    resume(data, folder, "--checkpoint-file", PREVIOUS)
    assert [line["epoch"] for line in wandb.lines] == [1, 2]


def test_the_history_holds_errors_in_detail_and_the_best_score(data, tmp_path):
    average = ("--set", "ema_decay=0.5", "--set", "epochs=3")
    run_train(*stage2_flags(data, tmp_path / "run", *average))
    _, history = read_run(tmp_path / "run")
    for number, line in enumerate(history, start=1):
        joints = [line[f"joint/{name}"] for name in H36M.names]
        assert joints[0] == 0
        assert np.mean(joints) == pytest.approx(line["test/mpjpe"])
        # By hand: hips, knees and ankles are joints 1 to 6, the ten after them the upper body.
        assert line["body/lower"] == pytest.approx(np.mean(joints[1:7]))
        assert line["body/upper"] == pytest.approx(np.mean(joints[7:]))
        for error in ("mpjpe", "p_mpjpe", "mpjve", "acceleration"):
            names = [name for name in line if name.startswith("action/")]
            actions = [line[name] for name in names if name.endswith(f"/{error}")]
            assert len(actions) == 6
            assert np.mean(actions) == pytest.approx(line[f"test/{error}"])
        assert line["best/mpjpe"] == min(past["test/mpjpe"] for past in history[:number])
        assert line["best/ema_mpjpe"] == min(past["ema/mpjpe"] for past in history[:number])


def test_stage_1_tells_its_best_accuracy(data, tmp_path):
    run_train("--config", data / "stage1.yaml", "--new-checkpoint", tmp_path / "run")
    _, history = read_run(tmp_path / "run")
    best = max(line["test/accuracy"] for line in history)
    assert history[-1]["best/accuracy"] == best


@pytest.mark.parametrize("skeleton", [H36M, MPI_INF_3DHP])
def test_the_halves_of_the_body(skeleton):
    legs = {f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "ankle")}
    assert {name for name in skeleton.names if body_half(name) == "lower"} == legs
    assert [name for name in skeleton.names if body_half(name) is None] == ["pelvis"]
    assert skeleton.names[skeleton.root] == "pelvis"


def test_each_new_best_checkpoint_is_uploaded_where_asked_for(data, tmp_path, wandb):
    folder = tmp_path / "run"
    flags = stage2_flags(data, folder, "--use-wandb", "--wandb-artifacts", "--set", "epochs=3")
    status, _, errors = run_train(*flags)
    assert status == 0, errors
    scores = [line["test/mpjpe"] for line in read_run(folder)[1]]
    best = [e for e, score in enumerate(scores, 1) if score == min(scores[:e])]
    assert [a.metadata["epoch"] for a in wandb.artifacts] == best
    last = wandb.artifacts[-1]
    assert last.metadata["score"] == min(scores)
    assert (last.name, last.type, last.file) == ("abc-best_epoch", "model", BEST)
    assert last.content == (folder / BEST).read_bytes()
    (tmp_path / BEST).write_bytes(last.content)
    assert load_checkpoint(tmp_path / BEST).best == min(scores)


def test_no_upload_unless_asked_for(data, tmp_path, wandb):
    run_train(*stage2_flags(data, tmp_path / "run", "--use-wandb", "--set", "epochs=1"))
    assert len(wandb.lines) == 1
    assert wandb.artifacts == []
    status, _, errors = run_train(*stage2_flags(data, tmp_path / "other", "--wandb-artifacts"))
    assert status == 2
    assert "--wandb-artifacts needs --use-wandb" in errors


def test_wandb_offline_keeps_metrics_and_artifact_in_the_run(data, tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "run"
    more = ("--use-wandb", "--wandb-artifacts", "--wandb-name", "trial", "--set", "epochs=1")
    status, _, errors = run_train(*stage2_flags(data, folder, *more))
    assert status == 0, errors
    wandb.teardown()  # its own process writes the file, and has now ended
    (log,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    content = log.read_bytes()
    for told in (b"test/mpjpe", b"joint/right_knee", b"best_epoch"):
        assert told in content
    assert read_run(folder)[0]["training"]["wandb_id"] in log.name


class Scripted:
    """A report of one score."""

    def __init__(self, name: str, score: float) -> None:
        self.name, self.score = name, score

    def scores(self) -> dict[str, float]:
        return {self.name: self.score}

    def details(self) -> dict[str, float]:
        return {}


@pytest.mark.parametrize(
    ("number", "stage", "scores", "best"),
    [
        (1, BoneStage, [0.5, 0.7, 0.6, 0.7], [0.5, 0.7, 0.7, 0.7]),
        (2, LiftingStage, [50.0, 30.0, 40.0, 30.0], [50.0, 30.0, 30.0, 30.0]),
    ],
)
def test_the_best_epoch_stays_the_best_when_later_ones_are_not_better(
    data, tmp_path, wandb, monkeypatch, number, stage, scores, best
):
    scripted = iter(scores)
    monkeypatch.setattr(stage, "evaluate", lambda *_: Scripted(stage.metric, next(scripted)))
    run = ["--config", data / f"stage{number}.yaml", "--new-checkpoint", tmp_path / "run"]
    run += ["--stage1-checkpoint", data / "stage1" / BEST, "--set", "epochs=4"]
    status, _, errors = run_train(*run, "--use-wandb", "--wandb-artifacts")
    assert status == 0, errors
    _, history = read_run(tmp_path / "run")
    assert [line[f"best/{stage.metric}"] for line in history] == best
    assert [artifact.metadata["epoch"] for artifact in wandb.artifacts] == [1, 2]
    kept = load_checkpoint(tmp_path / "run" / BEST)
    assert (kept.epoch, kept.best) == (2, best[-1])
