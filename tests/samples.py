"""Random data in the published formats, small enough for tests."""

import pickle
from pathlib import Path

import numpy as np
import torch

from tests import reference

CAMERAS = {
    "54138969": (1000, 1002),
    "55011271": (1000, 1000),
    "58860488": (1000, 1000),
    "60457274": (1000, 1002),
}


def h36m_rows(rng, videos, *, is_test):
    """Rows of one split. videos: (source, camera name, action, number of frames) of each."""
    sources, cameras, actions = [], [], []
    for source, camera, action, frames in videos:
        sources += [source] * frames
        cameras += [camera] * frames
        actions += [action] * frames
    count = len(sources)
    rows = {
        "joint_2d": rng.uniform(100, 900, (count, 17, 2)).astype(np.float32),
        "confidence": rng.uniform(0.1, 1, (count, 17, 1)).astype(np.float32),
        "joint3d_image": rng.uniform(-100, 900, (count, 17, 3)).astype(np.float32),
        "camera_name": np.array(cameras),
        "source": sources,
    }
    if is_test:
        factor = rng.uniform(3, 6, count).astype(np.float32)
        rows |= {
            "action": actions,
            "2.5d_factor": factor,
            "joints_2.5d_image": rows["joint3d_image"] * factor[:, None, None]
            + rng.normal(0, 30, (count, 17, 3)).astype(np.float32),
        }
    return rows


TRAIN_VIDEOS = [
    ("s_01_act_02_subact_01_ca_01", "54138969", "Directions", 31),
    ("s_01_act_02_subact_01_ca_02", "55011271", "Directions", 9),
    ("s_05_act_03_subact_02_ca_03", "58860488", "Discussion", 14),
]
# Two short videos that are resampled, two excluded ones, every camera, three actions.
TEST_VIDEOS = [
    ("s_09_act_02_subact_01_ca_01", "54138969", "Directions", 27),
    ("s_09_act_05_subact_02_ca_02", "55011271", "Eating", 20),
    ("s_09_act_05_subact_01_ca_02", "55011271", "Eating", 5),
    ("s_11_act_05_subact_02_ca_04", "60457274", "Eating", 18),
    ("s_09_act_13_subact_01_ca_03", "58860488", "Sitting", 9),
    ("s_11_act_13_subact_01_ca_03", "58860488", "Sitting", 7),
]


def h36m_tables(seed=0):
    """A small data set in the layout of the published pickle, for clips of 9 frames."""
    rng = np.random.default_rng(seed)
    return {
        "train": h36m_rows(rng, TRAIN_VIDEOS, is_test=False),
        "test": h36m_rows(rng, TEST_VIDEOS, is_test=True),
    }


def write_pickle(path: Path, content, protocol=4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def released_checkpoint(path: Path, weights, *, prefix="", score=None) -> Path:
    """A checkpoint file as the published code writes it, numpy scalars and all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_stage_1 = "mlp.0.weight" in weights
    torch.save(
        {
            "epoch": 3,
            "lr": 4.9e-4,
            "optimizer": {"state": {}, "param_groups": [{"lr": 4.9e-4, "params": [0, 1]}]},
            "model": {prefix + name: value for name, value in weights.items()},
            "max_accuracy" if is_stage_1 else "min_mpjpe": np.float64(score or 40.5),
            "wandb_id": None,
        },
        path,
    )
    return path


def released_pair(channel=16, depth=2, frames=9):
    """Random weights of both stages under published names."""
    return (
        reference.random_weights(reference.bone_aware_shapes(channel, depth), seed=1),
        reference.random_weights(reference.lifter_shapes(channel, depth, frames), seed=2),
    )


# Of stage 2, for the sizes of released_pair().
CONFIG = {
    "stage": 2,
    "learning_rate": 1e-3,
    "batch_size": 2,
    "epochs": 1,
    "channel": 16,
    "st_depth": 2,
    "n_frames": 9,
}
