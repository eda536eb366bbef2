"""Batches of an epoch: the order of the clips and which are mirrored follow from seed and epoch."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.clips import Batch, ClipDataset
from lib.geometry import flip_pose
from lib.skeleton import Skeleton

FLIP_PROBABILITY = 0.5


class _FlippingDataset(Dataset):
    """Indexed by (clip, is mirrored) pairs."""

    def __init__(self, dataset: ClipDataset, skeleton: Skeleton) -> None:
        self.dataset, self.skeleton = dataset, skeleton

    def __getitems__(self, pairs: Sequence[tuple[int, bool]]) -> Batch:
        clips, flips = zip(*pairs, strict=True)
        batch = self.dataset.__getitems__(clips)
        flipped = torch.tensor(flips)
        for pose in (batch.pose_2d, batch.pose_3d):
            pose[flipped] = flip_pose(pose[flipped], self.skeleton)
        return batch


def _as_is(batch: Batch) -> Batch:
    return batch


class ClipLoader:
    """Shuffled, randomly mirrored batches; nothing about an epoch depends on earlier ones.

    So a run resumed at epoch e, step s sees just what the uninterrupted run would have seen.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batch_size: int,
        *,
        skeleton: Skeleton,
        seed: int,
        flip: bool,
        workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.flip = flip
        self.workers = workers
        self._flipping = _FlippingDataset(dataset, skeleton)

    def __len__(self) -> int:
        """Steps of an epoch; the last batch may be smaller."""
        return -(-len(self.dataset) // self.batch_size)

    def order(self, epoch: int) -> list[list[tuple[int, bool]]]:
        """(clip, is mirrored) of each batch of an epoch."""
        random = np.random.default_rng([self.seed, epoch])
        clips = random.permutation(len(self.dataset)).tolist()
        flips = (random.random(len(clips)) < (FLIP_PROBABILITY if self.flip else 0)).tolist()
        pairs = list(zip(clips, flips, strict=True))
        return [pairs[i : i + self.batch_size] for i in range(0, len(pairs), self.batch_size)]

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start_step` on."""
        yield from DataLoader(
            self._flipping,
            batch_sampler=self.order(epoch)[start_step:],
            num_workers=self.workers,
            collate_fn=_as_is,
            # Its own generator: the default one would draw from the global random state.
            generator=torch.Generator(),
        )
