"""The README says what is so: its code runs, in order, as a reader would run it."""

import re
from pathlib import Path

import pytensor
import pytest
from registry import README, readme_blocks

import optapi


def test_the_code_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace = {"__name__": "readme"}
    # In Python, since what they show is not speed; where a block names a mode it names this one.
    with pytensor.config.change_flags(mode=optapi.PYTHON):
        for number, block in enumerate(readme_blocks(), 1):
            exec(compile(block, f"README.md, code block {number}", "exec"), namespace)
    assert capsys.readouterr().out


def test_the_rule_takes_ten_lines():
    [block] = [block for block in readme_blocks() if block.startswith("def sign_descent(")]
    assert len(block.splitlines()) <= 10


@pytest.mark.parametrize("target", re.findall(r"\(`([\w./]+)`\)", README.read_text()) if README.exists() else [])
def test_files_that_are_named_are_there(target):
    assert (Path(README).parent / target).exists()


def test_links_work_on_a_package_index():
    """An index shows the README without the files beside it, and gives headings no names."""
    targets = re.findall(r"\]\(([^)]+)\)", README.read_text())
    assert targets and all(target.startswith("https://") for target in targets)


def test_make_targets_exist():
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", README.read_text(), flags=re.MULTILINE):
        assert re.search(rf"^{target}\b.*:", makefile, flags=re.MULTILINE), target
