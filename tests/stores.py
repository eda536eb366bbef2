"""Small stores of random clips, of both kinds."""

import numpy as np

from data.clips import clip_index
from data.store import ArrayWriter
from lib.evaluation.frames import TestFrames
from tests.samples import write_pickle

T = 6


def write_arrays(folder, seed=0, frames=20, n_frames=T):
    rng = np.random.default_rng(seed)
    poses = rng.standard_normal((2, 2, frames, 17, 3)).astype(np.float32)
    clips = clip_index(["v"] * frames, n_frames, 2)
    test = TestFrames(
        actions=["Eating"],
        videos=["v"],
        action=np.zeros(frames, np.int32),
        video=np.zeros(frames, np.int32),
        factor=np.ones(frames),
        pose_3d_mm=poses[1, 1],
        image_size=np.full((frames, 2), 1000, np.float32),
    )
    with ArrayWriter(folder, n_frames, "a.pkl") as writer:
        writer.add("train", *poses[0], clips)
        writer.add("test", *poses[1], clips, test)
    return poses, clips


def write_clips(folder, split, count=3, frames=T, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    clips = rng.standard_normal((count, 2, frames, 17, 3)).astype(dtype)
    for number, (pose_2d, pose_3d) in enumerate(clips):
        content = {"data_input": pose_2d, "data_label": pose_3d}
        write_pickle(folder / split / f"{number:08d}.pkl", content)
    return clips
