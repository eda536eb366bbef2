"""Lifting by a file of `python -m lib.export` in ONNX Runtime; needs no torch."""

import json
import os

import numpy as np

from demo.pipeline import VideoLifter
from lib.errors import UserError
from lib.files import find_path
from lib.skeleton import H36M

# A batch's size in frames, without the mirrored ones: twice as many take a tenth longer for each.
FRAMES_AT_ONCE = 108


class OnnxLifter(VideoLifter):
    """A VideoLifter whose network is an ONNX file.

    >>> poses = OnnxLifter("mdtf.onnx")("jump.mp4")
    """

    def __init__(self, path: str | os.PathLike[str], *, flip: bool = True) -> None:
        """flip: average with the mirrored view, unless the file does. Raises UserError."""
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                f"--onnx {path}: onnxruntime is missing; pip install -r requirements-onnx.txt"
            ) from error
        found = find_path(path)
        if not found.is_file():
            raise UserError(f"--onnx {path}: no such file; `python -m lib.export` makes one")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors, which are raised, too
        # Threads that wait must sleep, not spin: detection needs their cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(found), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # a damaged file can raise almost anything
            raise UserError(
                f"--onnx {path}: ONNX Runtime {onnxruntime.__version__} cannot load it; export it"
                " again with `python -m lib.export`"
            ) from error
        told = self._session.get_modelmeta().custom_metadata_map
        try:
            joints = tuple(json.loads(told["joints"]))
            self.n_frames = int(told["frames"])
            self.frame_rate = float(told["frame_rate"])
            averages = bool(json.loads(told["flip_averaged"]))
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"--onnx {path}: does not say its joints and clips; `python -m lib.export` makes"
                " files that do"
            ) from error
        if joints != H36M.names:
            raise UserError(
                f"--onnx {path}: its network was trained on other joints than Human3.6M's; the demo"
                " needs one of Human3.6M or of mocap"
            )
        if averages and not flip:
            raise UserError(
                f"--onnx {path}: averages with the mirrored view itself, which --no-flip and live"
                " exclude; export another one without --flip"
            )
        self._flip = flip and not averages
        self.backend = f"ONNX Runtime {onnxruntime.__version__}"

    def lift(self, clips: np.ndarray) -> np.ndarray:
        """(N, T, 17, 3) normalised clips -> (N, T, 17, 3) normalised poses.

        Raises UserError: the network gives NaN or infinity.
        """
        at_once = max(1, FRAMES_AT_ONCE // self.n_frames)
        poses = np.concatenate(
            [self._poses(clips[start : start + at_once]) for start in range(0, len(clips), at_once)]
        )
        if not np.isfinite(poses).all():
            raise UserError("the network's poses are not finite: export another --checkpoint")
        return poses

    def _poses(self, clips: np.ndarray) -> np.ndarray:
        if not self._flip:
            return self._run(clips)
        direct, mirror = np.split(self._run(np.concatenate((clips, mirrored(clips)))), 2)
        return (direct + mirrored(mirror)) / 2

    def _run(self, clips: np.ndarray) -> np.ndarray:
        (source,), (result,) = self._session.get_inputs(), self._session.get_outputs()
        return self._session.run([result.name], {source.name: clips.astype(np.float32)})[0]


def mirrored(pose: np.ndarray) -> np.ndarray:
    """lib.geometry.flip_pose() without torch: (..., 17, 2+) -> same shape."""
    turned = pose[..., list(H36M.flip_order), :]
    turned[..., 0] *= -1
    return turned
