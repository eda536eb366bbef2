"""Which frames a clip holds, and the clips of several data sets as one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.clips import (
    ClipDataset,
    adjacent_clips,
    clip_index,
    covering_clips,
    overlapping_clips,
)
from data.sequences import Sequences, Video
from lib.camera import H36M_CAMERAS
from tests.mistakes import told
from tests.stores import T, write_arrays, write_clips

# --- The index --------------------------------------------------------------------------------


def clips_one_by_one(sources, frames, stride):
    """Frame by frame: a video ends where the source changes."""
    videos, current = [], []
    for frame, source in enumerate(sources):
        if current and sources[current[-1]] != source:
            videos.append(current)
            current = []
        current.append(frame)
    videos += [current] if current else []
    clips = []
    for video in videos:
        if len(video) < frames:
            clips.append([video[int(i * len(video) / frames + 1e-9)] for i in range(frames)])
        start = 0
        while len(video) - start >= frames:
            clips.append(video[start : start + frames])
            start += stride
    return clips


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), max_size=6),
    frames=st.integers(1, 30),
    stride=st.integers(1, 30),
    as_array=st.booleans(),
)
def test_clips_against_a_loop(lengths, frames, stride, as_array):
    sources = [f"video {i}" for i, length in enumerate(lengths) for _ in range(length)]
    found = clip_index(np.array(sources) if as_array else sources, frames, stride)
    assert found.dtype == np.int64
    assert found.shape[1] == frames
    assert found.tolist() == clips_one_by_one(sources, frames, stride)


def test_clips_by_hand():
    """Videos of 7, 3 and 4 frames, clips of 4, stride 2: 0-3, 2-5, then 3 frames on 4, 10-13."""
    sources = ["a"] * 7 + ["b"] * 3 + ["c"] * 4
    expected = [[0, 1, 2, 3], [2, 3, 4, 5], [7, 7, 8, 9], [10, 11, 12, 13]]
    assert clip_index(sources, 4, 2).tolist() == expected


@pytest.mark.parametrize(("frames", "stride"), [(243, 81), (27, 9), (9, 3), (2, 1), (1, 1)])
def test_clips_of_human36m(frames, stride):
    """By two thirds overlapping in training, side by side in testing."""
    camera = H36M_CAMERAS["54138969"]
    videos = [Video("a", camera, "", "", 50.0, 500), Video("b", camera, "", "", 50.0, 300)]
    empty = np.empty((800, 17, 2))
    sequences = Sequences(videos, empty, empty[..., 0], empty)
    sources = ["a"] * 500 + ["b"] * 300
    for windows, step in ((overlapping_clips, stride), (adjacent_clips, frames)):
        assert windows(sequences, frames).tolist() == clips_one_by_one(sources, frames, step)


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    frames=st.integers(1, 12),
    step=st.integers(1, 4),
)
def test_covering_clips_hold_every_frame_and_keep_the_step(lengths, frames, step):
    sources = np.repeat(np.arange(len(lengths)), lengths)
    clips = covering_clips(sources, frames, step)
    assert set(clips.ravel()) == set(range(len(sources)))
    assert (sources[clips] == sources[clips[:, :1]]).all()
    moves = np.diff(clips, axis=1)
    assert set(moves.ravel()) <= {step, 0}
    # No clip is there twice or for nothing, and only the end of a video is repeated.
    count = sum(-(-len(range(first, n, step)) // frames) for n in lengths for first in range(step))
    assert len(clips) == count
    ends = np.cumsum(lengths)[sources[clips[:, :-1]]]
    assert (clips[:, :-1][moves == 0] >= (ends - step)[moves == 0]).all()


def test_covering_clips_by_hand():
    """A video of 7 frames, every second one, clips of 3: 0 2 4 6 and 1 3 5; then one of 2."""
    sources = ["a"] * 7 + ["b"] * 2
    expected = [[0, 2, 4], [2, 4, 6], [1, 3, 5], [7, 7, 7], [8, 8, 8]]
    assert covering_clips(sources, 3, 2).tolist() == expected


# --- Several data sets ------------------------------------------------------------------------


def test_the_clips_of_several_data_sets_follow_each_other(tmp_path):
    poses, ids = write_arrays(tmp_path / "a")
    clips = write_clips(tmp_path / "b", "train", count=3)
    other, other_ids = write_arrays(tmp_path / "c", seed=1)
    joined = ClipDataset([tmp_path / name for name in "abc"], "train", T)
    count = len(ids)
    assert len(joined) == count + 3 + len(other_ids)
    order = [count + 2, 0, count + 3, count - 1, count, count + 3 + len(other_ids) - 1]
    batch = joined.__getitems__(order)
    assert batch.clips == order
    for k, found in enumerate((batch.pose_2d, batch.pose_3d)):
        expected = [
            clips[2, k], poses[0, k][ids[0]], other[0, k][other_ids[0]],
            poses[0, k][ids[-1]], clips[0, k], other[0, k][other_ids[-1]],
        ]  # fmt: skip
        assert np.array_equal(found, np.stack(expected))
    assert joined.source.place(count + 1) == str(tmp_path / "b" / "train" / "00000001.pkl")


def test_data_sets_of_different_clip_lengths_do_not_join(tmp_path):
    write_arrays(tmp_path / "a")
    write_arrays(tmp_path / "b", n_frames=T + 1)
    found = told(ClipDataset, [tmp_path / "a", tmp_path / "b"], "train", T)
    assert found.startswith(f"{tmp_path}/b: clips of {T + 1} frames")
