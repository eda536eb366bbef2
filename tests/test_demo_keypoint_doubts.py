"""What no number of a keypoint file says by itself: frames, keypoints that were not found, places
that cannot be. It is said, or refused in a sentence."""

import gzip
import json

import numpy as np
import pytest

from demo.keypoint_files import read_keypoints
from lib.errors import UserError
from lib.keypoints import COCO_17, H36M_17
from tests.demo_samples import standing
from tests.keypoint_samples import (
    BLAZE,
    BODY_25B,
    CLIP,
    COLUMNS,
    FRAMES,
    HALPE,
    NAMES,
    OPENPOSE,
    PICTURE,
    ROWS,
    SIZE,
    TWO,
    Write,
    alphapose,
    check,
    clip,
    flat,
    folder_of,
    js,
    landmarks,
    mmpose,
    npz,
    raw,
    shares,
    table,
    text,
    with_confidence,
    with_places,
)

# --- Frames ---------------------------------------------------------------------------------

GAP = [*range(8), *range(20, FRAMES)]


@pytest.mark.parametrize(
    "write",
    [
        js([p for f, p in enumerate(alphapose(CLIP)) if f in GAP]),
        js([{"frame_id": f, "instances": [mmpose(one)] if f in GAP else []}
            for f, one in enumerate(CLIP)]),
        js([{"frame_id": f, "instances": [mmpose(one)] if f in GAP else None}
            for f, one in enumerate(CLIP)]),
        table(["frame", *COLUMNS], [ROWS[f] for f in GAP]),
        table([], [ROWS[f] for f in GAP]),
        js({"images": [{"id": f + 1, "file_name": f"{f:03d}.jpg"} for f in range(FRAMES)],
            "annotations": [{"image_id": f + 1, "keypoints": flat(CLIP[f])} for f in GAP]}),
    ],
)  # fmt: skip
def test_gaps_stay_gaps(tmp_path, write):
    people = read_keypoints(str(write(tmp_path)))
    assert people.num_frames == FRAMES
    assert people.frame.tolist() == GAP
    np.testing.assert_allclose(people.keypoints[..., :2], CLIP[GAP, :, :2], atol=0.006)


def test_the_first_images_may_show_nobody(tmp_path):
    """With the video, its length tells whether the numbers are the video's."""
    path = str(js(alphapose(CLIP, first=30))(tmp_path))
    alone = read_keypoints(path)
    assert alone.frame.tolist() == list(range(FRAMES)) and "frame 0" in alone.assumed[0]
    beside = read_keypoints(path, video_frames=30 + FRAMES)
    assert beside.frame.tolist() == list(range(30, 30 + FRAMES))
    assert beside.num_frames == 30 + FRAMES


def test_images_out_of_the_middle_of_a_video(tmp_path):
    people = read_keypoints(str(js(alphapose(CLIP, first=130))(tmp_path)), video_frames=400)
    assert people.frame.tolist() == list(range(130, 130 + FRAMES))
    cut_out = read_keypoints(str(js(alphapose(CLIP, first=130))(tmp_path)), video_frames=FRAMES)
    assert cut_out.frame.tolist() == list(range(FRAMES))


def test_a_file_beside_those_of_the_images_is_none(tmp_path):
    folder_of("v_{:012d}_keypoints.json", [
        {"people": [{"pose_keypoints_2d": flat(one)}]} for one in OPENPOSE])(tmp_path)  # fmt: skip
    (tmp_path / "info.json").write_text('{"fps": 25}')
    people = read_keypoints(str(tmp_path))
    check(people, OPENPOSE, range(FRAMES))
    assert people.assumed == ("info.json is left out, it has no people",)


def test_keypoints_that_a_person_lacks_are_unseen(tmp_path):
    missing = np.zeros((FRAMES, 17), dtype=bool)
    missing[4, 9] = missing[5:8, 0] = True
    frames = [
        {"frame": f, "keypoints": [
            {"name": NAMES[j], "x": x, "y": y, "score": c}
            for j, (x, y, c) in enumerate(one.tolist()) if not missing[f, j]
        ]}
        for f, one in enumerate(CLIP)
    ]  # fmt: skip
    people = read_keypoints(str(js(frames)(tmp_path)))
    check(people, CLIP, range(FRAMES), missing)


def test_every_nth_image_is_filled_between_and_said(tmp_path):
    people = read_keypoints(str(js(
        [p | {"image_id": f"{3 * f:04d}.jpg"} for f, p in enumerate(alphapose(CLIP))]
    )(tmp_path)))  # fmt: skip
    assert people.frame.tolist() == list(range(0, 3 * FRAMES, 3))
    assert "one frame in 3" in people.assumed[0]


def test_people_without_a_pose_are_left_out(tmp_path):
    more = [{"image_id": "40.jpg", "keypoints": []}, {"image_id": "41.jpg", "keypoints": None}]
    path = js([*alphapose(CLIP), *more, {"image_id": "42.jpg", "score": 1.0}])(tmp_path)
    people = read_keypoints(str(path))
    assert people.num_frames == 43
    check(people, CLIP, range(FRAMES))


# --- Keypoints that were not found ------------------------------------------------------------

HIDDEN = np.zeros((FRAMES, 17), dtype=bool)
HIDDEN[10:20, 9] = HIDDEN[28:32, :5] = True


@pytest.mark.parametrize(
    "mark",
    [
        (-1, -1, -1), (-1, -1, 1), (0, 0, 0), (0, 0, 0.9), (np.nan, np.nan, 1), (np.inf, 3, 1),
        (432, 240, 0.7), (10, 10, 0.7), (864, 480, 0.2), (1e30, 1e30, 1), (100, 100, np.nan),
    ],
)  # fmt: skip
@pytest.mark.parametrize("unit", [False, True])
def test_marks_of_missing_keypoints_are_unseen(tmp_path, mark, unit):
    """In pixels, and in shares of the picture where the mark is of it."""
    keypoints = CLIP.copy()
    keypoints[HIDDEN] = mark
    if unit:
        keypoints = shares(keypoints)
        keypoints[HIDDEN] = mark if abs(mark[0]) <= 1 else keypoints[HIDDEN]
    path = js(alphapose(keypoints))(tmp_path)
    check(read_keypoints(str(path), size=SIZE), CLIP, range(FRAMES), HIDDEN)


def test_a_keypoint_that_never_moves_with_the_body_is_unseen(tmp_path):
    keypoints, unseen = CLIP.copy(), np.zeros_like(HIDDEN)
    keypoints[:, 10], unseen[:, 10] = (50, 60, 0.7), True
    path = js(alphapose(keypoints))(tmp_path)
    check(read_keypoints(str(path)), CLIP, range(FRAMES), unseen)


def test_whole_pixels_and_people_who_stand_still_are_no_marks(tmp_path):
    still = np.broadcast_to(CLIP[3], CLIP.shape)
    for keypoints in (with_places(CLIP, np.round), with_places(CLIP, lambda p: 4 * np.round(p / 4)),
                      still):  # fmt: skip
        path = npz(keypoints=keypoints, layout="coco17")(tmp_path)
        check(read_keypoints(str(path)), keypoints, range(FRAMES))


def test_fast_arms_on_whole_pixels_are_no_marks_but_a_mark_among_several_people_is(tmp_path):
    """300 frames in which hands swing by a fifth of the person from frame to frame, and return."""
    time = np.arange(300)[:, None]
    people = np.stack([clip(frames=300) * [0.1, 1, 1] + [300 * n, 0, 0] for n in range(3)])
    people[:, :, 9:11, 0] += 60 * np.abs(time % 4 - 2)
    people[..., :2] = np.round(people[..., :2] / 2) * 2
    unseen = np.zeros(people.shape[:3], dtype=bool)
    for marked in (False, True):
        if marked:
            unseen[1, 40:80, 5] = True
            people[unseen] = (500, 20, 0.8)
        content = [
            {"image_id": f, "keypoints": flat(person[f])} for f in range(300) for person in people
        ]
        found = read_keypoints(str(js(content)(tmp_path)))
        seen = found.keypoints.reshape(300, 3, 17, 3)[..., 2] > 0
        np.testing.assert_array_equal(seen.swapaxes(0, 1), ~unseen)


# --- What is said -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "size", "said"),
    [
        (npz(keypoints=CLIP, layout="coco17", size=(480, 270)), None, "would hold them"),
        (npz(keypoints=CLIP, layout="coco17", size=(430, 864)), None, "height named first"),
        (npz(keypoints=CLIP, layout="coco17", size=SIZE), (640, 640), "640x640 is taken"),
        (npz(keypoints=CLIP[..., [1, 0, 2]], layout="coco17"), SIZE, "x and y exchanged"),
        (npz(keypoints=CLIP * [1, -1, 1] + [0, 480, 0], layout="coco17"), SIZE, "y point up"),
        (npz(keypoints=with_places(CLIP, lambda xy: xy / 2)), SIZE, "of a smaller picture"),
        (npz(keypoints=CLIP, layout="h36m17"), SIZE, "look like coco17, not like h36m17"),
        (npz(keypoints=CLIP[[0, 12, 25, 39]] + 150 * np.arange(4)[:, None, None] * [1, 0, 0],
             layout="coco17"), SIZE, "several people of one image"),
    ],
)  # fmt: skip
def test_what_can_hardly_be_is_asked(tmp_path, write, size, said):
    assert said in "; ".join(read_keypoints(str(write(tmp_path)), size=size).assumed)


def test_the_size_that_would_hold_the_points_does(tmp_path):
    path = str(npz(keypoints=CLIP, layout="coco17", size=(480, 270))(tmp_path))
    words = "; ".join(read_keypoints(path).assumed)
    width, _, height = words.partition(" would hold")[0].rpartition(" ")[2].partition("x")
    assert int(width) - 1 < CLIP[..., 0].max() <= int(width)
    assert int(height) - 1 < CLIP[..., 1].max() <= int(height)


def test_places_follow_the_video_where_it_is_larger_than_the_pictures_of_the_file(tmp_path):
    path = str(npz(keypoints=CLIP, layout="coco17", size=SIZE)(tmp_path))
    people = read_keypoints(path, size=(1728, 960))
    assert people.size == (1728, 960) and "brought to 1728x960" in people.assumed[0]
    check(people, with_places(CLIP, lambda xy: 2 * xy), range(FRAMES))


def test_two_people_in_either_order_of_axes(tmp_path):
    for array, numbers in ((TWO, {1, 2}), (TWO.swapaxes(0, 1), {0})):
        people = read_keypoints(str(npz(keypoints=array)(tmp_path)))
        assert people.num_frames == FRAMES and set(people.person.tolist()) == numbers
        rows = people.keypoints.reshape(FRAMES, 2, 17, 3)
        np.testing.assert_allclose(rows.swapaxes(0, 1), TWO, atol=1e-3)


# --- What is refused ----------------------------------------------------------------------------

BODY = standing(FRAMES) / 1000  # 3D, metres, z up


def swaying(keypoints: np.ndarray) -> np.ndarray:
    """3D poses that turn, so that bones change their length in the picture."""
    turn = np.linspace(0, 3, len(keypoints))
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], axis=-2)  # (F, 2, 2)
    ground = np.einsum("fab,fjb->fja", rotation, keypoints[..., :2])
    return np.stack([ground[..., 0], 1 - keypoints[..., 2], ground[..., 1]], axis=-1)


REFUSED: dict[str, tuple[Write, str]] = {
    "shares without a size": (js(alphapose(shares(CLIP))), "--size 1280x720"),
    "confidences of bytes": (js(alphapose(with_confidence(CLIP, lambda c: 255 * c))),
                             "is no confidence"),
    "logarithms": (js(alphapose(with_confidence(CLIP, np.log))), "is no confidence"),
    "no confidence above 0": (js(alphapose(with_confidence(CLIP, np.zeros_like))),
                              "every confidence is 0"),
    "two cameras": (js([p | {"image_id": f"cam{c}_{f:04d}.png"}
                        for c in (1, 2) for f, p in enumerate(alphapose(CLIP))]),
                    "cam1_0000.png and cam2_0000.png are both image 0"),
    "two videos": (js([p | {"image_id": f"{c}/{f:04d}.png"}
                       for c in "ab" for f, p in enumerate(alphapose(CLIP))]),
                   "a/0000.png and b/0000.png are both image 0"),
    "two folders of OpenPose in one": (folder_of("v{}.json", [{"people": []}] * 2),
                                       "nobody is in it"),
    "a frame twice": (js([{"frame_id": min(f, 30), "instances": [mmpose(one)]}
                          for f, one in enumerate(CLIP)]), "image 30 occurs twice"),
    "a row twice": (table(["frame", *COLUMNS], [*ROWS, ROWS[5]]), "lines 7 and 42 are both"),
    "a key twice": (text('{"1.jpg": [], "1.jpg": []}'), "'1.jpg' occurs twice"),
    "an image without a name": (js([*alphapose(CLIP), {"keypoints": flat(CLIP[0])}]),
                                "entry 40 does not say of which image"),
    "two numbers of keypoints": (js([*alphapose(CLIP), *alphapose(HALPE, "b{}.jpg")]),
                                 "26 keypoints a person in 'b0.jpg', 17"),
    "several people, no image": (js([{"keypoints": flat(one + np.array([250 * (n % 2), 0, 0]))}
                                     for n, one in enumerate(CLIP[:4])]), "of one image"),
    "two arrays": (npz(a=CLIP, b=CLIP), "several arrays"),
    "no frames": (npz(keypoints=CLIP[:0]), "empty"),
    "two videos of VideoPose3D": (npz(positions_2d={v: {"custom": [CLIP[..., :2]]}
                                                    for v in ("a.mp4", "b.mp4")}),
                                  "2 videos .a.mp4 custom, b.mp4 custom."),
    "unknown number": (js([{"image_id": f, "keypoints": [1.0, 2.0, 0.5] * 308}
                           for f in range(3)]), "308 keypoints a person"),
    "another order": (js([{"people": [{"pose_keypoints_2d": flat(one)}]} for one in BODY_25B]),
                      "hardly make a body as body25"),
    "another program's 17": (js(alphapose(CLIP[:, [11, 12, 14, 16, 11, 13, 15, 0, 5, 1, 3, 5, 7,
                                                   9, 6, 8, 10]])), "--layout"),
    "no number": (table(["frame", *COLUMNS], [[0, "abc", *ROWS[0][2:]]]), "line 2: 'abc'"),
    "rows of several lengths": (table(["frame", *COLUMNS], [ROWS[0][:9]]), "line 2 has 9 cells"),
    "columns that name nothing": (table(["time", "a", "b"], [[0, 1, 2]]), "time, a, b"),
    "a size of 0": (npz(keypoints=CLIP, size=(0, 9)), "0x9 is no image size"),
    "a size of words": (js({"keypoints": CLIP.tolist(), "size": "large"}), "not a number or a"),
    "percent of the picture": (js(alphapose(with_places(CLIP, lambda xy: xy / PICTURE * 100))),
                               "percent of it"),
    "MoveNet's y, x": (npz(output=shares(CLIP)[:, None, None][..., [1, 0, 2]]), "MoveNet"),
    "complex numbers": (npz(keypoints=CLIP * 1j), "complex128 are not numbers"),
    "nowhere": (npz(keypoints=np.zeros((5, 17, 2)), layout="coco17"), "nobody is in it"),
    "everywhere -1": (npz(keypoints=np.full((5, 17, 2), -1.0), layout="coco17"), "nobody is in it"),
    "labels and more": (folder_of("{}.txt", ["0 0.5 0.5 0.1 0.1 " + "0.5 " * 51, "person"]),
                        "1.txt has no labels"),
    "labelme": (js({"version": "5", "shapes": [{"label": "nose", "points": [[1, 2]]}]}),
                "'version', 'shapes'"),
    "a C3D table": (text("PathFileType\t4\n60\t60\nFrame#\tTime\tHip\n", "a.trc"), "cells|column"),
    "HDF5": (raw(b"\x89HDF\r\n\x1a\n" + bytes(99), "a.h5"), "give the .csv"),
    "a video": (raw(b"\0\0\0\x18ftypmp42" + bytes(99), "a.mp4"), "no file of keypoints"),
    "a damaged gzip": (raw(gzip.compress(b"[1, 2, 3]" * 99)[:-20], "a.json.gz"), "damaged"),
    "an empty folder": (folder_of("{}.json", []), "no .json file in this folder"),
    "3D: world landmarks only": (js([{"pose_world_landmarks": landmarks(one)} for one in BLAZE]),
                                 "in 3D"),
    "3D: millimetres": (npz(keypoints=1000 * BODY), "is no confidence"),
    "3D: metres": (npz(keypoints=BODY, layout="h36m17"), "is no confidence"),
    "3D: above the floor": (npz(reconstruction=BODY - BODY.min((0, 1))), "poses in 3D"),
    "3D: in front of a camera": (npz(keypoints=1000 * swaying(BODY) + [0, 0, 4000],
                                     layout="h36m17"), "is no confidence"),
    "3D: bones that keep their length": (
        npz(keypoints=40 * swaying(BODY) + [300, 300, 40], layout="h36m17"), "keep their length"),
    "3D: with scores": (js([{"frame_id": f, "instances": [
        {"keypoints": one.tolist(), "keypoint_scores": [1.0] * 17}]}
        for f, one in enumerate(swaying(BODY))]), "in 3D"),
    "3D: named columns": (table([f"{n}_{c}" for n in NAMES for c in ("x", "y", "z", "score")], [
        flat(np.insert(one - [400, 250, 0], 2, 80.0, axis=-1)) for one in CLIP]),
        "neither pixels"),
    "2D from the hips": (npz(keypoints=with_places(CLIP, lambda xy: xy - (
        xy[:, 11:12] + xy[:, 12:13]) / 2), layout="coco17"), "hips are at 0, 0|neither pixels"),
}  # fmt: skip


WITHOUT_SIZE = ("shares without a size", "a size of 0")


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path, form):
    write, told = REFUSED[form]
    size = None if form in WITHOUT_SIZE else SIZE
    with pytest.raises(UserError, match=told) as caught:
        read_keypoints(str(write(tmp_path)), size=size)
    assert "\n" not in str(caught.value)


def test_layouts_of_one_number_are_told_apart_by_the_body_they_make(tmp_path):
    human = H36M_17.to_h36m(COCO_17.to_h36m(CLIP))
    layouts = [
        read_keypoints(str(npz(keypoints=array)(tmp_path))).layout for array in (CLIP, human)
    ]
    assert [layout.name for layout in layouts] == ["coco17", "h36m17"]


# --- Whatever stands in a file ------------------------------------------------------------------

STRUCTURES = {
    "AlphaPose": alphapose(CLIP[:2]),
    "OpenPose": [{"people": [{"pose_keypoints_2d": flat(one)}]} for one in OPENPOSE[:2]],
    "mmpose": {"meta_info": {"dataset_name": "coco"},
               "instance_info": [{"frame_id": f, "instances": [mmpose(one)]}
                                 for f, one in enumerate(CLIP[:2])]},
    "COCO": {"images": [{"id": 1, "file_name": "1.jpg", "width": 864, "height": 480}],
             "annotations": [{"image_id": 1, "category_id": 1, "keypoints": flat(CLIP[0])}],
             "categories": [{"id": 1, "keypoints": list(NAMES)}]},
    "MediaPipe": {"fps": 25, "frames": [{"frame": 0, "pose_landmarks": landmarks(BLAZE[0])}]},
    "ours": {"layout": "coco17", "fps": 25, "size": SIZE, "keypoints": CLIP[:2].tolist()},
}  # fmt: skip
OTHER = [None, "x", 0, -1, 1e400, [], {}, [None], [[1, 2], [3]], {"a": 1}, [{}], 10**30, True]


def places_in(value: object, depth: int = 4):
    """(container, key) of every value, but of few among many alike."""
    if isinstance(value, dict | list) and depth:
        keys = list(value) if isinstance(value, dict) else range(min(len(value), 2))
        for key in keys:
            yield value, key
            yield from places_in(value[key], depth - 1)


@pytest.mark.parametrize("name", STRUCTURES)
def test_anything_in_place_of_anything_is_read_or_told_in_a_sentence(tmp_path, name):
    content = json.loads(json.dumps(STRUCTURES[name]))
    refused = 0
    for container, key in list(places_in(content)):
        before = container[key]
        for other in OTHER:
            container[key] = other
            try:
                read_keypoints(str(js(content)(tmp_path)), size=SIZE)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and "a.json" in str(error)
        container[key] = before
    assert refused and len(read_keypoints(str(js(content)(tmp_path)), size=SIZE).frame)
