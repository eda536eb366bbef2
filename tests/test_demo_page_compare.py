"""Two results on one page: the second's file, its people, its times, and how far they are apart."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from demo.export.arrays import write_json, write_npz
from demo.export.page import write_page
from demo.poses import Poses
from lib.metrics import mpjpe, p_mpjpe
from tests.page_samples import record, sample_poses

# What the page says of each person: [relative, fitted] means, frames and partner.
MEANS = (
    "second.distances.map((its, p) => its && [its.means.relative, its.means.fitted, its.frames,"
    " second.partners[p]])"
)
TOLD = "document.getElementById('told').textContent"
WRITERS = {"json": write_json, "npz": write_npz, "html": write_page}


def compared(browser, folder: Path, first: Poses, second: Poses, kind: str = "npz") -> list:
    """Opens the one's page, and the other in it; what MEANS then is."""
    write_page(folder / "first.html", first)
    path = folder / f"second.{kind}"
    WRITERS[kind](path, second)
    browser.open(folder / "first.html")
    browser.give("other", path)
    browser.wait_for(f"second && {TOLD} === ''")
    assert browser.problems == []
    return browser.run(MEANS)


def given(browser, path: Path) -> str:
    """What the page says of a file."""
    browser.run("tell(''); 0")
    browser.give("other", path)
    browser.wait_for(f"{TOLD} && !{TOLD}.startsWith('Reading')")
    return browser.run(TOLD)


def restless(people: int = 1, frames: int = 50, seed: int = 0) -> Poses:
    """People whose joints all move, by up to 100 mm."""
    poses = sample_poses(people, frames)
    moves = np.random.default_rng(seed).uniform(-100, 100, poses.pose_world.shape)
    return replace(poses, pose_world=poses.pose_world + moves.astype(np.float32))


@pytest.mark.parametrize("kind", WRITERS)
def test_a_result_is_not_away_from_itself(browser, tmp_path, kind):
    poses = restless(people=2)
    means = compared(browser, tmp_path, poses, poses, kind)
    # To how poses.json (0.1 mm) and the page (0.05 mm) round.
    assert np.ravel([m[:2] for m in means]) == pytest.approx(0, abs=1e-9 if kind == "html" else 0.1)
    assert [m[2:] for m in means] == [[50, 0], [50, 1]]
    cells = browser.run("[...document.querySelectorAll('#pairs tr')].map(row => row.innerText)")
    assert len(cells) == 2 and all(row.split()[-1] == "50" for row in cells)
    names = browser.run(
        "['first', 'second'].map(n => document.getElementById(n + '-name').innerText)"
    )
    assert names == ["first", f"second.{kind}"]


def test_by_hand_a_wrist_and_a_turn(browser, tmp_path):
    poses = sample_poses()
    wrist = poses.pose_world.copy()
    wrist[:, :, 13, 2] += 170
    [[relative, *_]] = compared(browser, tmp_path, poses, replace(poses, pose_world=wrist))
    assert relative == pytest.approx(170 / 17, abs=0.1)

    # A quarter turn about the vertical, half as large again, elsewhere: no distance is left of it
    # once the second is turned and scaled.
    turned = poses.pose_world[..., [1, 0, 2]] * [-1.5, 1.5, 1.5] + [700, -300, 40]
    [[relative, fitted, *_]] = compared(
        browser, tmp_path, poses, replace(poses, pose_world=turned.astype(np.float32))
    )
    assert fitted == pytest.approx(0, abs=0.1)
    own, other = (pose - pose[:, :, :1] for pose in (poses.pose_world, turned))
    assert relative == pytest.approx(np.linalg.norm(own - other, axis=-1).mean(), abs=0.1)

    # A mirror image is no turn.
    mirrored = replace(poses, pose_world=restless().pose_world * np.float32([-1, 1, 1]))
    [[_, fitted, *_]] = compared(browser, tmp_path, restless(), mirrored)
    assert fitted > 50


def test_frame_by_frame_as_numpy_has_it(browser, tmp_path):
    one, two = restless(seed=1), restless(seed=2)
    [[relative, fitted, *_]] = compared(browser, tmp_path, one, two)
    a, b = (poses.pose_world[0].astype(np.float64) for poses in (one, two))
    expected = mpjpe(a - a[:, :1], b - b[:, :1]), p_mpjpe(b, a)
    assert browser.run("[...second.distances[0].relative]") == pytest.approx(expected[0], abs=0.1)
    assert browser.run("[...second.distances[0].fitted]") == pytest.approx(expected[1], abs=0.1)
    assert [relative, fitted] == pytest.approx(np.mean(expected, axis=1), abs=0.1)

    browser.run("seek(7)")
    row = browser.run("document.querySelector('#pairs tr').innerText").split()
    numbers = [expected[0][7], relative, expected[1][7], fitted]
    assert [float(cell) for cell in row[-5:-1]] == pytest.approx(numbers, abs=0.15)

    # The same numbers as a curve.
    browser.run("choose('curve', -1)")
    drawn = browser.run("series.map(({ values }) => [...values])")
    assert np.array(drawn) == pytest.approx(np.array(expected), abs=0.1)
    assert browser.problems == []


@pytest.mark.parametrize(("rate", "frames"), [(50, 99), (12.5, 25), (10, 18)])
def test_moments_are_matched_by_the_clock(browser, tmp_path, rate, frames):
    """The wrist rises by 250 mm a second in both, whatever their frame rates."""
    other = sample_poses(frames=frames)
    times = np.arange(frames) / rate
    rising = other.pose_world.copy()
    rising[:, :, 13, 2] = 1350 + 250 * times
    other = replace(other, pose_world=rising, times=times, fps=float(rate))
    [[relative, fitted, common, _]] = compared(browser, tmp_path, sample_poses(), other)
    assert [relative, fitted] == pytest.approx([0, 0], abs=0.1)
    assert common == np.sum(np.arange(50) / 25 <= times[-1] + 1e-9)

    # Begun 0.2 s later it is 50 mm behind, and less is common.
    browser.run(
        "let later = document.getElementById('later'); later.value = 0.2;"
        "later.dispatchEvent(new Event('input')); 0"
    )
    [[relative, _, common, _]] = browser.run(MEANS)
    assert relative == pytest.approx(50 / 17, abs=0.1)
    moments = np.arange(50) / 25 - 0.2
    assert common == np.sum((moments > -1e-9) & (moments <= times[-1] + 1e-9))


def test_no_moment_lies_between_two_stretches(browser, tmp_path):
    """Half way from one stretch to the next nobody is half way."""
    other = sample_poses(frames=20)
    other.pose_world[:, 10:, :, 0] += 1000
    other.stretch[:, 10:] = 2
    other = replace(other, times=np.arange(20) / 10, fps=10.0)
    compared(browser, tmp_path, sample_poses(), other)
    roots = browser.run("[...Array(48).keys()].map(f => second.result.place(0, f, 0)[0])")
    assert set(np.round(roots).tolist()) == {0, 1000}


@pytest.mark.parametrize("size", [(1280, 960), (1000, 400)])
def test_people_are_matched_by_closeness(browser, tmp_path, size):
    """In the picture where it has the same shape, else in the room."""
    poses = restless(people=3)
    poses.stretch[1, 20:] = 0
    order = [2, 0, 1]
    flat = poses.keypoints_2d[order] * [size[0] / 640, size[0] / 640, 1]
    world = poses.pose_world[order]
    if size == (1280, 960):  # far away, and each beside another one
        world = world[[1, 2, 0]] + np.float32([50_000, 0, 0])
    other = replace(
        poses, size=size, keypoints_2d=flat, pose_world=world, stretch=poses.stretch[order]
    )
    means = compared(browser, tmp_path, poses, other)
    assert [m[3] for m in means] == [1, 2, 0]
    assert [m[2] for m in means] == [50, 20, 50]
    if size == (1280, 960):
        assert browser.run("second.placing") == "root"  # it would be out of sight
        return
    assert browser.run("second.placing") == "own"
    assert np.ravel([m[:2] for m in means]) == pytest.approx(0, abs=0.1)

    # The reader joins others: the two swap.
    browser.run(
        "let select = document.querySelector('#pairs select'); select.value = 0;"
        "select.dispatchEvent(new Event('change')); 0"
    )
    means = browser.run(MEANS)
    assert [m[3] for m in means] == [0, 2, 1]
    assert means[0][0] > 50 and means[2][0] > 50 and means[1][0] < 0.1
    browser.run(
        "select = document.querySelector('#pairs select'); select.value = -1;"
        "select.dispatchEvent(new Event('change')); 0"
    )
    assert browser.run(MEANS)[0] is None
    assert "–" in browser.run("document.querySelector('#pairs tr').innerText")


def test_both_are_drawn(browser, tmp_path):
    poses = sample_poses()
    away = replace(
        poses,
        pose_world=poses.pose_world * np.float32([0.8, 1, 0.9]),
        keypoints_2d=poses.keypoints_2d + np.float32([40, 0, 0]),
    )
    write_page(tmp_path / "first.html", poses)
    browser.open(tmp_path / "first.html")
    count = (
        "(name => { const canvas = document.getElementById(name), { width, height } = canvas;"
        " const copy = Object.assign(document.createElement('canvas'), { width, height });"
        " const g = copy.getContext('2d', { willReadFrequently: true }); draw();"
        " g.drawImage(canvas, 0, 0); const { data: dots } = g.getImageData(0, 0, width, height);"
        " let found = 0;"
        " for (let i = 0; i < dots.length; i += 4) found += dots[i] === {} && dots[i + 1] === {}"
        " && dots[i + 2] === {}; return found; })"
    )
    room, picture = (0xA2, 0x1C, 0xAF), (0xE8, 0x79, 0xF9)
    counts = "[{}('room'), {}('picture')]".format(
        *(count.replace("{}", "%d") % color for color in (room, picture))
    )
    assert browser.run(counts) == [0, 0]
    lines = browser.run("series.length")
    compared(browser, tmp_path, poses, away)
    assert min(browser.run(counts)) > 50
    assert browser.run("series.length") == 2 * lines
    # Dashed lines: two of them, each point by point.
    record(browser, "setLineDash")
    assert (
        browser.run("calls.length = 0; drawCurves(); calls.filter(([a]) => a.length).length") == 2
    )

    # On the first one's pelvis, then turned and scaled onto it: the head is where that says.
    where = "second.inRoom(9)[0].place(10)"
    assert browser.run(where) == pytest.approx([0, 0, 1440], abs=0.1)
    browser.choose("placing", "root")
    assert browser.run(where) == pytest.approx([0, 0, 1440 - 810 + 900], abs=0.1)
    browser.choose("placing", "fit")
    a, b = poses.pose_world[0, 9].astype(float), away.pose_world[0, 9].astype(float)
    fitted = np.array(browser.run("data.names.map((_, j) => second.inRoom(9)[0].place(j))"))
    assert np.linalg.norm(fitted - a, axis=-1).mean() == pytest.approx(p_mpjpe(b, a), abs=0.1)

    browser.click("close")
    assert browser.run("second === null && document.getElementById('comparison').hidden")
    assert browser.run(counts) == [0, 0]
    assert browser.run("[series.length, curves().length]") == [lines, 7]
    assert browser.problems == []


def test_files_may_be_dropped(browser, tmp_path):
    poses = sample_poses()
    write_page(tmp_path / "first.html", poses)
    write_npz(tmp_path / "second.npz", poses)
    browser.open(tmp_path / "first.html")
    # A file that takes long, and another one before it has been read: the last chosen counts.
    browser.run(
        "compareWith({ name: 'slow', arrayBuffer: () => new Promise(done => { late = done; }) }); 0"
    )
    browser.drop(*browser.middle_of("curves"), tmp_path / "second.npz")
    browser.wait_for("second")
    assert browser.run(MEANS)[0][2] == 50
    browser.run("late(new ArrayBuffer(1)); new Promise(done => setTimeout(done))")
    assert browser.run(TOLD) == ""
    assert browser.problems == []


def test_other_forms_of_a_result(browser, tmp_path):
    """One person without the axis of people, as the live page saves; no times, as we once wrote;
    joints in another order; arrays that lie otherwise in the file."""
    poses = restless()
    write_page(tmp_path / "first.html", poses)
    write_json(tmp_path / "poses.json", poses)
    browser.open(tmp_path / "first.html")
    plain = json.loads((tmp_path / "poses.json").read_text())

    names = ("times", "size", "joint_names", "parents")
    live = {name: plain[name] for name in names}
    live["pose_world"] = plain["pose_world"][0]
    live["keypoints_2d"] = poses.keypoints_2d[0].tolist()
    once = {name: plain[name] for name in ("fps", "joint_names", "pose_world")}
    order = np.random.default_rng(0).permutation(17)
    other = plain | {
        "joint_names": [plain["joint_names"][j] for j in order],
        "pose_world": poses.pose_world[:, :, order].tolist(),
    }
    for name, content in (("live", live), ("once", once), ("other", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    write_npz(tmp_path / "poses.npz", poses)
    arrays = dict(np.load(tmp_path / "poses.npz"))
    arrays["pose_world"] = np.asfortranarray(arrays["pose_world"].astype(np.float64))
    arrays["more"] = np.array([{"a": 1}], dtype=object)  # nobody reads it
    np.savez(tmp_path / "own.npz", **arrays)
    for name in ("live.json", "once.json", "other.json", "own.npz"):
        browser.run("second = null; 0")
        browser.give("other", tmp_path / name)
        browser.wait_for(f"second && {TOLD} === ''")
        [[relative, fitted, frames, _]] = browser.run(MEANS)
        assert [relative, fitted, frames] == pytest.approx([0, 0, 50], abs=0.1), name
    assert browser.problems == []


def test_what_is_no_result_is_told_in_a_sentence(browser, tmp_path):
    poses = sample_poses(frames=10)
    write_page(tmp_path / "first.html", poses)
    write_json(tmp_path / "poses.json", poses)
    write_npz(tmp_path / "poses.npz", poses)
    browser.open(tmp_path / "first.html")
    browser.give("other", tmp_path / "poses.json")
    browser.wait_for("second")

    plain = json.loads((tmp_path / "poses.json").read_text())
    packed = (tmp_path / "poses.npz").read_bytes()
    page = (tmp_path / "first.html").read_text()
    gap, hole = (np.array(plain["pose_world"]).tolist() for _ in range(2))
    gap[0][3].pop()
    hole[0][3][2][1] = None
    coco = [f"joint {j}" for j in range(17)]
    choose = "choose a poses.json, a poses.npz or a page (.html) that demo/vis.py wrote."
    for name, content, said in (
        ("notes.txt", "Dear diary", f"(neither JSON nor .npz nor a page); {choose}"),
        ("empty.json", "", f"(neither JSON nor .npz nor a page); {choose}"),
        ("cut.json", json.dumps(plain)[:-100], choose),
        ("cut.npz", packed[:-200], f"(the zip has no end); {choose}"),
        ("site.html", "<!doctype html><p>Hello", f"(a page without poses); {choose}"),
        ("old.html", page.replace('"roots"', '"r"'), "(a page of another version, without roots)"),
        ("keypoints.json", json.dumps({"keypoints": [[[1, 2, 1]]]}), f"no pose_world; {choose}"),
        ("list.json", "[1, 2]", choose),
        (
            "coco.json",
            json.dumps(plain | {"joint_names": coco}),
            "has other joints than this page: pelvis is not among its 17.",
        ),
        (
            "few.json",
            json.dumps(plain | {"pose_world": plain["pose_world"][0][:9]}),
            "is damaged: pose_world is 9 × 17 × 3, for 1 × 10 × 17 people, frames and joints.",
        ),
        ("gap.json", json.dumps(plain | {"pose_world": gap}), "(pose_world has gaps)"),
        (
            "hole.json",
            json.dumps(plain | {"pose_world": hole}),
            "is damaged: not all of pose_world are numbers.",
        ),
        (
            "back.json",
            json.dumps(plain | {"times": plain["times"][::-1]}),
            "is damaged: its times do not rise.",
        ),
    ):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        told = given(browser, path)
        assert told.startswith(name) and said in told, (name, told)
        # What was compared stays.
        assert browser.run("second.source.name") == "poses.json"
    assert browser.problems == []


def test_results_that_never_meet(browser, tmp_path):
    poses = sample_poses(frames=10)
    write_page(tmp_path / "first.html", poses)
    write_npz(tmp_path / "late.npz", replace(poses, times=poses.times + 60))
    poses.stretch[:, 3:] = 0
    write_npz(tmp_path / "gone.npz", poses)
    browser.open(tmp_path / "first.html")
    told = given(browser, tmp_path / "late.npz")
    assert "goes from 60.00 to 60.36 s, this page from 0.00 to 0.36 s" in told
    assert browser.run(MEANS) == [None]
    browser.run("document.getElementById('later').select()")
    for key in "-60":
        browser.press(key)
    assert browser.run(f"[second.later, {TOLD}, second.distances[0].frames]") == [-60, "", 10]

    browser.give("other", tmp_path / "gone.npz")
    browser.wait_for("second.source.name === 'gone.npz'")
    browser.run(
        "let l = document.getElementById('later'); l.value = 0.28;"
        "l.dispatchEvent(new Event('input')); 0"
    )
    assert browser.run("second.distances[0].frames") == 3
    browser.run("first.stretch.fill(0, 5); l.dispatchEvent(new Event('input')); 0")
    assert browser.run(TOLD) == "Nobody of gone.npz is there when somebody of this page is."
    assert browser.problems == []
