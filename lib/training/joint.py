"""Stage 2 with stage 1 trained along (`train_bone_aware`): both losses, both scores."""

from typing import cast

from torch import Tensor, nn

from lib.batch import Batch, Clips
from lib.processes import Processes
from lib.released import Contents
from lib.training.stages import ALONE, BoneStage, LiftingStage, Progress, StageReport


class JointStage:
    """The pose losses plus `weight` times stage 1's cross entropy; scored by MPJPE.

    The accuracy of the bins is reported beside it. Where the angle of a bone is an expectation, or
    its confidence a feature, the pose losses train stage 1, too; a bin itself has no gradient.
    """

    metric, higher_is_better = LiftingStage.metric, LiftingStage.higher_is_better

    def __init__(self, lifting: LiftingStage, bones: BoneStage, weight: float) -> None:
        """lifting: of an MDTF that trains stage 1; bones: of its stage 1."""
        self.lifting, self.bones, self.weight = lifting, bones, weight
        self.model = self.train_model = lifting.model
        self.skeleton = lifting.skeleton

    @property
    def test(self) -> Clips:
        return self.lifting.test

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        pose, logits = self.train_model(batch.pose_2d, with_logits=True)
        losses = self.lifting.losses_of(pose, batch)
        losses["bins"] = self.bones.losses_of(logits, batch)["total"]
        return losses | {"total": losses["total"] + self.weight * losses["bins"]}

    def evaluate(
        self, model: nn.Module, progress: Progress = iter, processes: Processes = ALONE
    ) -> "JointReport":
        poses = self.lifting.evaluate(model, progress, processes)
        bone_aware = cast(nn.Module, model.bone_aware)
        return JointReport(poses, self.bones.evaluate(bone_aware, progress, processes))

    def weights(self, model: nn.Module) -> Contents:
        return self.lifting.weights(model)


class JointReport:
    """The poses' report, with the accuracy of the bins among its scores."""

    def __init__(self, poses: StageReport, bins: StageReport) -> None:
        self.poses, self.bins = poses, bins

    def scores(self) -> dict[str, float]:
        return {**self.poses.scores(), "bin_accuracy": self.bins.scores()["accuracy"]}

    def details(self) -> dict[str, float]:
        return self.poses.details()

    def as_dict(self) -> dict[str, object]:
        return {**self.poses.as_dict(), "bins": self.bins.as_dict()}

    def table(self) -> str:
        return f"{self.poses.table()}\n\n{self.bins.table()}"
