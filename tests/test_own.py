"""One's own data: a file with joints of its own, through every command; and all that is wrong."""

import json

import numpy as np
import pytest

from data.benchmarks import BENCHMARKS, skeleton_of
from data.clips import ClipDataset
from data.preprocess import own as door
from data.preprocess import synthetic, visualize
from data.sources.own import read, read_joints
from demo import VideoLifter
from lib import to_released
from lib.checkpoint import BEST
from lib.evaluation.predict import predict
from lib.files import PROJECT_ROOT
from lib.skeleton import H36M, MPI_INF_3DHP, Skeleton
from model.build import load_mdtf
from tests.mistakes import Call, told
from tests.training import CONFIG, run_command, run_train

JOINTS = ["hip", "head", "left_hand", "right_hand", "left_foot", "right_foot", "tail"]
PARENTS = [-1, 0, 1, 1, 0, 0, 0]
T = 9


def poses(rng, frames, size, joints=7):
    """2D with confidence and 3D in mm, of a pinhole camera with a focal length of a width."""
    body = 400 * rng.normal(0, 1, (joints, 3))
    points = body + rng.normal(0, 20, (frames, joints, 3)) + [0, 0, 4000]
    pixels = points[..., :2] / points[..., 2:] * size[0] + np.array(size) / 2
    return np.concatenate([pixels, rng.uniform(0.2, 1, (frames, joints, 1))], -1), points


def make_arrays(rng):
    """Two training and two test sequences, one of them portrait, at 30 Hz and named."""
    arrays = {"joints": np.array(JOINTS), "parents": np.array(PARENTS)}
    arrays |= {"image_size": np.array([640, 480]), "fps": np.array(25)}
    for name, frames in (("train/a", 20), ("train/b/1", 11), ("test/c", 19), ("test/d", 9)):
        size = (480, 640) if name == "test/d" else (640, 480)
        arrays[f"{name}/pose_2d"], arrays[f"{name}/pose_3d"] = poses(rng, frames, size)
    arrays["test/d/image_size"], arrays["test/d/fps"] = np.array([480, 640]), np.array(30.0)
    return {**arrays, "test/d/action": np.array("dance")}


def write(path, arrays):
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


@pytest.fixture(scope="module")
def arrays():
    return make_arrays(np.random.default_rng(1))


@pytest.fixture(scope="module")
def place(arrays, tmp_path_factory):
    """The file, its clips, and configs of both stages."""
    place = tmp_path_factory.mktemp("own")
    write(place / "dancers.npz", arrays)
    flags = ["--data-root", place, "--dt-file", "dancers.npz", "--n-frames", T]
    status, out, error = run_command(door.main, flags)
    assert (status, error) == (0, "")
    assert "dancers-9: 5 train, 3 test clips of 9 frames" in out
    for stage in (1, 2):
        text = CONFIG.format(stage=stage, root=place).replace("synthetic.pkl", "dancers.npz")
        text = text.replace("epochs: 2", "epochs: 1")
        (place / f"stage{stage}.yaml").write_text(text + "dataset: own\n")
    return place


@pytest.fixture(scope="module")
def trained(place):
    for stage, more in ((1, ()), (2, ("--stage1-checkpoint", place / "run1" / BEST))):
        config, run = place / f"stage{stage}.yaml", place / f"run{stage}"
        status, _, errors = run_train("--config", config, "--new-checkpoint", run, *more)
        assert status == 0, errors
    return place / "run2"


def test_the_store_holds_what_the_file_says(arrays, place):
    """xy/w·2 - [1, h/w] and the confidence as it is; metres from the root; mm for the protocol."""
    clips = ClipDataset(place / "dancers-9", "test", T).source
    pose_2d, pose_3d = clips.read([0, 2])
    sizes = np.array([[640, 480], [480, 640]])[:, None, None, :]
    seen = np.stack([arrays["test/c/pose_2d"][:9], arrays["test/d/pose_2d"]])
    points = np.stack([arrays["test/c/pose_3d"][:9], arrays["test/d/pose_3d"]])
    expected = seen[..., :2] / sizes[..., :1] * 2 - np.concatenate(
        [np.ones((2, 1, 1, 1)), sizes[..., 1:] / sizes[..., :1]], -1
    )
    assert pose_2d[..., :2] == pytest.approx(expected, abs=1e-6)
    assert pose_2d[..., 2] == pytest.approx(seen[..., 2], abs=1e-6)
    assert pose_3d == pytest.approx((points - points[:, :, :1]) / 1000, abs=1e-6)
    test = clips.test_frames()
    assert test.videos == ["c", "d"] and test.actions == ["all", "dance"]
    assert np.bincount(test.action).tolist() == [19, 9]
    assert clips.skeleton == Skeleton(tuple(JOINTS), tuple(PARENTS))
    splits = dict(read(place / "dancers.npz"))
    assert [v.name for v in splits["train"].videos] == ["a", "b/1"]
    assert [v.fps for v in splits["test"].videos] == [25, 30]


def test_both_stages_train_and_the_numbers_are_those_of_the_file(arrays, place, trained, tmp_path):
    """Evaluated with the checkpoint's own config; the same poses scored by hand."""
    flags = ("--eval-only", "--checkpoint", trained, "--report", tmp_path / "report.json")
    status, out, errors = run_train(*flags)
    assert status == 0, errors
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["per_joint"]) == JOINTS and report["per_joint"]["hip"] == 0
    assert set(report["per_action"]) == {"all", "dance"}
    clips = ClipDataset(place / "dancers-9", "test", T)
    model = load_mdtf(trained / BEST, skeleton_of=skeleton_of)
    seen = clips.__getitems__([0, 1, 2]).pose_2d
    found = 1000.0 * predict(model, seen, Skeleton(tuple(JOINTS), tuple(PARENTS)), flip=True)
    found[..., 0, :] = 0
    truth = np.stack([arrays["test/c/pose_3d"][:9], arrays["test/c/pose_3d"][9:18]])
    truth = np.concatenate([truth, arrays["test/d/pose_3d"][None]])
    errors = np.linalg.norm(found - (truth - truth[:, :, :1]), axis=-1).mean((1, 2))
    assert report["per_action"]["all"]["mpjpe"] == pytest.approx(errors[:2].mean(), rel=1e-5)
    assert report["per_action"]["dance"]["mpjpe"] == pytest.approx(errors[2], rel=1e-5)
    assert report["mpjpe"] == pytest.approx((errors[:2].mean() + errors[2]) / 2, rel=1e-5)
    assert "dance" in out and "left_hand" in out
    saved = (trained / "config.yaml").read_text()
    assert "right_foot" in saved and "joint_parents" in saved


def test_a_resumed_run_keeps_its_joints(trained):
    flags = ("--resume", "--checkpoint", trained, "--set", "epochs=2")
    status, _, errors = run_train("--config", trained.parent / "stage2.yaml", *flags)
    assert status == 0, errors


def test_data_of_other_joints_are_refused(trained, arrays, tmp_path):
    """A file with the same number of joints in another order; Human3.6M's data set."""
    swapped = [JOINTS[0], *JOINTS[:0:-1]]
    parents = np.array([-1, 0, 0, 0, 6, 6, 0])
    write(tmp_path / "dancers.npz", {**arrays, "joints": np.array(swapped), "parents": parents})
    flags = ["--data-root", tmp_path, "--dt-file", "dancers.npz", "--n-frames", T]
    assert run_command(door.main, flags)[0] == 0
    there = ("--set", f"data_root={tmp_path}")
    status, _, errors = run_train("--eval-only", "--checkpoint", trained, *there)
    assert (status, errors.count("\n")) == (2, 1)
    assert "poses of 7 joints (hip, tail, right_foot …), but the model knows 7 (hip, head" in errors
    config = ("--config", trained.parent / "stage2.yaml")
    status, _, errors = run_train("--eval-only", "--checkpoint", trained, *config, *there)
    assert (status, errors.count("\n")) == (2, 1)
    assert "trained on the joints of own" in errors
    status, _, errors = run_train("--eval-only", "--checkpoint", trained, "--set", "dataset=h36m")
    assert (status, errors.count("\n")) == (2, 1)
    assert "those of h36m are fixed" in errors


def test_the_demo_and_the_released_code_need_human36ms_joints(trained):
    assert "other joints than Human3.6M's" in told(VideoLifter.from_checkpoint, trained)
    output = trained.parent / "released.pth.tr"
    assert "joints that the released code does not have" in told(
        to_released.main, [str(trained), str(output)]
    )
    assert not output.exists()


def test_without_clips_the_command_that_makes_them_is_named(trained, tmp_path):
    config = trained.parent / "stage1.yaml"
    for flags in (
        ("--config", config, "--new-checkpoint", tmp_path / "run", "--set", "n_frames=8"),
        ("--eval-only", "--checkpoint", trained, "--set", f"data_root={tmp_path}"),
    ):
        status, _, errors = run_train(*flags)
        assert (status, errors.count("\n")) == (2, 1)
        assert "no data set; make it with: python data/preprocess/own.py --n-frames" in errors
        assert errors.rstrip().endswith("--dt-file dancers.npz")


def test_a_film_of_the_file_and_of_its_clips(place, tmp_path):
    for source in ("dancers.npz", "dancers-9"):
        flags = [place / source, "--dataset", "own", "--frames", 2, "--output", tmp_path / "a.gif"]
        status, out, errors = run_command(visualize.main, flags)
        assert status == 0, errors
        assert "2 frames" in out


def test_the_example_trains_and_goes_through_the_demo(tmp_path, rng):
    """Invented motion on Human3.6M's joints; the shipped configs, made small."""
    flags = ["--format", "own", "--data-root", tmp_path, "--frames", 12]
    flags += ["--train-subjects", 1, "--test-subjects", 1, "--cameras", 1]
    status, out, errors = run_command(synthetic.main, flags)
    assert (status, errors) == (0, "") and "own.npz: 144 frames" in out
    assert run_command(door.main, ["--data-root", tmp_path, "--n-frames", T])[0] == 0
    small = [f"--set={key}" for key in ("channel=8", "epochs=1", f"n_frames={T}")]
    small += ["--set=st_depth=2", f"--set=data_root={tmp_path}"]
    for stage, name, more in (
        (1, "first", ()),
        (2, "tiny", ("--stage1-checkpoint", tmp_path / "run1" / BEST)),
    ):
        flags = ("--config", f"configs/own/{name}.yaml", *small, *more)
        status, _, errors = run_train(*flags, "--new-checkpoint", tmp_path / f"run{stage}")
        assert status == 0, errors
    lifter = VideoLifter.from_checkpoint(tmp_path / "run2")
    ((_, sequences),) = read(tmp_path / "own.npz", ["test"])
    seen = np.concatenate([sequences.joint_2d, sequences.confidence[..., None]], -1)[:12]
    found = lifter.lift_keypoints(seen, size=(1000, 1002), fps=50.0)
    assert found.pose_3d.shape == (1, 12, 17, 3) and np.isfinite(found.pose_3d).all()


def test_the_example_agrees_with_itself(tmp_path):
    """3D in the camera's axes projects to the 2D, but for the detector's noise."""
    flags = ["--format", "own", "--data-root", tmp_path, "--frames", 8, "--train-subjects", 1]
    assert run_command(synthetic.main, [*flags, "--test-subjects", 1])[0] == 0
    with np.load(tmp_path / "own.npz") as arrays:
        keys = [key for key in arrays.files if key.endswith("pose_3d")]
        errors = []
        for key in keys:
            points, seen = arrays[key], arrays[key.replace("pose_3d", "pose_2d")]
            pixels = 1147 * points[..., :2] / points[..., 2:] + 512
            errors.append(np.linalg.norm(pixels - seen[..., :2], axis=-1))
    assert len(keys) == 2 * 6 * 4
    assert np.median(np.concatenate(errors)) < 20


def test_the_documented_lines_write_a_file_that_is_read(tmp_path, rng, monkeypatch):
    code = (PROJECT_ROOT / "docs" / "own_data.md").read_text().split("```python")[1].split("```")[0]
    (tmp_path / "data" / "motion3d").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    sequences = [
        (split, "a", poses(rng, 5, (1920, 1080), 17)[0][..., :2], rng.normal(0, 400, (5, 17, 3)))
        for split in ("train", "test")
    ]
    exec(code, {"my_sequences": sequences})
    splits = dict(read(tmp_path / "data" / "motion3d" / "own.npz"))
    assert splits["test"].videos[0].camera.size == (1920, 1080)
    assert splits["train"].videos[0].fps == 30
    assert (splits["test"].confidence == 1).all()


# --- Skeletons --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "skeleton"), [("h36m17", H36M), ("mpi_inf_3dhp17", MPI_INF_3DHP)])
def test_a_skeleton_may_be_named(arrays, tmp_path, rng, name, skeleton):
    of = {"skeleton": np.array(name), "image_size": np.array([640, 480]), "fps": np.array(25)}
    for split in ("train", "test"):
        of[f"{split}/a/pose_2d"], of[f"{split}/a/pose_3d"] = poses(rng, 3, (640, 480), 17)
    path = write(tmp_path / "a.npz", of)
    assert read_joints(path) == skeleton
    ((_, sequences),) = read(path, ["test"])
    root = skeleton.root
    assert (sequences.joint_3d[:, root] == 0).all()


def test_skeletons_by_names_and_by_numbers_are_the_same():
    for skeleton in (H36M, MPI_INF_3DHP):
        assert Skeleton.checked(skeleton.names, skeleton.parents) == skeleton
        assert Skeleton.of_names(skeleton.names, skeleton.parent_names) == skeleton


# --- Mistakes ---------------------------------------------------------------------------------


def test_test_sequences_alone_are_enough_for_an_evaluation(tmp_path):
    arrays = make_arrays(np.random.default_rng(0))
    kept = {name: value for name, value in arrays.items() if not name.startswith("train/")}
    np.savez(tmp_path / "own.npz", **kept)
    assert list(dict(read(tmp_path / "own.npz"))) == ["test"]


@pytest.mark.parametrize(
    ("content", "kind"), [(b"\x1f\x8b1", "compressed by gzip"), (b"\x80\x04.", "a pickle")]
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, kind):
    (tmp_path / "own.npz").write_bytes(content)
    assert f"own.npz: {kind}, not an .npz" in told(read_joints, tmp_path / "own.npz")


def with_nan(array):
    array = array.copy()
    array[3, 2, 0] = np.nan
    return array


MISTAKES = {
    "no joints": ({"joints": None}, "no array 'joints' inside"),
    "no image size": ({"image_size": None}, "no array 'image_size' inside"),
    "an unknown skeleton": ({"skeleton": "h36m"}, "did you mean 'h36m17'"),
    "parents of another number": ({"parents": PARENTS[:5]}, "7 joints, but 'parents' has shape"),
    "two roots": ({"parents": [-1, 0, 1, 1, 0, 0, -1]}, "one joint must have the parent -1"),
    "a ring": ({"parents": [-1, 6, 1, 1, 0, 0, 1]}, "'head' does not hang from the root"),
    "a parent that is none": ({"parents": [-1, 0, 1, 1, 0, 0, 9]}, "is 9, which is no joint"),
    "a hand without its mirror image": (
        {"joints": ["hip", "head", "left_hand", "hand", *JOINTS[4:]]},
        "each joint called left_… needs its right_…",
    ),
    "hands on different joints": ({"parents": [-1, 0, 1, 0, 0, 0, 0]}, "hang from other joints"),
    "the same name twice": ({"joints": [*JOINTS[:6], "hip"]}, "two joints are called 'hip'"),
    "numbers as names": ({"joints": np.arange(7)}, "'joints' must be names"),
    "no test sequences": (
        {key: None for key in make_arrays(np.random.default_rng(0)) if key.startswith("test")},
        "no sequence of the split 'test'",
    ),
    "an array nobody knows": ({"train/a/pose2d": np.zeros(3)}, "array 'train/a/pose2d' is none of"),
    "a split nobody knows": ({"val/a/pose_2d": np.zeros(3)}, "array 'val/a/pose_2d' is none of"),
    "no 3D": ({"train/a/pose_3d": None}, "no array 'train/a/pose_3d' inside"),
    "lengths": (
        {"train/a/pose_3d": np.ones((19, 7, 3)) + np.eye(7, 3) * 500},
        "train/a: 20 frames in pose_2d and 19 in pose_3d",
    ),
    "a shape": (
        {"train/a/pose_2d": np.zeros((20, 6, 2))},
        "train/a/pose_2d: shape (20, 6, 2), not (frames, 7, 2 or 3)",
    ),
    "words": ({"test/c/pose_2d": np.full((19, 7, 2), "a")}, "holds <U1, not numbers"),
    "not a number": (
        {"test/c/pose_3d": with_nan(make_arrays(np.random.default_rng(1))["test/c/pose_3d"])},
        "test/c/pose_3d: not finite at frame 3; cut the sequence there",
    ),
    "normalised 2D": (
        {"train/a/pose_2d": np.full((20, 7, 2), 0.3)},
        "all within 2 pixels of 0; it must be in pixels",
    ),
    "confidence": (
        {"train/a/pose_2d": np.full((20, 7, 3), 50.0)},
        "train/a/pose_2d: a confidence outside of 0 to 1",
    ),
    "metres": (
        {"train/a/pose_3d": make_arrays(np.random.default_rng(1))["train/a/pose_3d"] / 1000},
        "mm; is it in millimetres?",
    ),
    "y upwards": (
        {"test/d/pose_3d": make_arrays(np.random.default_rng(1))["test/d/pose_3d"] * [1, -1, 1]},
        "d: y of pose_3d runs against y of pose_2d; in the camera's axes y points down",
    ),
    "an image without size": ({"test/d/image_size": [480, 0]}, "test/d: image_size must be"),
    "an endless image": ({"image_size": [np.inf, 480.0]}, "train/a: image_size must be"),
    "actions": ({"test/d/action": ["a", "b"]}, "test/d/action: <U1 of shape (2,), not one text"),
    "no frame rate": ({"test/d/fps": [25, 25]}, "test/d: fps must be one number above 0"),
    "objects": (
        {"train/a/pose_2d": np.array([Call(print, "run")], dtype=object)},
        "array 'train/a/pose_2d' is damaged or holds Python objects",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_wrong_with_a_file_is_told(arrays, tmp_path, name):
    change, message = MISTAKES[name]
    changed = {key: value if value is None else np.asarray(value) for key, value in change.items()}
    path = write(tmp_path / "own.npz", {**arrays, **changed})
    found = told(lambda: list(read(path)))
    assert message in found
    assert str(path) in found and found.endswith("docs/own_data.md describes the file")


def test_files_that_are_none(arrays, tmp_path, capfd):
    assert "no such file (.npz there: nothing)" in told(read, tmp_path / "own.npz")
    path = write(tmp_path / "own.npz", arrays)
    whole = path.read_bytes()
    for length in (0, 100, len(whole) - 30):
        path.write_bytes(whole[:length])
        assert "damaged, or not an .npz" in told(read, path)
    assert capfd.readouterr().out == ""


def test_a_mistake_leaves_the_clips_of_before(arrays, tmp_path):
    path = write(tmp_path / "own.npz", arrays)
    flags = ["--data-root", tmp_path, "--n-frames", T]
    assert run_command(door.main, flags)[0] == 0
    before = sorted(tmp_path.rglob("*"))
    write(path, {**arrays, "test/d/pose_3d": None})
    status, _, error = run_command(door.main, flags)
    assert (status, error.count("\n")) == (2, 1)
    assert sorted(tmp_path.rglob("*")) == before
    assert BENCHMARKS["own"].skeleton == H36M  # nothing of the file stays behind
