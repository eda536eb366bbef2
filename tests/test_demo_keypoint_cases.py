"""One clip in the formats of public programs, and files from public repositories: frames, places
in pixels and unseen joints are the truth's, or a sentence says why not."""

import json

import numpy as np
import pytest

from demo.keypoint_files import read_keypoints
from lib.errors import UserError
from tests.skips import SHARED, needs_shared

CASES = SHARED / "cases"
SIZE = (864, 480)
TRUTH = {"coco17": "coco", "halpe26": "halpe", "body25": "b25", "coco18": "o18"}
TRUTH["blazepose33"] = "bp"
ALL = range(76)
pytestmark = needs_shared(CASES)

# The start of a name in kp/, the layout, and what is said of it (a part of the sentences).
READ = [
    ("00", "coco17", ""), ("01", "halpe26", ""), ("02", "coco18", ""), ("03", "coco18", ""),
    ("04", "coco18", ""), ("08", "coco17", ""), ("09", "coco17", ""), ("10", "coco17", ""),
    ("11", "coco17", ""), ("13", "coco17", ""), ("14", "coco17", ""),
    ("15", "coco17", "shares of the picture"), ("16", "blazepose33", "shares of the picture"),
    ("17", "blazepose33", "shares of the picture"),
    ("18", "blazepose33", "shares of the picture"), ("19", "coco17", "as coco17"),
    ("20", "coco17", "76 frames of one person"), ("22", "coco17", "no confidences"),
    ("23", "coco18", ""), ("24", "body25", ""), ("27", "body25", ""), ("28", "body25", ""),
    ("30", "coco18", ""), ("31", "body25", "no confidences"), ("32", "coco17", ""),
    ("33", "coco17", "natural order of their names"), ("34", "coco17", "one frame in 5"),
    ("35", "coco17", ""), ("36", "coco17", "0, 1 and 2"), ("37", "coco17", "percent"),
    ("39", "coco17", "no confidences"), ("42", "coco17", ""), ("43", "coco17", ""),
    ("44", "coco17", ""), ("45", "coco17", ""), ("46", "coco17", ""), ("47", "coco17", ""),
    ("48", "coco17", ""), ("49", "coco17", ""),
]  # fmt: skip
FRAMES = {
    "27": [*range(20), *range(40, 76)],
    "28": range(10, 76),
    "34": range(0, 376, 5),
}
WITHOUT_CONFIDENCE = ("13", "22", "31", "36", "39")


def find(start: str) -> str:
    return str(next((CASES / "kp").glob(f"{start}_*")))


def unseen_in(start: str) -> np.ndarray:
    """(76, J) where the file has NaN or null, by the plainest way of reading it."""
    unseen = np.zeros((76, 17), dtype=bool)
    if start == "39":
        with np.load(find(start)) as file:
            return np.isnan(file["keypoints"]).any(axis=-1)
    if start == "47":
        with open(find(start), encoding="utf-8") as file:
            for row, person in zip(unseen, json.load(file), strict=True):
                row[:] = [value is None for value in person["keypoints"][::3]]
        return unseen
    return unseen


@pytest.mark.parametrize(("start", "layout", "said"), READ, ids=lambda value: str(value)[:9])
def test_the_clip_in_a_programs_format(start, layout, said):
    people = read_keypoints(find(start), size=SIZE)
    with np.load(CASES / "truth.npz") as file:
        truth = file[TRUTH[layout]]
    frames = FRAMES.get(start, ALL)
    step = 5 if start == "34" else 1
    expected = truth[[frame // step for frame in frames]]
    assert people.layout.name == layout and people.size == SIZE
    assert people.frame.tolist() == list(frames)
    assert people.num_frames == max(frames) + 1
    assert people.fps == (25 if start in ("16", "39", "45") else 0)
    seen = people.keypoints[..., 2] > 0
    wrong = unseen_in(start) if start in ("39", "47") else np.zeros_like(seen)
    np.testing.assert_array_equal(seen, ~wrong)
    np.testing.assert_allclose(
        people.keypoints[seen][:, :2], expected[seen][:, :2], rtol=0, atol=0.006
    )
    confidence = 1.0 if start in WITHOUT_CONFIDENCE else expected[seen][:, 2]
    np.testing.assert_allclose(people.keypoints[seen][:, 2], confidence, atol=0.002)
    assert said in "; ".join(people.assumed)
    assert said or not people.assumed  # nothing is assumed without need


def test_two_people_in_an_array_by_frames():
    people = read_keypoints(find("21"), size=SIZE)
    assert people.num_frames == 76 and len(people.frame) == 152
    assert "2 people in 76 frames" in "; ".join(people.assumed)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("kp/12_annotations_conf0.json", "every confidence is 0"),
        ("wild/dlc.csv", "Hand, Finger1, Tongue, Joystick1, Joystick2"),
        ("wild/poseflow_sample.json", "not a readable JSON"),
        ("wild/mediapipe_long.csv", "give its size, --size 1280x720"),
        ("kp/17_mediapipe_norm.npy", "give its size, --size 1280x720"),
    ],
)
def test_a_sentence_where_nothing_can_be_read(name, told):
    with pytest.raises(UserError, match=told) as caught:
        read_keypoints(str(CASES / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "layout", "frames", "sightings", "size", "first"),
    [
        ("alphapose_coco_two_people_60.json", "coco17", 60, 120, None, (86.741, 80.221)),
        ("alphapose_halpe26_30.json", "halpe26", 30, 30, None, (167.508, 48.125)),
        ("coco_annotations_4img.json", "coco17", 4, 12, (640, 429), (367, 81)),
        ("halpe136_annotations.json", "halpe136", 4, 2, (640, 429), (367, 81)),
        ("gast_baseball_20frames.json", "coco17", 20, 20, None, (567.273, 358.638)),
        ("mediapipe_long.csv", "blazepose33", 12, 12, (1000, 500), (200, 150)),
        ("op18.json", "coco18", 1, 1, None, (360, 184)),
        ("openpose_behind", "body25", 46, 414, None, (624.412, 203.695)),
        ("vp3d_custom.npz", "coco17", 287, 287, (640, 480), (386.508, 136.868)),
        ("mm_h36m_det.npy", "h36m17", 4, 4, None, (475.639, 445.547)),
    ],
)
def test_files_of_public_repositories(name, layout, frames, sightings, size, first):
    given = size if name == "mediapipe_long.csv" else None
    people = read_keypoints(str(CASES / "wild" / name), size=given)
    assert (people.layout.name, people.num_frames, people.size) == (layout, frames, size)
    assert len(people.frame) == sightings and people.frame[0] == 0
    np.testing.assert_allclose(people.keypoints[0, 0, :2], first, atol=1e-3)


def test_annotated_but_hidden_joints_are_seen_and_those_without_a_label_are_not():
    with open(CASES / "wild" / "coco_annotations_4img.json", encoding="utf-8") as file:
        content = json.load(file)
    labelled = sorted(
        sum(v > 0 for v in one["keypoints"][2::3])
        for one in content["annotations"]
        if one["num_keypoints"]
    )
    people = read_keypoints(str(CASES / "wild" / "coco_annotations_4img.json"))
    assert sorted((people.keypoints[..., 2] == 1).sum(axis=1).tolist()) == labelled
