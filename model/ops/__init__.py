"""The selective scan: one definition, several backends held to it."""

from model.ops.definition import DirectionWeights
from model.ops.dispatch import (
    BACKENDS,
    bidirectional_inner,
    default_backend,
    resolve_backend,
    selective_scan,
    set_default_backend,
)

__all__ = [
    "BACKENDS",
    "DirectionWeights",
    "bidirectional_inner",
    "default_backend",
    "resolve_backend",
    "selective_scan",
    "set_default_backend",
]
