"""For tests of exported files: checkpoints of small models in several forms."""

from lib.checkpoint import save_checkpoint
from lib.config import make_config
from lib.skeleton import H36M, MPI_INF_3DHP
from model.build import build_bone_aware, build_lifter
from tests.models import unsettle

SIZES = {"channel": 16, "st_depth": 2, "n_frames": 9}
TRAINING = {"learning_rate": 1e-3, "batch_size": 1, "epochs": 1}
FORMS = {
    "person": {
        "input": "person",
        "output": "residual",
        "bone_angle": "expectation",
        "bone_confidence": True,
        "bins": 9,
        "if_divide_out": False,
        "dataset": "mocap",
        "frame_rate": 25.0,
    },
    "screen": {"bone_slots": "child", "fusion": "mean", "d_conv": 3, "dataset": "mpi_inf_3dhp"},
    "no bones": {
        "st_depth": 1,
        "bone_branch": False,
        "graph": "forward",
        "root_rel": False,
        "input": "person",
    },
}


def saved(path, forms):
    """A checkpoint of a small model of these forms, off its initial weights."""
    first, second = (make_config(SIZES | TRAINING | forms, "test", stage) for stage in (1, 2))
    skeleton = MPI_INF_3DHP if forms.get("dataset") == "mpi_inf_3dhp" else H36M
    contents = {
        "model": unsettle(build_lifter(second, skeleton)).state_dict(),
        "bone_aware": unsettle(build_bone_aware(first, skeleton)).state_dict(),
        "bone_aware_forms": {"input": first.input},
        "config": second.as_dict(),
        "epoch": 1,
    }
    save_checkpoint(path, contents)
    return path
