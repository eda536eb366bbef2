"""The published Human3.6M file: what is read from it, and every way in which it can be wrong."""

import numpy as np
import pytest

from data.benchmarks import BENCHMARKS
from data.clips import ClipDataset
from data.sequences import on_screen
from data.sources.h36m import read_split, read_tables, write
from tests.mistakes import told
from tests.samples import CAMERAS, TEST_VIDEOS, h36m_tables, write_pickle

FILES = BENCHMARKS["h36m"]
ROW_NAMES = ("joint_2d", "confidence", "joint3d_image", "camera_name", "source")
TEST_NAMES = (*ROW_NAMES, "action", "2.5d_factor", "joints_2.5d_image")


def test_normalisation_against_a_loop():
    rows = h36m_tables()["test"]
    sequences = read_split(rows, "test", "a.pkl")
    pose_2d, pose_3d = on_screen(sequences)
    assert pose_2d.dtype == pose_3d.dtype == np.float32
    for i in range(len(rows["source"])):
        width, height = CAMERAS[rows["camera_name"][i]]
        for j in range(17):
            x, y = rows["joint_2d"][i, j].astype(float)
            expected = [x / width * 2 - 1, y / width * 2 - height / width]
            assert pose_2d[i, j, :2] == pytest.approx(expected, abs=1e-6)
            assert pose_2d[i, j, 2] == rows["confidence"][i, j, 0]
            x, y, z = rows["joint3d_image"][i, j].astype(float)
            expected = [x / width * 2 - 1, y / width * 2 - height / width, z / width * 2]
            assert pose_3d[i, j] == pytest.approx(expected, abs=1e-6)
        assert tuple(sequences.image_size[i]) == (width, height)


def as_lists(rows):
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in rows.items()}


def in_double(rows):
    return {
        k: v.astype(np.float64) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v
        for k, v in rows.items()
    }


def with_flat_confidence(rows):
    return rows | {"confidence": rows["confidence"][..., 0]}


def with_more_columns(rows):
    extra = np.full((*rows["joint_2d"].shape[:2], 2), 7.0, np.float32)
    return rows | {"joint_2d": np.concatenate([rows["joint_2d"], extra], -1), "unknown": "x"}


def with_object_names(rows):
    names = ("camera_name", "source", "action")
    return rows | {n: np.array(list(rows[n]), dtype=object) for n in names if n in rows}


def in_reverse_byte_order(rows):
    return {
        k: v.astype(v.dtype.newbyteorder(">")) if isinstance(v, np.ndarray) else v
        for k, v in rows.items()
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "form",
    [
        dict,
        as_lists,
        in_double,
        with_flat_confidence,
        with_more_columns,
        with_object_names,
        in_reverse_byte_order,
    ],
)
def test_the_same_rows_in_another_form(tmp_path, form, protocol):
    tables = h36m_tables()
    path = write_pickle(tmp_path / "a.pkl", {k: form(v) for k, v in tables.items()}, protocol)
    for split, rows in read_tables(path).items():
        expected = read_split(tables[split], split, path)
        sequences = read_split(rows, split, path)
        for a, b in zip(on_screen(sequences), on_screen(expected), strict=True):
            assert np.array_equal(a, b)
        assert sequences.videos == expected.videos
    found = sequences.test_frames()
    assert found.actions == ["Directions", "Eating", "Sitting"]
    names = [found.actions[i] for i in found.action]
    assert names == list(tables["test"]["action"])
    assert [found.videos[i] for i in found.video] == tables["test"]["source"]
    assert np.array_equal(found.factor, tables["test"]["2.5d_factor"])
    assert np.array_equal(found.pose_3d_mm, tables["test"]["joints_2.5d_image"])


def test_a_video_is_described_once():
    """Rows of one video, then of the next: what is the same in all of them is told of the video."""
    videos = read_split(h36m_tables()["test"], "test", "a.pkl").videos
    found = [(v.name, v.camera.name, v.action, v.frames) for v in videos]
    assert found == [tuple(video) for video in TEST_VIDEOS]
    assert [v.subject for v in videos] == ["09", "09", "09", "11", "09", "11"]
    assert {v.fps for v in videos} == {50}


@pytest.mark.parametrize(("name", "value"), [("camera_name", "60457274"), ("action", "Other")])
def test_a_video_has_one_camera_and_one_action(name, value):
    rows = h36m_tables()["test"]
    rows[name][5] = value
    found = told(read_split, rows, "test", "a.pkl")
    assert found.startswith(f"a.pkl: column {name!r} changes at frame 5, inside a video")


def test_missing_confidence_is_1():
    rows = h36m_tables()["train"]
    del rows["confidence"]
    assert (on_screen(read_split(rows, "train", "a.pkl"))[0][..., 2] == 1).all()


def test_what_is_written_is_read_again(tmp_path):
    tables = h36m_tables()
    train, test = (read_split(tables[split], split, "a.pkl") for split in ("train", "test"))
    write(tmp_path / "a.pkl", train, test)
    for split, found in FILES.read(tmp_path / "a.pkl", ["test", "train"]):
        expected = {"train": train, "test": test}[split]
        assert found.videos == expected.videos
        for name in ("joint_2d", "confidence", "joint_3d", "factor", "joint_3d_mm"):
            one, other = getattr(found, name), getattr(expected, name)
            assert (one is None and other is None) or np.array_equal(one, other), name


# --- Slicing ----------------------------------------------------------------------------------


def test_slices_are_the_frames_of_the_file(tmp_path):
    tables = h36m_tables()
    path = write_pickle(tmp_path / "a.pkl", tables)
    counts = FILES.slice(path, tmp_path / "H36M-9", 9)
    # Training, stride 3: (31-9)//3+1, 1, (14-9)//3+1; testing: 27/9, 20//9, 1, 18/9, 1, 1.
    assert counts == {"train": 8 + 1 + 2, "test": 3 + 2 + 1 + 2 + 1 + 1}
    for split in ("train", "test"):
        dataset = ClipDataset(tmp_path / "H36M-9", split, 9)
        rows_2d, rows_3d = on_screen(read_split(tables[split], split, path))
        ids = dataset.source.frame_ids
        assert len(dataset) == counts[split]
        for clip in range(len(dataset)):
            pose_2d, pose_3d = dataset[clip]
            assert np.array_equal(pose_2d, rows_2d[ids[clip]])
            assert np.array_equal(pose_3d, rows_3d[ids[clip]])
            assert len({tables[split]["source"][i] for i in ids[clip]}) == 1
    ids, test = FILES.test_frames(dataset.source, path)
    start = sum(n for *_, n in TEST_VIDEOS[:2])
    short = [start + 5 * i // 9 for i in range(9)]
    assert short in ids.tolist()
    assert np.array_equal(test.pose_3d_mm, tables["test"]["joints_2.5d_image"])
    sizes = [CAMERAS[name] for name in tables["test"]["camera_name"]]
    assert np.array_equal(test.image_size, sizes)


def test_slicing_again_replaces_and_a_failure_keeps(tmp_path):
    path = write_pickle(tmp_path / "a.pkl", h36m_tables())
    folder = tmp_path / "H36M-9"
    FILES.slice(path, folder, 9)
    before = ClipDataset(folder, "test", 9)[0][0]
    broken = h36m_tables(seed=1)
    broken["test"]["joint_2d"][5] = np.nan
    write_pickle(path, broken)
    assert "'joint_2d' is not finite at frame 5" in told(FILES.slice, path, folder, 9)
    assert np.array_equal(ClipDataset(folder, "test", 9)[0][0], before)
    write_pickle(path, h36m_tables(seed=1))
    FILES.slice(path, folder, 9)
    assert not np.array_equal(ClipDataset(folder, "test", 9)[0][0], before)
    assert len(list(folder.iterdir())) == 2  # index.json and one folder of arrays


# --- Wrong files ------------------------------------------------------------------------------


def test_a_missing_file_says_what_is_there(tmp_path):
    assert "no .pkl file" in told(read_tables, tmp_path / "a.pkl")
    (tmp_path / "b.pkl").touch()
    found = told(read_tables, tmp_path / "a.pkl")
    assert found.startswith(f"{tmp_path}/a.pkl: no such file (there: b.pkl)")
    assert "synthetic.py" in found


@pytest.mark.parametrize("content", [[], 3, {"train": {}}, {"train": 1, "test": 2}, {1: 2}])
def test_another_pickle(tmp_path, content):
    path = write_pickle(tmp_path / "a.pkl", content)
    assert f"{path}: no table 't" in told(read_tables, path)


@pytest.mark.parametrize("name", [n for n in TEST_NAMES if n != "confidence"])
def test_a_missing_column_is_named(tmp_path, name):
    tables = h36m_tables()
    del tables["test"][name]
    path = write_pickle(tmp_path / "a.pkl", tables)
    found = told(FILES.slice, path, tmp_path / "H36M-9", 9)
    assert found.startswith(f"{path}: no column {name!r}")
    assert not (tmp_path / "H36M-9" / "index.json").exists()


@pytest.mark.parametrize("name", TEST_NAMES)
def test_a_column_of_another_length_is_named(tmp_path, name):
    tables = h36m_tables()
    tables["test"][name] = tables["test"][name][:-1]
    path = write_pickle(tmp_path / "a.pkl", tables)
    found = told(FILES.slice, path, tmp_path / "H36M-9", 9)
    assert found.startswith(f"{path}: column ")
    assert "rows" in found
    # The column the others are counted against can only be told by the first that differs.
    assert name in found


@pytest.mark.parametrize("kind", ["text", "objects", "none", "number", "ragged", "shape", "dict"])
@pytest.mark.parametrize("name", TEST_NAMES)
def test_a_column_of_another_kind_is_named(tmp_path, name, kind):
    tables = h36m_tables()
    rows = tables["test"]
    count = len(rows["source"])
    rows[name] = {
        "text": "all of them",
        "objects": np.array([{}] * count, dtype=object),
        "none": None,
        "number": 3.5,
        "ragged": [[1, 2], [3]] + [[4]] * (count - 2),
        "shape": np.zeros((count, 16, 3, 2)),
        "dict": {"a": 1},
    }[kind]
    path = write_pickle(tmp_path / "a.pkl", tables)
    found = told(FILES.slice, path, tmp_path / "H36M-9", 9)
    assert found.startswith(f"{path}: column {name!r} ")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["joint_2d", "confidence", "joint3d_image", "2.5d_factor", "joints_2.5d_image"]
)
def test_numbers_that_are_not_finite_are_named_with_their_frame(tmp_path, name, value):
    tables = h36m_tables()
    tables["test"][name][41] = value
    path = write_pickle(tmp_path / "a.pkl", tables)
    found = told(FILES.slice, path, tmp_path / "H36M-9", 9)
    assert found.startswith(f"{path}: column {name!r} is not finite at frame 41")


def test_an_unknown_camera_is_named(tmp_path):
    tables = h36m_tables()
    tables["train"]["camera_name"][3] = "12345678"
    found = told(FILES.slice, write_pickle(tmp_path / "a.pkl", tables), tmp_path / "H36M-9", 9)
    assert "unknown camera '12345678'" in found
    assert "54138969" in found


def test_a_split_without_frames(tmp_path):
    tables = h36m_tables()
    tables["train"] = {k: v[:0] for k, v in tables["train"].items()}
    path = write_pickle(tmp_path / "a.pkl", tables)
    found = told(FILES.slice, path, tmp_path / "H36M-9", 9)
    assert found.startswith(f"{path}: no frames in table 'train'")


def write_zeros(folder, count):
    """A released test split of `count` clips."""
    for number in range(count):
        clip = {n: np.zeros((9, 17, 3), np.float32) for n in ("data_input", "data_label")}
        write_pickle(folder / "test" / f"{number:08d}.pkl", clip)
    return ClipDataset(folder, "test", 9).source


def test_a_released_folder_lacks_a_short_last_video(tmp_path):
    """The file's last video has 7 frames: the released slicing drops it, ours stretches it to 9."""
    path = write_pickle(tmp_path / "a.pkl", h36m_tables())
    all_ids, whole = FILES.test_frames(write_zeros(tmp_path / "ours", 10), path)
    ids, frames = FILES.test_frames(write_zeros(tmp_path / "released", 9), path)
    assert ids.tolist() == all_ids[:9].tolist()
    assert np.array_equal(frames.pose_3d_mm, whole.pose_3d_mm)
    lost = set(all_ids.ravel()) - set(ids.ravel())
    assert {h36m_tables()["test"]["source"][i] for i in lost} == {TEST_VIDEOS[-1][0]}


def test_a_released_folder_lacks_no_other_clip(tmp_path):
    """A last video that fills a clip is never dropped: 9 clips of 10 are another data set's."""
    tables = h36m_tables()
    tables["test"] = {name: column[:-7] for name, column in tables["test"].items()}
    path = write_pickle(tmp_path / "a.pkl", tables)
    assert len(FILES.test_frames(write_zeros(tmp_path / "right", 9), path)[0]) == 9
    assert "8 clips" in told(FILES.test_frames, write_zeros(tmp_path / "wrong", 8), path)


def test_a_released_folder_of_other_videos_than_the_file(tmp_path):
    path = write_pickle(tmp_path / "a.pkl", h36m_tables())
    source = write_zeros(tmp_path / "H36M-9", 4)
    found = told(FILES.test_frames, source, path)
    assert "4 clips" in found
    assert "gives 10" in found
