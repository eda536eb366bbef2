"""Joint angles: their names, their signs, and the table of them."""

import csv
import re

import numpy as np
import pytest

from demo.export.angles import ANGLES, joint_angles, write_angles
from lib.files import PROJECT_ROOT
from lib.skeleton import H36M
from tests.demo_samples import sample_poses

LEG = ("hip", "knee", "ankle")


def bent(**moved: tuple[float, float, float]) -> np.ndarray:
    """(1, 17, 3): somebody who stands facing the camera (the left hand at +x), arms hanging, with
    some bones in other directions: x right, y away from the camera, z up."""
    down, up = (0, 0, -1), (0, 0, 1)
    bones: dict[str, tuple[float, float, float]] = {
        **{f"{s}_{part}": down for s in ("left", "right") for part in ("knee", "ankle")},
        **{f"{s}_{part}": down for s in ("left", "right") for part in ("elbow", "wrist")},
        **{f"left_{part}": (1, 0, 0) for part in ("hip", "shoulder")},
        **{f"right_{part}": (-1, 0, 0) for part in ("hip", "shoulder")},
        **dict.fromkeys(("spine", "thorax", "neck", "head"), up),
    }
    pose = np.zeros((1, 17, 3))
    for parent, child in H36M.bones:
        direction = np.array((bones | moved)[H36M.names[child]], dtype=float)
        pose[:, child] = pose[:, parent] + 300 * direction / np.linalg.norm(direction)
    return pose


def test_nothing_is_bent_in_somebody_who_stands():
    angles = joint_angles(bent())
    for name, value in angles.items():
        if not name.endswith("shoulder_plane"):  # has no meaning where an arm hangs
            assert value == pytest.approx(0, abs=1e-9), name


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        # Towards the camera is forward: y < 0. 45° each where two axes are mixed.
        ({"left_knee": (0, -1, -1)}, {"left_hip_flexion": 45, "left_knee_flexion": 45}),
        ({"right_knee": (0, 1, -1), "right_ankle": (0, 1, -1)}, {"right_hip_flexion": -45}),
        ({"right_knee": (-1, 0, -1), "right_ankle": (-1, 0, -1)}, {"right_hip_abduction": 45}),
        ({"left_knee": (-1, 0, -1), "left_ankle": (-1, 0, -1)}, {"left_hip_abduction": -45}),
        ({"left_ankle": (0, 1, 0)}, {"left_knee_flexion": 90}),
        ({"right_wrist": (0, -1, 0)}, {"right_elbow_flexion": 90}),
        (
            {"left_elbow": (1, 0, 0), "left_wrist": (1, 0, 0)},
            {"left_shoulder_elevation": 90, "left_shoulder_plane": 0},
        ),
        (
            {"right_elbow": (0, -1, 0), "right_wrist": (0, -1, 0)},
            {"right_shoulder_elevation": 90, "right_shoulder_plane": 90},
        ),
        (
            {"right_elbow": (0, 1, -1), "right_wrist": (0, 1, -1)},
            {"right_shoulder_elevation": 45, "right_shoulder_plane": -90},
        ),
        ({"left_elbow": (0, 0, 1), "left_wrist": (0, 0, 1)}, {"left_shoulder_elevation": 180}),
        ({"head": (0, -1, 0)}, {"head_forward_bend": np.rad2deg(np.arctan2(1, 1))}),
        # The left shoulder goes back (y > 0): turned to the left.
        (
            {"left_shoulder": (1, 1, 0), "right_shoulder": (-1, -1, 0)},
            {"trunk_twist": 45},
        ),
    ],
)
def test_angles_of_single_bends(moved, expected):
    angles = joint_angles(bent(**moved))
    for name, value in angles.items():
        if name in expected or not name.endswith("shoulder_plane"):
            assert value == pytest.approx(expected.get(name, 0), abs=1e-6), name


def test_leaning_and_turning_as_a_whole():
    """A lean forward and one to the person's right (x < 0); the heading goes on beyond 180°."""
    tilt = np.deg2rad(30)
    for axis, name, sign in (
        ((1, 0, 0), "trunk_forward_lean", 1),
        ((0, 1, 0), "trunk_side_lean", -1),
    ):
        angles = joint_angles(bent() @ _about(axis, tilt).T)
        assert angles[name] == pytest.approx(30 * sign)
        assert angles["left_hip_flexion"] == pytest.approx(0, abs=1e-9)  # a matter of the pelvis
    turns = np.deg2rad(np.arange(0, 500, 20))
    walk = np.concatenate([bent() @ _about((0, 0, 1), turn).T for turn in turns])
    np.testing.assert_allclose(joint_angles(walk)["pelvis_heading"], np.rad2deg(turns), atol=1e-6)
    tipped = joint_angles(bent() @ _about((0, 1, 0), np.deg2rad(10)).T)
    assert tipped["pelvis_obliquity"] == pytest.approx(10)  # the right hip, at x < 0, goes up


def _about(axis: tuple[int, int, int], angle: float) -> np.ndarray:
    k = np.cross(np.eye(3), axis)  # k @ v = axis x v
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def test_the_csv_has_a_row_for_each_person_and_frame(tmp_path):
    poses = sample_poses(people=2)
    poses.keypoints_2d[..., 2] = 0.5
    poses.keypoints_2d[1, :4, :, 2] = 0
    poses.stretch[1, :4] = 0
    poses.keypoints_2d[0, 6, :5, 2] = 0
    write_angles(tmp_path / "angles.csv", poses)
    with open(tmp_path / "angles.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["person"]), int(row["frame"])) for row in rows] == [
        *((1, frame) for frame in range(12)),
        *((2, frame) for frame in range(4, 12)),
    ]
    assert list(rows[0])[4:] == list(ANGLES)
    assert [row["seen_joints"] for row in rows[:8]] == ["17"] * 6 + ["12", "17"]
    for row in rows:
        person, frame = int(row["person"]) - 1, int(row["frame"])
        assert float(row["time_s"]) == pytest.approx(frame / poses.fps, abs=1e-6)
        knee = poses.pose_world[person, frame][[H36M.index(f"left_{j}") for j in LEG]]
        thigh, shin = np.diff(knee.astype(np.float64), axis=0)
        cos = thigh @ shin / np.linalg.norm(thigh) / np.linalg.norm(shin)
        assert float(row["left_knee_flexion"]) == pytest.approx(
            np.rad2deg(np.arccos(cos)), abs=0.01
        )


def test_the_documentation_explains_each_angle_as_the_code_does():
    text = (PROJECT_ROOT / "docs" / "video.md").read_text()
    table = dict(re.findall(r"^\| `([a-z_…]+)` \| (.+) \|$", text, re.MULTILINE))
    for name, meaning in ANGLES.items():
        written = re.sub(r"^(left|right)_", "…_", name)
        assert table[written] == meaning
