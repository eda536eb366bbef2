"""Modules from a config or from weights; the only place where a Config meets a module."""

import dataclasses
import os
from collections.abc import Callable
from typing import TypeVar

from torch import nn

from lib.camera import H36M_FPS
from lib.checkpoint import (
    BEST,
    DEFAULT_STAGE1,
    Checkpoint,
    check_agreement,
    find_checkpoint,
    load_checkpoint,
    load_weights,
)
from lib.config import Config, make_config
from lib.errors import UserError
from lib.files import find_path
from lib.geometry import INPUTS
from lib.released import Contents, State
from lib.skeleton import H36M, Skeleton
from model.blocks import recompute_blocks
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.mamba import draw_backward_dt, sum_directions
from model.mdtf import MDTF

M = TypeVar("M", bound=nn.Module)
SkeletonOf = Callable[[Config], Skeleton]  # the joints of a config's data set


def build_bone_aware(config: Config, skeleton: Skeleton = H36M) -> BoneAwareModule:
    module = BoneAwareModule(
        config.channel,
        config.st_depth,
        config.d_state,
        config.d_conv,
        input_form=config.input,
        root=skeleton.root,
        num_bins=config.bins,
    )
    return _prepared(module, config)


def build_lifter(config: Config, skeleton: Skeleton = H36M) -> Lifter:
    lifter = Lifter(
        skeleton,
        n_frames=config.n_frames,
        channel=config.channel,
        depth=config.st_depth,
        d_state=config.d_state,
        d_conv=config.d_conv,
        bone_branch=config.bone_branch,
        graph=config.graph,
        fusion=config.fusion,
        bone_features=4 if config.bone_confidence else 3,
    )
    return _prepared(lifter, config)


def _prepared(module: M, config: Config) -> M:
    """Apply what the config says about the blocks of either stage."""
    if config.dt_init == "mamba":
        draw_backward_dt(module)
    sum_directions(module, not config.if_divide_out)
    recompute_blocks(module, config.checkpoint_blocks)
    return module


def bone_aware_from_weights(
    state: State,
    source: str | os.PathLike[str],
    config: Config | None = None,
    forms: Contents | None = None,
    skeleton: Skeleton = H36M,
) -> BoneAwareModule:
    """A BoneAwareModule with these weights; its sizes follow from their shapes.

    config: that of stage 2, whose if_divide_out holds for both stages, as in the released code.
    forms: see BoneAwareModule.forms(); None or without an entry: as released.
    Raises UserError if these are not such weights.
    """
    input_form = (forms or {}).get("input", "screen")
    if input_form not in INPUTS:
        raise UserError(
            f"{source}: its stage 1 has input {input_form!r}, which is none of {', '.join(INPUTS)};"
            " update this code, or use another checkpoint"
        )
    depth = sum(name.startswith("narrow.") and name.endswith(".weight") for name in state)
    try:
        module = BoneAwareModule(
            channel=state["embed.weight"].shape[0],
            depth=depth,
            d_state=state["spatial.0.mixer.forward_scan.A_log"].shape[1],
            d_conv=state["spatial.0.mixer.forward_scan.conv1d.weight"].shape[2],
            input_form=input_form,
            root=skeleton.root,
            num_bins=state[f"narrow.{depth - 1}.weight"].shape[0],
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{source}: not the weights of a Bone Aware Module (stage 1)") from error
    load_weights(module, state, source)
    if config is not None and module.num_bins != config.bins:
        raise UserError(
            f"{source}: its stage 1 tells {module.num_bins} bins, the config has bins"
            f" {config.bins}; use the same for both"
        )
    sum_directions(module, config is not None and not config.if_divide_out)
    return module


def load_bone_aware(
    path: str | os.PathLike[str],
    config: Config | None = None,
    skeleton: Skeleton = H36M,
    skeleton_of: SkeletonOf | None = None,
) -> BoneAwareModule:
    """Stage 1 from a checkpoint file, or from the best one in a folder; config: see
    bone_aware_from_weights; skeleton_of: see build_mdtf. Raises UserError."""
    if find_path(path).is_dir():
        path = find_checkpoint(path, BEST)
    checkpoint = load_checkpoint(path)
    if checkpoint.stage != 1:
        raise UserError(f"{path}: a checkpoint of stage 2; --stage1-checkpoint wants stage 1")
    own = make_config(checkpoint.config, str(path)) if checkpoint.config else None
    if config and own and own.if_divide_out != config.if_divide_out:
        raise UserError(
            f"{path}: stage 1 was trained with if_divide_out {own.if_divide_out!r}, stage 2 has"
            f" {config.if_divide_out!r}; use the same for both"
        )
    if own and skeleton_of and skeleton_of(own) != skeleton:
        raise UserError(
            f"{path}: stage 1 was trained on the joints of {own.dataset}, which are not those of"
            " stage 2; use one of the same data set"
        )
    forms: Contents | None = {"input": own.input} if own else None
    return bone_aware_from_weights(checkpoint.model, path, config, forms, skeleton)


def build_mdtf(
    config: Config,
    checkpoint: Checkpoint | None,
    stage1_path: str | os.PathLike[str] | None,
    skeleton: Skeleton = H36M,
    skeleton_of: SkeletonOf | None = None,
) -> MDTF:
    """Stage 1 and lifter as one module; the lifter's weights are the checkpoint's, if there is one.

    stage1_path: the stage-1 weights that the user names; skeleton_of: the joints of a config's data
    set, by which a stage 1 of other joints is refused. Raises UserError.
    """
    lifter = build_lifter(config, skeleton)
    if checkpoint:
        load_weights(lifter, checkpoint.model, checkpoint.path)
    bone_aware = None
    if config.bone_branch:
        bone_aware = find_bone_aware(config, checkpoint, stage1_path, skeleton, skeleton_of)
    return assemble(config, bone_aware, lifter, skeleton)


def assemble(
    config: Config, bone_aware: BoneAwareModule | None, lifter: Lifter, skeleton: Skeleton = H36M
) -> MDTF:
    """The two stages as one module, joined as the config says."""
    if bone_aware and config.train_bone_aware:
        recompute_blocks(bone_aware, config.checkpoint_blocks)
    return MDTF(
        bone_aware,
        lifter,
        skeleton,
        config.bone_slots,
        config.stage1_drop_path,
        input_form=config.input,
        output_form=config.output,
        root_rel=config.root_rel,
        bone_angle=config.bone_angle,
        bone_confidence=config.bone_confidence,
        train_bone_aware=config.train_bone_aware,
        frame_rate=config.frame_rate or H36M_FPS,
    )


def find_bone_aware(
    config: Config,
    checkpoint: Checkpoint | None,
    named: str | os.PathLike[str] | None,
    skeleton: Skeleton = H36M,
    skeleton_of: SkeletonOf | None = None,
) -> BoneAwareModule:
    """Stage 1 of stage 2: the file the user names, else the checkpoint's own, else the default."""
    if named is not None:
        return load_bone_aware(named, config, skeleton, skeleton_of)
    if checkpoint and checkpoint.bone_aware is not None:
        return bone_aware_from_weights(
            checkpoint.bone_aware,
            checkpoint.path,
            config,
            checkpoint.bone_aware_forms,
            skeleton,
        )
    if not find_path(DEFAULT_STAGE1).is_file():
        raise UserError(
            f"{DEFAULT_STAGE1}: no stage-1 checkpoint; train it with train_firststage.py, or give"
            " another one with --stage1-checkpoint FILE"
        )
    return load_bone_aware(DEFAULT_STAGE1, config, skeleton, skeleton_of)


def load_mdtf(
    path: str | os.PathLike[str],
    config: Config | None = None,
    stage1_path: str | os.PathLike[str] | None = None,
    skeleton_of: SkeletonOf = lambda config: H36M,
) -> MDTF:
    """A trained MDTF in eval mode from a stage-2 checkpoint, ours or a released one.

    config: needed where the file carries none (a released one). stage1_path: as for build_mdtf.
    skeleton_of: the joints of the config's data set. Raises UserError.
    """
    checkpoint = load_checkpoint(path)
    if config is None:
        if checkpoint.config is None:
            raise UserError(f"{path}: carries no config (a released checkpoint); give --config")
        config = make_config(checkpoint.config, str(path))
    if config.stage != 2:
        raise UserError(f"{path}: of stage 1; poses need a checkpoint and a config of stage 2")
    check_agreement(config, checkpoint)
    # The paper's condition is for reproducing scores; poses are wanted without its noise.
    config = dataclasses.replace(config, stage1_drop_path=False)
    skeleton = skeleton_of(config)
    return build_mdtf(config, checkpoint, stage1_path, skeleton, skeleton_of).eval()
