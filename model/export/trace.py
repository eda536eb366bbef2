"""The model as a program of PyTorch, traced with other modules in place of its residual blocks."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lib.evaluation.predict import predict_batch
from model.blocks import MambaBlock
from model.mamba import BiMamba
from model.mdtf import MDTF

BATCH = "batch"  # the name of the one size that a file leaves open


class Whole(nn.Module):
    """What a file computes."""

    def __init__(self, model: MDTF, flip: bool) -> None:
        super().__init__()
        self.model, self.flip = model, flip

    def forward(self, pose_2d: Tensor) -> Tensor:
        return predict_batch(self.model, pose_2d, self.model.skeleton, flip=self.flip)


def trace(
    model: MDTF, block: Callable[[MambaBlock, str], nn.Module], *, flip: bool
) -> torch.export.ExportedProgram:
    """predict_batch() of any number of clips; model: in eval mode, on the CPU.

    block: (a block, its name) -> what is traced in its place.
    """
    model = copy.deepcopy(model).requires_grad_(False)
    blocks = [(name, m) for name, m in model.named_modules() if isinstance(m, MambaBlock)]
    for name, found in blocks:
        parent, _, own = name.rpartition(".")
        model.get_submodule(parent).register_module(own, block(found, name))
    for mixer in model.modules():
        # A weight must be one tensor when it is traced.
        if isinstance(mixer, BiMamba) and mixer.sums:
            mixer.out_proj.weight.mul_(2)
            mixer.sums = False
    example = torch.randn(2, model.n_frames, model.skeleton.num_joints, 3)
    sizes = ({0: torch.export.Dim(BATCH)},)
    with quiet(), torch.no_grad():
        return torch.export.export(Whole(model, flip).eval(), (example,), dynamic_shapes=sizes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, PyTorch's exporters tell nothing but errors."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
