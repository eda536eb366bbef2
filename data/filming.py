"""Motion in the world -> videos like Human3.6M's, of a person in a room with four cameras.

World: millimetres, z up, floor at 0. T frames, J = 17 joints.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from data.cameras import CAMERAS, View, image_and_depth, middle_of
from data.detector_noise import detect
from data.sequences import Sequences, Video
from lib.arrays import Floats
from lib.camera import H36M_FPS, Camera
from lib.errors import UserError

# Where Human3.6M's cameras stand, around a person who walks about: mm and degrees.
DISTANCE = (4000.0, 6500.0)
HEIGHT = (1000.0, 2000.0)
HEADING_SPREAD = 25.0  # around the four corners of the room
AIM_SPREAD = (400.0, 400.0, 150.0)
TRIES = 24


def draw_view(
    rng: np.random.Generator, motion: Floats, camera: Camera, heading: float
) -> View | None:
    """A random view, from about `heading` degrees, of the whole motion; None if none is found."""
    middle = middle_of(motion)
    for _ in range(TRIES):
        target = middle + rng.uniform(-1, 1, 3) * AIM_SPREAD
        angle = np.deg2rad(heading + rng.uniform(-1, 1) * HEADING_SPREAD)
        distance, height = rng.uniform(*DISTANCE), rng.uniform(*HEIGHT)
        ground = middle[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
        view = View(camera, np.array([*ground, height]), target)
        if view.sees(motion):
            return view
    return None


def film(
    rng: np.random.Generator, motion: Floats, num_cameras: int
) -> Iterator[tuple[Floats, list[tuple[int, View]]]]:
    """Windows of a motion (T, J, 3), each with the views that see the person in all its frames.

    Like Human3.6M's, the four cameras stand in the corners of a room, here turned at random;
    `num_cameras` of them, drawn at random, are used: (index in CAMERAS, view). Cameras do not
    move, so a person who walks out of the picture is filmed in two halves.
    """
    used = np.sort(rng.permutation(len(CAMERAS))[:num_cameras])
    room = rng.uniform(0, 360)
    found = [(i, draw_view(rng, motion, CAMERAS[i], room + 360 / len(CAMERAS) * i)) for i in used]
    views = [(int(i), view) for i, view in found if view is not None]
    if len(views) == num_cameras:
        yield motion, views
    elif len(motion) > 1:
        half = len(motion) // 2
        yield from film(rng, motion[:half], num_cameras)
        yield from film(rng, motion[half:], num_cameras)
    else:
        raise UserError("a pose is too large for the image: are the lengths in the unit stated?")


def video_of(
    rng: np.random.Generator, motion: Floats, view: View, name: str, action: str, subject: str
) -> Sequences:
    """One video: a motion (T, J, 3) as a view and a detector see it, in Human3.6M's 2.5D."""
    image, factor = image_and_depth(view.to_camera(motion), view.camera)
    joint_2d, confidence = detect(rng, image, factor)
    return Sequences(
        [Video(name, view.camera, action, subject, H36M_FPS, len(motion))],
        joint_2d.astype(np.float32),
        confidence.astype(np.float32),
        image.astype(np.float32),
        factor.astype(np.float32),
        (image * factor[:, None, None]).astype(np.float32),
    )


def film_videos(
    rng: np.random.Generator,
    motion: Floats,
    *,
    num_cameras: int,
    subject: str,
    action: str,
    action_number: int,
    takes: Counter[str],
) -> Iterator[Sequences]:
    """The videos of a motion (T, J, 3), each with a name of its own, like Human3.6M's.

    takes: how many windows each act of each subject has had so far.
    """
    act = f"s_{subject}_act_{action_number:02d}"
    for window, views in film(rng, motion, num_cameras):
        takes[act] += 1
        for index, view in views:
            name = f"{act}_subact_{takes[act]:02d}_ca_{index + 1:02d}"
            yield video_of(rng, window, view, name, action, subject)
