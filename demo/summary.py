"""What was found, in sentences: how many people, in how many frames, where one follows another."""

import numpy as np

from demo.people import People
from demo.poses import Poses

MOST = 8  # people, switches or stretches that are listed


def summary(people: People, poses: Poses, most: int = 0) -> list[str]:
    """people: whom `choose` has chosen; poses: theirs; most: people that are found at once, 0: any
    number.
    """
    frames = people.num_frames
    found = [f"{number} in {count}" for number, count in people.crowd]
    who = "1 person" if len(found) == 1 else f"{len(found)} people"
    lines = [f"{who} in {in_words(frames)}: {_list(found)}"]
    if 0 < most <= np.bincount(people.frame).max():
        lines.append(f"{most} people at once are as many as are followed; there may be more")
    tracked = people.person if people.tracked is None else people.tracked
    for number in people.numbers.tolist():
        rows = np.flatnonzero(people.person == number)
        # By whom else the person goes on, where the largest one is followed.
        changes = rows[1:][np.diff(tracked[rows]) != 0]
        if len(changes):
            others = [f"{tracked[row]} from frame {people.frame[row]}" for row in changes]
            lines.append(f"lifted: {tracked[rows[0]]}, then {_list(others)}")
    for number, stretch, confidence in zip(
        poses.persons, poses.stretch, poses.confidence, strict=True
    ):
        seen = people.frame[people.person == number]
        slips = int((confidence[seen].max(axis=-1) == 0).sum())
        if slips:
            lines.append(
                f"person {number}: in {in_words(slips)} somewhere else for a moment, taken for"
                " slips of the detector and left out"
            )
        starts = np.flatnonzero((stretch > 1) & (np.diff(stretch, prepend=0) != 0))
        if len(starts):
            lines.append(
                f"person {number}: {len(starts) + 1} stretches, each lifted by itself; new at"
                f" frame {_list([str(start) for start in starts])} (cuts, jumps or absences)"
            )
    return lines


def in_words(frames: int) -> str:
    return "1 frame" if frames == 1 else f"{frames} frames"


def _list(items: list[str]) -> str:
    rest = len(items) - MOST
    return ", ".join(items[:MOST]) + (f" and {rest} more" if rest > 0 else "")
