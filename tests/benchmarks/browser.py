"""How fast the live page is in a headless Chromium, here.

    python -m demo.web --output FOLDER
    python -m tests.benchmarks.browser FOLDER [--video FILE]

Each network's time in ONNX Runtime's WebAssembly, alone: on one thread, as from `python -m
http.server`, with the headers that let a browser give threads. The time of the clock, and the
time that the browser's processes computed, which other programs change less. With a video, what the
page shows of it.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from lib.cli import CommandParser, run_main
from lib.errors import UserError
from tests.browser import CHROMIUM, Browser
from tests.web_server import served

RUNS = 15
NETWORKS = {
    "landmarks": "(await import(base + 'landmarks.js')).Landmarks.load().then(l => l.network)",
    "MultiPose": "(await import(base + 'multipose.js')).MultiPose.load().then(m => m.network)",
    "lifter": "(await import(base + 'networks.js')).loadNetwork('lifter.onnx',"
    " [1, facts.lifter.frames, 17, 3], Float32Array)",
}
INPUTS = {
    "landmarks": "new Float32Array(3 * facts.detector.landmarks.side ** 2).fill(0.5)",
    "MultiPose": "new Int32Array(3 * facts.detector.multipose.size[0]"
    " * facts.detector.multipose.size[1]).fill(99)",
    "lifter": "new Float32Array(51 * facts.lifter.frames).map((_, i) => Math.sin(i))",
}


def main() -> int:
    parser = CommandParser(prog="python -m tests.benchmarks.browser", description=__doc__)
    parser.add_argument("folder", help="that python -m demo.web has written")
    parser.add_argument("--video", metavar="FILE", help="to be shown, at its own speed")
    options = parser.parse_args()
    if CHROMIUM is None:
        raise UserError("Chromium is not installed")
    print("network     threads  ms (median)  ms of computing")
    for isolated in (False, True):
        with tempfile.TemporaryDirectory() as profile, served(options.folder, isolated) as address:
            browser = Browser(Path(profile))
            open_page(browser, address)
            for name in NETWORKS:
                measure(browser, address, name)
            if options.video:
                print(watched(browser, Path(options.video)))
            browser.close()
    return 0


def open_page(browser: Browser, address: str) -> None:
    browser.open(address)
    browser.wait_for("typeof live !== 'undefined'")
    for worker in ("detection", "lifting"):
        browser.run(f"live.{worker}.ask('?').catch(() => 0)")


def measure(browser: Browser, address: str, name: str) -> None:
    """In a worker, as the page runs it."""
    worker = browser.workers[0]
    threads = browser.run(
        f"(async () => {{ const base = '{address}', {{ facts }} = await import(base + 'facts.js');"
        f" globalThis.network = await {NETWORKS[name]}; globalThis.input = {INPUTS[name]};"
        " for (let i = 0; i < 3; i++) await network(input);"
        " return crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1; })()",
        worker,
    )
    before = computed(browser)
    times = browser.run(
        f"(async () => {{ const times = []; for (let i = 0; i < {RUNS}; i++) {{ const start ="
        " performance.now(); await network(input); times.push(performance.now() - start); }"
        " return times; })()",
        worker,
    )
    computing = 1000 * (computed(browser) - before) / RUNS
    print(f"{name:10}  {threads:7}  {statistics.median(times):11.0f}  {computing:15.0f}")


def computed(browser: Browser) -> float:
    """Seconds that Chromium's processes have computed so far."""
    ticks, family = 0, {browser.pid}
    stats = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stats.append((folder / "stat").read_text().rpartition(")")[2].split())
        except OSError:  # it has ended
            continue
        stats[-1].insert(0, folder.name)
    for _ in range(5):  # generations
        family |= {int(stat[0]) for stat in stats if int(stat[2]) in family}
    ticks = sum(int(stat[12]) + int(stat[13]) for stat in stats if int(stat[0]) in family)
    return ticks / os.sysconf("SC_CLK_TCK")


def watched(browser: Browser, video: Path) -> str:
    browser.give("video", video)
    state = "document.getElementById('state').textContent"
    while not browser.run(f"/ended|{video.name}:/.test({state})"):
        time.sleep(0.1)
    return f"{video.name}: {browser.run(state)}"


if __name__ == "__main__":
    run_main(main)
