"""Small motion capture files with all held-out subjects of the benchmark, and two to train on."""

import json
from pathlib import Path

import numpy as np

from data.mocap_benchmark import HELD_OUT
from data.preprocess.mocap_benchmark import DUPLICATES
from data.sources.synthetic import ACTIONS, perform, rest_pose
from lib.skeleton import H36M

HEAD = {"fps": 50.0, "unit_m": 0.0005, "parents": list(H36M.parents)}
SUBJECTS = ("cmu07", "prmd01", *(s for subjects in HELD_OUT.values() for s in subjects))


def motion(number: int, num_frames: int) -> np.ndarray:
    """(num_frames, J, 3) int16 in half millimetres."""
    action = list(ACTIONS)[number % len(ACTIONS)]
    performed = perform(np.random.default_rng(number), action, rest_pose(), num_frames)
    return np.round(performed * 2).astype(np.int16)


def write_file(path: Path, clips: dict[str, tuple[str, np.ndarray]]) -> Path:
    """clips: name -> subject and motion."""
    about = {n: {"subject": s, "action": "act", "split": "train"} for n, (s, _) in clips.items()}
    arrays = {name: array for name, (_, array) in clips.items()}
    np.savez(path, __meta__=json.dumps({"head": HEAD, "clips": about}), **arrays)
    return path


def write_mocap(folder: Path, num_frames: int = 40) -> Path:
    """Two files and the list of duplicates: one clip a subject, and a take under another name."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = {
        f"{subject}_a": (subject, motion(number, num_frames + number))
        for number, subject in enumerate(SUBJECTS)
    }
    names = list(clips)
    write_file(folder / "one.npz", {name: clips[name] for name in names[:5]})
    again = {"cmux_again": ("cmux", clips["cmu49_a"][1] + np.int16(3))}
    write_file(folder / "two.npz", {name: clips[name] for name in names[5:]} | again)
    (folder / DUPLICATES).write_text(json.dumps({"cmux_again": "cmu49_a"}))
    return folder
