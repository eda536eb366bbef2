"""The web page, driven in a headless Chromium."""

import re
from dataclasses import replace

import numpy as np
import pytest

from demo.export.page import write_page
from tests.page_samples import record, sample_poses

# A digest of a canvas's pixels: what is drawn has changed or not.
PIXELS = "document.getElementById('{}').toDataURL()"


def test_the_page_works_and_asks_for_nothing(browser, tmp_path):
    write_page(tmp_path / "someone <script> & co.html", sample_poses())
    browser.open(tmp_path / "someone <script> & co.html")
    assert browser.run("document.title") == "someone <script> & co"
    assert browser.run("[F, P, J]") == [50, 1, 17]

    # The numbers arrive: the left wrist at frame 20, in cm; the 2D head.
    assert browser.run("height('left_wrist')(first, 0, 20)") == pytest.approx(155)
    assert browser.run(
        "angle('left_hip', 'left_knee', 'left_ankle')(first, 0, 0)"
    ) == pytest.approx(180)
    assert browser.run("first.pixel(0, 7, 10)[0]") == pytest.approx(320, abs=0.05)

    before = {name: browser.run(PIXELS.format(name)) for name in ("room", "picture", "curves")}
    browser.run("seek(30)")
    after = {name: browser.run(PIXELS.format(name)) for name in before}
    assert all(before[name] != after[name] for name in before)
    assert browser.run("document.getElementById('now').textContent").startswith("1.20 s")

    # Turn and zoom.
    x, y = browser.middle_of("room")
    browser.mouse("mousePressed", x, y, button="left", clickCount=1)
    browser.mouse("mouseMoved", x + 80, y + 20, button="left", buttons=1)
    browser.mouse("mouseReleased", x + 80, y + 20, button="left", clickCount=1)
    assert browser.run("view.turn") == pytest.approx(-35 - 0.4 * 80)
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-240)
    browser.wait_for("view.zoom > 1.2")
    assert browser.run(PIXELS.format("room")) != after["room"]

    # Play, pause, speed.
    browser.run("seek(0)")
    browser.click("play")
    browser.wait_for("state.frame >= 3")
    browser.click("play")
    assert browser.run("state.playing") is False
    browser.choose("speed", "4")
    browser.click("play")
    browser.wait_for("state.frame === F - 1 && !state.playing")

    # Every curve.
    for index in range(browser.run("curves().length")):
        browser.choose("curve", str(index))
        assert browser.run("series.every(line => line.values.every(Number.isFinite))")

    # Dark mode, as soon as the reader's system has it.
    light = browser.run(PIXELS.format("room"))
    for scheme in ("dark", "light"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.call("Emulation.setEmulatedMedia", features=[feature])
        browser.wait_for(
            f"({PIXELS.format('room')} === {light!r}) === {str(scheme == 'light').lower()}"
        )
    assert browser.problems == []


def test_the_page_of_several_people_and_of_one_frame(browser, tmp_path):
    for name, poses in (
        ("two", sample_poses(people=2, size=(480, 640))),
        ("one", sample_poses(1, 1)),
        ("wide", sample_poses(1, 2, size=(640, 200))),
    ):
        write_page(tmp_path / f"{name}.html", poses)
        browser.open(tmp_path / f"{name}.html")
        people = len(poses.persons)
        assert browser.run("document.getElementById('who').hidden") is (people == 1)
        browser.run("seek(0)")
        # However often it is drawn, the room keeps its size.
        size = "[room.canvas.width, room.canvas.height]"
        assert browser.run(f"draw(); {size}") == browser.run(f"draw(); draw(); {size}")
        browser.click("play")
        browser.wait_for("!state.playing || state.frame > 0")
    assert browser.problems == []


def test_the_page_draws_people_where_they_are(browser, tmp_path):
    poses = sample_poses(people=2)
    poses.stretch[1, :10] = poses.stretch[1, 40:] = 0
    poses.stretch[1, 21:] *= 2
    write_page(tmp_path / "page.html", poses)
    browser.open(tmp_path / "page.html")
    seen = [browser.run(f"first.present(1, {frame})") for frame in (0, 9, 10, 20, 39, 40)]
    assert seen == [False, False, True, True, True, False]
    assert browser.run("[0, 49].every(f => first.present(0, f))")
    # Each one's number is written in the picture and in the room.
    record(browser, "fillText")
    for frame, numbers in ((0, ["1"]), (20, ["1", "2"])):
        written = f"state.frame = {frame}; calls.length = 0; drawPicture(); drawRoom(); calls"
        assert browser.run(f"{written}.map(([text]) => text)") == 2 * numbers
    assert browser.problems == []


def test_curves_end_where_a_stretch_ends(browser, tmp_path):
    poses = sample_poses(people=2)
    poses.stretch[1, :10] = poses.stretch[1, 40:] = 0
    poses.stretch[1, 21:] *= 2
    write_page(tmp_path / "page.html", poses)
    browser.open(tmp_path / "page.html")
    record(browser, "lineTo")
    lengths = []
    for person in (0, 1):
        browser.run(f"state.person = {person}; compute(); calls.length = 0; drawCurves()")
        lengths.append(browser.run("calls.length"))
    # Two lines of 50 frames; of 30 in two stretches. The scale's and the cursor's are alike.
    assert lengths[0] - lengths[1] == 2 * 49 - 2 * (30 - 2)
    assert "–" in browser.run("document.getElementById('legend').textContent")  # away at frame 0
    assert browser.problems == []


@pytest.mark.parametrize("step", [200, 2000])  # 2 m/frame: farther than 16-bit millimetres
def test_the_page_goes_along_with_those_who_walk(browser, tmp_path, step):
    poses = sample_poses()
    poses.pose_world[..., 0] += step * np.arange(50)[None, :, None]
    browser.events.clear()
    write_page(tmp_path / "walk.html", poses)
    browser.open(tmp_path / "walk.html")
    for frame in (0, 25, 49):
        browser.run(f"seek({frame})")
        assert browser.run("room.middle[0]") == pytest.approx(step * frame, abs=1.5 * step)
        x, y, _ = browser.run("room.project([first.place(0, state.frame, 0)[0], 0, 900])")
        width, height = browser.run("[room.canvas.width, room.canvas.height]")
        assert width / 4 < x < 3 * width / 4 and height / 4 < y < 3 * height / 4
    assert browser.run("trail(first, 0)[0]") == pytest.approx([49 * step, 0], abs=2)  # now
    assert browser.run("trail(first, 0).at(-1)") == [0, 0]  # at first
    assert browser.problems == []


def test_the_page_is_one_file(tmp_path):
    write_page(tmp_path / "page.html", sample_poses(frames=1))
    page = (tmp_path / "page.html").read_text()
    assert not re.search(r"https?://|src=\"(?!data:)|@import|fetch\(|XMLHttpRequest", page)


def test_a_portrait_is_seen_with_its_room_on_a_telephone(browser, tmp_path):
    """One above the other, both inside of the window, the picture in its own shape."""
    poses = replace(sample_poses(), size=(1080, 1920))
    write_page(tmp_path / "portrait.html", poses)
    metrics = "Emulation.setDeviceMetricsOverride"
    browser.call(metrics, width=400, height=800, deviceScaleFactor=1, mobile=False)
    try:
        browser.open(tmp_path / "portrait.html")
        picture, room = (
            browser.run(
                f"(() => {{ const b = document.getElementById('{name}').getBoundingClientRect();"
                " return [b.left, b.top, b.right, b.bottom]; })()"
            )
            for name in ("picture", "room")
        )
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")
    assert picture[3] <= room[1] and room[3] <= 800 and room[3] - room[1] >= 280
    shape = (picture[2] - picture[0]) / (picture[3] - picture[1])
    assert shape == pytest.approx(1080 / 1920, abs=0.01)
