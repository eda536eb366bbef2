"""MPI-INF-3DHP's files: both layouts, by hand and by writers of the tests' own."""

import shutil
import sys

import h5py
import numpy as np
import pytest
import scipy.io

from data.benchmarks import BENCHMARKS
from data.clips import ClipDataset
from data.preprocess import mpi_inf_3dhp, synthetic
from lib.evaluation.frames import TestFrames
from tests.mistakes import Call
from tests.training import run_command

BENCHMARK = BENCHMARKS["mpi_inf_3dhp"]
FRAMES, T = 11, 9
# The 17 joints among the 28 of the raw files, as published.
RAW_OF = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The synthetic files of both layouts; the raw ones are in mpi_inf_3dhp/."""
    folder = tmp_path_factory.mktemp("3dhp")
    flags = ("--format", "3dhp", "--frames", FRAMES, "--data-root", folder)
    status, _, error = run_command(synthetic.main, flags)
    assert status == 0, error
    return folder


@pytest.fixture
def one(files, tmp_path):
    """A copy with a single sequence of each split in both layouts."""
    raw = tmp_path / "raw"
    for part in ("S1/Seq1", "mpi_inf_3dhp_test_set/TS5"):
        shutil.copytree(files / "mpi_inf_3dhp" / part, raw / part)
    for name, kept in (("data_train_3dhp.npz", "S1 Seq1"), ("data_test_3dhp.npz", "TS5")):
        write_table(tmp_path / name, {kept: read_table(files / name)[kept]})
    return tmp_path


def read_table(path):
    return np.load(path, allow_pickle=True)["data"].item()


def write_table(path, table):
    np.savez(path, data=np.array(table, dtype=object))


def slice_npz(folder, *more):
    return run_command(mpi_inf_3dhp.main, ("--data-root", folder, "--n-frames", T, *more))


def stored(folder, split):
    dataset = ClipDataset(folder / f"MPI-INF-3DHP-{T}", split, T)
    arrays = dict(zip(("2d", "3d"), dataset.source.read(range(len(dataset))), strict=True))
    if split == "test":
        arrays |= {k: v for k, v in vars(dataset.source.test_frames()).items() if v is not None}
    return arrays


def test_both_layouts_give_the_same_store(files, tmp_path):
    """But for the activities, which the .npz files do not name."""
    for folder, more in ((tmp_path / "a", ()), (tmp_path / "b", ("--raw", files / "mpi_inf_3dhp"))):
        folder.mkdir()
        for name in ("data_train_3dhp.npz", "data_test_3dhp.npz"):
            shutil.copy(files / name, folder)
        status, out, error = slice_npz(folder, *more)
        assert status == 0, error
        assert "MPI-INF-3DHP-9: 256 train" in out  # 16 sequences, 8 cameras, frames 0 and 9
    for split in ("train", "test"):
        a, b = (stored(tmp_path / name, split) for name in "ab")
        assert a.keys() == b.keys()
        for name in a.keys() - {"actions", "action", "test_set"}:
            assert np.array_equal(a[name], b[name]), name
    assert a["actions"] == [""]
    assert set(b["actions"]) <= {
        "1 stand/walk", "2 exercise", "3 sit on chair", "4 crouch/reach", "5 on the floor",
        "6 sports", "7 misc.",
    }  # fmt: skip


def test_units_by_hand(one):
    """2D: xy / w · 2 - [1, h / w]; label: mm · 2 / w from joint 14; TS5 is 1920 wide."""
    assert slice_npz(one)[0] == 0
    tables = [read_table(one / f"data_{split}_3dhp.npz") for split in ("train", "test")]
    cases = [
        ("train", tables[0]["S1 Seq1"][0]["0"], 2048, 2048),
        ("test", tables[1]["TS5"], 1920, 1080),
    ]
    for split, entry, width, height in cases:
        ids = np.arange(T)  # of the first training clip
        if split == "test":
            middle = np.flatnonzero(entry["valid"])[0]
            ids = np.clip(middle + np.arange(T) - T // 2, 0, FRAMES - 1)
        found = stored(one, split)
        pixels, mm = entry["data_2d"][ids], entry["data_3d"][ids]
        assert np.allclose(found["2d"][0, ..., 0], pixels[..., 0] / width * 2 - 1, atol=1e-6)
        assert np.allclose(
            found["2d"][0, ..., 1], pixels[..., 1] / width * 2 - height / width, atol=1e-6
        )
        assert (found["2d"][..., 2] == 1).all()
        label = (mm - mm[:, 14:15]) * 2 / width
        assert np.allclose(found["3d"][0], label, atol=1e-6)
        assert np.linalg.norm(label[:, 0], axis=-1).min() > 0.1  # joint 0 is not the root
    test = found
    assert (test["image_size"] == [1920, 1080]).all()
    assert np.allclose(test["pose_3d_mm"], mm_from_root(tables[1]["TS5"]["data_3d"]), atol=1e-3)
    assert test["valid"].tolist() == tables[1]["TS5"]["valid"].astype(bool).tolist()


def mm_from_root(mm):
    return mm - mm[:, 14:15]


def raw_columns(rng, frames):
    """Cells of 14 cameras, and (frames, 28, D) of each, with no two numbers alike."""
    cells, arrays = [], []
    for axes in (2, 3):
        column, whole = np.empty((14, 1), object), []
        for row in range(14):
            whole.append(rng.uniform(100, 2000, (frames, 28, axes)))
            column[row, 0] = whole[-1].reshape(frames, -1)
        cells.append(column)
        arrays.append(whole)
    return cells, arrays


def test_raw_joints_and_cameras_are_the_published_ones(one, rng):
    """`cameras` numbers the rows, here backwards; frames beyond the table's are cut off."""
    (points, poses), (pixels, mm) = raw_columns(rng, 6420)
    path = one / "raw" / "S1" / "Seq1" / "annot.mat"
    listed = np.arange(14)[::-1][None]
    scipy.io.savemat(path, {"annot2": points, "univ_annot3": poses, "cameras": listed})
    status, _, error = slice_npz(one, "--raw", one / "raw")
    assert status == 0, error
    dataset = ClipDataset(one / f"MPI-INF-3DHP-{T}", "train", T)
    per_camera = -(-6416 // 9)
    assert len(dataset) == 8 * per_camera
    for number, camera in enumerate((0, 1, 2, 4, 5, 6, 7, 8)):
        pose_2d, pose_3d = dataset.source.read([number * per_camera])
        row = 13 - camera
        assert np.allclose(pose_2d[0, ..., :2], pixels[row][:T, RAW_OF] / 1024 - 1, atol=1e-6)
        expected = mm_from_root(mm[row][:T, RAW_OF]) / 1024
        assert np.allclose(pose_3d[0], expected, atol=1e-6)


def rewrite_test(folder, change):
    """Change the arrays of the raw test file: name -> array."""
    path = folder / "raw" / "mpi_inf_3dhp_test_set" / "TS5" / "annot_data.mat"
    with h5py.File(path, "r") as file:
        arrays = {name: file[name][()] for name in file}
    change(arrays)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def as_matlab(arrays):
    """The axes in MATLAB's order."""
    arrays |= {name: array.T for name, array in arrays.items()}


def as_vectors(arrays):
    arrays["annot2"] = arrays["annot2"][:, 0]
    arrays["valid_frame"] = arrays["valid_frame"].ravel().astype(bool)
    arrays["activity_annotation"] = arrays["activity_annotation"].astype(np.uint8)


@pytest.mark.parametrize("change", [as_matlab, as_vectors])
def test_other_shapes_of_a_test_file_mean_the_same(one, change):
    results = []
    for edit in (lambda arrays: None, change):
        rewrite_test(one, edit)
        status, _, error = slice_npz(one, "--raw", one / "raw")
        assert status == 0, error
        results.append(stored(one, "test"))
    for name in results[0]:
        assert np.array_equal(results[0][name], results[1][name]), name


def test_what_is_not_valid_may_be_nan(one):
    def spoil(arrays):
        arrays["univ_annot3"][arrays["valid_frame"].ravel() == 0] = np.nan
        arrays["activity_annotation"] = np.where(
            arrays["valid_frame"] == 0, [[np.nan], [9], *[[0]] * 9], arrays["activity_annotation"]
        )

    rewrite_test(one, lambda arrays: arrays["valid_frame"].__setitem__(slice(2), 0))
    rewrite_test(one, spoil)
    status, _, error = slice_npz(one, "--raw", one / "raw")
    assert status == 0, error
    assert np.isfinite(stored(one, "test")["pose_3d_mm"]).all()


def test_activities_may_be_missing(one, caplog):
    rewrite_test(one, lambda arrays: arrays.pop("activity_annotation"))
    assert slice_npz(one, "--raw", one / "raw")[0] == 0
    assert "no activity_annotation: no scores of single activities" in caplog.text
    assert stored(one, "test")["actions"] == [""]


def test_a_file_as_matlab_writes_it(one):
    """A block of text first, and arrays, cells and groups that are not ours."""
    path = rewrite_test(one, lambda arrays: None)
    assert slice_npz(one, "--raw", one / "raw")[0] == 0
    before = stored(one, "test")
    with h5py.File(path, "r") as file:
        arrays = {name: file[name][()] for name in file}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in (arrays | {"bb_crop": np.zeros((FRAMES, 34))}).items():
            file.create_dataset(name, data=array.astype(float), chunks=True, compression="gzip")
        cell = file.create_dataset("cameras", (1, 1), dtype=h5py.ref_dtype)
        cell[0, 0] = file.create_group("#refs#").create_dataset("a", data=np.zeros(2)).ref
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(124) + b"\0\2IM")
    assert slice_npz(one, "--raw", one / "raw")[0] == 0
    after = stored(one, "test")
    assert all(np.array_equal(before[name], after[name]) for name in before)


# --- Mistakes ---------------------------------------------------------------------------------


def refused(result):
    status, _, error = result
    assert status == 2
    message = error.splitlines()[-1].rpartition("\r")[2]
    assert message.startswith("error: ") and "Traceback" not in error
    return message


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("valid_frame"), "no array 'valid_frame' inside"),
        (lambda a: a.update(annot2=a["annot2"][..., :1]), r"annot2 has shape (11, 1, 17, 1)"),
        (lambda a: a.update(valid_frame=np.ones((3, 1))), "not one number for each of the 11"),
        (lambda a: a.update(valid_frame=np.full((11, 1), 0.5)), "other values than 0 to 1"),
        (lambda a: a.update(valid_frame=np.full((11, 1), np.nan)), "other values than 0 to 1"),
        (lambda a: a.update(activity_annotation=np.full((11, 1), 8)), "other values than 0 to 7"),
        (
            lambda a: a["annot2"].__setitem__((3, 0, 2), np.nan),
            "the 2D pose of frame 3 is not finite",
        ),
        (lambda a: a.update(annot2=a["annot2"][:5]), "5 frames in 2D, 11 in 3D"),
        (lambda a: a.update(annot2=np.full((11, 1, 17, 2), b"a")), "not numbers"),
    ],
)
def test_mistakes_in_a_test_file(one, change, message):
    path = rewrite_test(one, change)
    told = refused(slice_npz(one, "--raw", one / "raw"))
    assert str(path) in told
    assert message in told or "not one number for each of the 5" in told
    assert not list((one / f"MPI-INF-3DHP-{T}").glob("index.json"))


def test_mistakes_in_a_training_file(one, rng):
    path = one / "raw" / "S1" / "Seq1" / "annot.mat"
    (points, poses), _ = raw_columns(rng, 4)
    good = {"annot2": points, "univ_annot3": poses, "cameras": np.arange(14)[None]}
    wrong = poses.copy()
    wrong[5, 0] = wrong[5, 0][:, :51]
    nan = poses.copy()
    nan[1, 0] = nan[1, 0] * np.nan
    for changed, message in (
        ({"annot2": None}, "no array 'annot2' inside"),
        ({"cameras": np.arange(7)[None]}, "no camera 7 in 'cameras'"),
        ({"univ_annot3": wrong}, "camera 5: univ_annot3 is float64 of shape (4, 51)"),
        ({"univ_annot3": nan}, "camera 1: the 3D pose of frame 0 is not finite"),
        ({"annot2": np.zeros((4, 56))}, "not a cell column"),
    ):
        content = {k: v for k, v in (good | changed).items() if v is not None}
        scipy.io.savemat(path, content)
        assert message in refused(slice_npz(one, "--raw", one / "raw"))
    scipy.io.savemat(path, good)
    cut(path)
    assert f"{path}: damaged or no MATLAB file" in refused(slice_npz(one, "--raw", one / "raw"))


def test_a_truncated_or_missing_file_is_told(one):
    test = one / "raw" / "mpi_inf_3dhp_test_set" / "TS5" / "annot_data.mat"
    cut(test)
    assert f"{test}: damaged or no MATLAB file" in refused(slice_npz(one, "--raw", one / "raw"))
    cut(one / "data_train_3dhp.npz")
    assert "data_train_3dhp.npz: damaged" in refused(slice_npz(one))
    (one / "data_train_3dhp.npz").unlink()
    assert "data_train_3dhp.npz: no such file (there: data_test" in refused(slice_npz(one))
    shutil.copytree(one / "raw" / "S1", one / "raw" / "again" / "S1")
    assert "Seq1/annot.mat: the same sequence as" in refused(slice_npz(one, "--raw", one / "raw"))
    (one / "nothing").mkdir()
    assert "no S1/Seq1/annot.mat" in refused(slice_npz(one, "--raw", one / "nothing"))
    assert "no such folder" in refused(slice_npz(one, "--raw", one / "nowhere"))


@pytest.mark.parametrize("package", ["scipy", "h5py"])
def test_a_missing_package_is_told(one, monkeypatch, package):
    """The .npz files need neither."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "scipy.io" if package == "scipy" else package, None)
    told = refused(slice_npz(one, "--raw", one / "raw"))
    assert f"needs {package}; pip install -r requirements-mpi.txt" in told
    assert slice_npz(one)[0] == 0


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("train", lambda t: t.update({"S9 Seq1": t["S1 Seq1"]}), "no such sequence"),
        ("train", lambda t: t["S1 Seq1"][0]["0"].pop("data_3d"), "no array 'data_3d'"),
        ("train", lambda t: t["S1 Seq1"].pop(), "not a pair of cameras and fps"),
        ("train", lambda t: t["S1 Seq1"].__setitem__(1, 0), "not a pair of cameras and fps"),
        ("train", lambda t: t.clear(), "no table of sequences"),
        ("test", lambda t: t["TS5"].pop("valid"), "no array 'valid'"),
        ("test", lambda t: t.update(TS7=t["TS5"]), "no such test sequence"),
        ("test", lambda t: t["TS5"].update(data_3d=np.zeros((11, 16, 3))), "shape (11, 16, 3)"),
        ("test", lambda t: t["TS5"].update(data_2d=Call(print, "x")), "would run code"),
    ],
)
def test_mistakes_in_the_npz_files(one, split, change, message):
    path = one / f"data_{split}_3dhp.npz"
    table = read_table(path)
    change(table)
    write_table(path, table)
    told = refused(slice_npz(one))
    assert message in told and str(path) in told


def test_what_is_missing_of_the_whole_set_is_said(one, caplog):
    assert slice_npz(one)[0] == 0
    assert "15 of 16 sequences are missing (S1 Seq2 …); 1 have another number" in caplog.text
    assert "5 of 6 sequences are missing" in caplog.text


def test_frames_without_a_mark_are_all_valid():
    """Stores of before have no such array."""
    frames = TestFrames([], [], *[np.zeros(3, int)] * 3, np.zeros((3, 17, 3)), np.ones((3, 2)))
    assert frames.is_valid.tolist() == [True] * 3
    assert BENCHMARK.skeleton.flip_order[8:14] == (11, 12, 13, 8, 9, 10)
