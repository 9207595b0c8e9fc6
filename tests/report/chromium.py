"""Open a page in headless Chromium, driven over the DevTools protocol by kaleido's driver."""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

#: Path of Chromium, whose name varies between distributions; None if it isn't installed.
PATH = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

#: Resolves when plotly has fitted all figures to a new width, which takes it a while on a busy
#: machine, or after five seconds.
FITTED = """new Promise(done => {
  const fits = svg => svg.getBoundingClientRect().width <= svg.closest(".plot").clientWidth + 1;
  const check = left => left && ![...document.querySelectorAll(".plot .main-svg")].every(fits)
    ? setTimeout(check, 50, left - 1) : done();
  check(100);
})"""


class Visit:
    """An open page. faults: uncaught exceptions, console errors and requests, in order."""

    def __init__(self, tab: Any):
        self.tab = tab
        self.faults: list[str] = []

    async def send(self, command: str, **options: Any) -> dict[str, Any]:
        answer = await self.tab.send_command(command, options)
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}")
        return answer["result"]

    async def watch(self) -> None:
        async def thrown(event: dict[str, Any]) -> None:
            details = event["params"]["exceptionDetails"]
            self.faults.append(
                str(details.get("exception", {}).get("description") or details["text"])
            )

        async def logged(event: dict[str, Any]) -> None:
            if event["params"]["entry"]["level"] in ("error", "warning"):
                self.faults.append(event["params"]["entry"]["text"])

        async def called(event: dict[str, Any]) -> None:
            if event["params"]["type"] in ("error", "warning", "assert"):
                self.faults.append(
                    str([argument.get("value") for argument in event["params"]["args"]])
                )

        async def requested(event: dict[str, Any]) -> None:
            url = event["params"]["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:")):
                self.faults.append(f"asked the network for {url}")

        self.tab.subscribe("Runtime.exceptionThrown", thrown)
        self.tab.subscribe("Log.entryAdded", logged)
        self.tab.subscribe("Runtime.consoleAPICalled", called)
        self.tab.subscribe("Network.requestWillBeSent", requested)
        for domain in ("Runtime", "Log", "Network", "Page"):
            await self.send(f"{domain}.enable")

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression; promises are awaited."""
        answer = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def resize(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Set the viewport's width in CSS pixels; narrow ones are phones, without a scroll bar."""
        options = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.send("Emulation.setDeviceMetricsOverride", **options)
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[colours])
        await self.evaluate(FITTED)
        await self.settle()

    async def settle(self) -> None:
        """Wait until the browser has laid out and drawn the page."""
        await self.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))"
        )

    async def scroll_through(self) -> None:
        """Scroll from top to bottom, so that all figures are drawn, then back to the top."""
        await self.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
        top = 0
        while top < await self.evaluate("document.documentElement.scrollHeight"):
            await self.evaluate(f"scrollTo(0, {top})")
            await self.settle()
            top += 700
        await self.evaluate("scrollTo(0, 0)")

    async def picture(self, path: Path, whole: bool = True) -> None:
        """Return a PNG of the whole page, or of the visible part."""
        shot = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def pdf(self) -> bytes:
        return base64.b64decode((await self.send("Page.printToPDF", printBackground=False))["data"])


@contextlib.asynccontextmanager
async def visit(page: Path, width: int = 1280, dark: bool = False) -> AsyncIterator[Visit]:
    """Open a page and wait for its load event."""
    from choreographer import Browser

    async with Browser(path=PATH, headless=True) as browser:
        opened = Visit(await browser.create_tab("about:blank"))
        await opened.watch()
        await opened.resize(width, dark=dark)
        loaded = opened.tab.subscribe_once("Page.loadEventFired")
        await opened.send("Page.navigate", url=page.resolve().as_uri())
        await loaded
        await opened.settle()
        yield opened
