"""glTF 2.0, binary (.glb): everybody as a skinned figure in one scene; viewers and Blender open it.

The joints are those of demo.export.rig: metres, y up, people who look at the camera face +z, as
glTF wants it; at rest they stand with their arms to the sides. Before somebody comes and after they
have gone their figure has the size 0, which is how glTF hides things.
Source: Khronos, glTF 2.0 specification (https://registry.khronos.org/glTF).
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from demo.export.rig import RIG, Figure, tip
from demo.poses import Poses
from lib.files import write_atomic
from lib.skeleton import H36M, SIDE_COLORS

FLOAT, UINT16, UINT8 = 5126, 5123, 5121
COMPONENTS = {FLOAT: "<f4", UINT16: "<u2", UINT8: "u1"}
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
SIDES = tuple(SIDE_COLORS)  # a material and a part of the mesh each

# A bone of the drawn figure: rings along it (share of its length, radius in metres), closed to a
# point at both ends; the head is rounder.
RINGS = ((0.0, 0.012), (0.12, 0.03), (0.88, 0.02), (1.0, 0.008))
HEAD_RINGS = ((0.0, 0.03), (0.25, 0.075), (0.5, 0.09), (0.75, 0.075), (1.0, 0.02))
AROUND = 8  # corners of a ring


class _Document:
    """A glTF document and its binary buffer, filled piece by piece."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "MDTF"},
            "scene": 0,
            "scenes": [{"nodes": []}],
            "nodes": [],
            "meshes": [],
            "skins": [],
            "materials": [],
            "animations": [],
            "accessors": [],
            "bufferViews": [],
        }
        self.binary = bytearray()

    def add(self, kind: str, **entry: object) -> int:
        """Appends to a list of the document; returns the entry's index there."""
        self.json[kind].append(entry)
        return len(self.json[kind]) - 1

    def accessor(
        self, values: np.ndarray, kind: str, component: int = FLOAT, target: int | None = None
    ) -> int:
        """values: (N,), (N, D) or (N, 4, 4), one row an element; matrices by columns."""
        data = np.ascontiguousarray(values, dtype=np.dtype(COMPONENTS[component]))
        view: dict[str, object] = {
            "buffer": 0,
            "byteOffset": len(self.binary),
            "byteLength": data.nbytes,
        }
        if target is not None:
            view["target"] = target
        self.binary += data.tobytes() + bytes(-data.nbytes % 4)
        entry: dict[str, object] = {
            "bufferView": self.add("bufferViews", **view),
            "componentType": component,
            "count": len(data),
            "type": kind,
        }
        if kind in ("SCALAR", "VEC3"):
            rows = data.reshape(len(data), -1)
            entry |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        return self.add("accessors", **entry)

    def write(self, path: Path) -> None:
        self.json["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.json, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + len(self.binary)
        with write_atomic(path) as file:
            file.write(struct.pack("<4sII", b"glTF", 2, length))
            file.write(struct.pack("<I4s", len(text), b"JSON") + text)
            file.write(struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary)


def write_glb(path: Path, poses: Poses) -> None:
    """Raises UserError where it cannot be written.

    Joint positions computed from the file are those of `fit_bones(pose_world)`.
    """
    document = _Document()
    for side in SIDES:
        # Colours are linear in glTF.
        color = [(part / 255) ** 2.2 for part in SIDE_COLORS[side]]
        surface = {"baseColorFactor": [*color, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.7}
        document.add("materials", name=side, pbrMetallicRoughness=surface)
    times = document.accessor(poses.times, "SCALAR")
    samplers: list[dict[str, object]] = []
    channels: list[dict[str, object]] = []

    def animate(node: int, what: str, values: np.ndarray, steps: bool = False) -> None:
        kind = f"VEC{values.shape[-1]}"
        sampler: dict[str, object] = {"input": times, "output": document.accessor(values, kind)}
        sampler["interpolation"] = "STEP" if steps else "LINEAR"
        samplers.append(sampler)
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": what}})

    for row, number in enumerate(poses.persons.tolist()):
        figure = Figure.of(poses.pose_world[row])
        whole, first = _add_person(document, f"person_{number}", figure)
        animate(first, "translation", figure.root)
        turns = quaternions(figure.turns)
        for joint in range(len(RIG)):
            if joint == 0 or RIG[joint].bone is not None:
                animate(first + joint, "rotation", turns[:, joint])
        if not poses.present[row].all():
            animate(whole, "scale", np.repeat(poses.present[row][:, None], 3, axis=1), steps=True)
    # One animation for all: most viewers play the first.
    document.add("animations", name="motion", samplers=samplers, channels=channels)
    document.write(path)


def _add_person(document: _Document, name: str, figure: Figure) -> tuple[int, int]:
    """The nodes, the skin and the mesh; returns the person's node and that of the first joint."""
    first = len(document.json["nodes"]) + 1
    document.json["scenes"][0]["nodes"].append(document.add("nodes", name=name, children=[first]))
    rest = np.zeros((len(RIG), 3))
    for number, joint in enumerate(RIG):
        rest[number] = figure.offsets[number] + (rest[joint.parent] if number else 0)
        node: dict[str, object] = {
            "name": joint.name,
            "translation": figure.offsets[number].tolist(),
        }
        below = [first + k for k, other in enumerate(RIG) if other.parent == number]
        if below:
            node["children"] = below
        document.add("nodes", **node)
    inverse = np.tile(np.eye(4), (len(RIG), 1, 1))
    inverse[:, 3, :3] = -rest  # by columns: the last one is the translation
    skin = document.add(
        "skins",
        name=name,
        joints=list(range(first, first + len(RIG))),
        skeleton=first,
        inverseBindMatrices=document.accessor(inverse, "MAT4"),
    )
    mesh = document.add("meshes", name=name, primitives=_primitives(document, figure, rest))
    # At the top of the scene: a skinned mesh stands where its joints are, not where its node is.
    body = document.add("nodes", name=f"{name}_body", mesh=mesh, skin=skin)
    document.json["scenes"][0]["nodes"].append(body)
    return first - 1, first


# --- The drawn figure -------------------------------------------------------------------------


def _primitives(document: _Document, figure: Figure, rest: np.ndarray) -> list[dict[str, object]]:
    """The mesh's parts, one a side of the body; rest: (K, 3) where the joints are at rest."""
    parts: dict[str, list[tuple[np.ndarray, np.ndarray, int]]] = {side: [] for side in SIDES}
    for number, joint in enumerate(RIG):
        end = tip(joint)
        if joint.bone is not None:
            target = next(k for k, other in enumerate(RIG) if other.at == joint.bone)
            vector = figure.offsets[target]
        elif end is not None:
            vector = np.array(end)
        else:
            continue
        rings = HEAD_RINGS if joint.name == "neck" else RINGS
        side = H36M.sides[joint.bone if joint.bone is not None else joint.at]
        parts[side].append((*_spindle(rest[number], vector, rings), number))
    primitives = []
    for material, side in enumerate(SIDES):
        starts = np.cumsum([0, *(len(points) for points, _, _ in parts[side])])
        corners = [faces + start for (_, faces, _), start in zip(parts[side], starts, strict=False)]
        owner = np.repeat([k for _, _, k in parts[side]], np.diff(starts))
        owners = np.zeros((len(owner), 4))
        owners[:, 0] = owner
        attributes = {
            "POSITION": document.accessor(
                np.concatenate([points for points, _, _ in parts[side]]),
                "VEC3",
                target=ARRAY_BUFFER,
            ),
            # Each corner follows one joint alone.
            "JOINTS_0": document.accessor(owners, "VEC4", UINT8, ARRAY_BUFFER),
            "WEIGHTS_0": document.accessor(
                np.tile([1.0, 0, 0, 0], (len(owner), 1)), "VEC4", target=ARRAY_BUFFER
            ),
        }
        indices = document.accessor(
            np.concatenate(corners).ravel(), "SCALAR", UINT16, ELEMENT_ARRAY_BUFFER
        )
        primitives.append({"attributes": attributes, "indices": indices, "material": material})
    return primitives


def _spindle(
    start: np.ndarray, vector: np.ndarray, rings: tuple[tuple[float, float], ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Corners (N, 3) and triangles (M, 3), seen from outside counter-clockwise, of a bone."""
    along = vector / max(float(np.linalg.norm(vector)), 1e-9)
    across = np.cross(along, [1.0, 0, 0] if abs(along[0]) < 0.9 else [0, 1.0, 0])
    across /= np.linalg.norm(across)
    angle = 2 * np.pi * np.arange(AROUND)[:, None] / AROUND
    circle = np.cos(angle) * across + np.sin(angle) * np.cross(along, across)
    points = [start + share * vector + radius * circle for share, radius in rings]
    corners = np.concatenate([start[None], *points, (start + vector)[None]])
    last, here = len(corners) - 1, np.arange(AROUND)
    following = (here + 1) % AROUND
    faces = [np.stack([np.zeros_like(here), following + 1, here + 1], axis=1)]
    for ring in range(len(rings) - 1):
        low, high = 1 + AROUND * ring, 1 + AROUND * (ring + 1)
        faces.append(np.stack([low + here, low + following, high + following], axis=1))
        faces.append(np.stack([low + here, high + following, high + here], axis=1))
    top = last - AROUND
    faces.append(np.stack([top + here, top + following, np.full_like(here, last)], axis=1))
    return corners, np.concatenate(faces)


def quaternions(turns: np.ndarray) -> np.ndarray:
    """Rotations (F, ..., 3, 3) -> (F, ..., 4): x, y, z, w; each in the half of its predecessor.

    Of the four ways to compute them the one that divides by the largest number is taken.
    """
    m = turns
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    squares = np.stack([2 * m[..., k, k] - trace for k in range(3)] + [trace], axis=-1) + 1
    products = np.empty((*turns.shape[:-2], 4, 4))  # 4 times the products of two components
    for k in range(4):
        products[..., k, k] = squares[..., k]
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        products[..., a, b] = products[..., b, a] = m[..., a, b] + m[..., b, a]
        products[..., 3, c] = products[..., c, 3] = m[..., b, a] - m[..., a, b]
    largest = squares.argmax(axis=-1)[..., None, None]
    row = np.take_along_axis(products, largest, axis=-2)[..., 0, :]
    result = row / np.linalg.norm(row, axis=-1, keepdims=True)
    turned = (result[1:] * result[:-1]).sum(axis=-1, keepdims=True) < 0
    result[1:] *= np.where(np.logical_xor.accumulate(turned, axis=0), -1, 1)
    return result
