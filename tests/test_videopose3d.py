"""Human3.6M by VideoPose3D's files, against formulas and a writer of the tests' own."""

import numpy as np
import pytest

from data.clips import ClipDataset
from data.preprocess import h36m_videopose3d, synthetic
from data.sources.h36m_cameras import CAMERAS, PLACEMENTS, project
from data.sources.videopose3d import JOINTS, read, read_table
from tests.mistakes import Call, told
from tests.training import run_command
from tests.videopose3d_files import (
    CAMERA_NAMES,
    SUBJECTS,
    expected_frames,
    make_content,
    write_content,
)

T = 9


@pytest.fixture(scope="module")
def content():
    return make_content(np.random.default_rng(0))


@pytest.fixture(scope="module")
def file(content, tmp_path_factory):
    return write_content(tmp_path_factory.mktemp("videopose3d"), *content)


@pytest.fixture(scope="module")
def sliced(file):
    status, out, error = run_command(
        h36m_videopose3d.main, ["--data-root", file.parent, "--n-frames", T]
    )
    assert (status, error) == (0, "")
    assert out.splitlines()[-1].endswith("120 train, 40 test clips of 9 frames")
    return file.parent / "data_2d_h36m_cpn_ft_h36m_dbb-9"


# --- Cameras ----------------------------------------------------------------------------------


def test_the_cameras_are_those_of_the_data_set():
    """One rotation as the data set's other publications print it, and what all have in common."""
    published = [
        [-0.91536173, 0.40180837, 0.02574754],
        [0.05154812, 0.18037357, -0.98224649],
        [-0.39931903, -0.89778361, -0.18581953],
    ]
    assert pytest.approx(np.array(published), abs=1e-7) == PLACEMENTS["S1"]["54138969"].rotation.T
    assert list(PLACEMENTS) == SUBJECTS
    for cameras in PLACEMENTS.values():
        assert list(cameras) == CAMERA_NAMES == list(CAMERAS)
        for name, camera in cameras.items():
            assert np.linalg.norm(camera.quaternion) == pytest.approx(1, abs=1e-6)
            assert np.linalg.det(camera.rotation) == pytest.approx(1, abs=1e-6)
            foot, hip, head = camera.to_camera(np.array([[0.0, 0, 0], [0, 0, 900], [0, 0, 1700]]))
            assert 3500 < hip[2] < 6000  # it looks at who stands in the middle of the room,
            pixel = project(hip, name)
            assert (np.abs(pixel - 500) < 200).all()
            assert head[1] < hip[1] < foot[1]  # who is upright in the picture


def test_the_same_camera_stands_alike_for_all_subjects():
    """The cameras were hardly moved between the recordings, so that a mistyped value stands out."""
    for name in CAMERA_NAMES:
        positions = np.array([cameras[name].position for cameras in PLACEMENTS.values()])
        assert (np.abs(positions - np.median(positions, 0)) < 420).all()
        forward = np.array([cameras[name].rotation[:, 2] for cameras in PLACEMENTS.values()])
        assert (forward @ np.median(forward, 0) > np.cos(np.deg2rad(5))).all()


@pytest.fixture(scope="module")
def synthetic_files(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    flags = ["--format", "videopose3d", "--data-root", root, "--frames", 4]
    status, out, error = run_command(synthetic.main, flags)
    assert (status, error) == (0, ""), error
    assert "1,344 frames" in out  # 7 subjects, 6 actions twice, 4 cameras, 4 frames
    return root


def test_ground_truth_2d_is_the_projection_that_opencv_makes(synthetic_files):
    world = read_table(synthetic_files / "data_3d_h36m.npz", "positions_3d")
    pixels = read_table(synthetic_files / "data_2d_h36m_gt.npz", "positions_2d")
    assert list(world) == SUBJECTS
    for subject, actions in world.items():
        for action, recorded in actions.items():
            for camera, found in zip(CAMERA_NAMES, pixels[subject][action], strict=True):
                points = PLACEMENTS[subject][camera].to_camera(1000.0 * recorded[:, JOINTS])
                assert project(points, camera) == pytest.approx(found, abs=0.02)
    assert np.ptp(np.concatenate([*pixels["S9"].values()]), (0, 1, 2)).min() > 150


def test_made_files_are_read_and_never_replaced_unasked(synthetic_files):
    splits = dict(read(synthetic_files / "data_2d_h36m_gt.npz"))
    assert len(splits["train"].joint_2d) == 960 and len(splits["test"].joint_2d) == 384
    flags = ["--format", "videopose3d", "--data-root", synthetic_files, "--frames", 4]
    status, _, error = run_command(synthetic.main, flags)
    assert status == 2 and "exists; give --force" in error
    status, _, error = run_command(synthetic.main, [*flags, "--force", "--cameras", 2])
    assert status == 2 and "--cameras has no effect with --format videopose3d" in error


# --- From the files to the store --------------------------------------------------------------


def test_the_store_holds_what_the_files_say(content, sliced):
    """Every frame: R^-1 (X - t) minus the root in metres, xy/w·2 - [1, h/w], confidence 1."""
    placements = {
        subject: {name: (c.quaternion, c.position) for name, c in cameras.items()}
        for subject, cameras in PLACEMENTS.items()
    }
    for split, subjects in (("train", SUBJECTS[:5]), ("test", SUBJECTS[5:])):
        pose_2d, pose_3d, videos = expected_frames(*content, placements, subjects)
        clips = ClipDataset(sliced, split, T).source
        rows = clips.frame_ids.ravel()
        assert set(rows) == set(range(len(pose_2d)))
        for found, wanted in zip(clips.read(range(len(clips))), (pose_2d, pose_3d), strict=True):
            assert found.reshape(-1, 17, 3) == pytest.approx(wanted[rows], abs=2e-6)
    test = clips.test_frames()
    assert test.videos == [f"{subject} {action} {camera}" for subject, action, camera, _ in videos]
    assert test.pose_3d_mm == pytest.approx(1000 * pose_3d, abs=2e-3)
    assert test.actions == ["Directions", "WalkDog", "Walking"]
    names = [test.actions[number] for number in test.action]
    assert names == [a.split(" ")[0] for _, a, _, count in videos for _ in range(count)]
    # 41 frames of S9, and of S11 those without "Directions": "Directions 1" is there.
    assert len(pose_2d) == 4 * (41 + 30)
    assert "S11 Directions 1 54138969" in test.videos


def test_a_recording_that_the_protocol_leaves_out_is_left_out(content, tmp_path):
    world, pixels = content
    with_it = {**world, "S11": {"Directions": world["S9"]["Directions"], **world["S11"]}}
    ((_, test),) = read(write_content(tmp_path, with_it, pixels), ["test"])
    assert len(test.joint_2d) == 4 * (41 + 30)


def test_other_forms_of_the_files_are_read_alike(content, file, tmp_path):
    """Cameras as an array of arrays, detections with a score, in double precision."""
    world, pixels = content

    def other(arrays):
        stacked = np.empty(4, dtype=object)
        for number, array in enumerate(arrays):
            scores = np.full((len(array), 17, 1), 0.5)
            stacked[number] = np.concatenate([array, scores], -1).astype(np.float64)
        return stacked

    again = {
        s: {a: other(cameras) for a, cameras in actions.items()} for s, actions in pixels.items()
    }
    path = write_content(tmp_path, world, again, "data_2d_h36m_detectron_ft_h36m.npz")
    for (_, one), (_, two) in zip(read(path), read(file), strict=True):
        assert np.array_equal(one.joint_2d, two.joint_2d)
        assert np.array_equal(one.joint_3d, two.joint_3d)
        assert (one.confidence == 1).all()


# --- Mistakes ---------------------------------------------------------------------------------


def changed(content, change):
    """Both tables with one of them changed; what is not changed is shared."""
    world, pixels = ({s: dict(actions) for s, actions in table.items()} for table in content)
    change(world, pixels)
    return world, pixels


def drop(table, *keys):
    *path, last = keys
    for key in path:
        table = table[key]
    del table[last]


def put(table, subject, action, value):
    table[subject][action] = value


MISTAKES = {
    "a subject without detections": (
        lambda w, p: drop(p, "S8"),
        "cpn_ft_h36m_dbb.npz: no subject S8, which data_3d_h36m.npz has",
    ),
    "an action without detections": (
        lambda w, p: drop(p, "S1", "Walking 1"),
        "no S1 'Walking 1', which data_3d_h36m.npz has",
    ),
    "three cameras": (
        lambda w, p: put(p, "S5", "WalkDog", p["S5"]["WalkDog"][:3]),
        "S5 'WalkDog' has 3 cameras, not the four 54138969, 55011271",
    ),
    "no cameras": (
        lambda w, p: put(p, "S5", "WalkDog", None),
        "S5 'WalkDog' has no cameras, not the four",
    ),
    "cameras without an axis": (
        lambda w, p: put(p, "S5", "WalkDog", np.array(3.0)),
        "S5 'WalkDog' has no cameras, not the four",
    ),
    "subjects without actions": (
        lambda w, p: w.update(S9={}, S11={}),
        "no action of the test split inside",
    ),
    "fewer detections than poses": (
        lambda w, p: put(p, "S9", "WalkDog", [a[:8] for a in p["S9"]["WalkDog"]]),
        "S9 'WalkDog', camera 54138969: 8 frames, fewer than the 9",
    ),
    "sixteen keypoints": (
        lambda w, p: put(p, "S1", "WalkDog", [a[:, :16] for a in p["S1"]["WalkDog"]]),
        "S1 'WalkDog', camera 54138969: an array of shape (9, 16, 2), not (frames, 17, 2)",
    ),
    "seventeen joints": (
        lambda w, p: put(w, "S1", "WalkDog", w["S1"]["WalkDog"][:, :17]),
        "S1 'WalkDog': an array of shape (9, 17, 3), not (frames, 32, 3)",
    ),
    "no frames": (
        lambda w, p: put(w, "S1", "WalkDog", w["S1"]["WalkDog"][:0]),
        "an array of shape (0, 32, 3), not (frames, 32, 3)",
    ),
    "not a number": (
        lambda w, p: put(w, "S1", "WalkDog", w["S1"]["WalkDog"] * [[[np.nan]]]),
        "S1 'WalkDog': not finite at frame 0",
    ),
    "words": (
        lambda w, p: put(w, "S1", "WalkDog", np.full((9, 32, 3), "x")),
        "S1 'WalkDog': holds <U1, not numbers",
    ),
    "millimetres": (
        lambda w, p: put(w, "S6", "WalkDog", 1000 * w["S6"]["WalkDog"]),
        "m away; the poses must be in metres",
    ),
    "no test subjects": (
        lambda w, p: (drop(w, "S9"), drop(w, "S11")),
        "none of the subjects S9, S11 of the test split inside",
    ),
    "a table of another shape": (
        lambda w, p: w.update(S1=[]),
        "'positions_3d' is no table of subjects and actions",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_wrong_with_the_files_is_told(content, tmp_path, name):
    change, message = MISTAKES[name]
    path = write_content(tmp_path, *changed(content, change))
    assert message in told(lambda: list(read(path)))


def test_keypoints_of_another_layout_are_refused(content, tmp_path):
    coco = [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]]
    path = write_content(tmp_path, *content, layout_name="coco", keypoints_symmetry=coco)
    assert "17 keypoints of 'coco', not Human3.6M's 17 joints" in told(read, path)
    path = write_content(tmp_path, *content, layout_name="mpii", num_joints=16)
    assert "16 keypoints of 'mpii', not Human3.6M's" in told(read, path)
    path = write_content(tmp_path, *content, keypoints_symmetry="left and right")
    assert "its metadata cannot be read" in told(read, path)


def test_cameras_in_another_order_are_refused(synthetic_files, tmp_path):
    world = read_table(synthetic_files / "data_3d_h36m.npz", "positions_3d")
    pixels = read_table(synthetic_files / "data_2d_h36m_gt.npz", "positions_2d")
    for actions in pixels.values():
        for action, (one, two, three, four) in actions.items():
            actions[action] = [np.array(camera) for camera in (one, three, two, four)]
    world = {s: {a: np.array(v) for a, v in actions.items()} for s, actions in world.items()}
    message = told(lambda: list(read(write_content(tmp_path, world, pixels))))
    assert "S1: the detections of camera 55011271 lie" in message
    assert "and 0 from those seen by 58860488; the order must be 54138969, 55011271" in message


def test_what_may_be_wrong_is_warned_of(file, content, tmp_path, caplog):
    """Detections that fit no camera, a split without some of its subjects."""
    list(read(file))
    assert "S1: the detections of camera 54138969 lie" in caplog.text
    caplog.clear()
    path = write_content(tmp_path, *changed(content, lambda w, p: drop(w, "S7")))
    list(read(path, ["train"]))
    assert "no subject S7: the train split is not the protocol's" in caplog.text


def test_missing_files_and_evil_ones(content, file, tmp_path):
    assert "no such file (there: data_2d_h36m_cpn" in told(read, file.parent / "data_2d_h36m_x.npz")
    path = write_content(tmp_path, *content)
    (tmp_path / "data_3d_h36m.npz").unlink()
    assert f"{tmp_path / 'data_3d_h36m.npz'}: no such file" in told(read, path)
    evil = {"S1": {"Walking": Call(print, "run")}}
    np.savez(tmp_path / "data_3d_h36m.npz", positions_3d=np.array(evil, dtype=object))
    assert "refused, it would run code" in told(read, path)
    np.savez(tmp_path / "data_3d_h36m.npz", other=np.zeros(3))
    assert "no array 'positions_3d' inside (there: other)" in told(read, path)


def test_a_mistake_leaves_the_clips_of_before(content, tmp_path):
    path = write_content(tmp_path, *content)
    flags = ["--data-root", tmp_path, "--n-frames", T]
    assert run_command(h36m_videopose3d.main, flags)[0] == 0
    before = sorted(tmp_path.rglob("*"))
    write_content(tmp_path, *changed(content, lambda w, p: drop(p, "S11")), name=path.name)
    status, _, error = run_command(h36m_videopose3d.main, flags)
    assert (status, error.count("\n")) == (2, 1)
    assert "no subject S11" in error
    assert sorted(tmp_path.rglob("*")) == before
