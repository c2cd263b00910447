"""The page as a person meets it: a real server process, a real browser, and the words for what tests do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from playwright.async_api import BrowserContext, ConsoleMessage, Error, Locator, Page, expect

from tests.fakes.surroundings import NO_MODEL, free_port

__all__ = ["CHROMIUM", "CONTRASTS", "GATED", "TOOLS", "Chat", "Server", "chromium_path", "twin_of"]

REPOSITORY: Final = Path(__file__).parents[2]
TOOLS: Final = "tests.page.tools:TOOLS"
"""What a server is given as its tools."""
GATED: Final = {"UNBROKEN_AGENT": "python", "UNBROKEN_PYTHON_AGENT": "tests.page.gate:answer"}
"""Settings of a server whose answers can be made to wait."""
CHROMIUM: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_PATHS: Final = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
# What Chromium itself writes to the console when a WebSocket can't be had, or is given up before it is there,
# and when something that was asked for is refused. No page can prevent it.
_LOST: Final = re.compile(
    r"WebSocket connection to 'ws://.*' failed: |"
    r"Failed to load resource: (net::ERR_|the server responded with a status of 4(?!04)\d\d )"
)


def chromium_path() -> str:
    """Return where Chromium is, or fail saying how to get it."""
    for path in _PATHS:
        if Path(path).exists():
            return path
    raise AssertionError("These tests need Chromium. Install it: apt-get install chromium")


_REST: Final = 20.0
"""Seconds in which what others left running comes to an end."""


class Server:
    """``unbroken serve`` with the scripted agent, unless *settings* name another, in a process of its own.

    Started again, it has the same ports.

    Args:
        log: Where its log goes.
        settings: Environment variables for it.

    """

    def __init__(self, log: Path, **settings: str) -> None:
        self._log = log
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self.port = 0
        self.admin_port = 0

    def start(self) -> None:
        offset = self._log.stat().st_size if self._log.exists() else 0
        self._output = self._log.open("ab")
        needed = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
        environment = {"UNBROKEN_AGENT": "scripted", **NO_MODEL, **needed, **self._settings}
        command = [sys.executable, "-m", "unbroken", "serve"]
        if not self.admin_port:
            self.admin_port = free_port()
        ports = ["--port", str(self.port), "--admin-port", str(self.admin_port)]
        self._process = subprocess.Popen(
            [*command, *ports],
            cwd=self._log.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self._output,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        address = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert address, f"{line}\n{self._log.read_bytes()[offset:].decode()}"
        self.port = int(address[1])

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
        if self._output is not None:
            self._output.close()

    def terminate(self) -> None:
        """End it as an operator would."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(30) == 0
        self.kill()

    @property
    def answered(self) -> int:
        """How many responses have ended since it was started: one for each call of the agent.

        Not before those have that others left running: they would be counted among one's own.
        """
        deadline = time.monotonic() + _REST
        while True:
            text = self._metrics()
            if _values(text, "unbroken_sessions_running") == 0 or time.monotonic() > deadline:
                return _values(text, "unbroken_responses_total")
            time.sleep(0.05)

    def _metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text


def _values(text: str, name: str) -> int:
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.M)
    return sum(int(float(value)) for value in found)


class Chat:
    """One tab with the page, and what it complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.lost: list[str] = []
        """Connections that the browser says it couldn't have."""
        self.refused: list[str] = []
        """Errors that the server sent."""
        page.on("console", self._note)
        page.on("pageerror", self._note_error)
        page.on("websocket", lambda socket: socket.on("framereceived", self._note_frame))
        self.box = page.get_by_role("textbox", name="Message")
        self.send = page.locator("#send")
        self.connection = page.locator("#connection-text")
        self.notice = page.get_by_role("alert").first
        self.users = page.locator("#sections .user")
        self.pending = page.locator("#pending .user")
        self.answers = page.locator("#sections .answer")
        self.texts = page.locator("#sections .answer .text")
        self.running = page.locator("#sections .answer[data-status=running]")
        self.calls = page.locator("#sections .call")
        self.states = page.locator("#sections .call .state")

    @classmethod
    async def open(cls, context: BrowserContext, port: int) -> Chat:
        chat = cls(await context.new_page())
        await chat.page.goto(f"http://127.0.0.1:{port}/")
        await chat.is_connected()
        return chat

    def _note(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        (self.lost if _LOST.match(message.text) else self.complaints).append(message.text)

    def _note_error(self, error: Error) -> None:
        self.complaints.append(str(error))

    def _note_frame(self, data: str | bytes) -> None:
        if isinstance(data, str) and data.startswith('{"type":"error"'):
            self.refused.append(data)

    async def say(self, text: str) -> None:
        await self.box.fill(text)
        await self.box.press("Enter")

    async def is_connected(self) -> None:
        try:
            await expect(self.connection).to_have_text("Connected")
        except AssertionError as error:
            error.add_note(f"The server said: {self.refused[-3:]}")
            raise

    async def is_idle(self) -> None:
        """Nothing is being answered, and nothing waits."""
        await expect(self.send).to_have_text("Send")
        await expect(self.pending).to_have_count(0)

    async def is_drawn(self) -> None:
        """The page has brought up to date what it had put off to its next frame."""
        await self.page.evaluate(
            "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
        )

    async def has_answered(self, *texts: str) -> None:
        """Exactly these answers are shown, each whole and once, and no more come."""
        await expect(self.answers).to_have_count(len(texts))
        await expect(self.running).to_have_count(0)
        await self.is_idle()
        await self.is_drawn()
        assert await self.texts.all_text_contents() == list(texts)

    async def has_said(self, *texts: str) -> None:
        """Exactly these messages are shown as received by the server."""
        await expect(self.users).to_have_count(len(texts))
        await self.is_drawn()
        assert await self.users.locator(".text").all_text_contents() == list(texts)

    async def has_stopped(self) -> None:
        """The last answer was stopped, and nothing more comes."""
        await self.is_idle()
        await expect(self.answers.last).to_have_attribute("data-status", "cancelled")
        await expect(self.answers.last).to_contain_text("Stopped.")

    async def goes_on(self) -> None:
        """The answer, of words with numbers, has grown by two hundred of them and more."""
        count = len(await self.texts.last.text_content() or "")
        await expect(self.running).to_contain_text(f"word{count // 9 + 200} ")

    async def order(self) -> Sequence[str]:
        """Return the kinds and texts of everything shown, from top to bottom."""
        await self.is_drawn()
        return [
            text.strip()
            for text in await self.page.locator("#sections li .text, #sections .ended").all_text_contents()
        ]

    async def flow(self) -> Sequence[str]:
        """Return everything shown, from top to bottom; calls as ``name: state``."""
        await self.is_drawn()
        lines: list[str] = await self.page.locator("#sections li.message").evaluate_all(
            """(nodes) => nodes.map((node) => node.classList.contains("call")
                ? [".name", ".state"].map((part) => node.querySelector(part).textContent).join(": ")
                : node.querySelector(".text").textContent)"""
        )
        return lines

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)


async def twin_of(chat: Chat, context: BrowserContext, port: int) -> Chat:
    """Open another tab on the same session, by way of another port."""
    copied = await chat.page.evaluate(
        "[['localStorage', 'unbroken.key', localStorage['unbroken.key']],"
        " ['sessionStorage', 'unbroken.resume', sessionStorage['unbroken.resume']]]"
    )
    page = await context.new_page()
    await page.add_init_script(
        f"for (const [store, name, value] of {json.dumps(copied)}) window[store][name] = value;"
    )
    twin = Chat(page)
    await page.goto(f"http://127.0.0.1:{port}/")
    return twin


CONTRASTS: Final = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const behind = (node) => {
        for (let each = node; each; each = each.parentElement) {
            const color = rgba(getComputedStyle(each).backgroundColor);
            if (color[3] === 255) return color;
        }
        return [255, 255, 255, 255];
    };
    const light = (color) => {
        const [r, g, b] = color.slice(0, 3).map((value) => value / 255)
            .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    return [...document.querySelectorAll("body *")]
        .filter((node) => node.checkVisibility() && [...node.childNodes].some((child) =>
            child.nodeType === Node.TEXT_NODE && child.data.trim()) || node.placeholder)
        .map((node) => {
            const one = light(rgba(getComputedStyle(node).color));
            const other = light(behind(node));
            const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
            return [node.textContent.slice(0, 30), ratio];
        });
}"""
"""The contrast of each text that is seen, as WCAG counts it, with its beginning."""
