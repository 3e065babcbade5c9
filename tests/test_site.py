"""The check of the site that was built finds what it looks for."""

import sys
from pathlib import Path

import pytest


DOCS = Path(__file__).parent.parent / "docs"
if not DOCS.exists():
    pytest.skip("the pages are not here", allow_module_level=True)
sys.path.insert(0, str(DOCS))

import check  # noqa: E402


GOOD = '<p id="here">Of <code>$x$</code> <math>&alpha;</math></p><a href="index.html">home</a><a href="#here">here</a>'
FAULTS = {
    "raw": r"<p>the sum \sum_i x_i</p>",
    "dollars": "<p>with $x_1$ in it</p>",
    "a part of a formula": r"<math><mi>\arg</mi></math>",
    "an alignment": "<math><mi>&amp;</mi></math>",
    "elsewhere": '<script src="https://cdn.example.org/a.js"></script>',
    "without a scheme": '<link rel="stylesheet" href="//fonts.example.org/a.css">',
    "no picture": '<img src="lost.png">',
    "no page": '<a href="lost.html">lost</a>',
    "no anchor": '<a href="index.html#lost">lost</a>',
}


@pytest.fixture
def site(tmp_path):
    (tmp_path / "index.html").write_text(GOOD)
    (tmp_path / "page.html").write_text(GOOD)
    (tmp_path / "optapi.css").write_text((DOCS / "_static" / "optapi.css").read_text())
    return tmp_path


def test_a_good_site_has_no_faults(site):
    assert check.faults(site) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(site, fault):
    (site / "page.html").write_text(GOOD + FAULTS[fault])
    [found] = check.faults(site)
    assert found.startswith("page.html")


def test_a_page_without_a_way_back(site):
    (site / "page.html").write_text("<p>alone</p>")
    assert check.faults(site) == ["page.html: no link leads to the start page"]


STYLES = {
    "table {": "table",
    "div.math {": "formulas",
    "div.highlight pre {": "blocks of code",
    ".pre {": "code",
    "dt.sig {": "signatures",
}


@pytest.mark.parametrize(("rule", "lost"), STYLES.items())
def test_styles_that_keep_wide_things_whole(site, rule, lost):
    styles = (site / "optapi.css").read_text()
    (site / "optapi.css").write_text(styles.replace(rule, "other {"))
    assert check.faults(site) == [f"optapi.css: {lost} may be cut"]
