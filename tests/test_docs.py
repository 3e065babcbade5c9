"""The documentation says what is so: its code runs and prints what it says, and nothing public is left out."""

import doctest
import inspect
import operator
import re
import sys
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi


ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs"
if not FOLDER.exists():
    pytest.skip("the pages are not here", allow_module_level=True)
sys.path.insert(0, str(FOLDER))

import names  # noqa: E402
import pages  # noqa: E402


PUBLIC = {name: thing for module in names.public().values() for name, thing in module.items()}


@pytest.fixture
def pictures(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def of_pymc(things, text_of):
    """`things` to test, those that need PyMC with its marker."""
    return [pytest.param(t, marks=pytest.mark.pymc) if pages.needs_pymc(text_of(t) or "") else t for t in things]


@pytest.mark.parametrize("page", of_pymc(pages.pages(), lambda page: page.read_text()), ids=lambda page: page.stem)
def test_the_code_of_a_page_prints_what_the_page_says(page, tmp_path, monkeypatch, pictures):
    monkeypatch.chdir(tmp_path)
    if "import plot" in page.read_text():
        pytest.importorskip("matplotlib")
    if pages.needs_pymc(page.read_text()):
        pytest.importorskip("pymc")
    for block, printed in pages.run(page):
        assert printed == (block[2] or ""), block[1]


def examples_of(name, thing):
    """The examples in the docstring of something public, and of its methods."""
    globs = {"np": np, "pytensor": pytensor, "pt": pt, "optapi": optapi}
    finder = doctest.DocTestFinder(exclude_empty=True)
    module = sys.modules.get(getattr(thing, "__module__", None))
    return [test for test in finder.find(thing, name, module=module, globs=globs) if test.examples]


DESCRIBED = [name for name in PUBLIC if name not in names.CONSTANTS]


@pytest.mark.parametrize("name", of_pymc(DESCRIBED, lambda name: inspect.getdoc(PUBLIC[name])))
def test_docstrings(name, tmp_path, monkeypatch, pictures):
    thing = PUBLIC[name]
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(thing)
    assert text and text.split("\n")[0].strip()
    if "plot." in text:
        pytest.importorskip("matplotlib")
    if name.startswith("optapi.pymc."):
        pytest.importorskip("pymc_extras" if "gradient_transformation" in name else "pymc")
    tests = examples_of(name, thing)
    is_record = isinstance(thing, type) and issubclass(thing, tuple)
    assert tests or is_record, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    said = []
    with pytensor.config.change_flags(mode=optapi.PYTHON):
        for test in tests:
            runner.run(test, out=said.append)
    assert not runner.summarize(verbose=False).failed, "".join(said)


def test_every_public_name_is_on_a_page():
    shown = set(names.documented(FOLDER))
    assert set(names.public()) <= shown, "give the module a page, with <!-- members of MODULE --> in it"
    assert shown <= set(names.public())


def test_rules_are_told_apart():
    rules = {name.removeprefix("optapi.") for name, thing in PUBLIC.items() if names.is_rule(thing)}
    assert {"sgd", "lbfgs", "tonga", "sgd_qn"} <= rules
    assert not rules & {"minimize", "loop", "batch", "Objective"}
    table = names.rules()
    for rule in rules:
        assert f"| `optapi.{rule}` | " in table


LINKS = [
    (page, target)
    for page in sorted([*FOLDER.glob("*.md"), *FOLDER.glob("[hr]*/*.md")])
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", page.read_text())
]


@pytest.mark.parametrize("page, target", LINKS, ids=lambda part: getattr(part, "stem", part))
def test_links_lead_somewhere(page, target):
    assert (page.parent / target).exists()


def test_the_names_for_those_who_come_from_elsewhere_exist():
    """The last column of each table: a name of optapi, or a keyword of something of it."""
    functions = [thing.__init__ if isinstance(thing, type) else thing for thing in PUBLIC.values() if callable(thing)]
    keywords = {name for function in functions for name in inspect.signature(function).parameters}
    rows = re.findall(r"^\| .*\| (.*) \|$", (FOLDER / "how_to" / "coming_from.md").read_text(), flags=re.MULTILINE)
    words = [word for row in rows for word in re.findall(r"`([^`]+)`", row) if not word.startswith("pytensor.")]
    assert len(words) > 100
    for word in words:
        if word.endswith("="):
            assert word[:-1] in keywords, word
        else:
            assert operator.attrgetter(word)(optapi), word
