"""glTF, read again by a reader of its own, written from the specification."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from demo.export.gltf import quaternions, write_glb
from demo.poses import fit_bones
from lib.skeleton import H36M
from tests.demo_samples import sample_poses, standing, world_mm

COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
SIZES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Glb:
    """Reads a .glb file as the specification of glTF 2.0 describes it (sections 3.6, 3.7, 4.4)."""

    def __init__(self, data: bytes) -> None:
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        chunks, at = [], 12
        while at < len(data):
            size, kind = struct.unpack_from("<I4s", data, at)
            assert size % 4 == 0
            chunks.append((kind, data[at + 8 : at + 8 + size]))
            at += 8 + size
        (first, text), (second, self.binary) = chunks
        assert (first, second, at) == (b"JSON", b"BIN\0", len(data))
        self.json = json.loads(text)
        assert self.json["asset"]["version"] == "2.0"
        self.parent = {
            child: number
            for number, node in enumerate(self.json["nodes"])
            for child in node.get("children", [])
        }

    def values(self, accessor: int) -> np.ndarray:
        entry = self.json["accessors"][accessor]
        view = self.json["bufferViews"][entry["bufferView"]]
        count, width = entry["count"], SIZES[entry["type"]]
        kind = np.dtype(COMPONENTS[entry["componentType"]])
        assert view["byteOffset"] % kind.itemsize == 0
        assert count * width * kind.itemsize <= view["byteLength"]
        array = np.frombuffer(self.binary, kind, count * width, view["byteOffset"])
        array = array.reshape(count, width)
        if "min" in entry:
            np.testing.assert_array_equal(array.min(0), np.array(entry["min"], kind))
            np.testing.assert_array_equal(array.max(0), np.array(entry["max"], kind))
        return array

    @staticmethod
    def turn(quaternion: np.ndarray) -> np.ndarray:
        """v + 2 u x (u x v + w v), for the unit vectors v."""
        u, w = quaternion[:3], quaternion[3]
        return np.stack([v + 2 * np.cross(u, np.cross(u, v) + w * v) for v in np.eye(3)], axis=1)

    def globals_at(self, seconds: float | None) -> list[np.ndarray]:
        """Each node's 4 x 4 matrix, at rest or at a keyframe."""
        moved: dict[tuple[int, str], np.ndarray] = {}
        (animation,) = self.json["animations"]
        for channel in animation["channels"] if seconds is not None else []:
            sampler = animation["samplers"][channel["sampler"]]
            times = self.values(sampler["input"])[:, 0]
            assert (np.diff(times) > 0).all()
            key = np.abs(times - seconds).argmin()
            target = channel["target"]
            moved[target["node"], target["path"]] = self.values(sampler["output"])[key]
        local = []
        for number, node in enumerate(self.json["nodes"]):
            matrix = np.eye(4)
            scale = moved.get((number, "scale"), node.get("scale", [1, 1, 1]))
            turn = moved.get((number, "rotation"), node.get("rotation", [0, 0, 0, 1]))
            matrix[:3, :3] = self.turn(np.array(turn, dtype=np.float64)) * scale
            matrix[:3, 3] = moved.get((number, "translation"), node.get("translation", [0, 0, 0]))
            local.append(matrix)
        whole: dict[int, np.ndarray] = {}

        def of(number: int) -> np.ndarray:
            if number not in whole:
                above = of(self.parent[number]) if number in self.parent else np.eye(4)
                whole[number] = above @ local[number]
            return whole[number]

        return [of(number) for number in range(len(local))]


def read_glb(path) -> Glb:
    return Glb(path.read_bytes())


def test_the_joints_of_a_glb_move_as_the_poses(tmp_path):
    poses = sample_poses(people=2)
    write_glb(tmp_path / "two.glb", poses)
    glb = read_glb(tmp_path / "two.glb")
    assert [skin["name"] for skin in glb.json["skins"]] == ["person_1", "person_2"]
    for skin, world in zip(glb.json["skins"], poses.pose_world, strict=True):
        nodes = {glb.json["nodes"][node]["name"]: node for node in skin["joints"]}
        expected = fit_bones(world)
        for frame in range(poses.num_frames):
            whole = glb.globals_at(frame / poses.fps)
            found = np.array([whole[nodes[name]][:3, 3] for name in H36M.names])
            assert np.abs(world_mm(found) - expected[frame]).max() < 0.1


def test_a_glb_at_rest_stands_with_its_arms_to_the_sides(tmp_path):
    """Somebody who stands: hips and arms level, toes on the floor, facing +z, right hand at -x."""
    pose = standing(5)[None].astype(np.float32)
    write_glb(tmp_path / "rest.glb", replace(sample_poses(1, 5), pose_world=pose))
    glb = read_glb(tmp_path / "rest.glb")
    (skin,) = glb.json["skins"]
    whole = glb.globals_at(None)
    rest = {glb.json["nodes"][n]["name"]: whole[n][:3, 3] for n in skin["joints"]}
    assert rest["left_wrist"][0] > 0.5 > -0.5 > rest["right_wrist"][0]
    for name in ("elbow", "wrist"):
        assert rest[f"left_{name}"][1] == pytest.approx(rest["left_shoulder"][1])
    assert rest["left_knee"][0] == pytest.approx(rest["left_hip"][0])
    inverse = glb.values(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    for node, matrix in zip(skin["joints"], inverse, strict=True):
        np.testing.assert_allclose(whole[node] @ matrix, np.eye(4), atol=1e-6)
    corners = np.concatenate(
        [glb.values(p["attributes"]["POSITION"]) for p in glb.json["meshes"][0]["primitives"]]
    )
    assert corners[:, 1].min() == pytest.approx(0, abs=0.02)
    assert 1.3 < corners[:, 1].max() < 2.0
    feet = corners[corners[:, 1] < 0.05]
    assert feet[:, 2].max() > 0.1 and feet[:, 2].min() > -0.05


def test_the_skin_of_a_glb_follows_one_bone_at_each_corner(tmp_path):
    """The mesh bends with the joints: each moved corner is as far from its bone as at rest."""
    poses = sample_poses(1, 3)
    write_glb(tmp_path / "one.glb", poses)
    glb = read_glb(tmp_path / "one.glb")
    skin = glb.json["skins"][0]
    inverse = glb.values(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    (mesh_node,) = [node for node in glb.json["nodes"] if "mesh" in node]
    assert mesh_node["skin"] == 0
    whole = np.array(glb.globals_at(2 / poses.fps))[skin["joints"]]
    expected = fit_bones(poses.pose_world[0])[2]
    for part in glb.json["meshes"][0]["primitives"]:
        attributes = part["attributes"]
        corners = glb.values(attributes["POSITION"]).astype(np.float64)
        joints, weights = (glb.values(attributes[k]) for k in ("JOINTS_0", "WEIGHTS_0"))
        np.testing.assert_array_equal(weights, np.tile([1, 0, 0, 0], (len(weights), 1)))
        assert glb.values(part["indices"]).max() == len(corners) - 1
        matrices = (whole @ inverse)[joints[:, 0]]
        moved = np.einsum("nij,nj->ni", matrices[:, :3, :3], corners) + matrices[:, :3, 3]
        distance = np.linalg.norm(world_mm(moved)[:, None] - _along_bones(expected), axis=-1)
        assert distance.min(axis=1).max() < 220  # the farthest: the toes from the ankle
        # Closed, and its outside outside: the volume is the sum of the bones' small ones.
        triangles = corners[glb.values(part["indices"]).reshape(-1, 3)]
        volume = np.linalg.det(triangles).sum() / 6
        assert 1e-4 < volume < 1e-2  # m³


def _along_bones(pose: np.ndarray) -> np.ndarray:
    share = np.linspace(0, 1, 20)[:, None]
    return np.concatenate([pose[p] + share * (pose[c] - pose[p]) for p, c in H36M.bones])


def test_who_is_not_there_has_no_size_in_a_glb(tmp_path):
    poses = sample_poses(people=2)
    poses.stretch[1, :4] = poses.stretch[1, 9:] = 0
    write_glb(tmp_path / "two.glb", poses)
    glb = read_glb(tmp_path / "two.glb")
    names = [node["name"] for node in glb.json["nodes"]]
    sizes = [
        [
            np.linalg.det(glb.globals_at(frame / poses.fps)[names.index(name)][:3, :3])
            for frame in range(12)
        ]
        for name in ("person_1", "person_2")
    ]
    np.testing.assert_allclose(sizes, [[1] * 12, [0] * 4 + [1] * 5 + [0] * 3])
    steps = {s["interpolation"] for s in glb.json["animations"][0]["samplers"]}
    assert steps == {"LINEAR", "STEP"}


def test_quaternions_are_those_of_the_rotation_and_stay_in_one_half():
    """Turns about a drawn axis all the way round and on, the largest component changing."""
    rng = np.random.default_rng(3)
    for _ in range(10):
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        k = np.cross(np.eye(3), axis)  # k @ v = axis x v
        angles = np.linspace(-7, 7, 90)[:, None, None]
        turns = np.eye(3) + np.sin(angles) * k + (1 - np.cos(angles)) * (k @ k)
        found = quaternions(turns)
        half = angles[:, 0] / 2
        wanted = np.concatenate([np.sin(half) * axis, np.cos(half)], axis=-1)
        sign = np.sign(found[0] @ wanted[0])
        np.testing.assert_allclose(found * sign, wanted, atol=1e-7)
