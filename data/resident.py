"""Training clips whose frames all lie on the device: a batch is picked there by its frame ids."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from data.clips import ClipDataset, JoinedClips
from data.store import ArrayClips, projected
from lib.arrays import Floats, Ints
from lib.batch import Batch
from lib.device import to_device
from lib.errors import UserError

LARGEST_SHARE = 0.25  # of the device's free memory, that is taken without being asked to
Rows = tuple[Floats, Floats, Ints]


def _rows(dataset: object) -> Rows | None:
    """2D and 3D of each frame (N, J, 3), and the frame ids of the clips (clips, T); None if the
    clips are not made of stored frames."""
    if not isinstance(dataset, ClipDataset):
        return None
    source = dataset.source
    parts = source.parts if isinstance(source, JoinedClips) else [source]
    arrays = [part for part in parts if isinstance(part, ArrayClips)]
    if len(arrays) != len(parts):
        return None
    rows = [part.rows() for part in arrays]
    starts = np.cumsum([0, *(len(pose) for pose, _ in rows)])
    ids = [part.frame_ids + start for part, start in zip(arrays, starts, strict=False)]
    pose_2d, pose_3d = (np.concatenate(poses) for poses in zip(*rows, strict=True))
    if dataset.use_proj_as_2d:
        pose_2d = projected(pose_3d)
    return pose_2d, pose_3d, np.concatenate(ids)


class ResidentClips:
    """The clips of a ClipDataset, bit for bit."""

    def __init__(self, dataset: ClipDataset, rows: Rows, device: torch.device) -> None:
        """Raises UserError: a clip holds NaN or infinity."""
        pose_2d, pose_3d, ids = rows
        finite = np.isfinite(pose_2d) & np.isfinite(pose_3d)  # (N, J, 3)
        broken = np.asarray(~finite.all((1, 2)))
        for clip in np.flatnonzero(broken[ids].any(1))[:1]:
            dataset.__getitems__([int(clip)])  # says which, and what to do
        self.pose_2d, self.pose_3d, self.ids = (
            torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in rows
        )

    def __len__(self) -> int:
        return len(self.ids)

    def draw(self, clips: Sequence[int], *, seed: int, epoch: int) -> Batch:
        """Stored clips are the same in each epoch."""
        numbers = to_device(torch.tensor(clips, dtype=torch.int64), self.ids.device)
        ids: Tensor = self.ids[numbers]
        return Batch(self.pose_2d[ids], self.pose_3d[ids], list(clips))


def on_device(dataset: object, device: torch.device, asked: bool | None) -> ResidentClips | None:
    """The clips on the device, or None to leave them where they are.

    asked: None puts them there if they take a quarter of a GPU's free memory at most. Raises
    UserError: they were asked for, and are drawn anew or lie in files of their own.
    """
    if asked is False or (asked is None and device.type != "cuda"):
        return None
    rows = _rows(dataset)
    if rows is None or not isinstance(dataset, ClipDataset):
        if asked:
            raise UserError(
                "--data-on-device: these clips are no stored frames (a released folder, or clips"
                " rendered anew in each epoch); leave the flag out, or slice the data set anew"
            )
        return None
    size = sum(array.nbytes for array in rows)
    if asked is None and size > LARGEST_SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    return ResidentClips(dataset, rows, device)
