"""For the demo's tests: a video whose frames can be told apart, people who stand and walk."""

import time
from pathlib import Path

import cv2
import numpy as np

from demo.pipeline import VideoLifter
from demo.poses import Poses
from lib.camera import camera_to_world
from lib.keypoints import COCO_17
from lib.skeleton import H36M


def make_video(path: Path, frames: int, size=(160, 120), fps: float = 25.0) -> Path:
    """Frames that show their number: bit b of it is a white block in column b."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    assert writer.isOpened()
    for number in range(frames):
        image = np.zeros((size[1], size[0], 3), dtype=np.uint8)
        for bit in range(10):
            if number >> bit & 1:
                image[:60, 16 * bit : 16 * bit + 16] = 255
        writer.write(image)
    writer.release()
    return path


def number_in(frame: np.ndarray) -> int:
    return sum(1 << bit for bit in range(10) if frame[30, 16 * bit + 8].mean() > 128)


def standing(frames: int = 60, turn: float = 0.0, lean: float = 0.0) -> np.ndarray:
    """(F, 17, 3) mm, world axes, z up: someone who sways a little; degrees turned and leaning."""
    pose = np.zeros((frames, 17, 3))
    lengths = {"hip": 132, "knee": 450, "ankle": 450, "spine": 233, "thorax": 257, "neck": 120}
    lengths |= {"head": 115, "shoulder": 150, "elbow": 280, "wrist": 250}
    for parent, child in H36M.bones:
        name, side = H36M.names[child], {"left": -1, "right": 1, "middle": 0}[H36M.sides[child]]
        part = name.split("_")[-1]
        across = part in ("hip", "shoulder")
        up = 1 if part in ("spine", "thorax", "neck", "head") else -1
        bone = np.array([side, 0, 0] if across else [0.1 * side, 0, up], dtype=float)
        pose[:, child] = pose[:, parent] + bone / np.linalg.norm(bone) * lengths[part]
    sway = np.deg2rad(lean + 2 * np.sin(np.arange(frames) / 7))
    turned = np.deg2rad(turn)
    forward = np.stack([np.zeros(frames), np.sin(sway), np.cos(sway)], -1)  # up, leaning to y
    tilted = pose[..., :1] * [1, 0, 0] + pose[..., 2:] * forward[:, None]
    rotation = [
        [np.cos(turned), -np.sin(turned), 0],
        [np.sin(turned), np.cos(turned), 0],
        [0, 0, 1],
    ]
    return tilted @ np.array(rotation).T


def in_camera(world: np.ndarray, pitch: float) -> np.ndarray:
    """The inverse of camera_to_world, found from the images of the axes."""
    return world @ camera_to_world(np.eye(3), pitch).T


class Known(VideoLifter):
    """In place of the network: the picture's plane, or a pose in camera axes, over and over."""

    n_frames, frame_rate = 9, 25.0

    def __init__(self, pose: np.ndarray | None = None) -> None:
        self.pose, self.seen = pose, []

    def lift(self, clips: np.ndarray) -> np.ndarray:
        self.seen.append(clips)
        if self.pose is not None:
            return np.broadcast_to(self.pose[: clips.shape[1]], clips.shape)
        return np.concatenate([clips[..., :2], np.zeros_like(clips[..., :1])], axis=-1)


def in_picture(height: float, x: float, frames: int = 12) -> np.ndarray:
    """(F, 17, 3) pixels in 640 x 480: someone who stands at x, `height` px from ankle to head."""
    body = standing(frames)[..., [0, 2]] * [1, -1]
    keypoints = np.ones((frames, 17, 3))
    keypoints[..., :2] = body * height / np.ptp(body[0, :, 1]) + [x, 240]
    return keypoints.astype(np.float32)


class Reader:
    """A "detector" that finds one person at x = the frame's number."""

    layout = COCO_17

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.numbers: list[int] = []

    def __call__(self, frames):
        for frame in frames:
            time.sleep(self.delay)
            self.numbers.append(number_in(frame))
            person = np.full((1, 17, 3), 0.5, dtype=np.float32)
            person[0, :, 0] = number_in(frame) + np.arange(17)
            person[0, :, 1] = 10 + np.arange(17) ** 1.5
            yield person


def walking(frames: int, people: int = 1) -> np.ndarray:
    """(P, F, 17, 3) pixels in 640 x 480."""
    pose = np.random.default_rng(1).random((17, 3)) * [80, 200, 0.5] + np.array([100, 100, 0.5])
    shift = np.stack([np.arange(frames), np.zeros(frames), np.zeros(frames)], axis=-1)
    apart = np.array([250, 0, 0]) * np.arange(people)[:, None, None, None]
    return (pose + shift[:, None] + apart).astype(np.float32)


def walking_pose(frames: int, seed: int = 0) -> np.ndarray:
    """(F, 17, 3) mm, z up: bones of any direction whose lengths change a little, as a model's."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.normal(0, 0.15, (frames, 16, 3)), axis=0) + rng.normal(0, 1, (16, 3))
    directions = steps / np.linalg.norm(steps, axis=-1, keepdims=True)
    lengths = rng.uniform(150, 450, 16) * rng.uniform(0.97, 1.03, (frames, 16))
    pose = np.zeros((frames, 17, 3))
    pose[:, 0, 2] = 900
    for bone, (parent, child) in enumerate(H36M.bones):
        pose[:, child] = pose[:, parent] + directions[:, bone] * lengths[:, bone, None]
    return pose.astype(np.float32)


def sample_poses(people: int = 2, frames: int = 12) -> Poses:
    rng = np.random.default_rng(7)
    world = np.stack([walking_pose(frames, seed) for seed in range(people)])
    keypoints = rng.uniform(0, 700, (people, frames, 17, 3)).astype(np.float32)
    keypoints[..., 2] /= 700
    camera = (world - world[:, :, :1]) * np.float32(1)
    return Poses(
        np.arange(1, people + 1),
        keypoints,
        camera,
        world,
        np.full(people, 0.02),
        29.97,
        (1280, 720),
        8.5,
        np.arange(frames) / 29.97,
        np.ones((people, frames), dtype=np.int32),
    )


def world_mm(points: np.ndarray) -> np.ndarray:
    """Metres, y up, z towards the camera -> mm, y away, z up."""
    return points[..., [0, 2, 1]] * [1000, -1000, 1000]
