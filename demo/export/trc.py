"""TRC: the joints as markers, for OpenSim and Pose2Sim; metres, y up, one file a person.

A row for each frame from the first sight of the person to the last, with the video's frame number
(from 1) and time. Markers have the names of Pose2Sim's models where those have the same joint.
"""

from pathlib import Path

import numpy as np

from demo.export.rig import to_y_up
from lib.files import write_atomic
from lib.skeleton import H36M

_PARTS = {"hip": "Hip", "knee": "Knee", "ankle": "Ankle", "shoulder": "Shoulder", "elbow": "Elbow"}
_PARTS |= {"wrist": "Wrist"}
MARKERS = {
    # Human3.6M's "thorax" lies between the shoulders, its "neck" at the nose.
    "pelvis": "Hip",
    "spine": "Spine",
    "thorax": "Neck",
    "neck": "Nose",
    "head": "Head",
    **{f"left_{part}": f"L{marker}" for part, marker in _PARTS.items()},
    **{f"right_{part}": f"R{marker}" for part, marker in _PARTS.items()},
}
HEADER = "DataRate CameraRate NumFrames NumMarkers Units OrigDataRate OrigDataStartFrame"


def write_trc(
    path: Path, pose_world: np.ndarray, present: np.ndarray, times: np.ndarray, fps: float
) -> None:
    """One person's poses (F, 17, 3), world mm; present: (F,) bool; times: (F,) seconds.

    Raises UserError where it cannot be written.
    """
    frames = np.flatnonzero(present)
    names = [MARKERS[name] for name in H36M.names]
    rate, count = f"{fps:.6g}", len(frames)
    values = (rate, rate, count, len(names), "m", rate, frames[0] + 1, count)
    axes = [f"{axis}{marker + 1}" for marker in range(len(names)) for axis in "XYZ"]
    with write_atomic(path, "w") as file:
        # OpenSim counts the tabs of the data rows, so none may end with one.
        file.write(f"PathFileType\t4\t(X/Y/Z)\t{path.name}\n")
        file.write("\t".join([*HEADER.split(), "OrigNumFrames"]) + "\n")
        file.write("\t".join(map(str, values)) + "\n")
        file.write("Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t\n")
        file.write("\t\t" + "\t".join(axes) + "\n")
        for frame in frames.tolist():
            numbers = to_y_up(pose_world[frame].astype(np.float64)).ravel()
            row = "\t".join(f"{number:.5f}" for number in numbers)
            file.write(f"{frame + 1}\t{times[frame]:.6f}\t{row}\n")
