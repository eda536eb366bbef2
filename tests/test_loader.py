"""Batches of an epoch: which clips, in which order, and which of them mirrored, in 2D and 3D."""

import numpy as np
import pytest
import torch

from data.clips import ClipDataset
from data.loader import ClipLoader
from lib.batch import Batch
from lib.errors import UserError
from lib.geometry import flip_pose
from lib.processes import Processes
from lib.skeleton import H36M
from tests.stores import T, write_arrays

FRAMES = 90  # gives 43 clips


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> ClipDataset:
    folder = tmp_path_factory.mktemp("data") / "H36M-6"
    write_arrays(folder, frames=FRAMES)
    return ClipDataset(folder, "train", T)


def make_loader(dataset, seed=0, flip=True, batch_size=8, processes=None) -> ClipLoader:
    return ClipLoader(dataset, batch_size, skeleton=H36M, seed=seed, flip=flip, processes=processes)


def flat(loader: ClipLoader, epoch: int) -> list[tuple[int, bool]]:
    return [pair for batch in loader.order(epoch) for pair in batch]


def test_an_epoch_holds_every_clip_once(dataset):
    loader = make_loader(dataset)
    batches = list(loader.batches(0))
    assert len(batches) == len(loader) == 6
    assert [len(batch.clips) for batch in batches] == [8, 8, 8, 8, 8, 3]
    clips = [clip for batch in batches for clip in batch.clips]
    assert sorted(clips) == list(range(43)) != clips


def test_the_order_and_the_mirroring_follow_from_seed_and_epoch(dataset):
    loader = make_loader(dataset, seed=3)
    assert flat(loader, 1) == flat(make_loader(dataset, seed=3), 1)
    for other in (flat(loader, 2), flat(make_loader(dataset, seed=4), 1)):
        assert [clip for clip, _ in other] != [clip for clip, _ in flat(loader, 1)]
        assert [flip for _, flip in other] != [flip for _, flip in flat(loader, 1)]


def test_half_of_the_clips_are_mirrored_or_none(dataset):
    loader = make_loader(dataset)
    flips = [flip for epoch in range(50) for _, flip in flat(loader, epoch)]
    assert np.mean(flips) == pytest.approx(0.5, abs=0.05)  # 4 standard deviations
    assert not any(flip for _, flip in flat(make_loader(dataset, flip=False), 0))


def test_a_mirrored_clip_is_mirrored_in_2d_and_in_3d(dataset):
    loader = make_loader(dataset)
    seen = set()
    for batch, pairs in zip(loader.batches(0), loader.order(0), strict=True):
        assert batch.clips == [clip for clip, _ in pairs]
        for index, (clip, is_mirrored) in enumerate(pairs):
            for found, kept in zip((batch.pose_2d, batch.pose_3d), dataset[clip], strict=True):
                expected = flip_pose(kept, H36M) if is_mirrored else kept
                assert torch.equal(found[index], expected)
            seen.add(is_mirrored)
    assert seen == {True, False}


def test_each_clip_comes_plain_and_mirrored_where_the_protocol_wants_it(dataset):
    loader = ClipLoader(dataset, 8, skeleton=H36M, seed=0, flip=True, each_mirrored=True)
    pairs = flat(loader, 0)
    assert sorted(pairs) == [(clip, flip) for clip in range(43) for flip in (False, True)] != pairs
    assert len(list(loader.batches(0))) == len(loader) == 11
    plain = ClipLoader(dataset, 8, skeleton=H36M, seed=0, flip=False, each_mirrored=True)
    assert sorted(flat(plain, 0)) == [(clip, False) for clip in range(43)]


def same(one: Batch, two: Batch) -> bool:
    return one.clips == two.clips and torch.equal(one.pose_2d, two.pose_2d)


def test_an_epoch_goes_on_at_any_step(dataset):
    loader = make_loader(dataset)
    whole = list(loader.batches(1))
    for start in (0, 1, 4, 6):
        rest = list(loader.batches(1, start))
        assert len(rest) == 6 - start
        assert all(same(*pair) for pair in zip(rest, whole[start:], strict=True))


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_see_together_what_one_would_see(dataset, world):
    whole = list(make_loader(dataset).batches(0))
    parts = [
        list(make_loader(dataset, processes=Processes(rank, world)).batches(0))
        for rank in range(world)
    ]
    for number, batch in enumerate(whole):
        mine = [part[number] for part in parts]
        assert [clip for part in mine for clip in part.clips] == batch.clips
        assert torch.equal(torch.cat([part.pose_3d for part in mine]), batch.pose_3d)
        assert {part.total for part in mine} == {len(batch.clips)}


def test_a_clip_with_a_number_that_is_not_finite_is_named(tmp_path):
    poses, clips = write_arrays(tmp_path / "H36M-6")
    (path,) = (tmp_path / "H36M-6").glob("arrays-*/train_pose_3d.npy")
    poses[0, 1, clips[2, 0], 4, 1] = np.nan  # a frame of the first clips only
    np.save(path, poses[0, 1])
    loader = make_loader(ClipDataset(tmp_path / "H36M-6", "train", T), flip=False)
    holding = {clip for clip in range(len(clips)) if clips[2, 0] in clips[clip]}
    with pytest.raises(UserError, match="holds a number that is not finite") as caught:
        list(loader.batches(0))
    assert any(f": clip {clip}: holds" in str(caught.value) for clip in holding)
