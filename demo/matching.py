"""Keypoints that another program found in a video: their frames' times and their pixels."""

from dataclasses import replace

from demo.people import People
from demo.shots import GLANCE, find_cuts, small_picture
from demo.video import Video

OTHER_LENGTH = 0.05  # with such a difference in length, they may be of another video


def match(people: People, video: Video, fps: float = 0.0) -> tuple[People, list[str]]:
    """The keypoints with the times and the cuts of their video, and what is to be said of the two.

    people: in the pixels of the picture as it is stored, which other programs see; video: at its
    start; fps: in place of its times.
    """
    pictures = []
    while (frame := video.read(GLANCE)) is not None:
        pictures.append(small_picture(frame))
    told, times = [], video.times
    if abs(people.num_frames - len(times)) > OTHER_LENGTH * len(times):
        told.append(
            f"{people.num_frames} frames, but {video.source} has {len(times)}; are they of this"
            " video?"
        )
    if video.size != video.stored_size:
        told.append(
            f"the pixels of {video.source} are {video.pixel_aspect:.3g} times as wide as high:"
            f" {_text(video.stored_size)} is shown as {_text(video.size)}"
        )
    filmed = people.filmed(fps or video.fps or people.fps, video.stored_size)
    filmed = replace(filmed, pixel_aspect=video.pixel_aspect, cuts=find_cuts(pictures))
    if not fps and 0 < people.num_frames <= len(times):
        filmed = filmed.at(times)
    return filmed, told


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
