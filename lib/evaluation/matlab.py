"""Predictions for the MATLAB script of MPI-INF-3DHP's benchmark, as others write them."""

import os
from collections.abc import Mapping

from lib.arrays import Floats
from lib.errors import UserError
from lib.files import write_atomic


def check_can_write(path: str | os.PathLike[str]) -> None:
    """Raise UserError, before any work is done, if a package is missing."""
    try:
        import scipy.io  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--save-predictions {path}: needs scipy; pip install -r requirements-mpi.txt, or"
            " leave the flag out"
        ) from error


def write_predictions(path: str | os.PathLike[str], predictions: Mapping[str, Floats]) -> None:
    """sequence -> (N, J, 3) mm from the root of its valid frames: a MATLAB file of (3, J, 1, N)."""
    from scipy.io import savemat

    with write_atomic(path) as file:
        savemat(
            file, {name: pose.transpose(2, 1, 0)[:, :, None] for name, pose in predictions.items()}
        )
