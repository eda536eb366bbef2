"""Files for other tools: what is read back is what was written."""

import json

import numpy as np
import pytest

from demo.export.arrays import write_json, write_npz
from demo.export.bvh import write_bvh
from demo.poses import Poses, bone_lengths, fit_bones
from lib.skeleton import H36M


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


def read_bvh(text: str) -> tuple[dict[str, np.ndarray], float, dict[str, np.ndarray]]:
    """An independent reader: joint name -> (F, 3) positions, frame time, name -> offset."""
    hierarchy, motion = text.split("MOTION")
    stack, joints = [], []
    for line in hierarchy.splitlines():
        words = line.split()
        if words and words[0] in ("ROOT", "JOINT", "End"):
            name = words[1] if words[0] != "End" else f"{joints[stack[-1]]['name']}_end"
            joints.append({"name": name, "parent": stack[-1] if stack else None, "channels": []})
        elif words and words[0] == "{":
            stack.append(len(joints) - 1)
        elif words and words[0] == "}":
            stack.pop()
        elif words and words[0] == "OFFSET":
            joints[-1]["offset"] = np.array([float(word) for word in words[1:]])
        elif words and words[0] == "CHANNELS":
            assert len(words) == 2 + int(words[1])
            joints[-1]["channels"] = words[2:]
    assert not stack
    lines = motion.strip().splitlines()
    frames, frame_time = int(lines[0].split(":")[1]), float(lines[1].split(":")[1])
    table = np.array([[float(word) for word in line.split()] for line in lines[2:]])
    assert table.shape == (frames, sum(len(joint["channels"]) for joint in joints))

    def turn(axis: str, degrees: float) -> np.ndarray:
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        return {
            "X": np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]),
            "Y": np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]),
            "Z": np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]),
        }[axis]

    positions = {joint["name"]: np.zeros((frames, 3)) for joint in joints}
    for index, row in enumerate(table):
        values, placed = iter(row), []
        for joint in joints:
            rotation, place = np.eye(3), joint["offset"].copy()
            for channel in joint["channels"]:
                value = next(values)
                if channel.endswith("position"):
                    # The root's offset is only where it stands at rest.
                    place["XYZ".index(channel[0])] = value
                else:
                    rotation = rotation @ turn(channel[0], value)
            if joint["parent"] is not None:
                above, origin = placed[joint["parent"]]
                place, rotation = origin + above @ place, above @ rotation
            placed.append((rotation, place))
            positions[joint["name"]][index] = place
    return positions, frame_time, {joint["name"]: joint["offset"] for joint in joints}


def test_fitting_bones_keeps_directions_and_makes_lengths_constant():
    pose = walking_pose(40)
    fitted = fit_bones(pose)
    lengths = bone_lengths(fitted)
    np.testing.assert_allclose(lengths, lengths[:1].repeat(40, 0), rtol=1e-5)
    for (parent, child), length in zip(H36M.bones, lengths[0], strict=True):
        mirrored = H36M.flip_order[child] - 1
        assert length == pytest.approx(lengths[0, mirrored], rel=1e-5)
        bone, before = fitted[:, child] - fitted[:, parent], pose[:, child] - pose[:, parent]
        cos = (bone * before).sum(-1) / np.linalg.norm(bone, axis=-1)
        np.testing.assert_allclose(cos / np.linalg.norm(before, axis=-1), 1, atol=1e-5)


def test_bvh_angles_give_the_positions_back(tmp_path):
    pose = walking_pose(30, seed=3)
    write_bvh(tmp_path / "walk.bvh", pose, fps=24.0)
    positions, frame_time, offsets = read_bvh((tmp_path / "walk.bvh").read_text())
    assert frame_time == pytest.approx(1 / 24)
    expected = fit_bones(pose)
    for joint, name in enumerate(H36M.names):
        # Metres, y up, z towards the viewer -> mm, z up.
        found = positions[name][:, [0, 2, 1]] * [1000, -1000, 1000]
        assert np.abs(found - expected[:, joint]).max() < 0.1  # mm
    for name in H36M.names[1:]:
        assert np.linalg.norm(offsets[name]) > 0


def test_bvh_of_a_bone_that_points_against_its_rest(tmp_path):
    """A headstand: every bone is turned by 180°, where the axis of the turn is undefined."""
    pose = np.zeros((2, 17, 3), dtype=np.float32)
    for parent, child in H36M.bones:
        up = 1 if H36M.names[child].endswith(("knee", "ankle")) else -1
        side = {"left": 1, "right": -1, "middle": 0}[H36M.sides[child]]
        sideways = H36M.names[child].endswith(("hip", "shoulder", "elbow", "wrist"))
        pose[:, child] = pose[:, parent] + ([200 * side, 0, 0] if sideways else [0, 0, 300 * up])
    write_bvh(tmp_path / "stand.bvh", pose, fps=10.0)
    positions, _, _ = read_bvh((tmp_path / "stand.bvh").read_text())
    for joint, name in enumerate(H36M.names):
        found = positions[name][:, [0, 2, 1]] * [1000, -1000, 1000]
        assert np.abs(found - pose[:, joint]).max() < 0.1


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
    )


def test_npz_and_json_hold_the_poses(tmp_path):
    poses = sample_poses()
    write_npz(tmp_path / "poses.npz", poses)
    write_json(tmp_path / "poses.json", poses)
    text = json.loads((tmp_path / "poses.json").read_text())
    with np.load(tmp_path / "poses.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == set(text)
        np.testing.assert_array_equal(arrays["pose_world"], poses.pose_world)
        np.testing.assert_array_equal(arrays["keypoints_2d"], poses.keypoints_2d[..., :2])
        np.testing.assert_array_equal(arrays["confidence"], poses.confidence)
        assert arrays["joint_names"].tolist() == list(H36M.names)
        for name in arrays.files:
            if arrays[name].dtype.kind == "f":
                np.testing.assert_allclose(np.array(text[name]), arrays[name], atol=0.051)
            else:
                assert np.array_equal(text[name], arrays[name])
