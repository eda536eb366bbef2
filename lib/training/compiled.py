"""torch.compile for training steps, where it works."""

import torch
from torch import nn

from lib.batch import SharedBatch
from lib.random_state import random_states, set_random_states
from lib.training.run import Run, SilentRun
from lib.training.stages import Stage


def compile_model(stage: Stage, batch: SharedBatch, run: Run | SilentRun) -> None:
    """Compile the model that the stage trains. If a trial step fails, log it and do not compile.

    batch: of the usual size, since torch compiles again for another one.
    """
    states = random_states()
    weights = {name: value.clone() for name, value in stage.model.state_dict().items()}
    compiled = torch.compile(stage.model)
    assert isinstance(compiled, nn.Module)  # for the type
    stage.train_model = compiled
    (_, count), *_ = batch.shares
    part = batch.part(0, count).to(next(stage.model.parameters()).device)
    try:
        stage.losses(part)["total"].backward()
    except Exception as error:  # compilers fail in many ways, and none of them is the user's
        stage.train_model = stage.model
        run.log(f"--compile: torch.compile fails here ({type(error).__name__}); going on without")
    finally:
        stage.model.zero_grad(set_to_none=True)
        stage.model.load_state_dict(weights)  # the batch moved BatchNorm's running statistics
        set_random_states(states)
