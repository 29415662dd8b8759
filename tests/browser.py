"""A headless Chromium for tests, spoken to over a pipe in the DevTools protocol; no package is needed for it."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

EXECUTABLE = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
SECONDS = 60
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars "
    "--remote-debugging-pipe --disable-background-networking --disable-extensions --force-color-profile=srgb"
).split()


class Browser:
    """One page in a browser of its own.

    Errors of the page and requests that leave the machine are kept in ``problems``.
    """

    def __init__(self) -> None:
        assert EXECUTABLE
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The protocol's file descriptors are 3 and 4.
        script = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        command = ["bash", "-c", script, EXECUTABLE, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._loaded = False
        self.problems: list[str] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        os.close(self._write)
        self._process.terminate()
        self._process.wait(SECONDS)
        os.close(self._read)
        self._profile.cleanup()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command and its answer; what the page reports meanwhile is taken in."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def open(self, file: Path, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Load a file at a window size (phones: below 600 wide)."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1 if width > 600 else 2,
            mobile=width <= 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self._load("Page.navigate", url=file.absolute().as_uri())

    def reload(self) -> None:
        """Load the page again, at its address."""
        self._load("Page.reload")

    def _load(self, method: str, **parameters: Any) -> None:
        self._loaded = False
        self.send(method, **parameters)
        while not self._loaded:
            self._receive()
        # Until a new page has been painted, the browser drops clicks on it.
        self.run("new Promise(painted => requestAnimationFrame(() => requestAnimationFrame(painted)))")

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse at a place of the window, move it to another and let go."""
        where = [("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)]
        for kind, (x, y) in where:
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def downloads(self, folder: Path) -> None:
        """Keep what the page saves in this folder."""
        self.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        told = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def key(self, key: str, text: str = "") -> None:
        """Press a key: ``ArrowRight``, or a character as ``text`` too."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27}
        code = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "", **code)

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """A screenshot of the window, or of the whole page."""
        more = {"captureBeyondViewport": True} if whole else {}
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png", **more)["data"]))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            received = os.read(self._read, 1 << 20)
            assert received, "the browser has ended"
            self._buffer += received
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(parameters["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(parameters["entry"]["text"] + " " + parameters["entry"].get("url", ""))
        elif method == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith(("file:", "data:", "about:")):
                self.problems.append(f"asked for {url}")


def choose(browser: Browser, label: str, value: str) -> None:
    """Pick an option, by what the select is called and by what the option says."""
    told = browser.run(
        f"""(() => {{
          const label = [...document.querySelectorAll('label')].find(
            (label) => label.firstChild.textContent.trim() === {label!r} && label.querySelector('select'));
          const select = label.querySelector('select');
          const option = [...select.options].find((option) => option.textContent === {value!r});
          select.value = option.value;
          select.dispatchEvent(new Event('change'));
          return select.value === option.value;
        }})()"""
    )
    assert told


def click(browser: Browser, selector: str) -> None:
    """With the mouse, where the element is, so that something in front of it would get the click.

    Images that load above it move it: its place is what two frames agree on.
    """
    x, y = browser.run(
        f"""(async () => {{
          const element = document.querySelector({selector!r});
          const place = () => {{
            element.scrollIntoView({{ block: "center", behavior: "instant" }});
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
          }};
          const frame = () => new Promise((resolve) => setTimeout(resolve, 20));
          let before, now = place();
          do {{ before = now; await frame(); now = place(); }} while (String(before) !== String(now));
          return now;
        }})()"""
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def write(browser: Browser, selector: str, value: str) -> None:
    """Into an input."""
    browser.run(
        f"""(() => {{
          const input = document.querySelector({selector!r});
          input.value = {value!r};
          input.dispatchEvent(new Event("input"));
        }})()"""
    )


def title(browser: Browser) -> str:
    """What the viewer shows."""
    return browser.run("document.querySelector('#viewer-title').textContent")
