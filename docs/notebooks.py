"""Runs the notebooks of ``examples``, each made from the script beside it: ``docs/notebooks.py [--check] [names]``.

A script with a header of jupytext is a notebook. Without ``--check`` the notebooks are written with what they print and
draw; with it, they are only run, and compared with their scripts and with what they have printed: the words to the
letter, the numbers as far as rounding does not matter. A cell that raises fails the run.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient


FOLDER = Path(__file__).parent.parent / "examples"
# Small pictures, since they are committed.
os.environ["MATPLOTLIBRC"] = str(Path(__file__).with_name("matplotlibrc"))


def scripts(names: list[str]) -> list[Path]:
    """The scripts that are notebooks, by default all."""
    found = sorted(path for path in FOLDER.glob("*.py") if "jupytext:" in path.read_text()[:400])
    if names:
        return [path for path in found if path.stem in names]
    # PyMC has an environment of its own, see make test-pymc.
    return [path for path in found if "import pymc" not in path.read_text() or find_spec("pymc")]


def cells(notebook: Any) -> list[tuple[str, str]]:
    """What a notebook has been made from."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
# Where numbers say how long something took, or are nothing but rounding, a cell has this tag in its script.
UNCOMPARED = "uncompared"


def printed(notebook: Any) -> list[str]:
    """What each cell has printed, pictures left out."""
    texts = []
    for cell in notebook.cells:
        outputs = cell.get("outputs", ())
        if UNCOMPARED in cell.metadata.get("tags", ()):
            outputs = ()
        found = (output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs)
        texts.append("".join(found))
    return texts


def agree(now: str, before: str) -> bool:
    """Whether two texts have the same words, and numbers that differ by no more than rounding may make of them."""
    words = [NUMBER.sub("#", text).split() for text in (now, before)]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (now, before)]
    return words[0] == words[1] and all(
        math.isclose(a, b, rel_tol=0.02, abs_tol=1e-4) for a, b in zip(*numbers, strict=True)
    )


def run(path: Path) -> tuple[Path, Any, float]:
    """The notebook of a script after a run from top to bottom, and the seconds that it took."""
    began = time.perf_counter()
    notebook = jupytext.read(path)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    where, quiet = {"metadata": {"path": str(FOLDER)}}, ["--IPKernelApp.log_level=40"]
    client = NotebookClient(notebook, timeout=300, resources=where, record_timing=False, extra_arguments=quiet)
    client.execute()
    notebook.metadata = nbformat.from_dict({"kernelspec": notebook.metadata["kernelspec"]})
    for number, cell in enumerate(notebook.cells):
        # Numbers that say nothing, and would be another at each run.
        cell["id"] = f"cell-{number}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_idle(output)]
    return path, notebook, time.perf_counter() - began


def _is_idle(output: Any) -> bool:
    """Whether an output says no more than that there is a picture."""
    if output.output_type == "display_data" and "image/png" in output.data:
        output.data.pop("text/plain", None)
    drawn = r"<?\[?<?(matplotlib|Axes|Figure)|Text\(|\[?\(?(Text|None)\b"
    return output.output_type == "execute_result" and bool(re.match(drawn, output.data.get("text/plain", "")))


def main() -> None:
    """Run, and write or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of the notebooks, without an ending")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with ThreadPoolExecutor(arguments.workers) as pool:
        for path, notebook, seconds in pool.map(run, scripts(arguments.names)):
            written = path.with_suffix(".ipynb")
            if not arguments.check:
                nbformat.write(notebook, written)
            elif not written.exists() or cells(before := nbformat.read(written, 4)) != cells(notebook):
                sys.exit(f"{written.name} is not what {path.name} makes; run make notebooks")
            else:
                for now, then in zip(printed(notebook), printed(before), strict=True):
                    if not agree(now, then):
                        sys.exit(f"{written.name} prints\n{now}\nwhere it has printed\n{then}")
            sys.stdout.write(f"{path.stem}: {seconds:.0f} s\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
