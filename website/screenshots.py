"""The pictures and the sample output of README: the demo in a terminal, the report of its run, and the dashboard of its service.

``python -m website.screenshots`` runs the demo, or continues its run, serves it, asks some questions and photographs everything
in Chromium. It needs the developers' extra and a Chromium on the path. Pictures have few colours, so that they stay small.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"
COLUMNS = 118
COLOURS = 128
PAGE = {"width": 1240, "height": 900}
START_SECONDS = 180.0
QUESTIONS = (
    "Ni mji upi uliopo katika nchi hii: Kenya?",
    "Ni lugha gani huzungumzwa zaidi katika nchi hii: Tanzania?",
    "केन्या की मुद्रा क्या है?",
    "Какая валюта в стране: Япония?",
)
_TERMINAL = """<style>
{stylesheet}
body {{ margin: 0; background: #0c0c0c; }}
pre {{ margin: 0; padding: 16px; font: 14px/1.25 "DejaVu Sans Mono", monospace; color: #d9d9d9; width: max-content; }}
</style>
<pre>{code}</pre>"""


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="demo-run", help="run of the demo; it is made if it is missing")
    parser.add_argument("--output", type=Path, default=IMAGES, help="folder of the pictures")
    parser.add_argument("--document", type=Path, default=ROOT / "README.md", help="document with the sample output")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    printed = run_demo(arguments.run)
    arguments.document.write_text(with_output(arguments.document.read_text("utf-8"), printed), "utf-8")
    with _browser() as browser:
        _shoot(browser, arguments.output / "terminal.png", content=terminal_page(printed), whole=True)
        _shoot(browser, arguments.output / "report.png", address=Path(arguments.run, "report/index.html").resolve().as_uri())
        with serve(arguments.run) as address:
            _ask(address)
            _shoot(browser, arguments.output / "dashboard.png", address=address)
    for name in ("terminal", "report", "dashboard"):
        path = arguments.output / f"{name}.png"
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def run_demo(run: str) -> str:
    """What ``compass-ray demo`` prints on a terminal, with its colours."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    command = [sys.executable, "-m", "compass_ray", "demo", "--run", run]
    with subprocess.Popen(command, stdout=follower, env=environment) as process:
        os.close(follower)
        printed = b"".join(_read(leader))
    if process.returncode:
        raise SystemExit(f"the demo ended with exit code {process.returncode}")
    return printed.decode("utf-8").replace("\r\n", "\n")


def with_output(document: str, printed: str) -> str:
    """The document with what the demo printed in the block after the comment ``<!-- output of make demo -->``.

    >>> with_output("<!-- output of make demo -->\\n```text\\nold\\n```\\n", "\\x1b[1mnew\\x1b[0m  \\n")
    '<!-- output of make demo -->\\n```text\\nnew\\n```\\n'
    """
    plain = "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", printed).strip("\n").split("\n"))
    block = re.compile(r"(<!-- output of make demo -->\n```text\n).*?(?=```)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{plain}\n", document)


def _read(descriptor: int) -> Iterator[bytes]:
    """Output until the program closes its side of the terminal, which Linux reports as an error."""
    with contextlib.suppress(OSError):
        while chunk := os.read(descriptor, 65536):
            yield chunk
    os.close(descriptor)


def terminal_page(printed: str) -> str:
    """A page that looks like a terminal with the command and its output."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "green"), "make demo"))
    console.print(Text.from_ansi(printed.strip("\n")))
    return console.export_html(theme=MONOKAI, code_format=_TERMINAL)


@contextlib.contextmanager
def serve(run: str) -> Iterator[str]:
    """The address of a service of the run, which ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "compass_ray", "serve", run, "--port", str(port)]
    process = subprocess.Popen(command, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, process)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{address}/healthz", timeout=5.0).status_code == 200:
                return
        time.sleep(1.0)
    raise SystemExit(f"the service at {address} did not start")


def _ask(address: str) -> None:
    for question in QUESTIONS * 4:
        body = {"model": "auto", "messages": [{"role": "user", "content": question}]}
        httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60.0).raise_for_status()
    time.sleep(6.0)  # the page and the monitor count in intervals


@contextlib.contextmanager
def _browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        raise SystemExit("screenshots need Chromium; install it, for example with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def _shoot(browser: Any, path: Path, *, address: str = "about:blank", content: str | None = None, whole: bool = False) -> None:
    page = browser.new_page(viewport=PAGE, color_scheme="light", reduced_motion="reduce")
    page.goto(address)
    if content is not None:
        page.set_content(content)
    page.wait_for_timeout(1500)
    target = page.locator("pre") if whole else page
    picture = Image.open(io.BytesIO(target.screenshot()))
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    page.close()


if __name__ == "__main__":
    main()
