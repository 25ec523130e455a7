"""A headless Chromium driven through its DevTools pipe, with the standard library alone.

Messages are JSON ended by a zero byte, read from file descriptor 3 of the browser and written to 4.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Becomes the browser, with two given descriptors as 3 and 4, first moved out of the way of these.
_ON_3_AND_4 = """
import fcntl, os, sys
high = [fcntl.fcntl(int(end), fcntl.F_DUPFD_CLOEXEC, 10) for end in sys.argv[1:3]]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find() -> str | None:
    """Path of an installed Chromium or Chrome, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextlib.contextmanager
def browser(binary: str, profile: Path):
    """Start a browser with its own profile; yields the connection to it and ends it after."""
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--hide-scrollbars", "--disable-background-networking",
             f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_3_AND_4, str(their_in), str(their_out), binary, *flags],
        pass_fds=(their_in, their_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_in)
    os.close(their_out)
    connection = Connection(our_in, our_out)
    try:
        yield connection
    finally:
        with contextlib.suppress(OSError, TimeoutError):
            connection.call("Browser.close")
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(our_in)
        os.close(our_out)


class Connection:
    """Calls to the browser; what it reports by itself is kept in `events`."""

    def __init__(self, reading: int, writing: int):
        self._reading, self._writing = reading, writing
        self._buffer, self._last = b"", 0
        self.events: list[dict] = []

    def call(self, method: str, session: str | None = None, **parameters) -> dict:
        """The result of one method of the DevTools protocol."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        return self._read(lambda found: found.get("id") == self._last)["result"]

    def wait(self, method: str) -> dict:
        """The next event of a kind, or one that has come before."""
        for event in self.events:
            if event["method"] == method:
                return event
        return self._read(lambda found: found.get("method") == method)

    def _read(self, wanted, seconds: float = 60) -> dict:
        end = time.monotonic() + seconds
        while True:
            while b"\0" in self._buffer:
                text, self._buffer = self._buffer.split(b"\0", 1)
                message = json.loads(text)
                if "error" in message:
                    raise AssertionError(f"browser: {message['error']}")
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            if not select.select([self._reading], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser did not answer")
            part = os.read(self._reading, 1 << 20)
            if not part:
                raise OSError("the browser ended")
            self._buffer += part


class Tab:
    """A page opened at a width, in light or dark mode."""

    def __init__(self, connection: Connection, url: str, *, width: int = 1280, dark: bool = False):
        target = connection.call("Target.createTarget", url="about:blank")["targetId"]
        attached = connection.call("Target.attachToTarget", targetId=target, flatten=True)
        self._connection, self._session = connection, attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        connection.events.clear()
        self.call("Page.navigate", url=url)
        connection.wait("Page.loadEventFired")

    def call(self, method: str, **parameters) -> dict:
        """One method in this tab."""
        return self._connection.call(method, self._session, **parameters)

    def value(self, expression: str):
        """What a JavaScript expression gives, as Python."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def events(self, method: str) -> list[dict]:
        """Parameters of the events of a kind since the page was opened."""
        self.value("1")  # what is under way is reported before the answer
        return [e["params"] for e in self._connection.events if e["method"] == method]

    def move(self, x: float, y: float) -> None:
        """Move the mouse to a place of the viewport."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        """Press and release the left button at a place of the viewport."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press and release a named key: Tab, ArrowDown, Enter."""
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
                 "ArrowDown": 40}  # fmt: skip
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode=codes[key])  # fmt: skip

    def screenshot(self, whole: bool = False) -> bytes:
        """The window, or the whole page, as a PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])
