"""The pictures and the sample output of README: the demo in a terminal, the report of its run, and the dashboard of its service.

``python -m website.screenshots`` runs the demo of ``make demo`` or ``make demo-real`` in ``build/screenshots``, serves its run,
asks some questions and photographs everything in Chromium. Run and output stay there, so a repetition only photographs; remove
the folder to run the demo again. It needs the developers' extra, a Chromium on the path and fonts of the scripts, such as
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
FOLDER = ROOT / "build/screenshots"
"""Where the demo runs."""
COLUMNS = 118
COLOURS = 128
WIDTH = 1240
HEIGHTS = {"report": 900, "dashboard": 1250}
"""Part of each page that is shown, from its top."""
MOST_BYTES = 400_000
"""Of all pictures together."""
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
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the demo's run and output, which are kept")
    parser.add_argument("--output", type=Path, default=IMAGES, help="folder of the pictures")
    parser.add_argument("--document", type=Path, default=ROOT / "README.md", help="document with the sample output")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    folder, target = arguments.folder.resolve(), arguments.target
    printed, folders = read_output(folder, target), local_folders(folder)
    arguments.document.write_text(with_output(arguments.document.read_text("utf-8"), printed, target), "utf-8")
    with _browser() as browser:
        _shoot(browser, arguments.output / "terminal.png", content=terminal_page(printed, target), whole=True)
        _shoot(browser, arguments.output / "report.png", folders, address=(folder / f"{target}-run/report/index.html").as_uri())
        with serve(folder, f"{target}-run") as address:
            _ask(address, QUESTIONS[target])
            _shoot(browser, arguments.output / "dashboard.png", folders, address=address)
    check_sizes([arguments.output / f"{name}.png" for name in ("terminal", *HEIGHTS)])


def check_sizes(pictures: Sequence[Path]) -> None:
    """Print the size of each picture.

    Raises:
        SystemExit: together they exceed `MOST_BYTES`.
    """
    sizes = [path.stat().st_size for path in pictures]
    for path, size in zip(pictures, sizes, strict=True):
        print(f"{path}: {size / 1000:.0f} kB")
    if sum(sizes) > MOST_BYTES:
        raise SystemExit(f"the pictures have {sum(sizes) / 1000:.0f} kB together, more than {MOST_BYTES / 1000:.0f} kB")


def read_output(folder: Path, target: str) -> str:
    """What the demo of a target prints, without folders of this machine. The demo runs if the folder has no output of it."""
    stored = folder / f"{target}.txt"
    if not stored.exists():
        folder.mkdir(parents=True, exist_ok=True)
        stored.write_text(run_demo(folder, f"{target}-run", PRESETS[target]), "utf-8")
    return without_folders(stored.read_text("utf-8"), local_folders(folder))


def run_demo(folder: Path, run: str, preset: str) -> str:
    """What ``compass-ray demo`` prints on a terminal, with its colours."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    command = [sys.executable, "-m", "compass_ray", "demo", "--preset", preset, "--run", run]
    with subprocess.Popen(command, cwd=folder, stdout=follower, env=environment) as process:
        os.close(follower)
        printed = b"".join(_read(leader))
    if process.returncode:
        raise SystemExit(f"the demo ended with exit code {process.returncode}")
    return printed.decode("utf-8").replace("\r\n", "\n")


def without_folders(text: str, folders: Sequence[str]) -> str:
    """The text with paths below the folders relative to them.

    >>> without_folders("report: /home/me/run/index.html", ["/home/me/"])
    'report: run/index.html'
    """
    for folder in folders:
        text = text.replace(folder, "")
    return text


def with_output(document: str, printed: str, target: str) -> str:
    """The document with what the demo printed, shortened, in the block after the comment ``<!-- output of make TARGET -->``.

    >>> with_output("<!-- output of make demo -->\\n```text\\nold\\n```\\n", "\\x1b[1mnew\\x1b[0m  \\n", "demo")
    '<!-- output of make demo -->\\n```text\\nnew\\n```\\n'
    """
    plain = shorten_output(
        "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", printed).strip("\n").split("\n")), target
    )
    block = re.compile(rf"(<!-- output of make {target} -->\n```text\n).*?(?=```)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{plain}\n", document)


def shorten_output(plain: str, target: str) -> str:
    """The output without the rows of single languages in tables of accuracy; of ``demo-real`` without these tables.

    >>> print(shorten_output("Accuracy on x, percent\\nlanguage  items\\nsw  9\\nmean of 2  18\\n\\nlast", "demo"))
    Accuracy on x, percent
    language  items
    mean of 2  18
    <BLANKLINE>
    last
    >>> shorten_output("Accuracy on x, percent\\nlanguage  items\\nsw  9\\n\\nlast", "demo-real")
    'last'
    """
    paragraphs = [
        _shorten_table(each) if _is_accuracy_table(each) else each for each in plain.split("\n\n") if _is_shown(each, target)
    ]
    return "\n\n".join(paragraphs)


def _is_accuracy_table(paragraph: str) -> bool:
    return paragraph.startswith("Accuracy on ")


def _is_shown(paragraph: str, target: str) -> bool:
    return target != "demo-real" or not _is_accuracy_table(paragraph)


def _shorten_table(table: str) -> str:
    """Title, header and means."""
    return "\n".join(line for i, line in enumerate(table.split("\n")) if i < 2 or line.startswith("mean of "))


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
def serve(folder: Path, run: str) -> Iterator[str]:
    """The address of a service of a run in the folder, which ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "compass_ray", "serve", run, "--port", str(port)]
    process = subprocess.Popen(command, cwd=folder, start_new_session=True)
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
        httpx.post(f"{address}/v1/chat/completions", json=body, timeout=START_SECONDS).raise_for_status()
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


def _shoot(
    browser: Any,
    path: Path,
    folders: Sequence[str] = (),
    *,
    address: str = "about:blank",
    content: str | None = None,
    whole: bool = False,
) -> None:
    size = {"width": WIDTH, "height": HEIGHTS.get(path.stem, HEIGHTS["report"])}
    page = browser.new_page(viewport=size, color_scheme="light", reduced_motion="reduce")
    page.goto(address)
    if content is not None:
        page.set_content(content)
    page.wait_for_timeout(1500)
    page.evaluate(_HIDE, list(folders))
    target = page.locator("pre") if whole else page
    picture = Image.open(io.BytesIO(target.screenshot()))
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    page.close()


def local_folders(folder: Path) -> list[str]:
    """Folders of this machine that a text may name, each with a slash at its end."""
    named = [value.rstrip("/") for name, value in os.environ.items() if name.startswith("COMPASS_") and value.startswith("/")]
    found = {f"{each}/" for each in [*named, *(os.path.dirname(each) for each in named), str(folder)] if each != "/"}
    return sorted(found, key=len, reverse=True)


if __name__ == "__main__":
    main()
