"""One run of the ablation: the project's own training, for so many steps, and its score."""

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import train
from data.loader import ClipLoader
from lib.batch import Batch, Clips, SharedBatch
from lib.checkpoint import save_checkpoint
from lib.config import Config
from lib.geometry import polar_bins
from lib.random_state import seed_everything
from lib.skeleton import Skeleton
from lib.training.fit import Fit
from lib.training.joint import JointStage
from lib.training.options import Options
from lib.training.run import Run, SilentRun
from lib.training.session import Session, open_run
from lib.training.stages import BoneStage, LiftingStage, Stage

# One of so many validation clips is scored, or evaluations would take as long as trainings.
EVERY = 4
WARM, TIMED = 2, 7  # steps of which the first are not counted, and those whose median is taken


class Steps:
    """A loader's epochs as one epoch of so many steps."""

    def __init__(self, loader: ClipLoader, steps: int) -> None:
        self.loader, self.steps = loader, steps

    def __len__(self) -> int:
        return self.steps

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[SharedBatch]:
        every = itertools.chain.from_iterable(map(self.loader.batches, itertools.count()))
        return itertools.islice(every, start_step, self.steps)


class TimedFit(Fit):
    """The training loop, which also adds up the CPU time of its steps, without that for data."""

    def __init__(self, session: Session, stage: Stage, loader: Steps, run: Run | SilentRun) -> None:
        super().__init__(session, stage, loader, run)
        self.cpu_seconds = 0.0

    def _step(self, batch: SharedBatch) -> None:
        began = time.process_time()
        super()._step(batch)
        self.cpu_seconds += time.process_time() - began

    def time_step(self, batch: SharedBatch) -> float:
        """CPU seconds of one step."""
        before = self.cpu_seconds
        self.stage.model.train()
        self._step(batch)
        return self.cpu_seconds - before

    def train(self) -> None:
        """All steps, without evaluation and checkpoints. Raises UserError: a loss is not finite."""
        for batch in self.loader.batches(0):
            self.time_step(batch)
        self._check()


class Fewer:
    """Every so-and-so-many-th of some clips."""

    def __init__(self, clips: Clips, step: int) -> None:
        self.clips, self.numbers = clips, range(0, len(clips), step)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitems__(self, clips: Sequence[int]) -> Batch:
        return self.clips.__getitems__([self.numbers[clip] for clip in clips])


def thin_out(stage: Stage, step: int) -> None:
    """From now on, only every step-th test clip is scored."""
    if isinstance(stage, JointStage):
        thin_out(stage.lifting, step)
        thin_out(stage.bones, step)
    elif isinstance(stage, LiftingStage):
        stage.tests = [
            replace(test, clips=Fewer(test.clips, step), ids=test.ids[::step])
            for test in stage.tests
        ]
    elif isinstance(stage, BoneStage):
        stage.test = Fewer(stage.test, step)
        stage.counted = None if stage.counted is None else stage.counted[::step]


class TrueBins(nn.Module):
    """In place of stage 1: certain of the bins that the labels say."""

    CERTAIN = 100.0  # logit

    def __init__(self, skeleton: Skeleton, num_bins: int) -> None:
        super().__init__()
        self.skeleton, self.num_bins = skeleton, num_bins
        self.labels = torch.empty(0)  # (B, T, J, 3) of the clips that come next

    def forward(self, pose_2d: Tensor) -> Tensor:
        """(B or 2·B, T, J, 3) -> logits (…, T, J, bins); a second half is the mirrored first."""
        bins = polar_bins(self.labels, self.skeleton, self.num_bins)
        if len(pose_2d) == 2 * len(bins):
            bins = torch.cat((bins, bins[..., list(self.skeleton.flip_order)]))
        return self.CERTAIN * F.one_hot(bins, self.num_bins).to(pose_2d.dtype)

    def forms(self) -> dict[str, object]:
        return {}


class Told:
    """Clips whose labels TrueBins gets to know when they are read."""

    def __init__(self, clips: Clips, bins: TrueBins) -> None:
        self.clips, self.bins = clips, bins

    def __len__(self) -> int:
        return len(self.clips)

    def __getitems__(self, clips: Sequence[int]) -> Batch:
        batch = self.clips.__getitems__(clips)
        self.bins.labels = batch.pose_3d
        return batch


class Oracle(LiftingStage):
    """Stage 2 with the true bins."""

    def __init__(self, stage: LiftingStage, num_bins: int) -> None:
        self.bins = TrueBins(stage.skeleton, num_bins)
        stage.model.bone_aware = self.bins
        tests = [replace(test, clips=Told(test.clips, self.bins)) for test in stage.tests]
        super().__init__(stage.model, stage.config, stage.skeleton, tests, stage.device, stage.seed)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        self.bins.labels = batch.pose_3d
        return super().losses(batch)


def make_fit(
    config: Config,
    folder: Path,
    steps: int,
    seed: int,
    *,
    stage1: Path | None = None,
    true_bins: bool = False,
    silent: bool = False,
) -> TimedFit:
    """A training as train.py makes it, ready for its first step. Raises UserError.

    folder: where it writes, nothing if silent; stage1: the weights of stage 1, for stage 2.
    """
    options = Options(
        new_checkpoint=str(folder), stage1_checkpoint=None if stage1 is None else str(stage1)
    )
    session = Session(options, train.complete(config), seed=seed)
    seed_everything(seed)
    stage = train.make_stage(session)
    thin_out(stage, EVERY)
    if true_bins:
        assert isinstance(stage, LiftingStage)
        stage = Oracle(stage, config.bins)
    loader = train.make_loader(session, stage.skeleton)
    run = SilentRun(folder) if silent else open_run(session)
    return TimedFit(session, stage, Steps(loader, steps), run)


def step_costs(fits: dict[str, TimedFit]) -> dict[str, float]:
    """CPU seconds of a step of each training; they take turns, so that all meet the same machine.

    The trainings are worn out afterwards.
    """
    costs: dict[str, list[float]] = {name: [] for name in fits}
    batches = {name: next(iter(fit.loader.batches(0))) for name, fit in fits.items()}
    for turn in range(WARM + TIMED):
        for name, fit in fits.items():
            seconds = fit.time_step(batches[name])
            if turn >= WARM:
                costs[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in costs.items()}


def save_weights(fit: TimedFit, file: Path) -> None:
    """The weights as they are now: of stage 1, for a stage 2."""
    save_checkpoint(file, fit.contents(fit.stage.model, None))


def scores(fit: TimedFit) -> dict[str, float]:
    """Of a training that has ended: those of the moving average where there is one."""
    line, prefix = fit.history[-1], "ema/" if fit.config.ema_decay else "test/"
    return {k.removeprefix(prefix): v for k, v in line.items() if k.startswith(prefix)}
