"""The live page, served as by `python -m http.server` and driven in a headless Chromium."""

import base64
import json
import shutil
import time

import cv2
import matplotlib
import numpy as np
import pytest

from demo.detectors import landmarks, multipose
from demo.detectors.landmarks import Region, find_landmarks
from demo.detectors.multipose import find_everybody
from demo.detectors.networks import open_network
from demo.framing import Framing
from demo.live import SlidingLifter
from demo.people import bounding_box
from demo.pipeline import VideoLifter
from demo.tracking import REACH, agreement, same_person
from demo.web.command import main
from lib.camera import camera_to_world
from lib.keypoints import LAYOUTS
from lib.skeleton import H36M
from tests.browser import SECONDS
from tests.demo_samples import in_camera, standing
from tests.media import encode
from tests.web_server import served

SIZE, FPS = (1280, 720), 30.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory, exported):
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    place = tmp_path_factory.mktemp("web") / "page"
    assert main(["--output", str(place), "--onnx", str(exported[1])]) == 0
    return place


@pytest.fixture(scope="module")
def address(folder):
    with served(folder) as address:
        yield address


@pytest.fixture
def page(browser, address):
    browser.problems.clear()
    browser.open(address)
    browser.wait_for("typeof live !== 'undefined'")
    yield browser
    assert browser.problems == []


def value_of(page, script):
    """The script's value; in it, `m` has what the page's modules export."""
    names = ("layouts", "tracking", "framing", "room", "multipose", "landmarks")
    modules = ", ".join(f"import('./{name}.js')" for name in names)
    return page.run(
        f"Promise.all([{modules}]).then(parts => {{ const m = Object.assign({{}}, ...parts);"
        f" return {script}; }})"
    )


def told(page):
    return page.run("document.getElementById('state').textContent")


# --- The port's parts against Python --------------------------------------------------------


def random_people(rng, count, joints=17):
    """(N, J, 3): each shape twice, the second time moved a little; some joints unseen."""
    people = rng.uniform(0, 1, (count, joints, 3)) * [300, 500, 1] + [400, 100, 0]
    people[1::2] = people[::2] + rng.normal(0, 15, people[1::2].shape) * [1, 1, 0]
    people[..., 2][rng.random(people.shape[:2]) < 0.1] = 0
    return people.astype(np.float32)


def test_each_layout_becomes_pythons_joints(page, rng):
    for layout in LAYOUTS.values():
        keypoints = random_people(rng, 2, layout.num_keypoints)
        found = value_of(
            page, f"{json.dumps(keypoints.tolist())}.map(k => m.toH36M('{layout.name}', k))"
        )
        np.testing.assert_allclose(found, layout.to_h36m(keypoints), rtol=1e-6, atol=1e-4)


def test_the_same_person_is_known_as_by_python(page, rng):
    people = random_people(rng, 40)
    people[3], people[5] = people[2] * [1.6, 1.6, 1], people[4] + [400, 0, 0]  # grown; far away
    people[6, :, 2] = 0
    expected = [
        (agreement(a, b, REACH), same_person(a, b, 0.1))
        for a, b in zip(people[::2], people[1::2], strict=True)
    ]
    assert {same for _, same in expected} == {True, False}
    found = value_of(
        page,
        f"(p => p.filter((_, i) => i % 2 === 0).map((a, i) => [m.agreement(a, p[2 * i + 1],"
        f" {REACH}), m.samePerson(a, p[2 * i + 1], 0.1)]))({json.dumps(people.tolist())})",
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_window_is_pythons(page, rng):
    for scale, place in ((0.2, 0), (1, 0), (2.5, 0), (1, 900)):
        clip = rng.uniform(0, 1, (9, 17, 3)) * [300, 500, 1] * [scale, scale, 1] + [place, 50, 0]
        clip[2, :, 2] = clip[:, 5, 2] = 0
        framing = Framing.still(clip, SIZE)
        script = f"(c => Array.from(m.toScreen(c, m.windowOf(c, {list(SIZE)}))))"
        found = value_of(page, f"{script}({json.dumps(clip.tolist())})")
        np.testing.assert_allclose(found, framing.to_screen(clip).ravel(), atol=1e-5)


def test_the_room_is_pythons(page, rng):
    pose = rng.normal(0, 500, (17, 3))
    world = camera_to_world(pose, 20.0)
    world[:, 2] -= world[:, 2].min()
    np.testing.assert_allclose(
        value_of(page, f"m.toRoom({json.dumps(pose.tolist())}, 20)"), world, atol=1e-6
    )


# --- A keypoint file ------------------------------------------------------------------------


def two_people():
    """(2, F, 17, 3) pixels: one is there all the time, a larger one comes later."""
    pose = in_camera(standing(12, turn=30), 5.0)[..., :2]
    keypoints = np.ones((2, 12, 17, 3))
    keypoints[0, ..., :2] = pose * 0.2 + [500, 350] + np.arange(12)[:, None, None] * [4, 0]
    keypoints[1, ..., :2] = pose * 0.3 + [900, 400]
    keypoints[0, 3:5, 4:6, 2] = 0.0
    keypoints[1, :7, :, 2] = 0.0
    return np.round(keypoints, 2)


def write_keypoints(path, keypoints, **other):
    content = {"layout": "h36m17", "fps": FPS, "size": SIZE, "keypoints": keypoints}
    path.write_text(json.dumps(content | other, default=np.ndarray.tolist))
    return path


def test_a_keypoint_file_gives_pythons_poses(page, tmp_path, exported):
    keypoints = two_people()
    page.give("keypoints", write_keypoints(tmp_path / "two.json", keypoints))
    page.wait_for("document.getElementById('state').textContent.includes('ended')")
    seconds = page.run("live.poses.map(pose => pose.seconds)")
    found = page.run("live.poses.map(pose => pose.joints)")
    np.testing.assert_allclose(seconds, np.arange(12) / FPS)  # no frame is left out

    lifter = VideoLifter.from_checkpoint(exported[0], flip=False)
    sliding = SlidingLifter(lifter, SIZE, smooth=False)
    areas = [np.prod(np.ptp(np.split(bounding_box(p), 2), axis=0)) for p in keypoints[:, 0]]
    assert areas[1] == 0  # not there yet
    largest = np.concatenate([keypoints[0, :7], keypoints[1, 7:]]).astype(np.float32)
    expected = [sliding(joints, time) for joints, time in zip(largest, seconds, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1.0)  # mm
    assert np.ptp(expected, axis=1).max() > 500

    # Another file after it: the person of the first is forgotten.
    page.give("keypoints", write_keypoints(tmp_path / "one.json", keypoints[1:, 7:9]))
    page.wait_for("live.poses.length === 2")
    sliding = SlidingLifter(lifter, SIZE, smooth=False)
    np.testing.assert_allclose(page.run("live.poses[0].joints"), sliding(largest[7], 0.0), atol=1.0)


WRONG = {
    "not a JSON file": "{",
    "no keypoint layout undefined": "[]",
    'no keypoint layout "coco99"': {"layout": "coco99"},
    "'fps' is no number": {"fps": 0},
    "'size' no pair": {"size": [1280]},
    "'keypoints' is not a table (people, frames, 17, 3)": {"keypoints": [[[[1, 2, 3]] * 16]]},
    "not a table": {"keypoints": [[[[1, 2, None]] * 17]]},
    "not a table (people": {"keypoints": []},
}


def test_a_wrong_keypoint_file_is_told_and_a_right_one_is_shown_after_it(page, tmp_path):
    for what, content in WRONG.items():
        path = tmp_path / "wrong.json"
        if isinstance(content, str):
            path.write_text(content)
        else:
            write_keypoints(path, **({"keypoints": two_people()} | content))
        page.run("document.getElementById('state').textContent = ''")
        page.give("keypoints", path)
        page.wait_for("document.getElementById('state').textContent.startsWith('wrong.json: ')")
        assert what in told(page)
        assert page.run("document.getElementById('state').className") == "wrong"
    page.give("keypoints", write_keypoints(tmp_path / "right.json", two_people()[:, :2]))
    page.wait_for("live.poses.length === 2")


def test_pause_the_room_and_saved_poses(page, tmp_path):
    keypoints = np.tile(two_people()[:1], (1, 20, 1, 1))
    page.give("keypoints", write_keypoints(tmp_path / "long.json", keypoints, fps=10))
    page.wait_for("live.poses.length >= 3")
    page.press(" ")
    assert page.run("document.getElementById('pause').textContent") == "Go on"
    page.run("live.lifting.ask('?').catch(() => 0)")  # what was asked before has been answered
    count = page.run("live.poses.length")

    room = "document.getElementById('room').toDataURL()"
    level = page.run(room)
    page.press("d")
    assert page.run(room) != level
    page.press("r")
    assert page.run(room) == level
    page.run("const pitch = document.getElementById('pitch'); pitch.value = 30")
    page.run("pitch.dispatchEvent(new Event('input'))")
    assert page.run(room) != level

    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("save")
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "poses.json").is_file():
        assert time.monotonic() < deadline
        page.run("0")
    saved = json.loads((tmp_path / "poses.json").read_text())
    assert (saved["size"], saved["camera_pitch"], len(saved["times"])) == (list(SIZE), 30, count)
    assert saved["joint_names"] == list(H36M.names) and saved["parents"] == list(H36M.parents)
    world = camera_to_world(np.array(saved["pose_3d"]), 30.0)
    world[..., 2] -= world[..., 2].min(axis=1, keepdims=True)
    np.testing.assert_allclose(saved["pose_world"], world, atol=1e-6)
    np.testing.assert_allclose(saved["keypoints_2d"][0], keypoints[0, 0], rtol=1e-6)

    assert page.run("live.poses.length") == count
    page.click("pause")
    page.wait_for(f"live.poses.length > {count}")


# --- Pictures -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portrait():
    """A picture of one person."""
    return cv2.imread(f"{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg")


@pytest.fixture
def in_page(page, portrait):
    """The page with the portrait in its `image`."""
    page.run(
        "(async () => { const picture = new Image(); picture.src = 'data:image/png;base64,"
        f"{base64.b64encode(cv2.imencode('.png', portrait)[1]).decode()}'; await picture.decode();"
        " globalThis.image = await createImageBitmap(picture); })()"
    )
    return page


def test_people_are_found_as_by_python(in_page, portrait):
    expected = find_everybody(open_network(multipose.FILE), portrait)
    found = np.array(value_of(in_page, "m.MultiPose.load().then(network => network.find(image))"))
    assert found.shape == expected.shape
    sure = expected[..., 2] > 0.4
    assert sure.any()
    assert np.abs(found - expected)[sure].max() < 4  # pixels of 512


def test_landmarks_are_those_of_pythons_crop(in_page, portrait):
    regions = [Region(np.array([320.0, 350.0]), 650.0, 0.3), Region(np.array([250, 300]), 400, -1)]
    expected = find_landmarks(open_network(landmarks.FILE), portrait, regions)
    for region, python in zip(regions, expected, strict=True):
        script = f"new m.Region({region.centre.tolist()}, {region.side}, {region.angle})"
        found = value_of(
            in_page, f"m.Landmarks.load().then(network => network.find(image, {script}))"
        )
        apart = np.linalg.norm(np.subtract(found["keypoints"], python.keypoints)[:, :2], axis=1)
        assert np.median(apart) < 0.005 * region.side
        assert found["presence"] == pytest.approx(python.presence, abs=0.1)
        assert found["region"]["side"] == pytest.approx(python.region.side, rel=0.02)
        assert found["region"]["angle"] == pytest.approx(python.region.angle, abs=0.03)
        np.testing.assert_allclose(
            found["region"]["centre"], python.region.centre, atol=0.02 * region.side
        )


def test_the_first_region_is_pythons(page, rng):
    for number in range(4):
        person = rng.uniform(0, 1, (17, 3)) * [300, 400, 1]
        person[:, 2] *= min(number, 1)  # the first has no joint that counts
        region = Region.of_coco(person)
        for size in ((640, 480), (50, 40)):
            frame, script = np.zeros((size[1], size[0], 3)), json.dumps(person.tolist())
            found = value_of(
                page,
                f"(r => [...r.centre, r.side, r.angle, r.isIn({{width: {size[0]}, height:"
                f" {size[1]}}})])(m.Region.ofCoco({script}))",
            )
            expected = [*region.centre, region.side, region.angle, region.is_in(frame)]
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_video_and_then_the_webcam(page, tmp_path, portrait):
    """The portrait moves 2 pixels to the right in each frame; nobody is in Chromium's webcam."""
    frames = np.zeros((50, 600, 720, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:, 2 * number : 2 * number + 512] = portrait
    page.give("video", encode(tmp_path / "pan.mp4", frames))
    page.wait_for("document.getElementById('state').textContent.includes('ended')")
    found = page.run("live.poses.map(pose => [pose.seconds, pose.keypoints])")
    assert found and page.run("live.size") == [720, 600]
    for seconds, keypoints in found:
        nose = np.array(keypoints)[H36M.index("neck"), :2]
        assert np.abs(nose - [270 + 2 * round(25 * seconds), 240]).max() < 50  # pixels

    page.click("camera")
    page.wait_for("document.getElementById('state').textContent.includes('nobody is seen')")
    first = page.run("live.picture.seconds")
    page.wait_for(f"live.picture.seconds > {first}")
    assert page.run("live.poses.length") == 0
    page.click("pause")
    assert page.run("live.paused") is True


# --- Nothing leaves -------------------------------------------------------------------------


def test_page_and_workers_can_ask_for_nothing_but_the_folder(browser, address, tmp_path):
    browser.open(address)
    browser.wait_for("typeof live !== 'undefined'")
    for worker in ("detection", "lifting"):  # they run
        assert browser.run(f"live.{worker}.ask('?').catch(error => error.message)")
    (tmp_path / "elsewhere").write_text("")
    with served(tmp_path) as elsewhere:
        ask = "fetch('{}').then(answer => answer.status, () => 'refused')".format
        for worker in (None, *browser.workers):
            assert browser.run(ask(f"{elsewhere}elsewhere"), worker) == "refused"
            assert browser.run(ask(f"{address}facts.js"), worker) == 200
    assert len(browser.workers) == 2
    assert all("Content Security Policy" in problem for problem in browser.problems)
    browser.problems.clear()
