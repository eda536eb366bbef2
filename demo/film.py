"""NAME.mp4: the frames with their 2D skeletons beside the 3D skeletons in a room."""

from collections.abc import Callable, Iterable
from pathlib import Path

from demo.ahead import ahead
from demo.detectors.base import Frame
from demo.poses import Poses
from demo.render import SideBySide, View
from demo.video import Film


def write_film(
    path: Path,
    frames: Iterable[Frame],
    poses: Poses,
    view: View,
    on_frame: Callable[[], object] = lambda: None,
) -> str:
    """Draw and write frame by frame; returns the codec. Raises UserError.

    frames: the video's, again from its start.
    """
    picture = SideBySide(poses, view)
    with Film(path, picture.size, poses.fps) as film:
        for index, frame in zip(range(poses.num_frames), ahead(frames), strict=False):
            film.write(picture.draw(frame, index))
            on_frame()
    return film.codec
