"""What differs between the two stages: a loss and a score. Everything else is in `fit`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import metrics
from lib.arrays import Bools, Ints
from lib.batch import Batch, Clips
from lib.config import Config
from lib.errors import UserError
from lib.evaluation.predict import predict_test
from lib.evaluation.protocol import TestSet
from lib.evaluation.report import Report
from lib.geometry import person_unit, polar_bins
from lib.losses import lifting_losses
from lib.processes import Processes
from lib.random_state import separate_random_states
from lib.released import Contents
from lib.skeleton import Skeleton

Progress = Callable[[Iterable[int]], Iterable[int]]
ALONE = Processes()


class StageReport(Protocol):
    """What an evaluation found."""

    def scores(self) -> dict[str, float]: ...  # the few numbers that are compared
    def details(self) -> dict[str, float]: ...  # what else goes into the history
    def table(self) -> str: ...
    def as_dict(self) -> dict[str, object]: ...


class Stage(Protocol):
    """What the training loop needs to know of a stage."""

    model: nn.Module  # what is trained and saved
    train_model: nn.Module  # what losses() calls: the model, or a wrapper of it
    skeleton: Skeleton
    metric: str  # the key of evaluate() that picks the best epoch
    higher_is_better: bool

    @property
    def test(self) -> Clips: ...
    def losses(self, batch: Batch) -> dict[str, Tensor]: ...  # scalars; "total" is minimised
    def evaluate(
        self, model: nn.Module, progress: Progress = iter, processes: Processes = ALONE
    ) -> StageReport:
        """model: `self.model` or one like it; progress: wraps the loop over batches of clips."""

    def weights(self, model: nn.Module) -> Contents: ...  # what a checkpoint holds of it


class BoneAware(Protocol):
    """A stage 1."""

    num_bins: int

    def forms(self) -> Contents: ...  # what its weights do not tell of it


class BoneStage:
    """Stage 1: cross entropy of the polar-angle bins over all joint slots; scored by accuracy."""

    metric, higher_is_better = "accuracy", True

    def __init__(
        self,
        model: nn.Module,
        skeleton: Skeleton,
        test: Clips,
        batch_size: int,
        device: torch.device | str,
        protocol: str = "",
        counted: Bools | None = None,
    ) -> None:
        """protocol: its name; counted: (clips, T), the test frames that count, None for all."""
        self.model = self.train_model = model
        self.skeleton, self.test = skeleton, test
        self.protocol, self.counted = protocol, counted
        self.batch_size, self.device = batch_size, torch.device(device)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses_of(self.train_model(batch.pose_2d), batch)

    def losses_of(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """logits: (B, T, J, bins), those of the batch."""
        labels = polar_bins(batch.pose_3d, self.skeleton, logits.shape[-1])
        return {"total": F.cross_entropy(logits.float().flatten(0, 2), labels.flatten())}

    @torch.inference_mode()
    def evaluate(
        self, model: nn.Module, progress: Progress = iter, processes: Processes = ALONE
    ) -> "BinReport":
        if self.counted is not None and not self.counted.any():
            raise UserError("none of the test frames is valid, so there is nothing to score")
        model.eval()
        num_bins = cast(BoneAware, model).num_bins
        confusion = np.zeros((num_bins, num_bins), np.int64)
        bones = list(self.skeleton.bone_children)
        frames = 0
        first, last = processes.share(len(self.test))
        for start in progress(range(first, last, self.batch_size)):
            clips = list(range(start, min(start + self.batch_size, last)))
            batch = self.test.__getitems__(clips).to(self.device)
            logits = model(batch.pose_2d)
            if not logits.isfinite().all():  # argmax would return bins nevertheless
                raise UserError(
                    f"the prediction is not finite (test clips {clips}); its training went wrong"
                    " or its weights are damaged: use an earlier checkpoint"
                )
            bins = logits.argmax(-1)[..., bones]
            labels = polar_bins(batch.pose_3d, self.skeleton, num_bins)[..., bones]
            if self.counted is not None:
                counted = torch.from_numpy(self.counted[clips]).to(self.device)
                bins, labels = bins[counted], labels[counted]
            confusion += metrics.confusion_matrix(
                bins.cpu().numpy(), labels.cpu().numpy(), num_bins
            )
            frames += bins[..., 0].numel()
        parts = processes.gather((confusion, frames))
        return processes.from_main(
            lambda: BinReport(
                np.sum([counts for counts, _ in parts], axis=0),
                sum(count for _, count in parts),
                self.protocol,
            )
        )

    def weights(self, model: nn.Module) -> Contents:
        return {"model": model.state_dict()}


class BinReport:
    """How well the bins are predicted, over the bones (and, as released, with the root slot)."""

    def __init__(self, confusion: Ints, frames: int, protocol: str = "") -> None:
        """confusion: (bins, bins) counts over the bones of `frames` frames."""
        self.confusion, self.frames, self.protocol = confusion, frames, protocol

    def scores(self) -> dict[str, float]:
        """All in [0, 1]. `accuracy_released` counts the root slot too, which is always right."""
        total, hits = int(self.confusion.sum()), int(np.trace(self.confusion))
        scores = metrics.bin_scores(self.confusion)
        released = (hits + self.frames) / max(1, total + self.frames)
        return {"accuracy": scores.pop("accuracy"), "accuracy_released": released, **scores}

    def details(self) -> dict[str, float]:
        return {}

    def as_dict(self) -> dict[str, object]:
        counts = {"confusion": self.confusion.tolist(), "frames": self.frames}
        return {"protocol": self.protocol, **self.scores(), **counts}

    def table(self) -> str:
        num_bins = len(self.confusion)
        width = 180 // num_bins
        names = [f"{i * width}-{(i + 1) * width}°" for i in range(num_bins)]
        share = self.confusion / np.maximum(1, self.confusion.sum(1, keepdims=True))
        lines = [f"protocol {self.protocol}", ""]
        lines += ["true \\ predicted" + "".join(f"{name:>9}" for name in names) + "    bones"]
        for name, row, count in zip(names, share, self.confusion.sum(1), strict=True):
            lines.append(f"{name:<16}" + "".join(f"{s:9.1%}" for s in row) + f"{count:9,}")
        lines += ["", *(f"{name:<18} {score:8.2%}" for name, score in self.scores().items())]
        lines.append(f"over {self.frames:,} frames; accuracy_released counts the root slot too")
        return "\n".join(lines)


def training_target(pose_3d: Tensor, root: int, root_rel: bool) -> Tensor:
    """What stage 2 learns to predict from the label (B, T, J, 3), whose x, y are on the screen.

    root_rel: each joint relative to the root of its frame. Otherwise only the depth is shifted, so
    that the root of the clip's first frame has depth 0.
    """
    if root_rel:
        return pose_3d - pose_3d[..., root : root + 1, :]
    first = pose_3d[:, :1, root : root + 1]
    return torch.cat((pose_3d[..., :2], pose_3d[..., 2:] - first[..., 2:]), dim=-1)


class LiftingStage:
    """Stage 2: the weighted pose losses on root-relative labels; scored by MPJPE in mm."""

    metric, higher_is_better = "mpjpe", False

    def __init__(
        self,
        model: nn.Module,
        config: Config,
        skeleton: Skeleton,
        tests: Sequence[TestSet],
        device: torch.device | str,
        seed: int = 0,
    ) -> None:
        """model: an MDTF; tests: the test set as each protocol wants it, the first decides.

        seed: of the noise that stage 1's DropPath makes where config.stage1_drop_path is set.
        """
        self.model = self.train_model = model
        self.config, self.skeleton = config, skeleton
        self.tests, self.device, self.seed = tests, torch.device(device), seed

    @property
    def test(self) -> Clips:
        return self.tests[0].clips

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses_of(self.train_model(batch.pose_2d), batch)

    def losses_of(self, pose: Tensor, batch: Batch) -> dict[str, Tensor]:
        """pose: (B, T, J, 3), the prediction for the batch."""
        target = training_target(batch.pose_3d, self.skeleton.root, self.config.root_rel)
        pred = pose.float()
        if self.config.loss_unit == "person":
            unit = person_unit(batch.pose_2d, self.skeleton.root)
            pred, target = pred / unit, target / unit
        return lifting_losses(pred, target, self.skeleton, self.config.loss_weights)

    def evaluate(
        self, model: nn.Module, progress: Progress = iter, processes: Processes = ALONE
    ) -> Report:
        first, *others = [self._score(model, test, progress, processes) for test in self.tests]
        return replace(first, others={other.protocol: other for other in others})

    def _score(
        self, model: nn.Module, test: TestSet, progress: Progress, processes: Processes
    ) -> Report:
        model.eval()
        # The same weights give the same numbers at every evaluation, and the training goes on as
        # if there had been none.
        with separate_random_states(self.seed):
            poses = predict_test(
                model,
                test,
                range(*processes.share(len(test.clips))),
                self.skeleton,
                flip=self.config.flip,
                batch_size=self.config.batch_size,
                device=self.device,
                progress=progress,
            )
        parts = processes.gather(poses)
        return processes.from_main(
            lambda: test.evaluate(
                np.concatenate(parts), self.skeleton, root_rel=self.config.root_rel
            )
        )

    def weights(self, model: nn.Module) -> Contents:
        parts = dict(model.named_children())
        contents: Contents = {"model": parts["lifter"].state_dict()}
        if "bone_aware" in parts:
            contents["bone_aware"] = parts["bone_aware"].state_dict()
            contents["bone_aware_forms"] = cast(BoneAware, parts["bone_aware"]).forms()
        return contents
