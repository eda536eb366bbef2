"""torch.compile and CUDA graphs for training steps, where they work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lib.batch import Batch, SharedBatch
from lib.errors import UserError
from lib.random_state import random_states, set_random_states
from lib.training.run import Run, SilentRun
from lib.training.session import Session
from lib.training.stages import Stage


def compile_model(stage: Stage, batch: SharedBatch, run: Run | SilentRun) -> None:
    """Compile the model that the stage trains. If a trial step fails, log it and do not compile.

    batch: of the usual size, since torch compiles again for another one.
    """
    compiled = torch.compile(stage.model)
    assert isinstance(compiled, nn.Module)  # for the type
    _try(stage, batch, run, "--compile: torch.compile", lambda _: compiled)


def check_graphs(session: Session) -> None:
    """Raise UserError where --cuda-graphs cannot be."""
    if not session.options.cuda_graphs:
        return
    if session.device.type != "cuda":
        raise UserError(f"--cuda-graphs: {session.device} is no GPU; leave it out")
    if session.processes.are_several or session.config.accumulate > 1:
        raise UserError("--cuda-graphs is for one process and accumulate: 1; leave it out")
    if session.options.compile:
        raise UserError("--cuda-graphs and --compile exclude each other; leave one out")


def graph_model(stage: Stage, batch: SharedBatch, run: Run | SilentRun) -> None:
    """Record the model's forward and backward as CUDA graphs, for batches of this size.

    If it fails, log it and go on without.
    """
    _try(
        stage,
        batch,
        run,
        "--cuda-graphs: recording",
        lambda part: Graphed(stage.model, part.pose_2d),
    )


class Graphed(nn.Module):
    """A model in training whose forward and backward are replayed; for batches of another shape,
    as an epoch's last one, it is the model itself."""

    def __init__(self, model: nn.Module, pose_2d: Tensor) -> None:
        super().__init__()
        self.model, self.shape = model, pose_2d.shape
        model.train()
        torch.cuda.make_graphed_callables(model, (pose_2d.clone(),), allow_unused_input=True)
        # It has been put into the model, where copies of the model would inherit it.
        self.replay: Callable[[Tensor], Tensor] = model.__dict__.pop("forward")

    def forward(self, pose_2d: Tensor, **options: bool) -> Tensor:
        if self.training and pose_2d.shape == self.shape and not options:
            return self.replay(pose_2d)
        y: Tensor = self.model(pose_2d, **options)
        return y


def _try(
    stage: Stage,
    batch: SharedBatch,
    run: Run | SilentRun,
    what: str,
    make: Callable[[Batch], nn.Module],
) -> None:
    (_, count), *_ = batch.shares
    part = batch.part(0, count).to(next(stage.model.parameters()).device)
    with _undone(stage):
        try:
            stage.train_model = make(part)
            stage.losses(part)["total"].backward()
        except Exception as error:  # compilers fail in many ways, and none of them is the user's
            stage.train_model = stage.model
            run.log(f"{what} fails here ({type(error).__name__}); going on without")


@contextmanager
def _undone(stage: Stage) -> Iterator[None]:
    """Afterwards weights, running statistics and random numbers are as before."""
    states = random_states()
    weights = {name: value.clone() for name, value in stage.model.state_dict().items()}
    try:
        yield
    finally:
        stage.model.zero_grad(set_to_none=True)
        stage.model.load_state_dict(weights)
        set_random_states(states)
