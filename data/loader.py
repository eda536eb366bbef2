"""Batches of an epoch: clips, their order and which are mirrored follow from seed and epoch."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.clips import TrainingClips
from data.resident import ResidentClips
from lib.batch import Batch, SharedBatch
from lib.device import to_device
from lib.errors import UserError
from lib.geometry import flip_pose
from lib.processes import LOST_WORKER, Processes
from lib.skeleton import Skeleton

FLIP_PROBABILITY = 0.5


class _FlippingDataset(Dataset):
    """Indexed by (epoch, clip, is mirrored); those asked for at once are of one epoch."""

    def __init__(self, dataset: TrainingClips, skeleton: Skeleton, seed: int) -> None:
        self.dataset, self.skeleton, self.seed = dataset, skeleton, seed

    def __getitems__(self, items: Sequence[tuple[int, int, bool]]) -> Batch | UserError:
        clips, flips = [clip for _, clip, _ in items], [flip for _, _, flip in items]
        epoch = items[0][0] if items else 0
        try:
            batch = self.dataset.draw(clips, seed=self.seed, epoch=epoch)
        except UserError as error:
            # If a worker raised it, the user would see two tracebacks around it.
            return error
        flipped = to_device(torch.tensor(flips, dtype=torch.bool), batch.pose_2d.device)
        # Not only the mirrored ones: which those are is not known here without waiting for a GPU.
        pose_2d, pose_3d = (
            torch.where(flipped[:, None, None, None], flip_pose(pose, self.skeleton), pose)
            for pose in (batch.pose_2d, batch.pose_3d)
        )
        return Batch(pose_2d, pose_3d, batch.clips)


def _as_is(fetched: Any) -> Any:
    """In place of DataLoader's own collation: `__getitems__` has made a batch already."""
    return fetched


class ClipLoader:
    """Shuffled, randomly mirrored batches; nothing about an epoch depends on earlier ones.

    So a run resumed at epoch e, step s sees just what the uninterrupted run would have seen, and
    several processes see together what one would have seen.
    """

    def __init__(
        self,
        dataset: TrainingClips,
        batch_size: int,
        *,
        skeleton: Skeleton,
        seed: int,
        flip: bool,
        each_mirrored: bool = False,
        workers: int = 0,
        processes: Processes | None = None,
        parts: int = 1,
        pin: bool = False,
    ) -> None:
        """batch_size: of all processes together; flip: half of the clips are mirrored, at random;
        each_mirrored: with flip, an epoch has each clip plain and mirrored instead; workers:
        processes that load data for this one; parts: how many parts a batch is split into, to save
        memory; pin: into memory that a GPU copies from without anybody waiting."""
        self.dataset, self.batch_size, self.seed, self.flip = dataset, batch_size, seed, flip
        self.both = flip and each_mirrored
        self.workers, self.parts, self.pin = workers, parts, pin
        self.processes = processes or Processes()
        self._flipping = _FlippingDataset(dataset, skeleton, seed)

    def __len__(self) -> int:
        """Steps of an epoch; the last batch may be smaller."""
        clips = len(self.dataset) * (2 if self.both else 1)
        return -(-clips // self.batch_size)

    def order(self, epoch: int) -> list[list[tuple[int, bool]]]:
        """(clip, is mirrored) of each batch of an epoch."""
        random = np.random.default_rng([self.seed, epoch])
        if self.both:
            drawn = random.permutation(2 * len(self.dataset)).tolist()
            pairs = [(number // 2, number % 2 == 1) for number in drawn]
        else:
            clips = random.permutation(len(self.dataset)).tolist()
            flips = (random.random(len(clips)) < (FLIP_PROBABILITY if self.flip else 0)).tolist()
            pairs = list(zip(clips, flips, strict=True))
        return [pairs[i : i + self.batch_size] for i in range(0, len(pairs), self.batch_size)]

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[SharedBatch]:
        """This process's part of the batches of an epoch, from `start_step` on.

        Raises UserError: a clip that cannot be read, or holds NaN or infinity.
        """
        order = self.order(epoch)[start_step:]
        shares = [self.processes.shares(len(pairs), self.parts) for pairs in order]
        mine = [
            [(epoch, *pair) for a, b in own for pair in pairs[a:b]]
            for pairs, own in zip(order, shares, strict=True)
        ]
        for pairs, own, batch in zip(order, shares, self._drawn(mine), strict=True):
            if isinstance(batch, UserError):
                raise batch
            yield SharedBatch(batch.pose_2d, batch.pose_3d, batch.clips, own, len(pairs))

    def _drawn(self, mine: list[list[tuple[int, int, bool]]]) -> Iterator[Batch | UserError]:
        """The batches of these items, by the processes that load data if there are any."""
        if isinstance(self.dataset, ResidentClips):
            yield from map(self._flipping.__getitems__, mine)
            return
        loader = DataLoader(
            self._flipping,
            batch_sampler=mine,
            num_workers=self.workers,
            collate_fn=_as_is,
            # Its own generator: the default one would draw from the global random state.
            generator=torch.Generator(),
            pin_memory=self.pin,
        )
        received = iter(loader)
        for _ in mine:
            try:
                yield next(received)
            except (EOFError, ConnectionError) as error:  # DataLoader may be too slow to say so
                raise RuntimeError(LOST_WORKER) from error
