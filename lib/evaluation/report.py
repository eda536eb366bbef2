"""The numbers of an evaluation: for the table, for JSON and for the choice of the best epoch."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lib.arrays import Floats, Ints
from lib.evaluation.frames import TestFrames
from lib.skeleton import BODY_HALVES, Skeleton, body_half

# The errors' names at the head of a table; an error that is not here keeps its own.
HEADS = {
    "mpjpe": "MPJPE",
    "p_mpjpe": "P-MPJPE",
    "n_mpjpe": "N-MPJPE",
    "mpjve": "MPJVE",
    "acceleration": "accel.",
}


@dataclass(frozen=True)
class Report:
    """Errors in mm (mm/frame, mm/frame²), averaged as a protocol wants them.

    averages: by error, as in HEADS; per_action: action -> the same; per_joint: MPJPE; remarks: how
    they were made, where there was a choice.
    """

    averages: dict[str, float]
    per_action: dict[str, dict[str, float]]
    per_joint: dict[str, float]
    frames: int
    remarks: tuple[str, ...] = ()

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
        rest = {name: value for name, value in vars(self).items() if name != "averages"}
        if not self.remarks:
            del rest["remarks"]
        return {**self.averages, **rest}

    def table(self) -> str:
        """The errors per joint and per action as text, the averages last."""
        lines = ["joint              MPJPE"]
        lines += [f"{name:<16} {error:7.2f}" for name, error in self.per_joint.items()]
        width = max([16, *map(len, self.per_action)])

        def row(name: str, errors: dict[str, float]) -> str:
            return f"{name:<{width}}" + "".join(f" {errors[key]:8.2f}" for key in self.averages)

        lines += [
            "",
            f"{'action':<{width}}" + "".join(f" {HEADS.get(n, n):>8}" for n in self.averages),
        ]
        lines += [row(action, errors) for action, errors in self.per_action.items()]
        lines += [
            row("average", self.averages),
            f"mm, mm/frame and mm/frame² over {self.frames:,} frames,"
            f" {len(self.per_action)} actions",
            *self.remarks,
        ]
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
