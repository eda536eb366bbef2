"""What a protocol is: the clips it predicts, what it keeps of them, and how it scores that.

C clips of T frames, of each of which K are kept; N frames of all test videos; J joints.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lib.arrays import Bools, Floats, Ints
from lib.batch import Clips
from lib.evaluation.frames import TestFrames
from lib.evaluation.report import Evaluate, Report
from lib.skeleton import Skeleton


@dataclass(frozen=True)
class Protocol:
    """How predictions for a test set become its numbers."""

    name: str  # value of the config key `protocol`; in tables and reports
    about: str  # the same in some words, for the table
    evaluate: Evaluate  # of the kept frames: (C, K, J, 3) poses, (C, K) frame ids …
    # (frames, T) -> (C, T) frame ids; None: the clips as they were sliced
    windows: Callable[[TestFrames, int], Ints] | None = None
    centre_only: bool = False  # keeps frame T // 2 of each clip, else all
    once: bool = False  # stage 1 counts each valid frame once, else all frames of all clips


@dataclass(frozen=True)
class TestSet:
    """The clips of a test set as a protocol wants them. ids: (C, T), their frames."""

    clips: Clips
    ids: Ints
    frames: TestFrames
    protocol: Protocol

    __test__ = False  # not a test class, whatever pytest thinks of the name

    @property
    def kept(self) -> slice:
        middle = self.ids.shape[1] // 2
        return slice(middle, middle + 1) if self.protocol.centre_only else slice(None)

    def evaluate(self, poses: Floats, skeleton: Skeleton, *, root_rel: bool) -> Report:
        """poses: (C, K, J, 3) normalised predictions of the kept frames. Raises UserError."""
        ids = self.ids[:, self.kept]
        report = self.protocol.evaluate(poses, ids, self.frames, skeleton, root_rel=root_rel)
        return replace(report, protocol=self.protocol.name, about=self.protocol.about)

    def counted(self) -> Bools | None:
        """(C, T) the frames that stage 1 is scored on; None for all."""
        if not self.protocol.once:
            return None
        counted = np.zeros(self.ids.shape, dtype=bool)
        kept = self.ids[:, self.kept]
        first = np.zeros(kept.size, dtype=bool)
        first[np.unique(kept, return_index=True)[1]] = True
        counted[:, self.kept] = first.reshape(kept.shape) & self.frames.is_valid[kept]
        return counted
