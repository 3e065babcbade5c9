"""SciPy's own tests, which it ships, run against `optapi.scipy`; the table of docs/scipy.md.

Nothing of SciPy is copied: names are replaced in its modules at run time. ``--list`` writes the lists anew, of all
tests that call a drop-in; ``--check`` writes nothing.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytensor
import pytest
import scipy
import scipy.optimize


HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import suites  # noqa: E402
from suites import REASONS, SUITES, Suite  # noqa: E402


PAGE = HERE.parent.parent / "docs" / "scipy.md"
BEGIN, END = "<!-- scipy-suite: begin -->\n", "<!-- scipy-suite: end -->"


class Recorder:
    """A plugin of pytest that runs the tests of a list, all if there is none, and keeps what became of them."""

    def __init__(self, listed: dict[str, str] | None):
        self.listed = listed
        self.outcomes: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.calling: set[str] = set()

    @staticmethod
    def name(nodeid: str) -> str:
        """The name of a test in the lists."""
        return nodeid.partition("::")[2]

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.listed is not None:
            items[:] = [item for item in items if self.name(item.nodeid) in self.listed]

    def pytest_runtest_setup(self, item: Any) -> None:
        suites.calls.clear()

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = self.name(report.nodeid)
        if suites.calls:
            self.calling.add(name)
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[name] = report.outcome
            if report.failed:
                self.errors[name] = str(report.longrepr).strip().splitlines()[-1]


def read(suite: Suite, whole: bool = False) -> dict[str, str]:
    """The tests of a list that are run, all if `whole`, with the reasons why they fail, empty for those that pass."""
    lines = (HERE / f"{suite.module}.txt").read_text().splitlines()
    listed = {test.strip(): reason.strip() for test, _, reason in (line.partition(" | ") for line in lines)}
    return {test: reason for test, reason in listed.items() if whole or test.partition("::")[0] != suite.without}


def run(suite: Suite, listed: dict[str, str] | None, options: Sequence[str]) -> Recorder:
    """Run the tests of a suite."""
    recorder = Recorder(listed)
    with pytest.MonkeyPatch.context() as patches:
        for place, own in suite.names.items():
            patches.setattr(place, own)
        arguments = ["-q", "--no-header", "--no-summary", "-c", str(HERE / "pytest.ini"), *options]
        pytest.main([*arguments, "--pyargs", f"scipy.optimize.tests.{suite.module}"], plugins=[recorder])
    return recorder


def table(rows: list[tuple[Suite, dict[str, str], Recorder]]) -> str:
    """The table of the page."""
    lines = [f"SciPy {scipy.__version__}.", ""]
    lines += ["| tests of SciPy | run | pass | fail |", "|---|--:|--:|--:|"]
    failed: Counter[str] = Counter()
    all_passed = all_counted = 0
    names: dict[str, list[str]] = {}
    for suite, listed, recorder in rows:
        outcomes = {test: outcome for test, outcome in recorder.outcomes.items() if outcome != "skipped"}
        others = [test for test, outcome in outcomes.items() if outcome == "failed"]
        passed = sum(outcome == "passed" for outcome in outcomes.values())
        lines.append(f"| `{suite.module}` | {len(outcomes)} | {passed} | {len(others)} |")
        all_passed, all_counted = all_passed + passed, all_counted + len(outcomes)
        failed.update(listed[test] for test in others)
        for test in others:
            names.setdefault(listed[test], []).append(test.rpartition("::")[2])
    left_out = [f"`{suite.without}` of `{suite.module}`" for suite, _, _ in rows if suite.without]
    share = f"{100 * all_passed / max(all_counted, 1):.0f} %"
    lines += ["", f"Of the {all_counted}, {all_passed} pass: {share}."]
    if left_out:
        lines += ["", f"Left out: {', '.join(left_out)}, the same tests as another class has on the same rule."]
    lines += ["", "| why a test fails | tests | which |", "|---|--:|---|"]
    for reason, count in failed.most_common():
        which = ", ".join(f"`{name}`" for name in dict.fromkeys(names[reason]))
        lines.append(f"| {REASONS.get(reason, reason)} | {count} | {which} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Run all suites, write the table, and compare the outcomes with the lists."""
    anew = "--list" in arguments
    # As for the other tests: no variable needs to know the line that made it.
    pytensor.config.traceback__limit = 0
    options = [argument for argument in arguments if argument not in ("--list", "--check")]
    rows, wrong = [], []
    page = PAGE.read_text() if PAGE.exists() else BEGIN + END
    # Counts and reasons depend on the version of SciPy: they are those of the version on the page.
    is_on_page = "--check" not in arguments or f"SciPy {scipy.__version__}." in page
    for suite in SUITES:
        listed = None if anew else read(suite)
        recorder = run(suite, listed, options)
        if listed is None:
            old = read(suite, whole=True) if (HERE / f"{suite.module}.txt").exists() else {}
            listed = {test: old.get(test, "") for test in recorder.outcomes if test in recorder.calling}
            text = "".join(f"{test}{' | ' * bool(reason)}{reason}\n" for test, reason in listed.items())
            (HERE / f"{suite.module}.txt").write_text(text)
            recorder.outcomes = {test: outcome for test, outcome in recorder.outcomes.items() if test in listed}
        for test, outcome in recorder.outcomes.items():
            if outcome == "failed" and listed[test] not in REASONS:
                wrong.append(f"{suite.module}::{test} fails, for no reason given: {recorder.errors[test]}")
            if outcome == "passed" and listed[test] and is_on_page:
                wrong.append(f"{suite.module}::{test} passes; its reason is out of date")
        rows.append((suite, listed, recorder))
    text = table(rows)
    sys.stdout.write("\n".join([text, *wrong, ""]))
    new = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: BEGIN + "\n" + text + "\n" + END, page, flags=re.S)
    if "--check" in arguments:
        if is_on_page and new != page:
            wrong.append(f"{PAGE} is out of date; run make scipy-suite")
    elif new != page:
        PAGE.write_text(new)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
