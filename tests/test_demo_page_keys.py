"""The web page by the keyboard alone, and to be read in light and dark."""

import numpy as np
import pytest

from demo.export.page import write_page
from tests.page_samples import sample_poses


@pytest.fixture
def page(browser, tmp_path):
    """Two people of 2 s, compared with themselves, so that every control is there."""
    path = tmp_path / "page.html"
    write_page(path, sample_poses(people=2))
    browser.open(path)
    browser.give("other", path)
    browser.wait_for("second")
    yield browser
    assert browser.problems == []


def test_keys_move_through_time(page):
    for key, shift, frame in (
        ("ArrowRight", False, 1),
        ("ArrowRight", True, 26),
        ("ArrowRight", False, 27),
        ("ArrowLeft", True, 2),
        ("ArrowLeft", False, 1),
        ("ArrowLeft", True, 0),
        ("End", False, 49),
        ("ArrowRight", False, 49),
        ("Home", False, 0),
    ):
        page.press(key, shift)
        assert page.run("state.frame") == frame, (key, shift)
    page.press("1")
    assert page.run("[state.speed, document.getElementById('speed').value]") == [0.1, "0.1"]
    page.press(" ")
    assert page.run("state.playing")
    page.press(" ")
    assert not page.run("state.playing")
    page.press("6")
    page.press(" ")
    page.wait_for("state.frame === F - 1 && !state.playing")


def test_a_second_is_a_frame_at_least(browser, tmp_path):
    poses = sample_poses(frames=4)
    poses.times[:] = [0, 2, 2.4, 3.1]
    write_page(tmp_path / "page.html", poses)
    browser.open(tmp_path / "page.html")
    frames = []
    for key in 3 * ["ArrowRight"] + 3 * ["ArrowLeft"]:
        browser.press(key, shift=True)
        frames.append(browser.run("state.frame"))
    assert frames == [1, 2, 3, 1, 0, 0]


def test_keys_turn_and_zoom_the_room(page):
    start = page.run("({ ...view })")
    for key, changed in (
        ("a", {"turn": start["turn"] - 10}),
        ("d", {}),
        ("w", {"tilt": start["tilt"] + 10}),
        ("s", {}),
        ("+", {"zoom": start["zoom"] * 1.2}),
        ("-", {}),
    ):
        page.press(key)
        assert page.run("({ ...view })") == pytest.approx({**start, **changed}), key
    for key in "aw+":
        page.press(key)
    page.press("r")
    assert page.run("({ ...view })") == start


def test_keys_choose_curve_and_person(page):
    number = page.run("curves().length")
    for key, shift, curve, person in (
        ("c", False, 1, 0),
        ("C", True, 0, 0),
        ("C", True, number - 1, 0),
        ("p", False, number - 1, 1),
        ("p", False, number - 1, 0),
    ):
        page.press(key, shift)
        assert page.run("[state.curve, state.person]") == [curve, person]


def test_the_list_of_keys_opens_and_closes(page):
    shown = "document.getElementById('help').open"
    page.press("?", shift=True)
    assert page.run(shown)
    assert page.run("document.querySelectorAll('#key-list dt').length === KEYS.length")
    page.press("ArrowRight")  # below the list nothing goes on
    assert page.run("state.frame") == 0
    page.press("?", shift=True)
    assert not page.run(shown)
    page.press("?", shift=True)
    page.press("Escape")
    page.wait_for(f"!{shown}")


def test_keys_in_controls_are_theirs(page):
    page.run("document.getElementById('later').select()")
    for key in "1 a":
        page.press(key)
    assert page.run("[state.speed, state.playing, view.turn, second.later]") == [1, False, -35, 1]
    page.run("document.getElementById('keys').focus()")
    page.press(" ")  # presses the button; nothing plays
    assert page.run("[document.getElementById('help').open, state.playing]") == [True, False]
    page.press("Escape")
    page.run("document.getElementById('scrub').focus()")
    page.press("ArrowRight")  # once, though the slider knows this key, too
    assert page.run("[state.frame, document.getElementById('scrub').value]") == [1, "1"]


def test_tab_reaches_every_control_and_shows_it(page):
    controls = page.run(
        "[...document.querySelectorAll('button, input, select, #room')]"
        ".filter(node => node.checkVisibility()).length"
    )
    page.run(
        "document.activeElement.blur(); getSelection().collapse(document.body, 0);"
        "outline = node => getComputedStyle(node).outlineStyle; 0"
    )
    reached = 0
    for _ in range(controls):
        page.press("Tab")
        reached += page.run(
            "document.activeElement !== document.body"
            " && !document.activeElement.dataset.reached"
            " && (document.activeElement.dataset.reached = 'yes') && ["
            "document.activeElement, document.activeElement.closest('label') ?? document.body"
            "].some(node => outline(node) === 'solid')"
        )
    assert reached == controls == 14


def test_every_control_has_a_name_and_a_role(page):
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = [
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if any(p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", ()))
        and node["role"]["value"] not in ("RootWebArea", "option")
    ]
    assert len(controls) == 14
    assert all(name for _, name in controls), controls
    assert ("application", page.run("room.canvas.ariaLabel")) in controls
    assert ("slider", "Frame") in controls
    assert ("combobox", "Person of the second result for person 2") in controls


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out(page, scheme):
    """As WCAG 2.2 has it: text by 4.5, lines by 3."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.call("Emulation.setEmulatedMedia", features=[feature])
    page.run("tell('Something is wrong.', true); showKeys()")
    texts = page.run(
        "[...document.querySelectorAll('main *, dialog *')]"
        ".filter(node => node.checkVisibility() && !node.ariaHidden"
        " && [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()))"
        ".map(node => { let under = node; while (getComputedStyle(under).backgroundColor ==="
        " 'rgba(0, 0, 0, 0)') under = under.parentElement; return [node.outerHTML,"
        " getComputedStyle(node).color, getComputedStyle(under).backgroundColor]; })"
    )
    assert len(texts) > 40
    for what, text, ground in texts:
        assert contrast(text, ground) >= 4.5, what
    page.run("document.getElementById('help').close()")
    sheet = page.run("getComputedStyle(room.canvas).backgroundColor")
    lines = "curves().flatMap(({ lines = [] }) => lines.map(({ color }) => color))"
    resolved = (
        "(color => { const g = document.createElement('canvas').getContext('2d');"
        "g.fillStyle = color; g.fillRect(0, 0, 1, 1);"
        "return `rgb(${[...g.getImageData(0, 0, 1, 1).data].slice(0, 3)})`; })"
    )
    for color in page.run(
        f"[css(room.canvas, '--second'), css(room.canvas, '--accent'),"
        f"css(room.canvas, '--ink'), ...{lines}].filter(Boolean).map({resolved})"
    ):
        assert contrast(color, sheet) >= 3, color
    page.call("Emulation.setEmulatedMedia", features=[])


def contrast(one: str, other: str) -> float:
    """Of colours 'rgb(r, g, b)'. [WCAG 2.2, contrast ratio and relative luminance]"""
    bright = []
    for color in (one, other):
        rgb = np.array([float(part) for part in color.strip("rgb()").split(",")]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        bright.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(bright) + 0.05) / (min(bright) + 0.05)
