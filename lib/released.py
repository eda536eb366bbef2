"""The layout of the released code's checkpoints: its names for our tensors, in its order."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor

State = dict[str, Tensor]
Contents = dict[str, Any]  # of a checkpoint file: who uses a value checks it
Names = Iterator[tuple[str, str]]  # pairs (released name, our name)
T = TypeVar("T")

# What the released model always is and its weights do not tell.
RELEASED_FORMS = {
    "input": "screen",
    "output": "absolute",
    "bone_angle": "argmax",
}
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.|model\.|net\.)+")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def _pair(released: str, ours: str) -> Names:
    for name in ("weight", "bias"):
        yield f"{released}.{name}", f"{ours}.{name}"


def _direction(end: str, released: str, ours: str) -> Names:
    yield from _pair(f"{released}.conv1d{end}", f"{ours}.conv1d")
    yield f"{released}.x_proj{end}.weight", f"{ours}.x_proj.weight"
    yield from _pair(f"{released}.dt_proj{end}", f"{ours}.dt_proj")


def _graph(released: str, ours: str) -> Names:
    yield from _pair(f"{released}.U", f"{ours}.own")
    yield from _pair(f"{released}.V", f"{ours}.neighbours")
    yield from _pair(f"{released}.batch_norm", f"{ours}.norm")
    for name in _BUFFERS:
        yield f"{released}.batch_norm.{name}", f"{ours}.norm.{name}"


def _mixer(released: str, ours: str, has_graph: bool) -> Names:
    for end, log, scan in (("", "A_log", "forward"), ("_b", "A_b_log", "backward")):
        yield f"{released}.{log}", f"{ours}.{scan}_scan.A_log"
        yield f"{released}.D{end}", f"{ours}.{scan}_scan.D"
    yield f"{released}.in_proj.weight", f"{ours}.in_proj.weight"
    yield from _direction("", released, f"{ours}.forward_scan")
    yield from _direction("_b", released, f"{ours}.backward_scan")
    yield f"{released}.out_proj.weight", f"{ours}.out_proj.weight"
    if has_graph:
        yield from _pair(f"{released}.norm_gcn", f"{ours}.forward_graph.norm")
        yield from _pair(f"{released}.norm_gcn_b", f"{ours}.backward_graph.norm")
        yield from _graph(f"{released}.gcn", f"{ours}.forward_graph.conv")
        yield from _graph(f"{released}.gcn_b", f"{ours}.backward_graph.conv")


def _mlp(released: str, ours: str) -> Names:
    yield from _pair(f"{released}.mlp.fc1", f"{ours}.mlp.fc1")
    yield from _pair(f"{released}.mlp.fc2", f"{ours}.mlp.fc2")


def _block(released: str, ours: str) -> Names:
    yield from _pair(f"{released}.norm1", f"{ours}.norm1")
    yield from _mixer(f"{released}.mamba", f"{ours}.mixer", has_graph=False)
    yield from _pair(f"{released}.norm2", f"{ours}.norm2")
    yield from _mlp(released, ours)


def _gem_block(released: str, ours: str) -> Names:
    yield from _mixer(f"{released}.gcnmamba", f"{ours}.mixer", has_graph=True)
    yield from _mlp(released, ours)
    yield from _pair(f"{released}.mambanorm1", f"{ours}.norm1")
    yield from _pair(f"{released}.mambanorm2", f"{ours}.norm2")


def _bone_aware(depth: int) -> Names:
    yield from _pair("Spatial_patch_to_embedding", "embed")
    for released, ours in (("STEblocks", "spatial"), ("TTEblocks", "temporal")):
        for i in range(depth):
            yield from _block(f"{released}.{i}", f"{ours}.{i}")
    names = ("mlp", "narrow"), ("Spatial_norm", "spatial_norm"), ("Temporal_norm", "temporal_norm")
    for released, ours in names:
        for i in range(depth):
            yield from _pair(f"{released}.{i}", f"{ours}.{i}")


def _lifter(depth: int) -> Names:
    yield "Spatial_pos_embed", "spatial_position"
    yield "Temporal_pos_embed", "temporal_position"
    yield from _pair("Spatial_patch_to_embedding1", "embed")
    yield from _pair("Spatial_patch_to_embedding2", "bone_branch.embed")
    for i in range(depth):
        yield from _gem_block(f"STEblocks.{i}", f"spatial.{i}")
    for i in range(depth):
        yield from _block(f"TTEblocks.{i}", f"temporal.{i}")
    for axis in ("spatial", "temporal"):
        name = f"limb{axis.capitalize()}"
        yield from _block(f"{name}Mamba", f"bone_branch.{axis}")
        yield from _pair(f"{name}Norm", f"bone_branch.{axis}_norm")
    yield from _pair("fusion", "fusion.score")
    yield from _pair("Spatial_norm", "spatial_norm")
    yield from _pair("Temporal_norm", "temporal_norm")
    yield from _pair("head.0", "head.0")
    yield from _pair("head.1", "head.1")


def released_names(stage: int, depth: int) -> dict[str, str]:
    """Released name -> our name of every tensor of a stage, in the order of the released model."""
    return dict(_bone_aware(depth) if stage == 1 else _lifter(depth))


def without_prefix(values: Mapping[str, T]) -> dict[str, T]:
    """Names without what wrappers of a model put before them: `module.`, `_orig_mod.`, `model.`."""
    return {_WRAPPERS.sub("", name): value for name, value in values.items()}


def turned_round(values: Mapping[str, Tensor]) -> State:
    """The tensors, with the joints of the backward graph's BatchNorm in the opposite order.

    Published weights have these joints in the order in which the backward direction scans them,
    ours in the skeleton's. values: tensors under our names.
    """
    return {
        name: value.flip(0) if ".backward_graph.conv.norm." in name and value.ndim else value
        for name, value in values.items()
    }


def is_released(state: Mapping[str, Tensor]) -> bool:
    """Whether parameter names are those of the released code."""
    return any("STEblocks." in name for name in state)


def in_released_order(names: Iterable[str]) -> list[str]:
    """Released names, with or without `module.`, in the order of the released model."""
    bare = without_prefix({name: name for name in names})
    position = {name: number for number, name in enumerate(_names_of_released(bare))}
    return [bare[name] for name in sorted(bare, key=lambda name: position.get(name, len(position)))]


def translate_released(state: Mapping[str, Tensor]) -> State:
    """Tensors under released names, with or without `module.`, -> the same under our names.

    A name that the released model does not have stays as it is.
    """
    bare = without_prefix(state)
    names = _names_of_released(bare)
    return turned_round({names.get(name, name): value for name, value in bare.items()})


def translate_to_released(state: Mapping[str, Tensor]) -> State:
    """Tensors under our names -> the same under released names, in the released order.

    Raises KeyError with the name of a tensor that the released model does not have.
    """
    names = released_names_of(state)
    known = set(names.values())
    for name in state:
        if name not in known:
            raise KeyError(name)
    values = turned_round(state)
    return {released: values[ours] for released, ours in names.items() if ours in values}


def released_names_of(state: Collection[str]) -> dict[str, str]:
    """released_names() of the model whose tensors have these names of ours."""
    return released_names(1 if "narrow.0.weight" in state else 2, _depth(state, "spatial"))


def _names_of_released(state: Collection[str]) -> dict[str, str]:
    """released_names() of the model whose tensors have these released names."""
    return released_names(1 if "mlp.0.weight" in state else 2, _depth(state, "STEblocks"))


def _depth(names: Iterable[str], blocks: str) -> int:
    return len({name.split(".")[1] for name in names if name.startswith(f"{blocks}.")})


def trained_names(state: Iterable[str]) -> list[str]:
    """The names of the trained tensors among those of a state dict.

    They keep their order, which is that of the model's parameters: an optimizer numbers them so.
    """
    return [name for name in state if not name.endswith(_BUFFERS)]


# The released accuracy of stage 1 counts the root slot as a seventeenth bone, always right.


def accuracy_without_root(released: float) -> float:
    return (17 * released - 1) / 16


def accuracy_with_root(ours: float) -> float:
    return (16 * ours + 1) / 17
