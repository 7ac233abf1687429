"""Headless Chromium over its debugging pipe: no driver and no package needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # a container has no user namespaces
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2",  # a mouse, not a finger
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing outside this machine
    "--remote-debugging-pipe",
)
PATIENCE = 60
"""Seconds that a page has to load."""


class Page:
    """One tab, offline; ``trouble`` collects console errors and requests that were made."""

    def __init__(self, send, receive):
        self._send, self._receive = send, receive
        self._count, self._session = 0, None
        self.trouble = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self._network(offline=True)

    def call(self, method, **params):
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._send(message)
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.trouble.append(params["exceptionDetails"]["text"])
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.trouble.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" if params["type"] == "error":
                self.trouble.append(str(params["args"]))
            case "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("file:", "data:", "about:")):
                    self.trouble.append(f"fetches {url}")

    def open(self, path, width, height=900, *, dark=False, scripts=True):
        """Open a file at a width in CSS pixels."""
        self._go(path.as_uri(), width, height, dark, scripts)
        self.wait_for("document.readyState + location.protocol === 'completefile:'")

    def visit(self, url, shown, width=1440, height=900):
        """Open a page of a server on this machine, and wait until the expression holds there."""
        self._network(offline=False)
        self.call("Page.navigate", url="about:blank")  # else a change of the hash loads nothing
        self._go(url, width, height)
        self.wait_for(shown)

    def wait_for(self, expression):
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.05)

    def _network(self, *, offline):
        free = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.call("Network.emulateNetworkConditions", offline=offline, **free)

    def _go(self, url, width, height, dark=False, scripts=True):
        shape = {"width": width, "height": height, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", deviceScaleFactor=1, **shape)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Page.navigate", url=url)

    def evaluate(self, code):
        """Value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key, code=0):
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def screenshot(self, path, *, whole=True):
        """Write a picture of the page, or of the window."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browse(profile):
    """Start Chromium with a fresh profile in folder ``profile``; give its :class:`Page`."""
    to_read, we_write = os.pipe()
    we_read, to_write = os.pipe()

    def pipes():  # in the child: commands come on 3, answers go on 4
        os.dup2(to_read, 13)
        os.dup2(to_write, 14)
        os.dup2(13, 3)
        os.dup2(14, 4)

    process = subprocess.Popen(
        [FOUND, *FLAGS, f"--user-data-dir={profile}"],
        preexec_fn=pipes,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    with os.fdopen(we_read, "rb") as answers, os.fdopen(we_write, "wb", 0) as commands:

        def send(message):
            commands.write(json.dumps(message).encode() + b"\0")

        def receive():
            data = bytearray()
            while (byte := answers.read(1)) != b"\0":
                assert byte, "Chromium has ended"
                data += byte
            return json.loads(data)

        try:
            yield Page(send, receive)
        finally:
            process.terminate()
            process.wait(20)
