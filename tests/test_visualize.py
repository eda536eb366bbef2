"""Films of a data set's sequences, from pickles and from both kinds of clip folders."""

import cv2
import numpy as np
import pytest
from PIL import Image

from data.benchmarks import BENCHMARKS
from data.clips import ClipDataset
from data.preprocess import visualize
from data.preprocess.visualize import BODY_MM, PANEL, Motion, pictures, read_motion, to_room
from lib.camera import from_screen
from lib.skeleton import H36M
from tests.samples import CAMERAS, TEST_VIDEOS, h36m_tables, write_pickle
from tests.training import make_data, run_command

H36M_FILES = BENCHMARKS["h36m"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """synthetic.pkl, clips of it, and a released folder with the same first clip."""
    root = tmp_path_factory.mktemp("visualize")
    make_data(root)
    pose_2d, pose_3d = ClipDataset(root / "H36M-9", "test", 9)[0]
    content = {"data_input": pose_2d.numpy(), "data_label": pose_3d.numpy()}
    write_pickle(root / "released" / "test" / "00000000.pkl", content)
    return root


def film(*arguments):
    return run_command(visualize.main, [str(argument) for argument in arguments])


def test_a_video_as_mp4(place, tmp_path):
    path = tmp_path / "deep" / "a.mp4"
    status, out, errors = film(place / "synthetic.pkl", "--sequence", 2, "--output", path)
    assert (status, errors) == (0, "")
    assert out.startswith(f"{path}: s_61_act_01_subact_01_ca_03, 12 frames")
    capture = cv2.VideoCapture(str(path))
    found = [capture.get(p) for p in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS)]
    assert found == [12, 50]
    assert capture.read()[1].shape == (PANEL, 2 * PANEL, 3)


@pytest.mark.parametrize("source", ["synthetic.pkl", "H36M-9", "released"])
def test_sequences_as_gif(place, tmp_path, source):
    """Half of the frames, for the same time: GIFs at 50 frames a second are played slowly."""
    path = tmp_path / "a.gif"
    status, _, errors = film(place / source, "--frames", 7, "--output", path)
    assert (status, errors) == (0, "")
    with Image.open(path) as animation:
        assert animation.n_frames == 4
        assert animation.info["duration"] == 40
        assert animation.size == (2 * PANEL, PANEL)


def test_all_kinds_of_a_data_set_hold_the_same_motion(place):
    """The first clip is the first 9 frames of the first video."""
    video = read_motion(H36M_FILES, place / "synthetic.pkl", "test", "0")
    for folder in ("H36M-9", "released"):
        clip = read_motion(H36M_FILES, place / folder, "test", "0")
        np.testing.assert_array_equal(clip.pose_2d, video.pose_2d[:9])
        np.testing.assert_array_equal(clip.pose_3d, video.pose_3d[:9])


def test_videos_by_name_and_by_number(tmp_path):
    """The training split, and a file without confidence, whose columns are lists and arrays."""
    tables = h36m_tables()
    del tables["test"]["confidence"]
    path = write_pickle(tmp_path / "a.pkl", tables)
    for number, (name, camera, _, frames) in enumerate(TEST_VIDEOS):
        by_number, by_name = (
            read_motion(H36M_FILES, path, "test", key) for key in (str(number), name)
        )
        assert by_number.name == by_name.name == name
        assert np.array_equal(by_number.pose_2d, by_name.pose_2d)
        assert len(by_number.pose_3d) == frames
        pixels = from_screen(by_name.pose_2d[..., :2], CAMERAS[camera])
        rows = [i for i, source in enumerate(tables["test"]["source"]) if source == name]
        np.testing.assert_allclose(pixels, tables["test"]["joint_2d"][rows], atol=1e-3)
    assert read_motion(H36M_FILES, path, "train", "1").name == "s_01_act_02_subact_01_ca_02"


def test_a_person_stands_upright_on_the_floor_in_its_own_shape(place):
    motion = read_motion(H36M_FILES, place / "synthetic.pkl", "test", "0")
    room = to_room(motion.pose_3d, H36M)
    assert np.allclose(room[..., 2].min(-1), 0)
    assert np.allclose(room[:, H36M.root, :2], 0)
    assert (room[:, H36M.index("head"), 2] > room[:, H36M.index("pelvis"), 2] + 400).all()

    def lengths(pose):
        return np.linalg.norm(np.diff(pose[:, H36M.bones], axis=2)[:, :, 0], axis=-1)

    assert np.median(lengths(room).sum(-1)) == pytest.approx(BODY_MM)
    ratio = lengths(room) / lengths(motion.pose_3d)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)


def test_keypoints_are_drawn_where_they_are():
    """A joint at x = 0.5, y = -0.25 lies at 3/4 of the width and 3/8 of the height."""
    pose_2d = np.zeros((1, 17, 3), np.float32)
    pose_2d[..., 2] = 1
    wrist = H36M.index("left_wrist")
    pose_2d[0, wrist, :2] = 0.5, -0.25
    pose_3d = np.random.default_rng(0).standard_normal((1, 17, 3)).astype(np.float32)
    (picture,) = pictures(Motion("a", pose_2d, pose_3d, 50, H36M))
    x, y = round(PANEL * 0.75), round(PANEL * 0.375)
    assert tuple(picture[y, x]) == H36M.colors[wrist][::-1]
    assert (picture[: y - 10, :PANEL] == 255).all()


def test_mistakes_are_told_in_a_sentence(place, tmp_path):
    output = tmp_path / "a.gif"
    for arguments, part in (
        (["synthetic.pkl", "--sequence", "²"], "has the videos 0 to 23: s_61_"),
        (["synthetic.pkl", "--sequence", "24"], "has the videos 0 to 23: s_61_"),
        (["H36M-9", "--sequence", "24"], "has the clips 0 to 23"),
        (["H36M-9", "--frames", "0"], "not a whole number"),
        (["none.pkl"], "no such file"),
        ([""], "no data set"),
        (["stage1.yaml"], "damaged or not a pickle"),
        (["synthetic.pkl", "--output", tmp_path / "a.avi"], "must end in .mp4 or .gif"),
        (["synthetic.pkl", "--output", place / "stage1.yaml" / "a.gif"], "cannot write"),
        (["synthetic.pkl", "--output", place / "stage1.yaml" / "a.mp4"], "cannot write"),
    ):
        status, _, errors = film(place / arguments[0], "--output", output, *arguments[1:])
        assert status == 2
        assert part in errors and errors.count("\n") == 1, errors
    assert not output.exists()


def test_the_data_are_not_replaced_by_their_film(place, tmp_path):
    link = tmp_path / "a.gif"
    link.symlink_to(place / "synthetic.pkl")
    status, _, errors = film(place / "synthetic.pkl", "--output", link)
    assert status == 2
    assert "is read from too" in errors
    assert read_motion(H36M_FILES, place / "synthetic.pkl", "test", "0").name
