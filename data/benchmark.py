"""What a data set is: its file, its clips, what a network learns of it and how it is scored."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.clips import (
    ClipDataset,
    TrainingClips,
    covering_clips,
)
from data.motions import read_motions
from data.sequences import SPLITS, Sequences
from data.store import INDEX, ArrayClips, ArrayWriter, StoredClips, dataset_of
from data.views import RenderedClips, Rendering
from lib.arrays import Bools, Floats, Ints
from lib.batch import Clips
from lib.camera import H36M_FPS
from lib.config import PROTOCOL_KEYS, RENDERING_KEYS, Config
from lib.errors import UserError, did_you_mean
from lib.evaluation.frames import TestFrames
from lib.evaluation.protocol import Protocol, TestSet
from lib.files import find_path
from lib.skeleton import Skeleton

# Keys of stage 2 that tie its poses to the 2D pose, and what they are for labels whose x and y are
# not those on the screen.
ON_SCREEN_ONLY = {"input": "screen", "output": "absolute", "loss_unit": "screen"}

Read = Callable[[str | os.PathLike[str], Sequence[str]], Iterator[tuple[str, Sequences]]]
Windows = Callable[[Sequences, int], Ints]
# Value of the config key `protocol`: a data set with two protocols is scored by both.
BOTH = "both"
Units = Callable[[Sequences], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Benchmark:
    """A data set, how it is cut into clips of T frames, and how predictions for it are scored."""

    name: str  # of the config key `dataset`
    skeleton: Skeleton
    source: str  # the usual name of the file that `read` reads
    # (path, splits) -> (split, its sequences) for each; the test split has a ground truth.
    read: Read
    door: str  # the script that slices it, for messages
    prefix: str  # its clips lie in the folder `prefix-T`; {file} is the name of the file
    # Sequences -> what the network sees, (N, J, 3): x, y and confidence; and what it learns,
    # (N, J, 3), in normalised units. Both float32.
    units: Units
    # (sequences, T) -> (clips, T) frame ids.
    train_windows: Windows
    test_windows: Windows
    protocols: tuple[Protocol, ...]  # the first is the usual one
    # Whether x and y of what it learns are those on the screen, as `use_proj_as_2d` needs them.
    projects: bool
    # What its protocol leaves to the config: keys and their values, the default first.
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # With `flip`, an epoch has each training clip plain and mirrored, not one of both at random.
    each_mirrored: bool = False
    saves_predictions: bool = False  # its reports hold the predictions
    # Its training clips are rendered anew in each epoch (data/views.py), of stored motion; and its
    # test clips may be of any frame rate.
    rendered: bool = False
    # The joints that a file states; None: they are always those of `skeleton`.
    read_joints: Callable[[str | os.PathLike[str]], Skeleton] | None = None

    def of(self, config: Config) -> "Benchmark":
        """With the joints that a completed config names. Raises UserError."""
        if not config.joints:
            return self
        if self.read_joints is None:
            raise UserError(f"key 'joints': those of {self.name} are fixed; leave it out")
        try:
            skeleton = Skeleton.of_names(config.joints, config.joint_parents)
        except ValueError as error:
            raise UserError(f"keys 'joints' and 'joint_parents': {error}") from error
        return dataclasses.replace(self, skeleton=skeleton)

    def at(self, path: Path) -> "Benchmark":
        """With the joints of a file or a folder of clips. Raises UserError."""
        self._check_folder(path)
        is_stored = (path / INDEX).is_file()
        if self.read_joints is None or not (is_stored or path.is_file()):
            return self  # whoever opens it will say what is missing
        if is_stored:
            skeleton = ArrayClips(path, "test", self.door).skeleton or self.skeleton
        else:
            skeleton = self.read_joints(path)
        return dataclasses.replace(self, skeleton=skeleton)

    def folder(self, file: str, n_frames: int) -> str:
        """The name of the folder with the clips that are cut from `file`: H36M-243."""
        return f"{self.prefix.format(file=Path(file).stem)}-{n_frames}"

    def complete(self, config: Config) -> Config:
        """The config; keys that it leaves out and that depend on the data set are filled in."""
        dt_file = config.dt_file or self.source
        changes: dict[str, Any] = {
            "subset_list": config.subset_list or (self.folder(dt_file, config.n_frames),),
            "dt_file": dt_file,
            "protocol": config.protocol or self.protocols[0].name,
            **{key: getattr(config, key) or values[0] for key, values in self.choices.items()},
        }
        complete = dataclasses.replace(config, **changes)
        if self.read_joints is None or config.joints or not complete.clips_dir.is_dir():
            return complete
        skeleton = self.at(complete.clips_dir).skeleton
        return dataclasses.replace(
            complete, joints=skeleton.names, joint_parents=skeleton.parent_names
        )

    def _check(self, config: Config, split: str) -> None:
        """Raise UserError if the config wants what the data set does not have."""
        if config.use_proj_as_2d and not self.projects:
            raise UserError(f"use_proj_as_2d: the labels of {self.name} are no projections")
        if not config.root_rel and not self.projects:
            raise UserError(f"root_rel: false: the labels of {self.name} are relative to the root")
        for key, only in ON_SCREEN_ONLY.items() if config.stage == 2 else ():
            value = getattr(config, key)
            if value != only and not self.projects:
                raise UserError(
                    f"{key} {value}: the labels of {self.name} are no projections; use {only}"
                )
        if config.frame_rate and not self.rendered:
            raise UserError(
                f"key 'frame_rate': the clips of {self.name} hold every frame; --set frame_rate=0"
                " takes them as they are"
            )
        if config.frame_rate:
            step = round(H36M_FPS / config.frame_rate)
            if abs(H36M_FPS / step - config.frame_rate) > 0.01:
                raise UserError(
                    f"frame_rate {config.frame_rate:g}: every n-th of {H36M_FPS:g} frames a second"
                    f" is shown, so give {H36M_FPS / step:g} or another {H36M_FPS:g}/n"
                )
        for key in RENDERING_KEYS if split == "train" and not self.rendered else ():
            if getattr(config, key) != getattr(Config, key):
                raise UserError(f"key {key!r}: the clips of {self.name} are not rendered")
        for key in PROTOCOL_KEYS:
            value, values = getattr(config, key), self.choices.get(key, ())
            if value and not values:
                raise UserError(f"key {key!r}: the protocol of {self.name} has no such choice")
            if values and value not in values:
                hint = did_you_mean(value, values)
                raise UserError(f"key {key!r}: {value!r} is not one of {', '.join(values)}{hint}")

    def _check_folder(self, folder: Path) -> None:
        """Raise UserError if a folder holds the clips of another data set."""
        found = dataset_of(folder)
        if found not in (None, self.name):
            raise UserError(
                f"{folder}: clips of {found}, not of {self.name}, whose joints or units are others;"
                f" name a folder of {self.name} in 'subset_list', or use a config of {found}"
            )

    def _check_joints(self, folder: Path) -> None:
        """Raise UserError if the clips of a folder have other joints than the model."""
        found = self.at(folder).skeleton
        if found != self.skeleton:
            shown = [", ".join(skeleton.names[:3]) for skeleton in (found, self.skeleton)]
            raise UserError(
                f"{folder}: poses of {found.num_joints} joints ({shown[0]} …), but the model knows"
                f" {self.skeleton.num_joints} ({shown[1]} …); use the data it was trained for"
            )

    def protocols_of(self, config: Config) -> list[Protocol]:
        """Those that a completed config asks for, with what it chooses. Raises UserError."""
        names = [protocol.name for protocol in self.protocols]
        choices = [*names, BOTH] if len(names) == 2 else names
        if config.protocol not in choices:
            hint = did_you_mean(config.protocol, choices)
            raise UserError(
                f"protocol {config.protocol}: {self.name} is scored by {', '.join(choices)}{hint};"
                f" --set protocol={choices[0]}"
            )
        chosen = {key: getattr(config, key) for key in self.choices}
        return [
            dataclasses.replace(protocol, evaluate=partial(protocol.evaluate, **chosen))
            for protocol in self.protocols
            if config.protocol in (protocol.name, BOTH)
        ]

    def test_sets(self, config: Config) -> list[TestSet]:
        """The test clips as each protocol of the completed config wants them. Raises UserError."""
        protocols = self.protocols_of(config)
        dataset = self.open(config, "test")
        path = find_path(config.data_root) / config.dt_file
        stored, frames = self.test_frames(dataset.source, path)
        tests = []
        for protocol in protocols:
            ids, clips = stored, dataset
            if protocol.windows is not None:
                ids = protocol.windows(frames, config.n_frames)
                clips = dataset.cut(ids)
            tests.append(TestSet(clips, ids, frames, protocol))
        return tests

    def open(self, config: Config, split: str) -> ClipDataset:
        """The stored training clips of all of the config's folders, or the test clips of the first.

        Raises UserError.
        """
        self._check(config, split)
        for folder in config.clips_dirs:
            self._check_folder(folder)
        if self.read_joints is not None:
            for folder in config.clips_dirs:
                if (folder / INDEX).is_file():
                    self._check_joints(folder)
        dataset = ClipDataset(
            config.clips_dirs if split == "train" else config.clips_dir,
            split,
            config.n_frames,
            config.use_proj_as_2d,
            config.dt_file,
            num_joints=self.skeleton.num_joints,
            door=self.door,
        )
        if split == "test" and config.frame_rate and isinstance(dataset.source, ArrayClips):
            step = round(H36M_FPS / config.frame_rate)
            video = dataset.source.test_frames().video
            return dataset.cut(covering_clips(video, config.n_frames, step))
        return dataset

    def open_training(self, config: Config) -> TrainingClips:
        """The training clips of all of the config's folders. Raises UserError."""
        if not self.rendered:
            return self.open(config, "train")
        self._check(config, "train")
        motions = [
            motion
            for folder in config.clips_dirs
            for motion in read_motions(folder, "train", self.skeleton.num_joints, self.door)
        ]
        rendering = Rendering(
            frame_rates=config.frame_rates,
            mixed_bodies=config.mixed_bodies,
            limb_rotations=config.limb_rotations,
            missing_joints=config.missing_joints,
            exact_keypoints=1.0 if config.use_proj_as_2d else config.exact_keypoints,
            per_epoch=config.views_per_epoch,
            fixed=config.views == "fixed",
        )
        return RenderedClips(motions, config.n_frames, rendering)

    def bone_test(self, config: Config) -> tuple[Clips, str, Bools | None]:
        """The test clips of stage 1, its (first) protocol's name, and which frames count.

        These are (clips, T), None for all. Raises UserError.
        """
        protocol = self.protocols_of(config)[0]
        if not protocol.once:  # released clips lack what test_sets() reads
            return self.open(config, "test"), protocol.name, None
        test = self.test_sets(config)[0]
        return test.clips, protocol.name, test.counted()

    def slice(self, path: str | os.PathLike[str], directory: Path, n_frames: int) -> dict[str, int]:
        """Cut the file's videos into clips and write `directory` (H36M-243). Raises UserError.

        Returns the number of clips of each split. Until all is written, an older data set stays.
        """
        counts = {}
        splits = self.read(path, SPLITS)  # a missing file is reported before a folder is made
        kept = None if self.read_joints is None else self.read_joints(path)
        with ArrayWriter(directory, n_frames, Path(path).name, kept, self.name) as writer:
            for split, sequences in splits:
                windows = self.train_windows if split == "train" else self.test_windows
                clips = windows(sequences, n_frames)
                test = sequences.test_frames() if split == "test" else None
                writer.add(split, *self.units(sequences), clips, test)
                counts[split] = len(clips)
                del sequences  # a split fills a third of the memory
        return counts

    def test_frames(self, clips: StoredClips, path: Path) -> tuple[Ints, TestFrames]:
        """The (clips, T) frame ids of test clips, and what the protocol needs of the frames.

        A released clip folder keeps neither, so the file is read for them. Such a folder lacks the
        last video's clip if that video is shorter than a clip. Raises UserError.
        """
        if isinstance(clips, ArrayClips):
            return clips.frame_ids, clips.test_frames()
        ((_, sequences),) = self.read(path, ["test"])
        ids = self.test_windows(sequences, clips.n_frames)
        if len(ids) == len(clips) + 1 and len(np.unique(ids[-1])) < clips.n_frames:
            ids = ids[:-1]
        if len(ids) != len(clips):
            raise UserError(
                f"{clips.where}: {len(clips)} clips, {path} gives {len(ids)}; they do not belong"
                f" together: slice anew with {self.door}"
            )
        return ids, sequences.test_frames()
