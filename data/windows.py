"""Which frames make up a clip of T frames in MPI-INF-3DHP's training and test; see data/clips.py.

A clip may show a frame more than once.
"""

import numpy as np

from data.sequences import Sequences
from lib.arrays import Bools, Ints

STRIDE = 9  # between the starts of training clips, whatever T


def stretched_windows(sequences: Sequences, frames: int) -> Ints:
    """Windows that start at frames 0, 9, 18, … of a video: (clips, frames).

    The last ones, which only m < T frames are left for, show frame floor(i·m/T) of those.
    """
    clips, start = [np.empty((0, frames), np.int64)], 0
    for video in sequences.videos:
        first = np.arange(0, video.frames, STRIDE)[:, None]
        left = np.minimum(video.frames - first, frames)
        clips.append(start + first + np.arange(frames) * left // frames)
        start += video.frames
    return np.concatenate(clips)


def windows_around(video: Ints, valid: Bools, frames: int) -> Ints:
    """A window for each valid frame, which is at position T // 2: (valid frames, frames).

    video: (N,) the video of each frame, a video's frames contiguous. A window repeats the first
    and the last frame of its video where it goes beyond them.
    """
    centre = np.flatnonzero(valid)
    first = np.searchsorted(video, video[centre])
    last = np.searchsorted(video, video[centre], side="right") - 1
    window = centre[:, None] + np.arange(frames) - frames // 2
    return np.clip(window, first[:, None], last[:, None])


def half_overlapping_windows(video: Ints, frames: int) -> Ints:
    """Windows that share half their frames with the next one and cover each video: (clips, frames).

    The last one ends with the video; the last frame fills up a shorter video.
    """
    clips = [np.empty((0, frames), np.int64)]
    for number in np.unique(video):
        start, end = np.searchsorted(video, [number, number + 1])
        starts = np.append(
            np.arange(start, end - frames, (frames + 1) // 2), max(start, end - frames)
        )
        clips.append(np.minimum(starts[:, None] + np.arange(frames), end - 1))
    return np.concatenate(clips)
