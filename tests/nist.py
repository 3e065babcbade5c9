"""The 27 nonlinear regressions of NIST's Statistical Reference Datasets: data, starts and certified values.

The numbers are those of https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml, which are in the public domain.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt


class Regression(NamedTuple):
    """A regression; its model takes a module for the functions, NumPy or PyTensor's tensor.

    Attributes
    ----------
    level : "lower", "average" or "higher"
        How difficult it is.
    starts : array
        A row for each of two starts, the second of which is nearer.
    squares : float
        The certified sum of squares.
    """

    name: str
    level: str
    model: Any
    starts: np.ndarray
    certified: np.ndarray
    standard_errors: np.ndarray
    squares: float
    x: np.ndarray
    y: np.ndarray

    def numpy(self, x, *b):
        with np.errstate(all="ignore"):
            return self.model(np, x, *b)

    def symbolic(self, x, *b):
        return self.model(pt, x, *b)


def exponential(m, x, a, b):
    return a * (1 - m.exp(-b * x))


def peaks(m, x, a, b, c, d, e, f, g, h):
    return a * m.exp(-b * x) + c * m.exp(-((x - d) ** 2) / e**2) + f * m.exp(-((x - g) ** 2) / h**2)


def decays(m, x, a, b, c, d, e, f):
    return a * m.exp(-b * x) + c * m.exp(-d * x) + e * m.exp(-f * x)


def chwirut(m, x, a, b, c):
    return m.exp(-a * x) / (b + c * x)


def cubics(m, x, a, b, c, d, e, f, g):
    return (a + b * x + c * x**2 + d * x**3) / (1 + e * x + f * x**2 + g * x**3)


def enso(m, x, a, b, c, d, e, f, g, h, i):
    year, one, two = (2 * np.pi * x / period for period in (12, d, g))
    return a + b * m.cos(year) + c * m.sin(year) + e * m.cos(one) + f * m.sin(one) + h * m.cos(two) + i * m.sin(two)


MODELS = {
    "Bennett5": lambda m, x, a, b, c: a * (b + x) ** (-1 / c),
    "BoxBOD": exponential,
    "Chwirut1": chwirut,
    "Chwirut2": chwirut,
    "DanWood": lambda m, x, a, b: a * x**b,
    "ENSO": enso,
    "Eckerle4": lambda m, x, a, b, c: a / b * m.exp(-(((x - c) / b) ** 2) / 2),
    "Gauss1": peaks,
    "Gauss2": peaks,
    "Gauss3": peaks,
    "Hahn1": cubics,
    "Kirby2": lambda m, x, a, b, c, d, e: (a + b * x + c * x**2) / (1 + d * x + e * x**2),
    "Lanczos1": decays,
    "Lanczos2": decays,
    "Lanczos3": decays,
    "MGH09": lambda m, x, a, b, c, d: a * (x**2 + x * b) / (x**2 + x * c + d),
    "MGH10": lambda m, x, a, b, c: a * m.exp(b / (x + c)),
    "MGH17": lambda m, x, a, b, c, d, e: a + b * m.exp(-x * d) + c * m.exp(-x * e),
    "Misra1a": exponential,
    "Misra1b": lambda m, x, a, b: a * (1 - (1 + b * x / 2) ** -2),
    "Misra1c": lambda m, x, a, b: a * (1 - (1 + 2 * b * x) ** -0.5),
    "Misra1d": lambda m, x, a, b: a * b * x / (1 + b * x),
    "Nelson": lambda m, x, a, b, c: a - b * x[0] * m.exp(-c * x[1]),
    "Rat42": lambda m, x, a, b, c: a / (1 + m.exp(b - c * x)),
    "Rat43": lambda m, x, a, b, c, d: a / (1 + m.exp(b - c * x)) ** (1 / d),
    "Roszman1": lambda m, x, a, b, c, d: a - b * x - m.arctan(c / (x - d)) / np.pi,
    "Thurber": cubics,
}


def regressions():
    """All of them, the easier ones first."""
    sets = json.loads((Path(__file__).parent / "data" / "nist.json").read_text())
    found = []
    for name, fields in sets.items():
        level, squares = fields.pop("level"), fields.pop("squares")
        arrays = {field: np.array(values) for field, values in fields.items()}
        if name == "Nelson":
            arrays["y"] = np.log(arrays["y"])
        found.append(Regression(name=name, level=level, model=MODELS[name], squares=squares, **arrays))
    return found


def digits(found, certified):
    """How many digits of `found` are right, in the worst component, at most 11."""
    found, certified = np.asarray(found), np.asarray(certified)
    if not np.isfinite(found).all():
        return 0.0
    error = np.max(np.abs(found - certified) / np.abs(certified))
    return float(np.clip(-np.log10(max(error, 1e-11)), 0, 11))
