"""Files for other tools: what is read back is what was written."""

import json
from dataclasses import replace

import numpy as np
import pytest

from demo.export import Export, export_poses
from demo.export.arrays import write_json, write_npz
from demo.export.bvh import write_bvh
from demo.export.trc import MARKERS
from demo.poses import bone_lengths, fit_bones
from lib.drawing import View
from lib.skeleton import H36M
from tests.demo_samples import sample_poses, walking_pose, world_mm


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


def read_trc(text: str) -> tuple[dict[str, str], dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Header, marker -> (N, 3), frame numbers and times; as strict as OpenSim's reader."""
    lines = text.splitlines()
    assert lines[0].startswith("PathFileType\t4\t(X/Y/Z)\t")
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    keys = "DataRate CameraRate NumFrames NumMarkers Units OrigDataRate OrigDataStartFrame"
    assert list(header) == [*keys.split(), "OrigNumFrames"]
    first, second, *names = [word for word in lines[3].split("\t") if word]
    assert (first, second, len(names)) == ("Frame#", "Time", int(header["NumMarkers"]))
    labels = [word for word in lines[4].split("\t") if word]
    assert labels == [f"{axis}{k}" for k in range(1, len(names) + 1) for axis in "XYZ"]
    rows = [line.split("\t") for line in lines[5:]]
    assert {len(row) for row in rows} == {2 + 3 * len(names)}
    table = np.array(rows, dtype=np.float64)
    assert len(table) == int(header["NumFrames"]) == int(header["OrigNumFrames"])
    places = table[:, 2:].reshape(len(table), -1, 3)
    markers = {name: places[:, k] for k, name in enumerate(names)}
    return header, markers, table[:, 0], table[:, 1]


def test_trc_holds_the_joints_while_somebody_is_there(tmp_path):
    poses = sample_poses(people=2)
    poses.stretch[1, :4] = 0
    job = Export(poses, None, View(), lambda: None)
    assert export_poses(job, tmp_path, "two", ["trc"]) == ["two_1.trc, two_2.trc"]
    for row, first in ((0, 0), (1, 4)):
        text = (tmp_path / f"two_{row + 1}.trc").read_text()
        header, markers, frames, times = read_trc(text)
        assert (header["Units"], float(header["DataRate"])) == ("m", poses.fps)
        assert int(header["OrigDataStartFrame"]) == first + 1 == frames[0]
        np.testing.assert_array_equal(frames, np.arange(first, 12) + 1)
        np.testing.assert_allclose(times, (frames - 1) / poses.fps, atol=1e-6)
        assert len(set(MARKERS.values())) == len(markers) == 17
        for joint, name in enumerate(H36M.names):
            found = world_mm(markers[MARKERS[name]])
            assert np.abs(found - poses.pose_world[row, first:, joint]).max() < 0.01
    for name, marker in (("left_elbow", "LElbow"), ("right_hip", "RHip"), ("thorax", "Neck")):
        assert MARKERS[name] == marker  # as Pose2Sim calls them


def test_everything_is_written_for_one_frame(tmp_path):
    poses = sample_poses(1, 1)
    job = Export(poses, None, View(), lambda: None)
    export_poses(job, tmp_path, "one", ["glb", "trc", "csv", "bvh"])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["one.bvh", "one.glb", "one.trc", "one_angles.csv"]


def test_a_changing_rate_is_kept_in_every_file(tmp_path):
    """BVH knows an even rate only: there, poses are interpolated; elsewhere frames have times."""
    poses = sample_poses(people=1, frames=7)
    poses.pose_world[:] = poses.pose_world[:, :1]
    times = np.array([0, 0.04, 0.08, 0.2, 0.24, 0.28, 0.32])
    poses.pose_world[0, :, :, 0] += 1000 * times[:, None].astype(np.float32)  # a metre a second
    poses = replace(poses, times=times)
    job = Export(poses, None, View(), lambda: None)
    export_poses(job, tmp_path, "walk", ["bvh", "trc", "npz", "csv"])
    positions, frame_time, _ = read_bvh((tmp_path / "walk.bvh").read_text())
    assert frame_time == pytest.approx(0.04)
    walked = positions["pelvis"][:, 0] - positions["pelvis"][0, 0]
    np.testing.assert_allclose(walked, np.arange(9) * 0.04, atol=1e-3)
    assert read_trc((tmp_path / "walk.trc").read_text())[3] == pytest.approx(times)
    rows = (tmp_path / "walk_angles.csv").read_text().splitlines()[1:]
    assert [float(row.split(",")[2]) for row in rows] == pytest.approx(times)
    with np.load(tmp_path / "poses.npz") as arrays:
        np.testing.assert_array_equal(arrays["times"], times)
