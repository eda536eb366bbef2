"""A headless Chromium, driven over its debugging pipe."""

import base64
import json
import os
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SECONDS = 60  # before a browser that does not answer counts as broken


class Browser:
    """Chromium's debugging protocol over a pipe: no port and no library."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        down, self._down = os.pipe()
        self._up, up = os.pipe()

        def connect() -> None:
            ours, its = os.dup(down), os.dup(up)  # 3 and 4 may be among the four
            os.dup2(ours, 3)  # where Chromium reads
            os.dup2(its, 4)  # where it writes

        flags = (
            "--headless=new --no-sandbox --disable-gpu --remote-debugging-pipe --no-first-run"
            " --autoplay-policy=no-user-gesture-required"
            f" --window-size=1200,900 --user-data-dir={profile}"
        )
        self._process = subprocess.Popen(
            [CHROMIUM, *flags.split(), "about:blank"],
            preexec_fn=connect,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(down)
        os.close(up)
        self._number, self._buffer, self._session = 0, b"", None
        self.problems: list[str] = []  # what a console would show in red, and network requests
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._down, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._up], [], [], SECONDS)
            assert ready, "the browser does not answer"
            self._buffer += os.read(self._up, 1 << 20)
        line, self._buffer = self._buffer.split(b"\0", 1)
        event = json.loads(line)
        self._note(event.get("method"), event.get("params", {}))
        return event

    def _note(self, method: str | None, params: dict) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.problems.append(json.dumps(params["args"])[:500])
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not re.match(r"(file|data|blob|about):", url):
                self.problems.append(f"request to {url}")
        elif method == "Page.loadEventFired":
            self.events.append(params)

    def open(self, page: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self.events:
            self._next()

    def run(self, script: str):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.run(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.02)

    def mouse(self, kind: str, x: float, y: float, **more: object) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def middle_of(self, name: str) -> tuple[float, float]:
        box = self.run(
            f"(() => {{ const b = document.getElementById('{name}').getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return box[0], box[1]

    def click(self, name: str) -> None:
        x, y = self.middle_of(name)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def choose(self, name: str, value: str) -> None:
        element = f"document.getElementById('{name}')"
        self.run(f"{element}.value = '{value}'; {element}.dispatchEvent(new Event('change'))")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)
        os.close(self._down)
        os.close(self._up)
