"""Least squares of functions, NumPy's or PyTensor's: fits, with what is reported of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from threading import get_ident
from typing import Any, ClassVar

import numpy as np
import pytensor
import pytensor.tensor as pt
from numpy.typing import ArrayLike

from ..checks import as_numbers, check_callable, check_flag, check_number, check_start_first, shown, warn
from ..feasible import limits, put_inside, sides
from ..graph.numpy_linker import PYTHON
from ..graph.oracle import Arrays
from ..hints import hinted
from ..losses import Robust
from ..pytree import PyTree, point
from ..typing import Array, CompileMode, Loss, OptAlgo, Tree
from .covariance import precision
from .evaluator import Evaluation, Evaluator, kinds_of
from .locks import BUILDING
from .many_fits import check_row, many_fits
from .numpy import by_leaf
from .options import check_kind_of_mode, check_rule, name_of, options_of, rule_of
from .oracle_program import OracleProgram
from .progress import Monitor
from .results import BatchResult, OptimizeResult
from .run import Position, Run
from .termination import STATUSES, Ending, Termination, is_same
from .vector_functions import METHODS, JacobianDifferences, Symbolic, VectorFunction


# The tolerances of cost and step by default: differences are not exact enough for more.
TOLERANCES = {"exact": (None, 1e-10), "cs": (None, 1e-10), "3-point": (1e-14, 1e-9), "2-point": (1e-12, 1e-7)}
# The relative size of steps near the minimizer, where it is worth the time to look how far that is.
NEAR = 1e-3


class Fit(Evaluation):
    """A point with the residuals and their Jacobians there, None where they were not asked for."""

    __slots__ = ("jacobians", "residuals")

    def __init__(self, point: Sequence[np.ndarray], cost: float | None = None, gradients: Arrays | None = None):
        super().__init__(point, cost, gradients)
        self.residuals: np.ndarray | None = None
        self.jacobians: Arrays | None = None


class FitEvaluator(Evaluator):
    """Residuals of NumPy arrays with their Jacobian, each called once for a point, and counted.

    Parameters
    ----------
    f : callable
        From a point to the residuals; if `df` is True, to the residuals and the Jacobian.
    df : callable, True or JacobianDifferences
        See `least_squares`.
    structure : PyTree
    args : tuple
    robust : Robust
        The loss.
    length : int, optional
        How many residuals there are; by default as many as there are first.

    Attributes
    ----------
    function : VectorFunction
        The residuals.
    """

    kind: ClassVar[type[Evaluation]] = Fit

    def __init__(self, f: Callable[..., Any], df: Any, structure: PyTree, args: tuple[Any, ...], robust: Robust,
                 length: int | None = None):  # fmt: skip
        self.function = VectorFunction("residuals", f, df, structure, args, length)
        super().__init__(f, df, structure, args)
        self.robust = robust

    @property
    def nfev(self) -> int:
        return self.function.nfev

    @nfev.setter
    def nfev(self, count: int) -> None:
        self.function.nfev = count

    @property
    def njev(self) -> int:
        return self.function.njev

    @njev.setter
    def njev(self, count: int) -> None:
        self.function.njev = count

    def residuals(self, evaluation: Any) -> np.ndarray:
        """The residuals at a point as a vector, by a call of `f` unless they are known."""
        if evaluation.residuals is None:
            evaluation.residuals, evaluation.jacobians = self.function.values(evaluation.point)
        return evaluation.residuals

    def jacobians(self, evaluation: Any) -> Arrays:
        """The Jacobians at a point by each array; NaN where the residuals are not finite."""
        values = self.residuals(evaluation)
        if evaluation.jacobians is None:
            evaluation.jacobians = self.function.jacobians(evaluation.point, values, self.limits)
        return evaluation.jacobians

    def cost(self, evaluation: Any) -> float:
        if evaluation.cost is None:
            values = self.residuals(evaluation)
            evaluation.cost = float(np.vdot(values, values)) / 2 if self.robust.is_linear else self.weighed(values)[0]
        return evaluation.cost

    def gradients(self, evaluation: Any) -> Arrays:
        if evaluation.gradients is None:
            values = self.residuals(evaluation)
            slopes = values if self.robust.is_linear else self.weighed(values)[1]
            evaluation.gradients = [np.asarray(np.tensordot(slopes, J, 1), J.dtype) for J in self.jacobians(evaluation)]
        return evaluation.gradients

    def weighed(self, values: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The cost, its derivatives by the residuals, and the weights of the rows of the Jacobian, see `Robust`."""
        cost, slopes, weights = weighing(self.robust.rho, float(self.robust.scale.data), get_ident())(
            values.astype(float)
        )
        return float(cost), slopes, weights

    def weighted_jacobian(self, evaluation: Any) -> np.ndarray:
        """The Jacobian by all components as a matrix, its rows weighted where the loss is robust."""
        values, parts = self.residuals(evaluation), self.jacobians(evaluation)
        J = np.concatenate([part.reshape(values.size, -1) for part in parts], axis=1)
        return J if self.robust.is_linear else self.weighed(values)[2][:, None] * J

    def errors(self, evaluation: Any) -> np.ndarray:
        """The standard errors of the components, each as if the others were known; more than their rounding."""
        J, values = self.weighted_jacobian(evaluation), self.residuals(evaluation)
        units = np.linalg.norm(J, axis=0)
        x = np.concatenate([array.ravel() for array in evaluation.point])
        rounding = np.finfo(x.dtype).eps * np.linalg.norm(units * x)
        deviation = np.sqrt(2 * self.cost(evaluation) / max(values.size, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            found: np.ndarray = np.where(units > 0, max(deviation, rounding) / units, 0.0)
        return found

    def undamped(self, evaluation: Any) -> np.ndarray:
        """The step of Gauss and Newton from a point: with bounds, of the components that they let move."""
        J, values = self.weighted_jacobian(evaluation), self.residuals(evaluation)
        if not self.robust.is_linear:
            _, slopes, weights = self.weighed(values)
            values = slopes / weights
        if self.limits is not None:
            x, g = (
                np.concatenate([a.ravel() for a in part]) for part in (evaluation.point, self.gradients(evaluation))
            )
            low, high = sides(evaluation.point, self.limits)
            J = np.where(((x <= low) & (g > 0)) | ((x >= high) & (g < 0)) | (low == high), 0, J)
        units = np.linalg.norm(J, axis=0)
        units[~(units > 0)] = 1
        if not (np.isfinite(J).all() and np.isfinite(values).all()):
            return np.full(J.shape[1], np.nan)
        step: np.ndarray = -np.linalg.lstsq(J / units, values, rcond=None)[0] / units
        return step if self.limits is None else np.clip(step, low - x, high - x)

    def evaluate(self, *arrays: np.ndarray) -> tuple[Any, Arrays]:
        """The residuals and their Jacobians, as an oracle calls it."""
        evaluation = self.at(arrays)
        return self.residuals(evaluation), self.jacobians(evaluation)


@lru_cache(maxsize=16)
def weighing(rho: Any, f_scale: float, thread: int) -> Any:
    """A function from residuals to the cost, its derivatives by them, and the weights of the rows of the Jacobian.

    Each thread has its own, since a compiled function runs once at a time.
    """
    with BUILDING:
        r = pt.dvector("r")
        robust = Robust.of(rho, f_scale)
        cost = robust.cost([r])
        outputs = [cost, pytensor.grad(cost, r), pytensor.grad(pt.sum(robust.linearized([r])[0]), r)]
        return pytensor.function([r], outputs, mode=PYTHON)


def evaluator_of(f: Callable[..., Any], jac: Any, args: Any, structure: PyTree, start: Arrays, robust: Robust,
                 mode: CompileMode, length: int | None = None) -> FitEvaluator:  # fmt: skip
    """An evaluator of residuals and Jacobians in all their forms."""
    check_callable("residuals", f, "a function from a point to the residuals")
    jac = True if isinstance(jac, np.bool_) and jac else jac
    if isinstance(jac, str) and jac in METHODS:
        jac = JacobianDifferences(jac)
    if not (callable(jac) or jac is True or jac is None):
        raise ValueError(
            f"jac is {jac!r}; pass a function, True if residuals returns it too, None, or a name of differences: "
            f"{', '.join(map(repr, METHODS))}"
        )
    args = args if isinstance(args, tuple) else (args,)
    if jac is None:
        try:
            symbolic = Symbolic(f, structure, kinds_of(start), args, mode)
            why = symbolic.contradiction(start)
            if why is not None:
                raise TypeError(why)
            f, jac = symbolic, True
        except TypeError as error:
            jac = JacobianDifferences("2-point")
            warn(
                f"the Jacobian is taken by differences, since {getattr(f, '__name__', 'residuals')} cannot be "
                f'differentiated: called with PyTensor variables, {error}. Pass jac=, a function or "2-point", or '
                "write it with functions of pytensor.tensor",
            )
    return FitEvaluator(f, jac, structure, args, robust, length)


class FitProgram(OracleProgram):
    """A rule on an oracle of residuals."""

    def multiplied(self, point: Arrays, evaluator: Any,
                   multipliers: np.ndarray | None = None) -> tuple[Callable[..., Any], bool, float, bool]:  # fmt: skip
        evaluation = evaluator.at(point)
        J, root = evaluator.weighted_jacobian(evaluation), np.sqrt(2 * evaluator.cost(evaluation))

        def product(*arrays: np.ndarray) -> list[Any]:
            return [J @ np.concatenate([vector.ravel() for vector in arrays[len(point) : 2 * len(point)]]), root]

        return product, True, precision(point), evaluator.function.is_differenced


@dataclass(frozen=True)
class Relative(Termination):
    """A termination whose tolerances of cost and step are relative, whatever the units of residuals and parameters.

    That of a step is relative to the component or its standard error, since a component may be zero. A damped step may
    be small far from the minimizer. So the step is that of Gauss and Newton from the new point.
    """

    evaluator: Any = None

    def settled(self, before: Evaluation, now: Any, cost: Callable[[Evaluation], float]) -> Ending | None:
        tolerance = self.cost_tolerance
        if tolerance is not None and abs(cost(before) - cost(now)) <= tolerance * cost(before):
            return Ending.SAME_COST
        x, old = (np.concatenate([array.ravel() for array in known.point]) for known in (now, before))
        tolerance = self.step_tolerance
        if tolerance is None:
            return None
        size = np.maximum(abs(x), self.evaluator.errors(now))
        if (abs(x - old) <= max(tolerance, NEAR) * size).all():
            step = self.evaluator.undamped(now)
            if (abs(step) <= tolerance * size).all():
                return Ending.SAME_POINT
        return None


class FitResult(OptimizeResult):
    """The result of `least_squares` and of `curve_fit`: an `OptimizeResult` in which `fun` is the cost.

    Attributes
    ----------
    residuals : vector
        The residuals at `x`, without the loss.
    jacobian : as the start
        Their derivatives, arrays of shape ``(number of residuals, *shape of the array)``.

    Examples
    --------
    >>> fit = optapi.curve_fit(lambda t, a, b: a * pt.exp(-b * t), np.arange(4.0), [5.1, 2.9, 1.9, 1.1], [1.0, 1.0])
    >>> print(fit.summary())
    levenberg_marquardt: converged, 4 residuals, 2 parameters
       estimate  standard error
    a   5.06033            0.11
    b  0.514051           0.024
    residual standard deviation 0.1139 with 2 degrees of freedom
    """

    _names: Sequence[str] = ()
    _rule = ""
    _absolute = False

    @property
    def degrees_of_freedom(self) -> int:
        """The number of residuals less the number of parameters."""
        return int(self["residuals"].size - len(self._names))

    def covariance(self, absolute_sigma: bool | None = None) -> Array:
        """The covariance of the estimate `x`: that of Gauss-Newton, see `optapi.covariance`.

        With a robust loss the Jacobian is weighted as in `levenberg_marquardt`, and the variance of the residuals is
        twice the cost over the degrees of freedom.

        Parameters
        ----------
        absolute_sigma : bool, optional
            Whether the residuals are in units of their standard deviations; by default what `curve_fit` was told.
        """
        return super().covariance(self._absolute if absolute_sigma is None else absolute_sigma)

    def standard_errors(self, absolute_sigma: bool | None = None) -> Tree:
        return super().standard_errors(self._absolute if absolute_sigma is None else absolute_sigma)

    def summary(self) -> str:
        """Estimates with standard errors, the residual standard deviation, and why it ended, as a table to print."""
        values = [value for _, leaf in PyTree.of(self["x"]).leaves("x", self["x"]) for value in np.ravel(leaf)]
        try:
            errors: Any = [f"{error:.2g}" for error in np.sqrt(np.diag(np.asarray(self.covariance())))]
            note = []
        except ValueError as error:
            errors, note = ["?"] * len(values), [str(error)]
        rows = [
            ("", "estimate", "standard error"),
            *((name, f"{v:.6g}", e) for name, v, e in zip(self._names, values, errors, strict=True)),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        status = STATUSES.get(self["status"], "not finished")
        freedom, lines = self.degrees_of_freedom, []
        lines.append(f"{self._rule}: {status}, {self['residuals'].size} residuals, {len(values)} parameters")
        lines += [f"{name:<{widths[0]}}  {v:>{widths[1]}}  {e:>{widths[2]}}" for name, v, e in rows]
        if freedom > 0:
            deviation = np.sqrt(2 * self["fun"] / freedom)
            lines.append(f"residual standard deviation {deviation:.4g} with {freedom} degrees of freedom")
        return "\n".join([*lines, *note, *([] if self["success"] else [self["message"]])])


class FitRun(Run):
    """A fit on its way."""

    names: Sequence[str] = ()
    absolute = False

    def _after(self, values: Any, began: float) -> Position:
        position, cost = super()._after(values, began), self._evaluator.cost
        # The point held is the one that the tolerances are about.
        converged = position.ending is not None and position.ending.status == 0
        if converged and is_same(cost(position.now), cost(position.best), position.now.point):
            position = position._replace(best=position.now)
        return position

    def _result(self, evaluation: Evaluation) -> FitResult:
        evaluator: Any = self._evaluator
        plain = super()._result(evaluation)
        jacobian = self._built(evaluator.jacobians(evaluation))
        result = FitResult({**plain, "residuals": evaluator.residuals(evaluation).copy(), "jacobian": jacobian})
        hidden = {"_second": plain._second, "_names": self.names, "_absolute": self.absolute}
        for name, value in (hidden | {"_rule": name_of(self._program.rule)}).items():
            object.__setattr__(result, name, value)
        return result


def run_of(evaluator: FitEvaluator, start: Arrays, opt_algo: OptAlgo, options: dict[str, Any], termination: Termination,
           monitor: Any, mode: CompileMode) -> FitRun:  # fmt: skip
    """A fit from the point `start`, by a rule that takes residuals."""
    rule = rule_of(opt_algo)
    known, keywords = options_of(rule)
    if known is not None and not keywords and "residuals" not in known:
        raise ValueError(
            f"opt_algo is {name_of(rule)}, which takes no residuals; pass optapi.levenberg_marquardt or "
            "optapi.gauss_newton, or minimize half of the sum of squares with minimize"
        )
    if "residuals" in options:
        raise TypeError("the keyword 'residuals' is not taken here; the rule gets it from x0, residuals and jac")
    check_rule(rule, options | {"residuals": None}, least_squares, "x0, residuals and jac", symbolic=True)
    check_kind_of_mode(mode)
    length = evaluator.residuals(evaluator.at(start)).size
    program = FitProgram(rule, options, kinds_of(start), mode, length)
    return FitRun(program, evaluator, termination, Monitor(name_of(rule), *monitor), program.start(start))


@hinted
def least_squares(x0: Tree, residuals: Callable[..., Any], jac: Any = None,
                  opt_algo: OptAlgo = "levenberg_marquardt", *, loss: Loss = "linear", f_scale: float = 1.0,
                  x_scale: Any = "auto", bounds: Any = None, args: Any = (), tolerance: float | None = 0.0,
                  cost_tolerance: float | None = None, step_tolerance: float | None = None,
                  max_iterations: int | None = None, max_evaluations: int | None = None,
                  time_limit: float | None = None, target: float | None = None,
                  callback: Callable[..., Any] | None = None, progressbar: bool | str = False,
                  verbose: bool | int = False, trace: bool = False, mode: CompileMode = None, many: bool = False,
                  starts: Any = None, workers: Any = 1, **options: Any) -> Any:  # fmt: skip
    r"""The point where half of the sum of the squares of residuals is smallest, or the sum of a loss of them.

    .. math:: f(x) = \tfrac12 C^2 \sum_i \rho\big((r_i(x) / C)^2\big), \qquad \rho(z) = z \text{ by default}

    Parameters
    ----------
    x0 : array, or list, tuple or dict of arrays
        The start, as for `minimize_iterator`.
    residuals : callable
        ``residuals(x, *args)``, an array of any shape, of as many numbers at each point; called once for each.
    jac : callable, True, "2-point", "3-point", "cs" or None
        The Jacobian, ``jac(x, *args)``, a matrix with a row for each residual; of structures a structure of arrays of
        shape ``(number of residuals, *shape of the array)``; called once for each point. If True, `residuals` returns
        the pair of both. With a name, differences with the steps of SciPy's function of this name; the calls count in
        `nfev`. If None, `residuals` is tried with PyTensor variables and differentiated; where it does not take them,
        ``"2-point"`` is taken and a warning says so.
    opt_algo : callable or str
        `levenberg_marquardt` or `gauss_newton`, or another rule that takes residuals.
    loss, f_scale
        See `gauss_newton`: ``"linear"``, ``"soft_l1"``, ``"huber"``, ``"cauchy"``, ``"arctan"`` or a function.
    x_scale : number, array, structure of arrays as `x0`, "jac", None or "auto"
        See `levenberg_marquardt`. ``"auto"`` is ``"jac"`` for the sum of squares where the solver allows it, and None
        with a loss, whose weights change the norms of the columns.
    bounds : as `x0`, or one pair, optional
        A low and a high for each component, as for `minimize_iterator`. `x0` is put inside, and residuals are called
        inside only, for differences too. The covariance is that of the components inside of their bounds; rows and
        columns of the others are zero.
    args : tuple
        Further arguments of `residuals` and `jac`.
    tolerance : float or None
        It has converged when no component of the derivative of the cost is larger. That is in the units of the data,
        so it is 0 by default, as with None, and the two relative tolerances decide.
    cost_tolerance : float, optional
        It has converged when an iteration changes the cost by no more than this times the cost.
    step_tolerance : float, optional
        It has converged when the undamped step of Gauss and Newton changes no component of the point by more than this
        times the component. If neither is given, this is 1e-10; with the differences ``"3-point"`` it is 1e-9 and the
        other 1e-14, with ``"2-point"`` 1e-7 and 1e-12.
    max_iterations, max_evaluations, time_limit, target, callback, progressbar, verbose, trace, mode
        As for `minimize_iterator`.
    many : bool
        Whether there are many data sets, each fitted by itself, all in one compiled function: `args` are then arrays
        with one axis more, the first, a row for each. `residuals` is called with PyTensor variables, and `jac` is not
        taken. The `tolerance` is in units of the sum of squares at the start, and about relative changes of `x0`; 0
        stands for 1e-10. The other keywords are those of `compile_minimizer`.
    starts, workers
        With `many`, as in `curve_fit`.
    **options
        Options of the rule.

    Returns
    -------
    FitResult, or with `many` BatchResult
        An `OptimizeResult` as of all drivers: `fun` is the cost, a number, and `jac` its derivative. The `residuals`
        and their `jacobian` are there too, `covariance`, `standard_errors`, and a `summary` to print.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said here; the message names it.

    Notes
    -----
    An iteration takes one evaluation of the residuals and of the Jacobian for each step that is tried, mostly one, and
    a decomposition of the Jacobian; memory: some copies of it. Symbolic residuals are compiled by each call of this
    function, which takes some tenths of a second.

    Examples
    --------
    >>> times, seen = np.arange(5), np.array([1.0, 0.6, 0.35, 0.22, 0.13])
    >>> fit = optapi.least_squares([2.0, 1.0], lambda x: x[0] * np.exp(-x[1] * times) - seen)
    >>> fit.x.round(3), fit.standard_errors().round(3)
    (array([1.   , 0.513]), array([0.006, 0.006]))
    """
    check_start_first("least_squares(x0, residuals)", x0, residuals)
    structure, start = point("x0", x0)
    if check_flag("many", many):
        check_callable("residuals", residuals, "a function from a point to the residuals")
        asked = {
            "loss": loss, "f_scale": f_scale, "x_scale": x_scale, "bounds": bounds, "tolerance": tolerance or 1e-10,
            "cost_tolerance": cost_tolerance, "step_tolerance": step_tolerance, "max_iterations": max_iterations,
            "max_evaluations": max_evaluations, "time_limit": time_limit, "target": target, "callback": callback,
            "progressbar": progressbar, "verbose": verbose, "trace": trace, "mode": mode,
        }  # fmt: skip
        return _fits_of_rows(residuals, jac, structure, start, args, opt_algo, starts, workers, asked | options)
    _only_of_many(starts, workers)
    robust = Robust.of(loss, check_number("f_scale", f_scale, low=0))
    evaluator = evaluator_of(residuals, jac, args, structure, start, robust, mode)
    evaluator.limits = limits(bounds, structure, start)
    start = put_inside(start, evaluator.limits)
    options |= {"tolerance": 0.0 if tolerance is None else check_number("tolerance", tolerance, low=0)}
    if evaluator.limits is not None:
        options["bounds"] = evaluator.limits
    if not robust.is_linear:
        options |= {"loss": loss, "f_scale": f_scale}
    if isinstance(x_scale, str) and x_scale == "auto":
        x_scale = "jac" if robust.is_linear and options.get("solver") != "cg" else None
    if x_scale is not None:
        options["x_scale"] = by_leaf(x_scale, structure)
    if cost_tolerance is None and step_tolerance is None:
        cost_tolerance, step_tolerance = TOLERANCES[
            evaluator.df.method if evaluator.function.is_differenced else "exact"
        ]
    given = (max_iterations, max_evaluations, time_limit, target, cost_tolerance, step_tolerance)
    run = run_of(
        evaluator,
        start,
        opt_algo,
        options,
        Relative(**vars(Termination.of(None, *given)), evaluator=evaluator),
        (callback, progressbar, verbose, trace),
        mode,
    )
    run.names = component_names(structure, start)
    run._to_end()
    result: Any = run.result
    return result


def component_names(structure: PyTree, start: Arrays) -> list[str]:
    """What the components of the point are called in a summary."""
    names = []
    for (place, _), array in zip(structure.leaves("x", structure.build(start)), start, strict=True):
        place = place.removeprefix("x") if structure.kind is not None else place
        place = place[2:-2] if place.startswith("['") and place.count("[") == 1 else place
        names += [place + (f"[{', '.join(map(str, index))}]" if index else "") for index in np.ndindex(array.shape)]
    return names


@hinted
def curve_fit(model: Callable[..., Any], x: Any, y: ArrayLike, p0: Tree | None = None,
              sigma: ArrayLike | None = None, *, absolute_sigma: bool = False, jac: Any = None,
              opt_algo: OptAlgo = "levenberg_marquardt", many: bool = False, starts: Any = None, workers: Any = 1,
              **kwargs: Any) -> Any:  # fmt: skip
    r"""The parameters with which a model fits data best, in the sense of least squares.

    The residuals are :math:`(m(x, p) - y) / \sigma`.

    Parameters
    ----------
    model : callable
        ``model(x, *p)``, of the shape of `y`: called with the components of `p0` one by one. If `p0` is a list of
        arrays, with these; if it is a dictionary, ``model(x, **p)``.
    x : anything
        Where it was measured; handed on to `model` as it is, a list of numbers as an array.
    y : array
        The data.
    p0 : vector, or list or dict of arrays, optional
        The start; by default 1 for each argument of `model`.
    sigma : number or array, optional
        The standard deviations of the errors of `y`; or their covariance, a matrix.
    absolute_sigma : bool
        Whether `sigma` is meant as it is. By default only the ratios count, and the size comes from the residuals.
    jac : callable, True, "2-point", "3-point", "cs" or None
        The derivatives of the model, ``jac(x, *p)``, as in `least_squares`.
    opt_algo, **kwargs
        As for `least_squares`; `bounds` are put together as `p0` is.
    many : bool
        Whether `y` has one axis more, the first: a row for each of many data sets, which are fitted each by itself, all
        in one compiled function. The model is then called with PyTensor variables. `sigma` is one for all, of the shape
        of a row, or of that of `y`, where it may be infinite: what stands there in `y` does not count, so that rows may
        be shorter. `jac` and a covariance for `sigma` are not taken, and other keywords are those of
        `compile_minimizer`; `tolerance`, 1e-10, is in units of the sum of squares of the data of a row, and about
        relative changes of `p0`.
    starts : as `p0`, optional
        With `many`, a start for each row: what is in `p0`, with one axis more in front. By default all start from `p0`.
    workers : int or engine
        With `many`, how many threads; more than one need ``mode="NUMBA"`` or ``"JAX"``. Or an engine, see
        `CompiledMinimizer.on_data`.

    Returns
    -------
    FitResult, or with `many` BatchResult
        As of `least_squares`: the estimate is `x`, of the type of `p0`. With `many` all have one axis more in front.
        A row with a value that is not finite ends with status 3, and its errors are NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said here; the message names it.

    Examples
    --------
    >>> def model(t, height, rate):
    ...     return height * np.exp(-rate * t)
    >>> fit = optapi.curve_fit(model, np.arange(5), [1.0, 0.6, 0.35, 0.22, 0.13], {"height": 2.0, "rate": 1.0})
    >>> print(fit.x["rate"].round(3), fit.standard_errors()["rate"].round(3), fit.degrees_of_freedom)
    0.513 0.006 3

    >>> def model(t, height, rate):
    ...     return height * pt.exp(-rate * t)
    >>> y = [[1.0, 0.6, 0.35, 0.22, 0.13], [2.0, 0.7, 0.27, 0.1, 0.04]]
    >>> fits = optapi.curve_fit(model, np.arange(5), y, {"height": 2.0, "rate": 1.0}, many=True)
    >>> fits.x["rate"].round(3), fits.standard_errors()["rate"].round(3)
    (array([0.513, 1.028]), array([0.006, 0.015]))
    """
    check_callable("model", model, "a function of x and the parameters")
    absolute = check_flag("absolute_sigma", absolute_sigma)
    data = as_numbers("y", y)
    if check_flag("many", many):
        return _curve_fits(model, x, data, p0, sigma, absolute, jac, opt_algo, starts, workers, kwargs)
    _only_of_many(starts, workers)
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError("y is empty or has values that are not finite; leave those out, in x too")
    x, p0, structure, start = _asked(model, x, p0)
    whiten = whitening("sigma", sigma, data)

    def apply(function: Callable[..., Any], p: Any) -> Any:
        return function(x, **p) if structure.kind is dict else function(x, *p)

    def one_for_each(size: int) -> None:
        if size != data.size > 1:
            raise ValueError(f"the model has {size} values at x for the {data.size} of y; return one for each")

    def residuals(p: Any) -> Any:
        values = apply(model, p)
        if isinstance(values, np.ndarray):
            one_for_each(values.size)
        return whiten(values - data)

    def derivatives(p: Any) -> Any:
        leaves = structure.leaves("what jac returned", apply(jac, p))
        return structure.build([whiten(np.asarray(leaf)) for _, leaf in leaves])

    def both(p: Any) -> Any:
        pair = apply(model, p)
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise TypeError(f"jac is True, so model has to return its values and their derivatives, not {shown(pair)}")
        values, jacobian = pair
        leaves = structure.leaves("the derivatives that model returned", jacobian)
        return whiten(values - data), structure.build([whiten(np.asarray(leaf)) for _, leaf in leaves])

    residuals.__name__ = both.__name__ = getattr(model, "__name__", "model")
    function, jacobian = both if jac is True else residuals, derivatives if callable(jac) else jac
    result = least_squares(p0, function, jacobian, opt_algo, **kwargs)
    one_for_each(result["residuals"].size)
    names = parameter_names(model, strict=False)
    if structure.kind is None and len(names) == start[0].size:
        object.__setattr__(result, "_names", names)
    object.__setattr__(result, "_absolute", absolute)
    return result


def _asked(model: Callable[..., Any], x: Any, p0: Any) -> tuple[Any, Any, PyTree, Arrays]:
    """Where it was measured, and the start with its structure and its leaves."""
    x = np.asarray(x, float) if isinstance(x, list | tuple) else x
    p0 = np.ones(len(parameter_names(model))) if p0 is None else p0
    p0 = np.atleast_1d(np.asarray(p0)) if isinstance(p0, Real) else p0
    structure, start = point("p0", p0)
    _check_taken(model, x, p0)
    return x, p0, structure, start


def _check_taken(model: Callable[..., Any], x: Any, p0: Any) -> None:
    """The model takes as many parameters as `p0` has values, or those that it names."""
    try:
        signature = inspect.signature(model)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(x, **p0) if isinstance(p0, dict) else signature.bind(x, *p0)
    except TypeError as error:
        has = f"names {', '.join(map(str, p0))}" if isinstance(p0, dict) else f"has {len(p0)} values"
        takes = ", ".join(parameter_names(model, strict=False)) or "none"
        raise ValueError(f"p0 {has}, and the parameters of the model are {takes}: {error}") from None


def _only_of_many(starts: Any, workers: Any) -> None:
    if starts is not None or not isinstance(workers, int) or workers != 1:
        raise TypeError("starts and workers are for many data sets; pass many=True, and data with a row for each")


def _fits_of_rows(residuals: Callable[..., Any], jac: Any, structure: PyTree, start: Arrays, args: Any,
                  opt_algo: OptAlgo, starts: Any, workers: Any, options: dict[str, Any]) -> BatchResult:  # fmt: skip
    """`least_squares` of many data sets."""
    if jac is not None:
        raise TypeError("jac is given with many=True, which differentiates the residuals itself; leave it out")
    rows = [as_numbers(f"args[{i}]", arg) for i, arg in enumerate(args if isinstance(args, tuple) else (args,))]
    if not rows or any(row.ndim == 0 for row in rows):
        raise ValueError("args has no rows; with many=True pass a tuple of arrays with a row for each data set")
    return many_fits(
        "residuals", residuals, structure, start, rows, None, opt_algo, starts=starts, workers=workers, **options
    )


def _curve_fits(model: Callable[..., Any], x: Any, data: np.ndarray, p0: Any, sigma: Any, absolute: bool, jac: Any,
                opt_algo: OptAlgo, starts: Any, workers: Any, options: dict[str, Any]) -> BatchResult:  # fmt: skip
    """`curve_fit` of many data sets."""
    if jac is not None:
        raise TypeError("jac is given with many=True, which differentiates the model itself; leave it out")
    if data.ndim < 2 or data.size == 0:
        raise ValueError(f"y has shape {data.shape}; with many=True pass a row for each data set")
    x, p0, structure, start = _asked(model, x, p0)
    deviations = np.ones(()) if sigma is None else as_numbers("sigma", sigma)
    if deviations.shape not in ((), data.shape[1:], data.shape) or not (deviations > 0).all():
        raise ValueError(
            f"sigma has shape {deviations.shape} for y of shape {data.shape}; with many=True pass positive numbers: "
            "one, those of a row, or one for each of y"
        )
    weights = 1 / deviations
    data = np.where(weights > 0, data, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        sizes = np.sum((data * weights).reshape(len(data), -1) ** 2, axis=1)

    def residuals(p: Any, y: Any, w: Any = weights) -> Any:
        values = model(x, **p) if structure.kind is dict else model(x, *p)
        check_row(values, data.shape[1:])
        return w * (values - y)

    given = [data, weights] if weights.shape == data.shape else [data]
    result = many_fits(
        "model", residuals, structure, start, given, sizes, opt_algo, starts=starts, workers=workers, **options
    )
    object.__setattr__(result, "_absolute", absolute)
    return result


def parameter_names(model: Callable[..., Any], strict: bool = True) -> list[str]:
    """The names of the parameters of a model, what comes after its first argument.

    Raises
    ------
    ValueError
        If `strict`, and it has none, or any number of them.
    """
    try:
        parameters = list(inspect.signature(model).parameters.values())[1:]
    except (TypeError, ValueError):
        parameters = []
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if strict and not plain:
        raise ValueError("p0 is None, and the model does not say how many parameters it has; pass p0=")
    return plain


def whitening(name: str, sigma: Any, data: np.ndarray) -> Callable[[Any], Any]:
    """What divides residuals, or rows of a Jacobian, by their standard deviations."""
    if sigma is None:
        return lambda values: values
    sigma = as_numbers(name, sigma)
    if sigma.ndim == 2 and sigma.shape == (data.size, data.size) and data.ndim == 1:
        try:
            inverse = np.linalg.inv(np.linalg.cholesky(sigma))
        except np.linalg.LinAlgError:
            raise ValueError(f"{name} is a matrix that is not positive definite; pass the covariance of y") from None
        return lambda values: inverse @ values
    if sigma.size != 1 and sigma.shape != data.shape:
        raise ValueError(
            f"{name} has shape {sigma.shape} for y of shape {data.shape}; pass one number, one for each, or a matrix"
        )
    if not (np.isfinite(sigma).all() and (sigma > 0).all()):
        raise ValueError(f"{name} has values that are not positive; pass the standard deviations of y")
    weights = 1 / sigma

    def divided(values: Any) -> Any:
        more = values.ndim - data.ndim if weights.ndim else 0
        return values * weights.reshape(weights.shape + (1,) * max(more, 0))

    return divided
