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
# Of keys that have no letter. [developer.mozilla.org, KeyboardEvent.keyCode]
KEY_CODES = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowRight": 39,
}
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
            " --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
            f" --window-size=1200,900 --user-data-dir={profile}"
        )
        self._process = subprocess.Popen(
            [CHROMIUM, *flags.split(), "about:blank"],
            preexec_fn=connect,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid
        os.close(down)
        os.close(up)
        self._number, self._buffer, self._session = 0, b"", None
        self._home = ""  # the address that the page comes from, which it may ask for more
        self.problems: list[str] = []  # what a console would show in red, and network requests
        self.events: list[dict] = []
        self.workers: list[str] = []  # of the page, in the order of their start
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        # Workers wait until they are watched, too.
        self.call(
            "Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True
        )

    def call(self, method: str, session: str | None = None, **params: object) -> dict:
        """session: of a worker, in place of the page's."""
        number = self._send(session or self._session, method, **params)
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _send(self, session: str | None, method: str, **params: object) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._down, json.dumps(message).encode() + b"\0")
        return self._number

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
            own = self._home and url.startswith(self._home)
            if not own and not re.match(r"(file|data|blob|about):", url):
                self.problems.append(f"request to {url}")
        elif method == "Page.loadEventFired":
            self.events.append(params)
        elif method == "Target.attachedToTarget" and params["targetInfo"]["type"] == "worker":
            self.workers.append(params["sessionId"])
            for watch in ("Runtime.enable", "Log.enable", "Network.enable"):
                self._send(params["sessionId"], watch)
            self._send(params["sessionId"], "Runtime.runIfWaitingForDebugger")

    def open(self, page: Path | str) -> None:
        """A file, or what a server has at an address."""
        self.events.clear()
        self.workers.clear()
        self._home = page if isinstance(page, str) else ""
        url = page if isinstance(page, str) else page.resolve().as_uri()
        self.call("Page.navigate", url=url)
        while not self.events:
            self._next()

    def run(self, script: str, worker: str | None = None):
        """The script's value, or what its promise becomes; worker: one of `workers`."""
        ask = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", worker, **ask)
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

    def press(self, key: str, shift: bool = False) -> None:
        """A key by the name that its events have: 'a', '?', ' ', 'Tab', 'ArrowLeft' …"""
        code = KEY_CODES.get(key, ord(key[0].upper()))
        what = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **what)
        self.call("Input.dispatchKeyEvent", type="keyUp", **what)

    def drop(self, x: float, y: float, *files: Path) -> None:
        """Files out of a folder, onto a place of the page."""
        what = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=what)

    def choose(self, name: str, value: str) -> None:
        element = f"document.getElementById('{name}')"
        self.run(f"{element}.value = '{value}'; {element}.dispatchEvent(new Event('change'))")

    def give(self, name: str, file: Path) -> None:
        """Choose a file in an input."""
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        found = self.call("DOM.querySelector", nodeId=document, selector=f"#{name}")
        self.call("DOM.setFileInputFiles", nodeId=found["nodeId"], files=[str(file)])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)
        os.close(self._down)
        os.close(self._up)
