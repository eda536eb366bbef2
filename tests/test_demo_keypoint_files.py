"""Keypoint files of every kind: the same people come out, whoever wrote them."""

import json
import os

import numpy as np
import pytest

from demo.keypoint_files import read_keypoints, save_keypoints
from demo.people import People
from demo.tracking import follow
from lib.errors import UserError
from lib.keypoints import BLAZEPOSE_33, BODY_25, COCO_17, HALPE_26
from tests.mistakes import Call


def people(frames: int, joints: int, number: int = 1) -> np.ndarray:
    """(P, F, J, 3): people of 100 px, 300 px apart, who move slowly."""
    points = np.random.default_rng(3).random((1, 1, joints, 3)) * [100, 100, 0.5]
    points = points + np.array([0, 50, 0.5]) + np.zeros((number, frames, 1, 1))
    points[..., 0] += np.arange(frames)[None, :, None] + 300 * np.arange(number)[:, None, None]
    return points.astype(np.float32)


@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_what_is_saved_is_read_back(tmp_path, suffix):
    keypoints = people(12, 26, number=2)
    keypoints[1, :4, :, 2] = 0  # the second person comes later
    path = tmp_path / f"points.{suffix}"
    save_keypoints(path, People.of_array(keypoints, HALPE_26).filmed(29.97, (640, 480)))
    file = read_keypoints(str(path))
    assert (file.layout.name, file.fps, file.size) == ("halpe26", 29.97, (640, 480))
    assert file.num_frames == 12
    for number, first in ((1, 0), (2, 4)):
        one = of_person(file, number)
        assert one.frame.tolist() == list(range(first, 12))
        np.testing.assert_allclose(one.keypoints, keypoints[number - 1, first:], atol=1e-3)


def of_person(people: People, number: int = 1) -> People:
    return people.only(people.person == number)


def test_plain_arrays(tmp_path):
    keypoints = people(5, 33)[0]
    np.save(tmp_path / "a.npy", keypoints)
    file = read_keypoints(str(tmp_path / "a.npy"))
    assert file.layout is BLAZEPOSE_33 and file.num_frames == 5 and file.size is None
    (tmp_path / "a.json").write_text(json.dumps(keypoints.tolist()))
    again = read_keypoints(str(tmp_path / "a.json"))
    np.testing.assert_allclose(again.keypoints, file.keypoints, atol=1e-4)


def test_two_numbers_a_keypoint_have_confidence_one_unless_both_are_zero(tmp_path):
    keypoints = people(5, 25)[0][..., :2]
    keypoints[2, 7] = 0
    np.save(tmp_path / "a.npy", keypoints)
    confidence = read_keypoints(str(tmp_path / "a.npy")).keypoints[..., 2]
    assert confidence[2, 7] == 0 and confidence.sum() == 5 * 25 - 1


def test_mediapipes_four_numbers_are_x_y_depth_visibility(tmp_path):
    keypoints = np.insert(people(3, 33)[0], 2, -55.0, axis=-1)
    np.savez(tmp_path / "a.npz", kp33=keypoints, fps=24.0, size=[1280, 720])
    file = read_keypoints(str(tmp_path / "a.npz"))
    assert file.fps == 24 and file.size == (1280, 720)
    np.testing.assert_allclose(file.keypoints, people(3, 33)[0])


def test_17_keypoints_need_a_layout(tmp_path):
    path = str(tmp_path / "a.npy")
    np.save(path, people(4, 17))
    with pytest.raises(UserError, match="--layout h36m17 or coco17"):
        read_keypoints(path)
    assert read_keypoints(path, "coco17").layout is COCO_17
    with pytest.raises(UserError, match="no array of shape"):
        read_keypoints(path, "halpe26")


def test_the_released_demos_file_is_human36m(tmp_path):
    np.savez(tmp_path / "keypoints.npz", reconstruction=people(6, 17))
    file = read_keypoints(str(tmp_path / "keypoints.npz"))
    assert file.layout.name == "h36m17" and file.num_frames == 6


def alphapose(keypoints: np.ndarray, name: str) -> list[dict]:
    return [
        {
            "image_id": name.format(frame),
            "category_id": 1,
            "keypoints": points.flatten().astype(float).tolist(),
            "score": 2.5,
        }
        for person in keypoints
        for frame, points in enumerate(person)
        if frame not in (3, 4)
    ]


@pytest.mark.parametrize("name", ["{}.jpg", "frame_{:06d}.png"])
@pytest.mark.parametrize("layout", [COCO_17, HALPE_26])
def test_alphapose(tmp_path, name, layout):
    keypoints = people(40, layout.num_keypoints, number=2)
    path = tmp_path / "alphapose-results.json"
    last_first = sorted(alphapose(keypoints, name), key=lambda one: one["image_id"], reverse=True)
    path.write_text(json.dumps(last_first))
    file = follow(read_keypoints(str(path)))
    assert file.layout is layout and file.num_frames == 40
    for number in (1, 2):
        one = of_person(file, number)
        assert one.frame.tolist() == [0, 1, 2, *range(5, 40)]
        np.testing.assert_allclose(one.keypoints, keypoints[number - 1, one.frame], rtol=1e-5)


def test_openpose_folder_and_file(tmp_path):
    keypoints = people(12, 25)[0]
    for frame, points in enumerate(keypoints):
        person = {"pose_keypoints_2d": points.flatten().astype(float).tolist()}
        content = {"version": 1.3, "people": [] if frame == 5 else [person]}
        # As OpenPose writes them, but sorted by name 10 would come before 2.
        (tmp_path / f"clip_{frame}_keypoints.json").write_text(json.dumps(content))
    file = read_keypoints(str(tmp_path))
    assert file.layout is BODY_25 and file.num_frames == 12
    assert file.frame.tolist() == [0, 1, 2, 3, 4, *range(6, 12)]
    np.testing.assert_allclose(file.keypoints, keypoints[file.frame], rtol=1e-5)
    single = read_keypoints(str(tmp_path / "clip_2_keypoints.json"))
    np.testing.assert_allclose(single.keypoints, keypoints[2:3], rtol=1e-5)


def test_other_ways_to_store_the_same(tmp_path):
    """BODY-25 in a folder of AlphaPose's results, and OpenPose's frames in one list."""
    keypoints = people(40, 25)
    frames = [
        {"people": [{"pose_keypoints_2d": points.flatten().astype(float).tolist()}]}
        for points in keypoints[0]
    ]
    (tmp_path / "list.json").write_text(json.dumps(frames))
    (tmp_path / "results").mkdir()
    results = alphapose(keypoints, "{}.jpg")
    (tmp_path / "results" / "alphapose-results.json").write_text(json.dumps(results))
    for name in ("list.json", "results"):
        file = read_keypoints(str(tmp_path / name))
        assert file.layout is BODY_25 and file.num_frames == 40
        np.testing.assert_allclose(file.keypoints, keypoints[0, file.frame], rtol=1e-5)


@pytest.mark.parametrize("nonsense", [np.nan, np.inf, 1e30])
def test_numbers_that_are_no_pixels_count_as_unseen(tmp_path, nonsense):
    keypoints = people(10, 17)[0]
    keypoints[4, 5, 0], keypoints[6] = nonsense, nonsense
    np.savez(tmp_path / "points.npz", keypoints=keypoints, layout="coco17")
    results = [
        {"image_id": f"{frame}.jpg", "keypoints": points.flatten().astype(float).tolist()}
        for frame, points in enumerate(keypoints)
    ]
    (tmp_path / "points.json").write_text(json.dumps(results))
    for suffix in ("npz", "json"):
        file = read_keypoints(str(tmp_path / f"points.{suffix}"))
        found = dict(zip(file.frame, file.keypoints, strict=True))
        assert found[4][5].tolist() == [0, 0, 0] and np.isfinite(file.keypoints).all()
        assert not found.get(6, np.zeros(1)).any()


def test_no_file_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = Call(os.mkdir, "boom")
    np.save("bomb.npy", np.array([bomb], dtype=object), allow_pickle=True)
    np.savez("bomb.npz", keypoints=np.array([bomb], dtype=object))
    for name in ("bomb.npy", "bomb.npz"):
        with pytest.raises(UserError, match="never loaded"):
            read_keypoints(name)
    assert not os.path.exists("boom")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", '[{"image_id": "0", "keypoints": [1%s]}]' % ("0" * 400), "triples"),
        ("a.json", "{", "not a readable JSON"),
        ("a.json", '{"x": 1}', "nor 'keypoints'"),
        ("a.json", '{"people": [{"x": 1}]}', "nothing called 'keypoints'.* there: 'x'"),
        ("a.json", '[{"image_id": "1.jpg", "keypoints": [1, 2, 3, 4]}]', "triples"),
        ("a.json", '[{"image_id": "1.jpg", "keypoints": [1, 2, 3]}]', "1 keypoints a person"),
        ("a.json", "[[1, 2], [3]]", "not a full table"),
        ("a.npz", "not a zip", "damaged"),
        ("a.txt", "", "give .npz"),
    ],
)
def test_bad_files_are_told_in_a_sentence(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=told):
        read_keypoints(str(tmp_path / name))


def test_wrong_shapes_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", other=np.zeros((5, 9, 3)))
    with pytest.raises(UserError, match=r"other \(5, 9, 3\)"):
        read_keypoints(str(tmp_path / "a.npz"))
    with pytest.raises(UserError, match="no such file"):
        read_keypoints(str(tmp_path / "none.npz"))


def test_numbers_of_camera_images_count_from_the_first(tmp_path):
    keypoints = people(12, 17)[0]
    results = [
        {"image_id": f"DSC{20350 + frame}.jpg", "keypoints": points.flatten().tolist()}
        for frame, points in enumerate(keypoints.astype(float))
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    file = read_keypoints(str(tmp_path / "results.json"))
    assert file.num_frames == 12 and file.frame.tolist() == list(range(12))


def test_image_numbers_of_any_length_are_no_crash(tmp_path):
    results = [{"image_id": f"{'9' * 5000}.jpg", "keypoints": np.ones(51).tolist()}]
    (tmp_path / "results.json").write_text(json.dumps([*results, {**results[0], "image_id": "1"}]))
    with pytest.raises(UserError, match="no frame numbers"):
        read_keypoints(str(tmp_path / "results.json"))
