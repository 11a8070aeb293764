"""A real browser without a window, one process for many pages.

It is spoken to over two pipes (Chrome's DevTools protocol, a message ends with a zero byte), so it
takes no port.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.waiting import wait_until

__all__ = ["Browser", "Page", "find_browser", "start_browser"]

PROGRAMS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
FLAGS += ["--remote-debugging-pipe"]
READS_ON, WRITES_ON = 3, 4
"""The descriptors that the browser reads and writes messages on."""


def find_browser() -> str | None:
    """Return the path of a browser, where there is one."""
    return next((path for path in PROGRAMS if Path(path).exists()), None)


MISSING = """
(words => {
  const text = document.documentElement.outerHTML.replace(/<[^>]+>/g, " ").replace(/\\s+/g, " ");
  return words.filter(word => !text.includes(word));
})(%s)
"""


class Browser:
    """A running browser."""

    def __init__(self, reading: int, writing: int) -> None:
        self._answers, self._asking = os.fdopen(reading, "rb"), os.fdopen(writing, "wb")
        self._numbers = itertools.count(1)
        self._read_ahead = b""

    def close(self) -> None:
        """Hang up; the browser ends by that."""
        self._asking.close()
        self._answers.close()

    def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and return its result."""
        number = next(self._numbers)
        question: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            question["sessionId"] = session
        self._asking.write(json.dumps(question).encode() + b"\0")
        self._asking.flush()
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return dict(answer["result"])

    @contextlib.contextmanager
    def open(
        self,
        address: str,
        *,
        width: int = 1440,
        height: int = 900,
        dark: bool = False,
        scripts: bool = True,
    ) -> Iterator[Page]:
        """Open a page; what a server's pages have in common is loaded once.

        Args:
            address: of the page.
            width: of the window, in pixels.
            height: of the window, in pixels.
            dark: whether its user prefers dark pages.
            scripts: whether scripts run.
        """
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        try:
            attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
            session = attached["sessionId"]
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            self.ask("Emulation.setDeviceMetricsOverride", session, **size)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self.ask("Emulation.setEmulatedMedia", session, features=[scheme])
            self.ask("Emulation.setScriptExecutionDisabled", session, value=not scripts)
            self.ask("Page.navigate", session, url=address)
            yield Page(self, session, address)
        finally:
            self.ask("Target.closeTarget", targetId=target)

    def _read(self) -> bytes:
        while b"\0" not in self._read_ahead:
            arrived = os.read(self._answers.fileno(), 1 << 16)
            assert arrived, "the browser has ended"
            self._read_ahead += arrived
        message, _, self._read_ahead = self._read_ahead.partition(b"\0")
        return message


class Page:
    """An open page."""

    def __init__(self, browser: Browser, session: str, address: str) -> None:
        self._browser, self._session, self._address = browser, session, address

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self._browser.ask(
            "Runtime.evaluate", self._session, expression=script, returnByValue=True
        )
        return answer["result"].get("value")

    def wait_until(self, condition: str) -> None:
        """Return when a JavaScript expression is true."""
        wait_until(lambda: self.evaluate(condition) is True, f"{condition} on {self._address}")

    def move_to(self, x: float, y: float) -> None:
        """Move the pointer, in pixels from the window's top left corner."""
        self._ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        """Press and release the left button."""
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press and release a key, named as JavaScript does: Tab, Enter, Escape."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39}
        text = {"text": "\r"} if key == "Enter" else {}
        named = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self._ask("Input.dispatchKeyEvent", type="keyDown", **named, **text)
        self._ask("Input.dispatchKeyEvent", type="keyUp", **named)

    def photograph(self, file: Path) -> None:
        """Write the whole page as a PNG, for somebody to look at."""
        shot = self._ask("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.ask(method, self._session, **params)

    def wait_for(self, *words: str) -> None:
        """Return when all of these are in the page's text, which may be hidden."""
        missing = list(words)

        def shown() -> bool:
            missing[:] = self.evaluate(MISSING % json.dumps(words)) or []
            return not missing

        wait_until(shown, f"{words} on {self._address}")


@contextlib.contextmanager
def start_browser(program: str) -> Iterator[Browser]:
    """Start a browser for a block."""
    ours_to_read, its_to_write = os.pipe()
    its_to_read, ours_to_write = os.pipe()

    def redirect() -> None:
        # First out of the way: they may have the very numbers that the browser expects.
        reading = fcntl.fcntl(its_to_read, fcntl.F_DUPFD_CLOEXEC, 10)
        writing = fcntl.fcntl(its_to_write, fcntl.F_DUPFD_CLOEXEC, 10)
        os.dup2(reading, READS_ON)
        os.dup2(writing, WRITES_ON)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=redirect,
            close_fds=False,  # all others close by themselves
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(its_to_read)
        os.close(its_to_write)
        browser = Browser(ours_to_read, ours_to_write)
        try:
            yield browser
        finally:
            browser.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
