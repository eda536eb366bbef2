"""From any video to 3D poses: `from demo import VideoLifter`, or `python demo/vis.py`."""

from typing import Any

__all__ = ["OnnxLifter", "Poses", "VideoLifter"]


def __getattr__(name: str) -> Any:
    # Looked up late: importing this package loads neither torch nor a detector.
    if name == "VideoLifter":
        from demo.pipeline import VideoLifter

        return VideoLifter
    if name == "OnnxLifter":
        from demo.onnx_lifter import OnnxLifter

        return OnnxLifter
    if name == "Poses":
        from demo.poses import Poses

        return Poses
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
