"""Operators of torch.library. Its custom_op loads the compiler, torch._dynamo, which takes three
seconds; these do not, so evaluation and demo start faster. (Training's optimizer loads it.)"""

from collections.abc import Callable
from typing import TypeVar

import torch

F = TypeVar("F", bound=Callable[..., object])


def constant_result(function: F) -> F:
    """Like torch.compiler.assume_constant_result: torch.compile calls it and does not trace it."""
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
        """Instead of register_autograd: a function that applies a torch.autograd.Function."""
        torch.library.impl(self.name, "Autograd", function)
        return function
