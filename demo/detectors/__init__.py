"""2D detectors behind one protocol; each is optional and loaded only when it is chosen."""

import os
from dataclasses import dataclass
from pathlib import Path

from demo.detectors.base import DetectorFactory
from lib.errors import UserError, did_you_mean
from lib.files import PROJECT_ROOT

DEFAULT_WEIGHTS = PROJECT_ROOT / "demo" / "lib" / "checkpoint"


@dataclass(frozen=True)
class Choice:
    """A detector ready to be made.

    sections: whether a video is done sooner by several of them, each on a part of it. True for
    one that computes on a single core.
    """

    make: DetectorFactory
    sections: bool


def choose_detector(
    name: str, weights_dir: str | os.PathLike[str] | None = None, several_people: bool = False
) -> Choice:
    """The detector of that name; what it needs is checked here. Raises UserError."""
    if name == "mediapipe":
        from demo.detectors.mediapipe import factory

        return Choice(factory(several_people), sections=not several_people)
    if name == "hrnet":
        from demo.detectors.hrnet import factory as hrnet_factory

        return Choice(hrnet_factory(Path(weights_dir or DEFAULT_WEIGHTS)), sections=False)
    if name == "rtmpose":
        from demo.detectors.rtmpose import factory as rtmpose_factory

        return Choice(rtmpose_factory(), sections=False)
    raise UserError(
        f"--detector {name}: there are {', '.join(DETECTORS)}{did_you_mean(name, DETECTORS)}"
    )


DETECTORS = ("mediapipe", "hrnet", "rtmpose")
