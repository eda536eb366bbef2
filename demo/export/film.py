"""NAME.mp4: the frames with their 2D skeletons beside the 3D skeletons in a room."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np

from demo.export.focus import Focus, trail
from demo.poses import Poses
from demo.video import Video, ahead, blank_frames
from lib.drawing import FONT, TEXT, Room, View, draw_2d
from lib.film import Film, Frame
from lib.sound import Sound

STILL_SECONDS = 2.0
SAME_RATE = 0.01  # frame rates that differ less are one


class SideBySide:
    """Composes the film's pictures: left the frame with its 2D skeletons, right the room."""

    MIN_HEIGHT, MAX_HEIGHT = 360, 1080

    def __init__(self, poses: Poses, view: View) -> None:
        width, height = poses.size
        film_height = min(max(height, self.MIN_HEIGHT), self.MAX_HEIGHT) // 2 * 2
        self._scale = film_height / height
        self._left = (max(2, round(width * self._scale / 2) * 2), film_height)
        # As wide as the shorter side of the picture, for a person is rarely wider than tall.
        panel = (max(min(self._left), self.MIN_HEIGHT // 2) // 2 * 2, film_height)
        self._focus = Focus.of(poses)
        self._room = Room(self._focus.middle[0], self._focus.radius, panel, view)
        self._poses = poses
        self.size = (self._left[0] + panel[0], film_height)
        self.picture = np.empty((film_height, self.size[0], 3), dtype=np.uint8)

    def draw(self, frame: Frame, index: int) -> Frame:
        """The film's picture for frame `index` of the video; overwritten by the next one."""
        poses = self._poses
        left, right = np.split(self.picture, [self._left[0]], axis=1)
        if (frame.shape[1], frame.shape[0]) == self._left:
            left[:] = frame
        else:
            left[:] = cv2.resize(frame, self._left, interpolation=cv2.INTER_AREA)
        # People are not drawn before they come and after they have gone.
        present = poses.present[:, index]
        keypoints = poses.keypoints_2d[present, index]
        several = len(poses.persons) > 1
        labels = [str(number) if several else "" for number in poses.persons[present]]
        for label, person in zip(labels, keypoints, strict=True):
            draw_2d(left, person * [self._scale, self._scale, 1], label)
        seconds = float(poses.times[index])
        self._room.centre = self._focus.middle[index]
        trails = [trail(poses, row, index) for row in np.flatnonzero(present).tolist()]
        people, seen = poses.pose_world[present, index], keypoints[..., 2] > 0
        self._room.draw(right, people, seen, seconds, trails, labels)
        place = (12, right.shape[0] - 14)
        cv2.putText(right, f"{seconds:.2f} s", place, FONT, 0.5, TEXT, 1, cv2.LINE_AA)
        return self.picture


def write_film(
    path: Path,
    poses: Poses,
    view: View,
    video: str | None = None,
    on_frame: Callable[[], object] = lambda: None,
) -> str:
    """Draw and write frame by frame, with the video's sound; returns how to name the result.

    video: whose poses they are, if there is one; on_frame: called after each frame. There is no
    sound where the poses are at another rate than the video. Raises UserError.
    """
    picture = SideBySide(poses, view)
    with Video(video) if video else nullcontext() as source:
        own_pace = source is not None and abs(source.fps - poses.fps) < SAME_RATE * poses.fps
        sound = Sound.of(str(video), source.start) if source and own_pace else None
        with Film(path, picture.size, poses.fps, sound) as film:
            frames = source.frames() if source else blank_frames(poses.size, poses.num_frames)
            for index, frame in zip(range(poses.num_frames), ahead(frames), strict=False):
                film.write(picture.draw(frame, index), float(poses.times[index]))
                on_frame()
            if film.written == 1:  # a photo is shown for a while
                film.write(picture.picture, STILL_SECONDS)
    return f"{path.name} (with sound)" if sound else path.name
