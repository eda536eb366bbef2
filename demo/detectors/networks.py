"""Networks in ONNX files, computed by ONNX Runtime on one core each."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.errors import UserError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

WEIGHTS = Path(__file__).parent / "weights"


def open_network(name: str) -> "InferenceSession":
    """A network of demo/detectors/weights; several threads may use it. Raises UserError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "--detector blazepose: onnxruntime is not installed; pip install -r"
            " requirements-demo.txt, or give --keypoints FILE"
        ) from error
    options = onnxruntime.SessionOptions()
    # The caller's thread computes: videos are done in sections, one a core.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = WEIGHTS / name
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own kinds
        raise UserError(
            f"{path}: missing or damaged; check out the repository's file again"
        ) from error
