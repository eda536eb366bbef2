"""torch.library without the compiler: what it offers most easily loads torch._dynamo, and that
takes three seconds. Evaluation and demo start without; training loads it with its optimizer."""

from collections.abc import Callable
from typing import TypeVar

import torch

F = TypeVar("F", bound=Callable[..., object])


def constant_result(function: F) -> F:
    """As torch.compiler.assume_constant_result: called by torch.compile, not looked into."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class Operator:
    """A decorator like torch.library.custom_op, for functions of CPU tensors that change none."""

    def __init__(self, name: str) -> None:
        """name: "namespace::name"; the schema follows from the function's annotations."""
        self.name = name

    def __call__(self, function: Callable[..., object]) -> "Operator":
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(self.name, schema)
        torch.library.impl(self.name, "cpu", function)
        return self

    def register_fake(self, function: F) -> F:
        """The shape function."""
        torch.library.register_fake(self.name, function)
        return function

    def register_autograd(
        self,
        backward: Callable[..., object],
        setup_context: Callable[..., object] | None = None,
    ) -> None:
        torch.library.register_autograd(self.name, backward, setup_context=setup_context)

    def impl_autograd(self, function: F) -> F:
        """In register_autograd's place: a function that applies a torch.autograd.Function."""
        torch.library.impl(self.name, "Autograd", function)
        return function
