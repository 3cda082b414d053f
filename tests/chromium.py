"""Chromium under test, by the WebDriver protocol: what a page shows, asks for and complains of.

https://www.w3.org/TR/webdriver2 (each call is one HTTP request with JSON)
"""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needed = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="Chromium and its driver are not installed"
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""What an element's identifier is called (section 12.1)."""


class Page:
    """A window of a browser without a screen."""

    def __init__(self, driver, width=1280, height=900, dark=False):
        self.driver = driver
        arguments = ["--headless=new", f"--window-size={width},{height}", "--disable-gpu",
                     "--disable-dev-shm-usage", "--force-device-scale-factor=1"]  # fmt: skip
        arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
        arguments += ["--force-dark-mode"] if dark else []
        phone = {"mobileEmulation": {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1,
                                                       "mobile": True}}} if width < 600 else {}  # fmt: skip
        wanted = {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"binary": BROWSER, "args": arguments, **phone},
        }
        made = _call(f"{driver}/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"{driver}/session/{made['sessionId']}"

    def close(self):
        _call(self.session, method="DELETE")

    def open(self, address):
        _call(f"{self.session}/url", {"url": address})

    def ask(self, script, *given):
        """Return what a piece of script in the page returns; `arguments` holds what is given."""
        return _call(f"{self.session}/execute/sync", {"script": script, "args": list(given)})

    def find(self, selector):
        found = _call(f"{self.session}/element", {"using": "css selector", "value": selector})
        return f"{self.session}/element/{found[ELEMENT]}"

    def click(self, selector):
        _call(f"{self.find(selector)}/click", {})

    def type(self, selector, text):
        _call(f"{self.find(selector)}/value", {"text": text})

    def point_at(self, selector):
        """Move the pointer onto an element."""
        _call(f"{self.find(selector)}/displayed", method="GET")
        self.ask("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        origin = {ELEMENT: self.find(selector).rpartition("/")[2]}
        move = {"type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": origin}
        pointer = {"type": "pointer", "id": "mouse", "actions": [move]}
        _call(f"{self.session}/actions", {"actions": [pointer]})

    def text(self, selector="body"):
        return self.ask("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def until(self, condition, seconds=300.0):
        """Wait until a condition of the page holds, and return what it is."""
        ends = time.monotonic() + seconds
        while not (found := condition(self)):
            assert time.monotonic() < ends, f"it did not come about; the page says:\n{self.text()}"
            time.sleep(0.1)
        return found

    def too_wide(self):
        """Return by how many pixels the page is wider than its window."""
        return self.ask("const e = document.documentElement; return e.scrollWidth - e.clientWidth")

    def complaints(self):
        """Return what the console says since it was asked last."""
        return [entry["message"] for entry in self._log("browser")]

    def requests(self):
        """Return the addresses that were asked for since it was asked last."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        sent = (e["params"] for e in events if e["method"] == "Network.requestWillBeSent")
        return [one["request"]["url"] for one in sent]

    def picture(self, path):
        """Write what the window shows as a PNG."""
        path.write_bytes(base64.b64decode(_call(f"{self.session}/screenshot", method="GET")))

    def _log(self, kind):
        return _call(f"{self.session}/se/log", {"type": kind})


@contextlib.contextmanager
def driver():
    """Start the driver at a free port, and give its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([DRIVER, f"--port={port}"], **quiet)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                if _call(f"{address}/status", method="GET")["ready"]:
                    break
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


def _call(address, given=None, method="POST"):
    body = None if method != "POST" else json.dumps(given).encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(address, body, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        said = json.load(error)["value"]
        raise AssertionError(f"{said['error']}: {said['message']}") from None
