"""What no number of a keypoint file says by itself: frames, keypoints that were not found, places
that cannot be. It is said, or refused in a sentence."""

import numpy as np
import pytest

from demo.keypoint_files import read_keypoints
from lib.keypoints import COCO_17, H36M_17
from tests.keypoint_samples import (
    BLAZE,
    CLIP,
    COLUMNS,
    FRAMES,
    NAMES,
    OPENPOSE,
    ROWS,
    SIZE,
    TWO,
    alphapose,
    check,
    clip,
    flat,
    folder_of,
    js,
    landmarks,
    mmpose,
    npz,
    shares,
    table,
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
        table(["Unnamed: 0", *COLUMNS], [ROWS[f] for f in GAP]),
        table(["timestamp_ms", *COLUMNS], [[f * 1000 // 30, *ROWS[f][1:]] for f in GAP]),
        js([{"time": f / 30, "keypoints": flat(CLIP[f])} for f in GAP]),
        table(["Frame #", *COLUMNS], [ROWS[f] for f in GAP]),
        js([{"frameIndex": f, "keypoints": flat(CLIP[f])} for f in GAP]),
        js({"7": {"keypoints": CLIP[GAP].tolist(), "frames": GAP}}),
        npz(keypoints=CLIP[GAP], frame_ids=np.array(GAP), layout="coco17"),
        npz(keypoints=CLIP[GAP][:, None], frame_ids=np.array(GAP), layout="coco17"),
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


@pytest.mark.parametrize(("unit", "name"), [(1, "time"), (1e3, "timestamp_ms"), (1e9, "timestamp")])
def test_the_rate_by_the_times_of_the_images(tmp_path, unit, name):
    times = [(100 + f / 30) * unit for f in range(FRAMES)]
    frames = [{"frame": f, name: times[f], "keypoints": flat(one)} for f, one in enumerate(CLIP)]
    columns = table(["frame", name, *COLUMNS], [[r[0], times[r[0]], *r[1:]] for r in ROWS])
    for write in (js(frames), columns):
        people = read_keypoints(str(write(tmp_path)))
        assert people.fps == pytest.approx(30, rel=1e-3) and "30 frames/s" in people.assumed[0]


def test_confidences_of_heatmaps_slightly_below_0_are_of_nothing(tmp_path):
    keypoints = CLIP.copy()
    keypoints[3, 9, 2], keypoints[7, 2, 2] = -0.004, -0.012
    people = read_keypoints(str(js(alphapose(keypoints))(tmp_path)))
    check(people, CLIP, range(FRAMES), keypoints[..., 2] < 0)


def test_a_dozen_people_in_a_row_are_no_frames(tmp_path):
    row = [{"image_id": "1.jpg", "keypoints": flat(CLIP[0] + [20 * n, 0, 0])} for n in range(12)]
    people = read_keypoints(str(js(row)(tmp_path)), size=SIZE)
    assert people.num_frames == 1 and len(people.frame) == 12


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
    assert people.num_frames == 43 and "3 people without a pose" in people.assumed[0]
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


@pytest.mark.parametrize("hole", [None, [], [None, None, None], [0, 0, 1], [-1, -1, 0.5]])
def test_a_few_keypoints_that_were_not_found(tmp_path, hole):
    missing = np.zeros((FRAMES, 17), dtype=bool)
    missing[[4, 20, 31], [9, 10, 9]] = True
    frames = [
        {"frame": f, "keypoints": [hole if missing[f, j] else k for j, k in enumerate(one)]}
        for f, one in enumerate(CLIP.tolist())
    ]
    check(read_keypoints(str(js(frames)(tmp_path))), CLIP, range(FRAMES), missing)


def test_keypoints_that_were_not_found_before_places_became_minus_1_to_1(tmp_path):
    missing = np.zeros((FRAMES, 17), dtype=bool)
    missing[[4, 20, 31], [9, 10, 9]] = True
    places = np.where(missing[..., None], 0, CLIP[..., :2]) / SIZE[0] * 2 - [1, SIZE[1] / SIZE[0]]
    path = npz(keypoints=places.astype(np.float32), layout="coco17")(tmp_path)
    expected = with_confidence(CLIP, np.ones_like)
    check(read_keypoints(str(path), size=SIZE), expected, range(FRAMES), missing)


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


@pytest.mark.parametrize("shift", [(-320, 0), (0, -90), (-300, -60), (400, 100)])
def test_mediapipes_landmarks_may_leave_the_picture_on_every_side(tmp_path, shift):
    moved = with_places(BLAZE, lambda xy: xy + shift)
    people = read_keypoints(
        str(js([{"pose_landmarks": landmarks(one)} for one in moved])(tmp_path)), size=SIZE
    )
    both = (moved[..., :2] < 0).all(axis=-1)  # which say of themselves that they are not found
    check(people, moved, range(FRAMES), both)


def test_shares_of_people_who_leave_the_picture_at_the_left(tmp_path):
    moved = with_places(CLIP, lambda xy: xy - [340, 0])
    people = read_keypoints(str(npz(keypoints=shares(moved), layout="coco17")(tmp_path)), size=SIZE)
    assert 0.1 < (moved[..., 0] < 0).mean() < 0.3
    check(people, moved, range(FRAMES))


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


def test_layouts_of_one_number_are_told_apart_by_the_body_they_make(tmp_path):
    human = H36M_17.to_h36m(COCO_17.to_h36m(CLIP))
    layouts = [
        read_keypoints(str(npz(keypoints=array)(tmp_path))).layout for array in (CLIP, human)
    ]
    assert [layout.name for layout in layouts] == ["coco17", "h36m17"]
