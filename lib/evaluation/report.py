"""The numbers of an evaluation: for the table, for JSON and for the choice of the best epoch."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from lib.arrays import Floats, Ints
from lib.evaluation.frames import TestFrames
from lib.skeleton import BODY_HALVES, Skeleton, body_half

# The scores' names at the head of a table, and their units; one that is not here keeps its own
# name and is in mm.
HEADS = {
    "mpjpe": "MPJPE", "p_mpjpe": "P-MPJPE", "n_mpjpe": "N-MPJPE", "pck": "PCK@150", "auc": "AUC",
    "mpjve": "MPJVE", "acceleration": "accel.",
}  # fmt: skip
UNITS = {"pck": "%", "auc": "%", "mpjve": "mm/frame", "acceleration": "mm/frame²"}

Scores = dict[str, float]


@dataclass(frozen=True)
class Report:
    """Scores in the units of UNITS, averaged as a protocol wants them.

    averages: by score, as in HEADS; per_action, per_sequence: name -> the same, less what cannot
    be computed there; per_joint: MPJPE; protocol, about: its name, and what it is in some words;
    others: the reports of further protocols; predictions: sequence -> (frames, J, 3) mm, where the
    protocol can save them; remarks: how the scores were made, where there was a choice.
    """

    averages: Scores
    per_action: dict[str, Scores]
    per_joint: Scores
    frames: int
    per_sequence: dict[str, Scores] = field(default_factory=dict, kw_only=True)
    protocol: str = field(default="", kw_only=True)
    about: str = field(default="", kw_only=True)
    others: "dict[str, Report]" = field(default_factory=dict, kw_only=True)
    predictions: dict[str, Floats] = field(default_factory=dict, kw_only=True)
    remarks: tuple[str, ...] = field(default=(), kw_only=True)

    def scores(self) -> dict[str, float]:
        return dict(self.averages)

    def details(self) -> dict[str, float]:
        """joint/<joint>, body/upper and body/lower (MPJPE in mm), action/<action>/<error>."""
        halves = {
            half: [error for joint, error in self.per_joint.items() if body_half(joint) == half]
            for half in BODY_HALVES
        }
        return {
            **{f"joint/{name}": error for name, error in self.per_joint.items()},
            **{f"body/{half}": float(np.mean(e)) for half, e in halves.items() if e},
            **{
                f"action/{action}/{name}": error
                for action, errors in self.per_action.items()
                for name, error in errors.items()
            },
        }

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        report: dict[str, object] = {"protocol": self.protocol, **self.averages}
        report |= {"per_action": self.per_action, "per_joint": self.per_joint}
        if self.per_sequence:
            report["per_sequence"] = self.per_sequence
        report["frames"] = self.frames
        if self.remarks:
            report["remarks"] = self.remarks
        if self.others:
            others = {name: other.as_dict() for name, other in self.others.items()}
            report["other_protocols"] = others
        return report

    def table(self) -> str:
        """The errors per joint and per action as text, the averages last; then other protocols."""
        lines = [f"protocol {self.protocol}: {self.about}", "", "joint              MPJPE"]
        lines += [f"{name:<16} {error:7.2f}" for name, error in self.per_joint.items()]
        width = max([16, *map(len, [*self.per_sequence, *self.per_action])])

        def row(name: str, scores: Scores) -> str:
            cells = (
                f"{scores[key]:8.2f}" if key in scores else f"{'–':>8}" for key in self.averages
            )
            return " ".join([f"{name:<{width}}", *cells])

        heads = "".join(f" {HEADS.get(name, name):>8}" for name in self.averages)
        for kind, parts in (("sequence", self.per_sequence), ("action", self.per_action)):
            if parts:
                lines += ["", f"{kind:<{width}}{heads}"]
                lines += [row(name, scores) for name, scores in parts.items()]
        units = dict.fromkeys(UNITS.get(name, "mm") for name in self.averages)
        lines += [
            row("average", self.averages),
            f"{', '.join(units)}; {self.frames:,} frames"
            + (f", {len(self.per_action)} actions" if self.per_action else ""),
            *self.remarks,
        ]
        for other in self.others.values():
            lines += ["", other.table()]
        return "\n".join(lines)


class Evaluate(Protocol):
    """A protocol: how predictions of a test set's clips become its numbers."""

    def __call__(
        self,
        poses: Floats,
        clips: Ints,
        frames: TestFrames,
        skeleton: Skeleton,
        *,
        root_rel: bool = True,
    ) -> Report:
        """poses: (C, T, J, 3) normalised predictions; clips: (C, T) frame ids. Raises UserError."""
