"""A derivative compared with differences of its function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..feasible import put_inside
from ..hints import hinted
from ..pytree import point
from ..typing import Derivative, Tree
from .evaluator import DifferencedEvaluator, Evaluation, Evaluator, evaluator_of


class Comparison(NamedTuple):
    """A derivative compared with differences of the function, at its worst component.

    Attributes
    ----------
    place : str
        Which component: ``x[3]``, or ``x['weights'][0, 2]``.
    given : float
        What `df` says.
    difference : float
        What `f` says: a central difference.
    error : float
        The difference of the two over the larger one, less what rounding explains; 0 is perfect.
    agrees : bool
        Whether the error is at most 1e-4.
    """

    place: str
    given: float
    difference: float
    error: float

    @property
    def agrees(self) -> bool:
        return self.error <= 1e-4

    def __str__(self) -> str:
        verdict = "agrees with" if self.agrees else "disagrees with"
        return (
            f"the derivative {verdict} differences of f; the worst component is {self.place}: df says "
            f"{self.given:.9g}, f says {self.difference:.9g}"
        )


@hinted
def check_gradient(f: Callable[..., Any], df: Derivative, x0: Tree, args: Any = ()) -> Comparison:
    """Compare the derivative `df` of `f` with central differences at `x0`, component by component.

    Parameters
    ----------
    f, df, x0, args
        As for `minimize_iterator`.

    Returns
    -------
    Comparison
        The worst component, and both values for it.

    Raises
    ------
    ValueError
        If `df` is one by differences, so that there is nothing to compare.

    Notes
    -----
    It takes one call of `df`, and two of `f` for each component.

    Examples
    --------
    >>> print(optapi.check_gradient(lambda x: np.sum(x**3), lambda x: 3 * x**2, [1.0, 2.0]))
    the derivative agrees with differences of f; the worst component is x0[0]: df says 3, f says 3
    >>> print(optapi.check_gradient(lambda x: np.sum(x**3), lambda x: 2 * x**2, [1.0, 2.0]))
    the derivative disagrees with differences of f; the worst component is x0[1]: df says 8, f says 12
    """
    structure, start = point("x0", x0)
    evaluator = evaluator_of(f, df, args, None, structure, start, None)
    if isinstance(evaluator, DifferencedEvaluator):
        raise ValueError(f"df is {df!r}, for which the derivative is one by differences itself; pass a function")
    return compare(evaluator, Evaluation(start))


def compare(evaluator: Evaluator, evaluation: Evaluation) -> Comparison:
    """`check_gradient` at the point of `evaluation`."""
    worst = Comparison("x0", np.nan, np.nan, 0.0)
    leaves = evaluator.structure.leaves("x0", evaluator.structure.build(evaluation.point))
    cost = evaluator.cost(evaluation)
    for number, ((place, array), gradient) in enumerate(zip(leaves, evaluator.gradients(evaluation), strict=True)):
        epsilon = float(np.finfo(array.dtype).eps)
        for index in np.ndindex(array.shape):
            h = epsilon ** (1 / 3) * max(1.0, abs(float(array[index])))
            costs, ends = [], []
            for sign in (1, -1):
                moved = [a.copy() for a in evaluation.point]
                moved[number][index] += sign * h
                moved = put_inside(moved, evaluator.limits)
                ends.append(float(moved[number][index]))
                costs.append(evaluator.cost(Evaluation(moved)))
            if ends[0] == ends[1]:  # between equal bounds
                continue
            difference, given = (costs[0] - costs[1]) / (ends[0] - ends[1]), float(gradient[index])
            rounding = 10 * epsilon * max(map(abs, [*costs, cost])) / h
            size = max(abs(given), abs(difference))
            error = max(0.0, abs(given - difference) - rounding) / size if size else 0.0
            if not (np.isfinite(given) and np.isfinite(difference)):
                error = np.inf
            if not error <= worst.error or np.isnan(worst.given):
                label = f"{place}[{', '.join(map(str, index))}]" if index else place
                worst = Comparison(label, given, difference, error if np.isfinite(error) else np.inf)
    return worst


def along(evaluator: Evaluator, evaluation: Evaluation) -> Comparison:
    """The same along the derivative itself, by four calls of `f`; what rounding and curvature explain is no error."""
    gradients = evaluator.gradients(evaluation)
    size = max(float(np.max(abs(g), initial=0.0)) for g in gradients)
    directions = [g / size for g in gradients]
    epsilon = max(float(np.finfo(p.dtype).eps) for p in evaluation.point)
    far = max(float(np.max(abs(p), initial=0.0)) for p in evaluation.point)
    h, differences, rounding = epsilon ** (1 / 3) * (far or 1.0), [], 0.0
    if evaluator.limits is not None:  # only components with room on both sides
        moved = ([p + sign * h * d for p, d in zip(evaluation.point, directions, strict=True)] for sign in (1, -1))
        inside = ([a == b for a, b in zip(m, put_inside(m, evaluator.limits), strict=True)] for m in moved)
        directions = [d * (ahead & behind) for d, ahead, behind in zip(directions, *inside, strict=True)]
    given = size * sum(float(np.sum(d * d)) for d in directions)
    for step in (h, h / 4):
        ends = [
            [(p + sign * step * d).astype(p.dtype) for p, d in zip(evaluation.point, directions, strict=True)]
            for sign in (1, -1)
        ]
        costs = [evaluator.cost(Evaluation(end)) for end in ends]
        differences.append((costs[0] - costs[1]) / (2 * step))
        rounding = 10 * epsilon * max(map(abs, [*costs, evaluator.cost(evaluation)])) / step
    excess = abs(given - differences[1]) - rounding - 2 * abs(differences[1] - differences[0])
    error = max(0.0, excess) / max(abs(given), abs(differences[1])) if np.isfinite(excess) else 0.0
    return Comparison("the derivative", given, differences[1], error)
