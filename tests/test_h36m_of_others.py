"""Human3.6M's kind of file, made by others: their cameras, their names, their order of rows."""

from collections import OrderedDict

import numpy as np
import pytest

from data.benchmarks import BENCHMARKS
from data.clips import ClipDataset
from data.sequences import on_screen
from data.sources.h36m import read_split, read_tables
from tests.mistakes import told
from tests.samples import CAMERAS, TEST_VIDEOS, h36m_tables, write_pickle

FILES = BENCHMARKS["h36m"]


def with_sizes(rows, sizes):
    """Cameras that Human3.6M does not have, and the sizes of their pictures; (N,) or (N, 1)."""
    width, height = (
        np.array([sizes[name][side] for name in rows["camera_name"]]) for side in (0, 1)
    )
    names = np.array([f"GoPro {name}" for name in rows["camera_name"]])
    return rows | {"camera_name": names, "width": width, "height": height[:, None]}


def test_unknown_cameras_have_the_size_that_the_columns_say(tmp_path):
    sizes = {name: (1000 + 100 * n, 700 + n) for n, name in enumerate(CAMERAS)}
    tables = {split: with_sizes(rows, sizes) for split, rows in h36m_tables().items()}
    path = write_pickle(tmp_path / "a.pkl", tables)
    for split, found in FILES.read(path, ["train", "test"]):
        names = [name.removeprefix("GoPro ") for name in tables[split]["camera_name"]]
        assert np.array_equal(found.image_size, [sizes[name] for name in names])
        pose_2d, _ = on_screen(found)
        x, y = tables[split]["joint_2d"][7, 3]
        width, height = sizes[names[7]]
        expected = (x / width * 2 - 1, y / width * 2 - height / width)
        assert pose_2d[7, 3, :2] == pytest.approx(expected, abs=1e-6)


def test_sizes_of_known_cameras_are_the_columns_too():
    rows = h36m_tables()["test"]
    count = len(rows["source"])
    rows |= {"width": np.full(count, 500), "height": [400] * count}
    assert {v.camera.size for v in read_split(rows, "test", "a.pkl").videos} == {(500, 400)}


@pytest.mark.parametrize(
    ("columns", "told_so"),
    [
        ({"width": 500}, "no column 'height'"),
        ({"width": 500, "height": 0}, "column 'height' must be whole numbers"),
        ({"width": np.nan, "height": 5}, "column 'width' is not finite at frame 0"),
        ({"width": np.arange(1, 87), "height": 9}, "changes at frame 1, inside a video"),
    ],
)
def test_sizes_that_are_none(columns, told_so):
    rows = h36m_tables()["test"]
    count = len(rows["source"])
    rows |= {name: np.full(count, value) for name, value in columns.items()}
    assert told_so in told(read_split, rows, "test", "a.pkl")


@pytest.mark.parametrize("kind", ["bytes", "bytes in objects", "integers", "integers in objects"])
def test_names_may_be_bytes_and_cameras_numbers(kind):
    rows = h36m_tables()["test"]
    expected = read_split(rows, "test", "a.pkl").videos
    if kind.startswith("bytes"):
        for name in ("source", "camera_name", "action"):
            rows[name] = np.array([str(value).encode() for value in rows[name]])
    else:
        rows["camera_name"] = np.array([int(name) for name in rows["camera_name"]])
    if kind.endswith("objects"):
        rows["camera_name"] = rows["camera_name"].astype(object)
    assert read_split(rows, "test", "a.pkl").videos == expected


def test_factors_may_have_an_axis():
    rows = h36m_tables()["test"]
    rows["2.5d_factor"] = rows["2.5d_factor"][:, None]
    found = read_split(rows, "test", "a.pkl").factor
    assert np.array_equal(found, h36m_tables()["test"]["2.5d_factor"])


@pytest.mark.parametrize(
    ("name", "factor", "told_so"),
    [
        ("joint_2d", 1e-3, "'joint_2d' is within 2 of 0; it must be in pixels"),
        ("confidence", 100, "it must be from 0 to 1"),
        ("2.5d_factor", -1, "'2.5d_factor' is not above 0 at frame 0"),
    ],
)
def test_columns_in_other_units(name, factor, told_so):
    rows = h36m_tables()["test"]
    rows[name] = rows[name] * factor
    assert told_so in told(read_split, rows, "test", "a.pkl")


def test_test_videos_alone_are_enough_for_an_evaluation(tmp_path):
    path = write_pickle(tmp_path / "a.pkl", OrderedDict(test=h36m_tables()["test"]))
    assert FILES.slice(path, tmp_path / "H36M-9", 9) == {"test": 10}
    dataset = ClipDataset(tmp_path / "H36M-9", "test", 9)
    assert len(dataset) == 10
    found = told(ClipDataset, tmp_path / "H36M-9", "train", 9)
    assert "made from a.pkl, which has test videos only" in found
    assert FILES.test_frames(dataset.source, path)[1].videos


def test_rows_that_are_not_sorted_by_video_name_it(tmp_path):
    rows = h36m_tables()["test"]
    order = [*range(10, 30), *range(10), *range(30, len(rows["source"]))]
    shuffled = {name: np.asarray(column)[order] for name, column in rows.items()}
    found = told(read_split, shuffled, "test", "a.pkl")
    video = TEST_VIDEOS[0][0]
    assert found.startswith(f"a.pkl: the rows of video {video!r} are not together (from row 0")
    assert "again from row 20" in found


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04rest", "an .npz, not a pickle"),
        (b"\x1f\x8brest", "compressed by gzip, not a pickle"),
        (b"\x93NUMPYrest", "an .npy, not a pickle"),
        (b"\x89HDF\r\n", "an HDF5 file, not a pickle"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, kind):
    (tmp_path / "a.pkl").write_bytes(content)
    assert told(read_tables, tmp_path / "a.pkl").startswith(f"{tmp_path}/a.pkl: {kind}")
