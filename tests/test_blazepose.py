"""The default detector: faithful to its networks' reference and to MediaPipe's keypoints."""

import cv2
import numpy as np
import pytest

from demo.detectors import blazepose, choose_detector, landmarks, multipose
from demo.detectors.blazepose import BlazePose
from demo.detectors.landmarks import Landmarks, Region, find_landmarks
from demo.detectors.multipose import find_everybody
from demo.detectors.networks import open_network
from demo.video import Video
from lib.keypoints import BLAZEPOSE_33, COCO_17
from tests.skips import SHARED, needs_shared

pytest.importorskip("onnxruntime")
MEDIA = SHARED / "media" / "video_juggle.mp4"
KEYPOINTS = SHARED / "media" / "keypoints_video_juggle.npz"
REFERENCE = SHARED / "detector" / "reference.npz"


@pytest.fixture(scope="module")
def networks():
    return open_network(multipose.FILE), open_network(landmarks.FILE)


def juggler(count: int) -> list[np.ndarray]:
    with Video(str(MEDIA)) as video:
        return [frame for _, frame in zip(range(count), video.frames(), strict=False)]


@needs_shared(REFERENCE)
def test_the_networks_give_the_reference_outputs(networks):
    """A frame of MultiPose's own size is shown as it is; a crop of a region's size, too."""
    search, follow = networks
    with np.load(REFERENCE) as reference:
        person = reference["multipose_output"][0, 0]  # y, x, score of units of the picture
        (found,) = find_everybody(search, reference["multipose_input"][0, ..., ::-1])
        expected = person[:51].reshape(17, 3)[:, [1, 0, 2]] * [512, 288, 1]
        np.testing.assert_allclose(found, expected, atol=0.02)

        crop = np.ascontiguousarray(reference["landmarks_input"][0, ..., ::-1])
        whole = Region(np.array([128.0, 128.0]), 256.0, 0.0)
        (one,) = find_landmarks(follow, crop, [whole])
        points = reference["landmarks_output_0"].reshape(39, 5)
        np.testing.assert_allclose(one.keypoints[:, :2], points[:33, :2], atol=0.05)
        visible = 1 / (1 + np.exp(-points[:33, 3]))
        np.testing.assert_allclose(one.keypoints[:, 2], visible, atol=1e-3)
        assert one.presence == pytest.approx(float(reference["landmarks_output_1"][0, 0]), abs=1e-3)
        np.testing.assert_allclose(one.region.centre, points[33, :2], atol=0.05)
        radius = np.linalg.norm(points[34, :2] - points[33, :2])
        assert one.region.side == pytest.approx(2 * 1.25 * radius, abs=0.2)


def test_a_region_is_upright_in_its_crop():
    """The hips come to the middle and the point above the head to the middle line, by hand."""
    region = Region.around(np.array([300.0, 200.0]), np.array([400.0, 200.0]))  # lies to the right
    assert region.side == 250 and region.angle == pytest.approx(np.pi / 2)
    to_frame = region.to_frame
    assert to_frame @ [128, 128, 1] == pytest.approx([300, 200])
    assert to_frame @ [128, 128 - 256 / 2.5, 1] == pytest.approx([400, 200])
    assert to_frame @ [128 + 25.6, 128, 1] == pytest.approx([300, 225])  # right of them: below


def test_of_frames_with_nobody_nothing_is_found(networks):
    noise = np.random.default_rng(0).integers(0, 255, (2, 360, 640, 3), dtype=np.uint8)
    frames = [np.zeros((360, 640, 3), np.uint8), *noise, np.zeros((9, 3000, 3), np.uint8)]
    assert [found.shape for found in BlazePose(*networks)(frames)] == [(0, 33, 3)] * 4


@needs_shared(MEDIA, KEYPOINTS)
def test_the_juggler_is_where_mediapipe_sees_him(networks):
    """The stored keypoints are smoothed over time, and ours are not: 1.1 % of his height."""
    with np.load(KEYPOINTS, allow_pickle=False) as sample:
        expected = sample["kp33"][:20]
    found = list(BlazePose(*networks, fps=24)(juggler(20)))
    assert [len(people) for people in found] == [1] * 20
    apart = np.linalg.norm(np.stack(found)[:, 0, :, :2] - expected[..., :2], axis=-1)
    assert np.median(apart) < 7  # pixels
    assert np.stack(found)[..., 2].min() >= 0 and np.stack(found)[..., 2].max() <= 1


@needs_shared(MEDIA)
@pytest.mark.parametrize("quarters", [1, 2])
def test_somebody_is_followed_while_the_picture_turns(networks, quarters):
    """Who was found upright is followed upside down: the crop turns with them."""
    frame, height = cv2.resize(juggler(1)[0][:, 280:1000], (360, 360)), 360
    turn = [
        cv2.warpAffine(frame, cv2.getRotationMatrix2D((180, 180), -angle, 1), (360, 360))
        for angle in range(0, 90 * quarters + 1, 15)
    ]
    *_, last = BlazePose(*networks)([frame, *turn])
    (first,) = next(iter(BlazePose(*networks)([frame])))
    angle = np.deg2rad(90 * quarters)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = (first[:, :2] - 180) @ rotation.T + 180
    assert np.median(np.linalg.norm(last[0, :, :2] - expected, axis=-1)) < 0.02 * height


@needs_shared(MEDIA)
def test_two_people_side_by_side(networks):
    """The juggler beside his mirror image: mirrored keypoints, left and right exchanged."""
    pairs = [np.hstack([f[:, 400:1000], f[:, 1000:400:-1]]) for f in juggler(2)]
    found = list(BlazePose(*networks)(pairs))
    assert [len(people) for people in found] == [2, 2]
    mirror = list(BLAZEPOSE_33.mirror)
    for people in found:
        left, right = people[np.argsort(people[:, 0, 0])]
        right = right[mirror, :2] * [-1, 1] + [1199, 0]
        assert np.median(np.linalg.norm(left[:, :2] - right, axis=-1)) < 9  # pixels of 555


@needs_shared(MEDIA)
def test_eight_people_and_one_who_comes_later(networks):
    """Eight small jugglers, the eighth from the second frame on: found within half a second."""
    (frame,) = juggler(1)
    small = cv2.resize(frame[40:680, 530:850], (160, 320), interpolation=cv2.INTER_AREA)
    row = np.hstack([small] * 8)
    seven = row.copy()
    seven[:, 1120:] = seven[:, 1120:1160].mean(axis=(0, 1))
    found = list(BlazePose(*networks, fps=10)([seven, *[row] * 6]))
    assert len(found[0]) == 7 and len(found[-1]) == 8
    hips = np.sort(found[-1][:, 23:25, 0].mean(axis=1))
    np.testing.assert_allclose(np.diff(hips), 160, atol=4)


@needs_shared(MEDIA)
def test_somebody_small_in_a_portrait_is_found(networks):
    """MultiPose sees a portrait at 15 % of a phone's pixels: this man at 30 pixels of height."""
    (frame,) = juggler(1)
    small = cv2.resize(frame[40:680, 530:850], (120, 240), interpolation=cv2.INTER_AREA)
    picture = np.full((1920, 1080, 3), 120, np.uint8)
    picture[500:740, 100:220] = small
    (found,) = BlazePose(*networks)([picture])
    assert len(found) == 1
    hips, size = found[0, 23:25, :2].mean(axis=0), np.ptp(found[0, :, 1])
    assert 120 < hips[0] < 200 and 560 < hips[1] < 660 and 180 < size < 240


def test_tiles_cover_a_frame_and_show_it_larger():
    """By hand: 1920x1080 fits at 512/1920, so 1.6 times larger 1200x675 fit; portraits likewise."""
    wide = [(rows.start, columns.start) for rows, columns in multipose.tiles(1080, 1920)]
    assert wide == [(0, 0), (0, 720), (405, 0), (405, 720)]
    assert multipose.tiles(1920, 1080) == [
        (slice(0, 1200), slice(0, 1080)),
        (slice(720, 1920), slice(0, 1080)),
    ]
    for height, width in ((576, 768), (9, 3000), (700, 700), (3000, 9), (1, 1)):
        seen = np.zeros((height, width), dtype=bool)
        for tile in multipose.tiles(height, width):
            seen[tile] = True
        assert seen.all()


# Where a body's 33 keypoints are that moves 2 pixels to the right in each frame.
BODY = np.random.default_rng(5).uniform((300, 100), (500, 500), (33, 2))
MIRROR = list(BLAZEPOSE_33.mirror)


def keypoints_at(number: int) -> np.ndarray:
    return np.column_stack([BODY + np.array([2 * number, 0]), np.ones(33)]).astype(np.float32)


def scripted(monkeypatch, count, landmarks_of, candidates_of, fps=10.0) -> list[np.ndarray]:
    """What is found in `count` frames where the networks' answers are these, by frame.

    landmarks_of: (keypoints, presence); candidates_of: (P, 17, 3) of MultiPose.
    """
    frames = [np.full((600, 800, 3), number, np.uint8) for number in range(count)]

    def follow(_, frame, regions):
        keypoints, presence = landmarks_of(int(frame[0, 0, 0]))
        around = Region(keypoints[:, :2].mean(axis=0), 600.0, 0.0)
        return [Landmarks(keypoints, presence, around) for _ in regions]

    def search(_, frame, *tile):
        return candidates_of(int(frame[0, 0, 0]))

    monkeypatch.setattr(blazepose, "find_landmarks", follow)
    monkeypatch.setattr(blazepose, "find_everybody", search)
    monkeypatch.setattr(blazepose, "find_in_tile", search)
    return list(BlazePose(None, None, fps)(frames))


def test_whom_the_landmarks_lose_multipose_follows(monkeypatch):
    """From frame 3 on the landmark network sees nobody: MultiPose's keypoints stand in, until it
    sees them no more, and for 2 seconds at most. A stranger elsewhere does not become a person.
    """
    stranger = [380, 0, 0]

    def candidates(number):
        own = keypoints_at(number)[blazepose.COCO_OF_BLAZEPOSE]
        return np.stack([own + stranger, own] if number else [own])

    found = scripted(
        monkeypatch, 40, lambda n: (keypoints_at(n), 1.0 if n < 3 else 0.0), candidates
    )
    seen = [len(people) for people in found]
    assert seen == [1] * 24 + [0] * 16  # lost in frame 3, and 20 frames are 2 seconds
    coco = blazepose.COCO_OF_BLAZEPOSE
    for number, people in enumerate(found[:24]):
        np.testing.assert_array_equal(people[0, coco], keypoints_at(number)[coco])
    others = np.setdiff1d(np.arange(33), coco)
    assert (found[2][0, others, 2] == 1).all() and (found[3][0, others, 2] == 0).all()

    def leaves(number):
        return candidates(number) if number < 6 else np.zeros((0, 17, 3), np.float32)

    found = scripted(monkeypatch, 12, lambda n: (keypoints_at(n), float(n < 3)), leaves)
    assert [len(people) for people in found] == [1] * 6 + [0] * 6


def test_left_and_right_stay_where_they_are(monkeypatch):
    """The network exchanges them in frames 4 to 6 and from 9 on: not believed for a second."""

    def answer(number):
        keypoints = keypoints_at(number)
        return (keypoints[MIRROR] if number in (4, 5, 6) or number >= 9 else keypoints), 1.0

    def candidates(number):
        return answer(number)[0][None, blazepose.COCO_OF_BLAZEPOSE]

    found = scripted(monkeypatch, 24, answer, candidates)
    assert [len(people) for people in found] == [1] * 24
    for number, people in enumerate(found):
        expected = keypoints_at(number) if number < 19 else keypoints_at(number)[MIRROR]
        np.testing.assert_array_equal(people[0], expected)


@pytest.mark.parametrize("shaken", [3, 4])
def test_of_a_sudden_change_the_steadiest_region_is_taken(monkeypatch, shaken):
    """In one frame the first region's answer is nonsense, those of the other two are not."""
    nonsense = keypoints_at(0)[np.random.default_rng(1).permutation(33)]
    calls = []

    def follow(_, frame, regions):
        number = int(frame[0, 0, 0])
        calls.append((number, [region.side for region in regions]))
        answers = []
        for region in regions:
            bad = number == shaken and region.side == 600 and region.angle == 0.5
            keypoints = nonsense if bad else keypoints_at(number)
            answers.append(Landmarks(keypoints, 1.0, Region(np.array([400.0, 300]), 600.0, 0.5)))
        return answers

    candidate = keypoints_at(0)[None, blazepose.COCO_OF_BLAZEPOSE]
    monkeypatch.setattr(blazepose, "find_landmarks", follow)
    monkeypatch.setattr(blazepose, "find_everybody", lambda *_: candidate)
    monkeypatch.setattr(blazepose, "find_in_tile", lambda *_: candidate)
    frames = [np.full((600, 800, 3), number, np.uint8) for number in range(6)]
    found = list(BlazePose(None, None, 25.0)(frames))
    for number, people in enumerate(found):
        np.testing.assert_array_equal(people[0], keypoints_at(number))
    assert [sides for number, sides in calls if number == shaken] == [[600], [660, 600]]
    assert [sides for number, sides in calls if number == 5] == [[600]]  # else one is enough


@needs_shared(MEDIA)
def test_who_leaves_is_let_go_and_found_again(networks):
    frame = juggler(1)[0]
    empty = np.full_like(frame, 90)
    frames = [frame] * 2 + [empty] * 4 + [frame] * 6
    seen = [len(people) for people in BlazePose(*networks, fps=10)(frames)]
    assert seen[:6] == [1, 1, 0, 0, 0, 0] and seen[-4:] == [1, 1, 1, 1]


def test_the_default_detector_finds_everybody_in_sections():
    detector = choose_detector("blazepose")
    assert detector.sections and detector.make().layout is BLAZEPOSE_33
    assert COCO_17.num_keypoints == 17
