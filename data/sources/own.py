"""A user's own 2D-3D pairs: an .npz with named arrays, described in docs/own_data.md.

    skeleton                 "h36m17" or "mpi_inf_3dhp17"; or instead
    joints, parents          names of the J joints; for each the number of its parent, -1: the root
    image_size, fps          (width, height) in pixels; frames a second
    SPLIT/NAME/pose_2d       (frames, J, 2 or 3): pixels, and confidence if there is one
    SPLIT/NAME/pose_3d       (frames, J, 3): mm in the camera's axes: x right, y down, z forward
    SPLIT/NAME/action        optional, as are image_size and fps of one sequence

for each sequence NAME of the SPLITs train and test.
"""

import os
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np

from data.safe_pickle import refuse_other_kinds
from data.sequences import SPLITS, Sequences, Video, join
from lib.arrays import Floats
from lib.camera import Camera
from lib.errors import UserError, did_you_mean
from lib.files import UNREADABLE, find_path, listing
from lib.skeleton import H36M, MPI_INF_3DHP, Skeleton

SKELETONS = {"h36m17": H36M, "mpi_inf_3dhp17": MPI_INF_3DHP}
GLOBAL = ("skeleton", "joints", "parents", "image_size", "fps")
POSES = ("pose_2d", "pose_3d")
OF_SEQUENCE = (*POSES, "action", "image_size", "fps")
ACTION = "all"  # of a sequence that names none
HELP = "docs/own_data.md describes the file"
SMALLEST = 20.0  # mm: all bones of a body laid end to end; a person's in metres are 4
LARGEST_IMAGE = 100_000  # pixels
UPSIDE_DOWN = -0.5  # correlation of 2D and 3D beyond which an axis points the other way


def read(
    path: str | os.PathLike[str], splits: Sequence[str] = SPLITS
) -> Iterator[tuple[str, Sequences]]:
    """Yields (split, its sequences), labels in metres from the root. Raises UserError."""
    archive = _Archive(path)
    skeleton, names = archive.skeleton(), archive.sequences()
    return (
        (split, archive.read_split(split, names[split], skeleton))
        for split in splits
        if split in names
    )


def read_joints(path: str | os.PathLike[str]) -> Skeleton:
    """The skeleton that the file states. Raises UserError."""
    return _Archive(path).skeleton()


class _Archive:
    """An .npz whose arrays are read one by one; every method raises UserError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = find_path(path)
        if not self.path.is_file():
            there = listing(self.path.parent, "*.npz")
            raise UserError(f"{path}: no such file (.npz there: {there}); {HELP}")
        try:
            refuse_other_kinds(self.path, "an .npz")
            if not zipfile.is_zipfile(self.path):
                raise ValueError
            self.arrays = np.load(self.path, allow_pickle=False)
            self.names: list[str] = list(self.arrays.files)
        except UNREADABLE as error:
            raise UserError(f"{self.path}: damaged, or not an .npz; {HELP}") from error

    def wrong(self, what: str) -> UserError:
        return UserError(f"{self.path}: {what}; {HELP}")

    def array(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise self.wrong(f"no array {name!r} inside")
        try:
            return np.asarray(self.arrays[name])
        except UNREADABLE as error:
            raise self.wrong(f"array {name!r} is damaged or holds Python objects") from error

    def skeleton(self) -> Skeleton:
        if "skeleton" in self.names:
            name = self._text("skeleton")
            if name not in SKELETONS:
                hint = did_you_mean(name, SKELETONS)
                raise self.wrong(f"skeleton {name!r} is not one of {', '.join(SKELETONS)}{hint}")
            return SKELETONS[name]
        joints, parents = self.array("joints"), self.array("parents")
        if joints.dtype.kind != "U" or joints.ndim != 1 or parents.dtype.kind not in "iu":
            raise self.wrong("'joints' must be names and 'parents' whole numbers, one a joint")
        if parents.shape != joints.shape:
            raise self.wrong(f"{len(joints)} joints, but 'parents' has shape {parents.shape}")
        try:
            return Skeleton.checked([str(name) for name in joints], parents.tolist())
        except ValueError as error:
            raise self.wrong(str(error)) from error

    def sequences(self) -> dict[str, list[str]]:
        """The names of the sequences of each split, in the file's order. There may be no training
        split: for an evaluation the test split is enough."""
        found: dict[str, list[str]] = {split: [] for split in SPLITS}
        for name in self.names:
            if name in GLOBAL:
                continue
            split, _, rest = name.partition("/")
            sequence, _, kind = rest.rpartition("/")
            is_known = split in SPLITS and sequence and kind in OF_SEQUENCE
            if not is_known or not name.isprintable():
                words = f"SPLIT/NAME/ARRAY with a split of {', '.join(SPLITS)} and an array of"
                raise self.wrong(
                    f"array {name!r} is none of {', '.join(GLOBAL)}, nor {words}"
                    f" {', '.join(OF_SEQUENCE)}"
                )
            if sequence not in found[split]:
                found[split].append(sequence)
        if not found["test"]:
            raise self.wrong("no sequence of the split 'test' (test/NAME/pose_2d …)")
        return {split: names for split, names in found.items() if names}

    def read_split(self, split: str, names: Sequence[str], skeleton: Skeleton) -> Sequences:
        parts = [self.read_sequence(f"{split}/{name}", name, skeleton) for name in names]
        self._check_axes(parts)
        return join(parts)

    def read_sequence(self, key: str, name: str, skeleton: Skeleton) -> Sequences:
        pose_2d = self._numbers(f"{key}/pose_2d", skeleton, (2, 3))
        pose_3d = self._numbers(f"{key}/pose_3d", skeleton, (3,))
        if len(pose_2d) != len(pose_3d):
            raise self.wrong(
                f"{key}: {len(pose_2d)} frames in pose_2d and {len(pose_3d)} in pose_3d"
            )
        if np.abs(pose_2d[..., :2]).max() <= 2:
            raise self.wrong(f"{key}/pose_2d: all within 2 pixels of 0; it must be in pixels")
        confidence = np.ones(pose_2d.shape[:2]) if pose_2d.shape[2] == 2 else pose_2d[..., 2]
        if confidence.min() < 0 or confidence.max() > 1:
            raise self.wrong(f"{key}/pose_2d: a confidence outside of 0 to 1")
        relative = pose_3d - pose_3d[:, skeleton.root, None]
        bones = relative[:, skeleton.bone_children] - relative[:, skeleton.bone_parents]
        size = float(np.median(np.linalg.norm(bones, axis=-1).sum(-1)))
        if size < SMALLEST:
            raise self.wrong(
                f"{key}/pose_3d: all bones together measure {size:.3g} mm; is it in millimetres?"
            )
        width, height = self._size(key)
        unknown = (np.nan, np.nan)
        video = Video(
            name=name,
            camera=Camera(f"of {name}", (width, height), focal=unknown, center=unknown),
            action=self._text(f"{key}/action") if f"{key}/action" in self.names else ACTION,
            subject="",
            fps=self._fps(key),
            frames=len(pose_2d),
        )
        return Sequences(
            [video],
            pose_2d[..., :2].astype(np.float32),
            confidence.astype(np.float32),
            (relative / 1000).astype(np.float32),
            # One unit of the label is a metre; half the image's width is one unit of the screen.
            np.full(len(pose_2d), 2000 / width),
            relative.astype(np.float32),
        )

    def _numbers(self, key: str, skeleton: Skeleton, columns: tuple[int, ...]) -> Floats:
        array = self.array(key)
        joints = skeleton.num_joints
        if (
            array.ndim != 3
            or not len(array)
            or array.shape[1] != joints
            or (array.shape[2] not in columns)
        ):
            wanted = " or ".join(map(str, columns))
            raise self.wrong(f"{key}: shape {array.shape}, not (frames, {joints}, {wanted})")
        if array.dtype.kind not in "fiu":
            raise self.wrong(f"{key}: holds {array.dtype}, not numbers")
        finite = np.isfinite(array).all((1, 2))
        if not finite.all():
            raise self.wrong(
                f"{key}: not finite at frame {int(finite.argmin())}; cut the sequence there"
            )
        return array.astype(np.float64)

    def _text(self, name: str) -> str:
        array = self.array(name)
        if array.shape or array.dtype.kind != "U":
            raise self.wrong(f"{name}: {array.dtype} of shape {array.shape}, not one text")
        return str(array)

    def _nearest(self, key: str, name: str) -> np.ndarray:
        """A sequence's own value, or the one for all."""
        own = f"{key}/{name}"
        return self.array(own if own in self.names else name)

    def _size(self, key: str) -> tuple[int, int]:
        size = self._nearest(key, "image_size")
        is_size = size.shape == (2,) and size.dtype.kind in "iuf"
        if not is_size or not ((size >= 1) & (size <= LARGEST_IMAGE)).all():
            raise self.wrong(f"{key}: image_size must be (width, height) in pixels")
        return int(size[0]), int(size[1])

    def _fps(self, key: str) -> float:
        fps = self._nearest(key, "fps")
        if fps.shape or fps.dtype.kind not in "iuf" or not 0 < fps < np.inf:
            raise self.wrong(f"{key}: fps must be one number above 0")
        return float(fps)

    def _check_axes(self, parts: Sequence[Sequences]) -> None:
        """2D and 3D from the root must agree on right and down."""
        for part in parts:
            seen = part.joint_2d - part.joint_2d.mean(1, keepdims=True)
            pose = part.joint_3d - part.joint_3d.mean(1, keepdims=True)
            for axis, (name, way) in enumerate((("x", "right"), ("y", "down"))):
                one, two = seen[..., axis].ravel(), pose[..., axis].ravel()
                norm = float(np.linalg.norm(one) * np.linalg.norm(two))
                if norm and float(one @ two) / norm < UPSIDE_DOWN:
                    raise self.wrong(
                        f"{part.videos[0].name}: {name} of pose_3d runs against {name} of pose_2d;"
                        f" in the camera's axes {name} points {way}"
                    )
