"""The pictures and the sample output of README: the demo in a terminal, the report of its run, and the dashboard of its service.

``python -m website.screenshots`` runs ``make demo`` or ``make demo-real``, or continues its run, serves it, asks some questions
and photographs everything in Chromium. It needs the developers' extra, a Chromium on the path and fonts of the scripts, such as
``apt-get install chromium fonts-lohit-deva fonts-wqy-zenhei fonts-sil-abyssinica``. Pictures have few colours, so that they stay
small.
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
from collections.abc import Iterator, Sequence
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
PRESETS = {"demo": "atlas", "demo-real": "gemma-3-270m"}
"""Preset of each target of make."""
QUESTIONS = {
    "demo": (
        "Ni mji upi uliopo katika nchi hii: Kenya?",
        "Ni lugha gani huzungumzwa zaidi katika nchi hii: Tanzania?",
        "केन्या की मुद्रा क्या है?",
        "Какая валюта в стране: Япония?",
    ),
    "demo-real": ("Apa ibu kota Prancis?", "フランスの首都はどこですか？", "फ़्रांस की राजधानी क्या है?"),
}
_HIDE = """folders => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode())
    for (const folder of folders) texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "");
}"""
"""Removes folders of this machine from the texts of a page."""
_TERMINAL = """<style>
{stylesheet}
body {{ margin: 0; background: #0c0c0c; }}
pre {{ margin: 0; padding: 16px; font: 14px/1.25 "DejaVu Sans Mono", monospace; color: #d9d9d9; width: max-content; }}
</style>
<pre>{code}</pre>"""


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=sorted(PRESETS), default="demo", help="target of make to photograph")
    parser.add_argument("--run", help="run of the demo; it is made if it is missing")
    parser.add_argument("--output", type=Path, default=IMAGES, help="folder of the pictures")
    parser.add_argument("--document", type=Path, default=ROOT / "README.md", help="document with the sample output")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    run, target = arguments.run or f"{arguments.target}-run", arguments.target
    printed = run_demo(run, PRESETS[target])
    arguments.document.write_text(with_output(arguments.document.read_text("utf-8"), printed, target), "utf-8")
    with _browser() as browser:
        _shoot(browser, arguments.output / "terminal.png", content=terminal_page(printed, target), whole=True)
        _shoot(browser, arguments.output / "report.png", address=Path(run, "report/index.html").resolve().as_uri())
        with serve(run) as address:
            _ask(address, QUESTIONS[target])
            _shoot(browser, arguments.output / "dashboard.png", address=address)
    for name in ("terminal", "report", "dashboard"):
        path = arguments.output / f"{name}.png"
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def run_demo(run: str, preset: str) -> str:
    """What ``compass-ray demo`` prints on a terminal, with its colours and with paths from this folder."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    command = [sys.executable, "-m", "compass_ray", "demo", "--preset", preset, "--run", run]
    with subprocess.Popen(command, stdout=follower, env=environment) as process:
        os.close(follower)
        printed = b"".join(_read(leader))
    if process.returncode:
        raise SystemExit(f"the demo ended with exit code {process.returncode}")
    return printed.decode("utf-8").replace("\r\n", "\n").replace(f"{Path.cwd()}/", "")


def with_output(document: str, printed: str, target: str) -> str:
    """The document with what the demo printed in the block after the comment ``<!-- output of make TARGET -->``.

    >>> with_output("<!-- output of make demo -->\\n```text\\nold\\n```\\n", "\\x1b[1mnew\\x1b[0m  \\n", "demo")
    '<!-- output of make demo -->\\n```text\\nnew\\n```\\n'
    """
    plain = "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", printed).strip("\n").split("\n"))
    block = re.compile(rf"(<!-- output of make {target} -->\n```text\n).*?(?=```)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{plain}\n", document)


def _read(descriptor: int) -> Iterator[bytes]:
    """Output until the program closes its side of the terminal, which Linux reports as an error."""
    with contextlib.suppress(OSError):
        while chunk := os.read(descriptor, 65536):
            yield chunk
    os.close(descriptor)


def terminal_page(printed: str, target: str) -> str:
    """A page that looks like a terminal with the command and its output."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "green"), f"make {target}"))
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


def _ask(address: str, questions: Sequence[str]) -> None:
    for question in [*questions] * 4:
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
    page.evaluate(_HIDE, _local_folders())
    target = page.locator("pre") if whole else page
    picture = Image.open(io.BytesIO(target.screenshot()))
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    page.close()


def _local_folders() -> list[str]:
    named = [os.environ.get(name) for name in ("COMPASS_REAL_MODELS", "COMPASS_SHARED_DATA")]
    return [f"{folder.rstrip('/')}/" for folder in [*named, str(Path.cwd())] if folder]


if __name__ == "__main__":
    main()
