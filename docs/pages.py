"""Runs the Python code of the pages, and writes what it prints below it: ``python docs/pages.py [pages]``.

A block of ``text`` right after a block of ``python`` is what that block prints. The tests compare the two. Show
only what rounding does not change from one machine to another.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytensor

import optapi


FOLDER = Path(__file__).parent
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", flags=re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """The pages with code."""
    folders = (FOLDER, *(FOLDER / name for name in ("how_to", "rules", "reference")))
    found = (page for folder in folders for page in folder.glob("*.md"))
    return sorted(page for page in found if BLOCK.search(page.read_text()))


def needs_pymc(text: str) -> bool:
    """Whether code needs PyMC, which not every environment has."""
    return "import pymc" in text


def run(page: Path) -> Iterator[tuple[re.Match[str], str]]:
    """Each block of a page and what it prints, run in order and in one namespace."""
    namespace = {"__name__": "page"}
    # In Python, since what the pages show is not speed.
    with pytensor.config.change_flags(mode=optapi.PYTHON):
        for block in BLOCK.finditer(page.read_text()):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block[1], f"{page.name}, a code block", "exec"), namespace)
            yield block, printed.getvalue()


def main() -> None:
    """Fill the pages of the command line, by default all."""
    for page in map(Path.resolve, map(Path, sys.argv[1:] or pages())):
        if needs_pymc(page.read_text()) and find_spec("pymc") is None:
            sys.stdout.write(f"{page.relative_to(FOLDER)}: not run, since PyMC is not installed{os.linesep}")
            continue
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            outputs = [output for _, output in run(page)]
        remaining = iter(outputs)

        def fill(block: re.Match[str], remaining: Iterator[str] = remaining) -> str:
            output = next(remaining)
            return f"```python\n{block[1]}```\n" + (f"\n```text\n{output}```\n" if output else "")

        page.write_text(BLOCK.sub(fill, page.read_text()))
        sys.stdout.write(f"{page.relative_to(FOLDER)}: {len(outputs)} blocks{os.linesep}")


if __name__ == "__main__":
    main()
