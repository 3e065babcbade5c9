"""The 27 regressions of NIST from both starts: optapi beside SciPy. Writes the table of docs/nist.md.

Each is called as a user would call it, with the model alone. ``--check`` writes nothing.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import scipy.optimize


sys.path.insert(0, str(Path(__file__).parent.parent))

from nist import digits, regressions

import optapi


PAGE = Path(__file__).parent.parent.parent / "docs" / "nist.md"
BEGIN, END = "<!-- nist: begin -->\n", "<!-- nist: end -->"


def own(regression, start):
    fit = optapi.curve_fit(regression.symbolic, regression.x, regression.y, start, max_iterations=2000)
    try:
        return fit.x, fit.standard_errors()
    except ValueError:
        return fit.x, np.full(start.size, np.nan)


def scipys(regression, start):
    popt, pcov = scipy.optimize.curve_fit(regression.numpy, regression.x, regression.y, start)
    return popt, np.sqrt(np.diag(pcov))


def trf(regression, start):
    fit = scipy.optimize.least_squares(
        lambda b: regression.numpy(regression.x, *b) - regression.y, start, x_scale="jac"
    )
    _, s, rows = np.linalg.svd(fit.jac, full_matrices=False)
    variance = 2 * fit.cost / (fit.fun.size - fit.x.size)
    return fit.x, np.sqrt(np.diag((rows.T / s**2) @ rows) * variance)


CONTENDERS = {"optapi.curve_fit": own, "scipy curve_fit": scipys, "scipy least_squares": trf}


def reached(contender, regression, start):
    """How many digits of the estimates and of their standard errors are right; zeros if it raises."""
    try:
        estimates, errors = contender(regression, start)
    except (RuntimeError, ValueError, np.linalg.LinAlgError):
        return 0.0, 0.0
    return digits(estimates, regression.certified), digits(errors, regression.standard_errors)


def table():
    names = [f"{name}, start {start}" for name in CONTENDERS for start in (1, 2)]
    lines = [f"| set | level | {' | '.join(names)} |", f"|---|---|{'--:|' * len(names)}"]
    solved = np.zeros(len(names), int)
    for regression in regressions():
        found = [reached(c, regression, start) for c in CONTENDERS.values() for start in regression.starts]
        solved += [estimates >= 8 for estimates, _ in found]
        cells = " | ".join(f"{estimates:.1f} / {errors:.1f}" for estimates, errors in found)
        lines.append(f"| {regression.name} | {regression.level} | {cells} |")
    lines.append(f"| **8 digits** | of 27 | {' | '.join(map(str, solved))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with np.errstate(all="ignore"):
        rows = table()
    sys.stdout.write(rows)
    if "--check" not in sys.argv:
        page = PAGE.read_text()
        before, rest = page.split(BEGIN)
        PAGE.write_text(before + BEGIN + rows + END + rest.split(END)[1])
