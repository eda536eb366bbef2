"""Tracks: a person in one shot, filled and as Human3.6M's joints; and tracks back in the video.

F frames of a video or of a track, P people.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from demo.filling import fill_gaps, with_straight_legs
from demo.people import People, without_nonsense
from demo.smoothing import smooth_track
from demo.stretches import split
from lib.errors import UserError


@dataclass(frozen=True)
class Track:
    """A stretch of a person: one shot, seen without a long absence.

    start: its first frame in the video; times: (F,) seconds; keypoints: (F, J, 3) in the detector's
    layout and joints: (F, 17, 3) of Human3.6M. Both are filled: what was not seen has a confidence
    of 0.
    """

    person: int
    start: int
    times: np.ndarray
    keypoints: np.ndarray
    joints: np.ndarray

    def smoothed(self) -> "Track":
        """The same with filtered joints."""
        return replace(self, joints=smooth_track(self.joints, self.times))


def tracks_of(people: People) -> list[Track]:
    """The tracks of everybody, by person and time. Raises UserError: somebody is never seen."""
    tracks = []
    for number in people.numbers.tolist():
        one = people.only(people.person == number)
        keypoints = without_nonsense(one.keypoints)
        some = np.flatnonzero((keypoints[..., 2] > 0).any(axis=-1))
        if not len(some):
            raise UserError("no keypoint has a confidence above 0; nothing can be lifted")
        keypoints, frame = keypoints[some], one.frame[some]
        for rows in split(keypoints, frame, people.seconds[frame], people.cuts):
            start, end = int(frame[rows[0]]), int(frame[rows[-1]]) + 1
            times = people.seconds[start:end]
            filled = fill_gaps(keypoints[rows], frame[rows] - start, times, people.layout)
            joints = with_straight_legs(people.layout.to_h36m(filled))
            tracks.append(Track(number, start, times, filled, joints))
    return tracks


@dataclass(frozen=True)
class Timeline:
    """Where each person's tracks are in the video.

    stretch: (P, F) the number of each person's track, from 1; 0 where there is none. Between two
    tracks nobody glides: what is told of a frame outside is that of the nearest frame inside.
    """

    tracks: Sequence[Track]
    persons: np.ndarray
    stretch: np.ndarray

    @classmethod
    def of(cls, tracks: Sequence[Track], people: People) -> "Timeline":
        persons = people.numbers
        stretch = np.zeros((len(persons), people.num_frames), dtype=np.int32)
        for track in tracks:
            row = stretch[np.searchsorted(persons, track.person)]
            row[track.start : track.start + len(track.times)] = row.max() + 1
        return cls(tracks, persons, stretch)

    def whole(self, parts: Sequence[np.ndarray], unseen: int | None = None) -> np.ndarray:
        """Values of each track's frames (F, ...) -> (P, F, ...).

        unseen: an index on the last axis, at which frames outside of the tracks have 0.
        """
        rows = []
        for number, stretch in zip(self.persons, self.stretch, strict=True):
            theirs = [p for p, t in zip(parts, self.tracks, strict=True) if t.person == number]
            row = np.concatenate(theirs)[_nearest(stretch > 0)]
            if unseen is not None:
                row[stretch == 0, ..., unseen] = 0
            rows.append(row)
        return np.stack(rows)

    def mean(self, values: Sequence[float]) -> np.ndarray:
        """A value of each track -> (P,) the mean over a person's frames."""
        weights = np.array([len(track.times) for track in self.tracks], dtype=np.float64)
        row = np.searchsorted(self.persons, [track.person for track in self.tracks])
        total = np.bincount(row, weights * np.array(values))
        return total / np.bincount(row, weights)


def _nearest(inside: np.ndarray) -> np.ndarray:
    """(F,) of which some are True -> (F,) the place of the nearest one among them."""
    places = np.flatnonzero(inside)
    frames = np.arange(len(inside))
    after = np.searchsorted(places, frames).clip(max=len(places) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(
        np.abs(frames - places[before]) <= np.abs(places[after] - frames), before, after
    )


def filled(people: People) -> np.ndarray:
    """(P, F, J, 3): everybody in every frame, unseen keypoints with a confidence of 0."""
    tracks = tracks_of(people)
    return Timeline.of(tracks, people).whole([track.keypoints for track in tracks], unseen=2)
