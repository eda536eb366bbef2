"""2D detectors, one module each; each is optional and loaded only when it is chosen."""

import os
from importlib import import_module
from pathlib import Path

from demo.people import Detector
from lib.errors import UserError, did_you_mean
from lib.files import PROJECT_ROOT

# Modules of this package, the default first. Each has open_detector(weights_dir) -> Detector,
# which finds everybody, and which raises UserError where something is missing.
DETECTORS = ("blazepose", "hrnet", "rtmpose")
DEFAULT_WEIGHTS = PROJECT_ROOT / "demo" / "lib" / "checkpoint"


def choose_detector(name: str, weights_dir: str | os.PathLike[str] | None = None) -> Detector:
    """The detector of that name; what it needs is checked here. Raises UserError."""
    if name not in DETECTORS:
        raise UserError(
            f"--detector {name}: there are {', '.join(DETECTORS)}{did_you_mean(name, DETECTORS)}"
        )
    module = import_module(f"demo.detectors.{name}")
    detector: Detector = module.open_detector(Path(weights_dir or DEFAULT_WEIGHTS))
    return detector
