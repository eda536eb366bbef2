"""MPI-INF-3DHP's clips: windows by hand, by loops, and from the published lengths alone."""

import numpy as np
import pytest

from data.sequences import Sequences, Video
from data.sources.mpi_inf_3dhp import FRAME_TABLE, TEST_TABLE
from data.windows import STRIDE, half_overlapping_windows, stretched_windows, windows_around
from lib.camera import Camera

LENS = Camera("0", (2048, 2048), (1.0, 1.0), (0.0, 0.0))


def videos_of(lengths):
    videos = [Video(str(n), LENS, "", "", 25, length) for n, length in enumerate(lengths)]
    nothing = np.empty(0)
    return Sequences(videos, nothing, nothing, nothing)


def test_the_whole_set_has_the_published_numbers():
    lengths = [frames for frames, _ in FRAME_TABLE.values() for _ in range(8)]
    assert sum(lengths) == 131_592 * 8
    assert {seq for seq, (_, fps) in FRAME_TABLE.items() if fps == 50} == {
        ("S1", "Seq2"), ("S3", "Seq1"), ("S3", "Seq2"), ("S5", "Seq1"), ("S5", "Seq2"),
    }  # fmt: skip
    assert STRIDE == 9
    assert len(stretched_windows(videos_of(lengths), 81)) == 117_024
    valid = [count for _, count in TEST_TABLE.values()]
    video = np.repeat(np.arange(6), valid)
    assert len(windows_around(video, np.ones(len(video), bool), 81)) == 2_929


def test_the_last_training_clips_are_stretched_by_hand():
    """Videos of 12 and 2 frames: of the second window 3 frames are left, shown over 5."""
    found = stretched_windows(videos_of([12, 2]), 5)
    assert found.tolist() == [[0, 1, 2, 3, 4], [9, 9, 10, 10, 11], [12, 12, 12, 13, 13]]


@pytest.mark.parametrize("frames", [1, 4, 5])
def test_a_window_around_each_valid_frame_against_a_loop(frames, rng):
    lengths = [1, 2, 7, 30]
    video = np.repeat(np.arange(4), lengths)
    valid = rng.random(40) < 0.5
    expected = []
    for frame in np.flatnonzero(valid):
        inside = np.flatnonzero(video == video[frame])
        window = [frame - frames // 2 + k for k in range(frames)]
        expected.append([min(max(k, inside[0]), inside[-1]) for k in window])
    assert windows_around(video, valid, frames).tolist() == expected
    assert not len(windows_around(video, np.zeros(40, bool), frames))


def test_clips_that_overlap_by_half_by_hand():
    found = half_overlapping_windows(np.repeat([0, 1], [9, 2]), 4)
    assert found.tolist() == [
        [0, 1, 2, 3],
        [2, 3, 4, 5],
        [4, 5, 6, 7],
        [5, 6, 7, 8],
        [9, 10, 10, 10],
    ]
    assert half_overlapping_windows(np.zeros(4, int), 4).tolist() == [[0, 1, 2, 3]]
    assert half_overlapping_windows(np.zeros(2, int), 1).tolist() == [[0], [1]]
