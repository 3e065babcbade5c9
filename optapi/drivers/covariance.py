"""Covariances: how far estimates may be off, from the second derivatives where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import as_list, check_cost, check_flag, check_shared, filtered, shown
from ..constraints import as_entries
from ..feasible import boxes, inside
from ..graph.derivatives import differentiate, pushforward, second_derivatives
from ..graph.numpy_linker import PYTHON
from ..graph.replace import replaced
from ..hints import hinted
from ..losses import Robust
from ..objective import Objective
from ..typing import Array, Bounds, CompileMode, Constraints, Variables
from ..vectors import dot
from .locks import BUILDING
from .options import check_kind_of_mode


@hinted
def covariance(parameters: Variables, cost: Variable | None = None, *, residuals: Variables | None = None,
               inputs: Mapping[Any, Any] | None = None, absolute_sigma: bool = False, ascent: bool = False,
               constraints: Constraints = (), bounds: Bounds | None = None,
               mode: CompileMode = None) -> Array:  # fmt: skip
    r"""The covariance of estimates, at the values that `parameters` have now, from exact derivatives.

    Of a cost that is minus the logarithm of a likelihood or of a posterior it is the inverse of the matrix of second
    derivatives, :math:`C = H^{-1}`, that of Laplace's approximation. Of `residuals`, whose squares were summed, it is

    .. math:: C = s^2 (J^T J)^{-1}, \qquad s^2 = \frac{\|r\|^2}{m - n}

    for :math:`m` residuals and :math:`n` components, as of ``scipy.optimize.curve_fit``. With constraints the estimate
    can vary only along those that are active, on the null space of their Jacobian, with a basis :math:`Z`:

    .. math:: C = Z (Z^T H Z)^{-1} Z^T

    with the second derivatives :math:`H` of the Lagrangian :math:`f - y^T c`.

    Parameters
    ----------
    parameters : list of shared variables
    cost : scalar variable, optional
    residuals : list of variables, optional
        In the place of `cost`.
    inputs : dict, optional
        The values of the inputs that they read.
    absolute_sigma : bool
        Whether the residuals are in units of their standard deviations, so that :math:`s^2 = 1`.
    ascent : bool
        Whether `cost` is a logarithm of a likelihood, which was maximized.
    constraints : triple, pair, or list of such, optional
        Of `cost`, as in `sqp`. Those are active that are at a limit, but for 1e-6; multipliers are found by least
        squares.
    bounds : dict, list or pair, optional
        As in `lbfgs`. Rows and columns of components that are at a bound are zero.
    mode : PyTensor mode or str, optional
        How it is compiled, by default as PyTensor does.

    Returns
    -------
    matrix
        A row and a column for each component of `parameters`, in their order.

    Raises
    ------
    ValueError
        If the matrix of second derivatives is not positive definite, with constraints :math:`Z^T H Z`, or there are no
        more residuals than components.

    Notes
    -----
    It takes a product with second derivatives for each component. What a quasi-Newton method has learned,
    `inverse_hessian`, is no covariance: it is what suffices to go downhill. Constraints and bounds count as active that
    are so at the estimate, as if they were active for all data.

    References
    ----------
    Seber and Wild (1989), Nonlinear regression, section 2.1.2; Aitchison and Silvey (1958), Maximum-likelihood
    estimation of parameters subject to restraints, for constraints.

    Examples
    --------
    >>> data, mu = np.array([1.0, 2.0, 6.0]), pytensor.shared(3.0, name="mu")
    >>> optapi.covariance([mu], pt.sum((data - mu) ** 2) / 2, mode=optapi.PYTHON).round(4)
    array([[0.3333]])

    The frequencies of three outcomes, whose sum is 1:

    >>> counts = np.array([50.0, 30.0, 20.0])
    >>> p = pytensor.shared(counts / 100, name="p", shape=(3,))
    >>> cost = -pt.sum(counts * pt.log(p))
    >>> optapi.covariance([p], cost, constraints=(pt.sum(p), 1), mode=optapi.PYTHON).round(4)
    array([[ 0.0025, -0.0015, -0.001 ],
           [-0.0015,  0.0021, -0.0006],
           [-0.001 , -0.0006,  0.0016]])
    """
    shared = check_shared(parameters)
    if (cost is None) == (residuals is None):
        raise ValueError("pass cost= or residuals=, one of the two")
    if not (inputs is None or isinstance(inputs, Mapping)):
        raise TypeError(f"inputs is a {type(inputs).__name__}; pass a dictionary from the inputs to their values")
    check_flag("ascent", ascent)
    given = dict(inputs or {})
    for variable in given:
        if not isinstance(variable, Variable):
            raise TypeError(f"inputs has {shown(variable)} among its keys; pass the variables that the cost reads")
    variables, values = list(given), [filtered(v.type, value, v) for v, value in given.items()]
    parts = None if residuals is None else as_list("residuals", residuals)
    check_kind_of_mode(mode)
    point = [np.asarray(p.get_value(borrow=True)) for p in shared]
    found = boxes(bounds, shared)
    limits = None if found is None else limits_function(found, [x.shape for x in point], variables)(*values)
    free, normals, more = inside(point, limits), None, []
    if as_entries(constraints):
        if parts is not None:
            raise ValueError("with residuals= there are no constraints=; pass the cost that belongs to the residuals")
        lagrangian = Lagrangian.of(shared, cost, constraints, variables)
        active, multipliers = lagrangian.at(point, values).active(free)
        normals, more = active, [multipliers]
        function = lagrangian.products(mode)
    else:
        function = products(shared, None if parts is not None else check_cost(cost), parts, variables, mode)
    matrix, variance = information(function, point, [*values, *more], parts is not None)
    return inverted(-matrix if ascent else matrix, variance, precision(point), absolute_sigma, free, normals)


def limits_function(found: Sequence[Any], shapes: Sequence[tuple[int, ...]],
                    inputs: Sequence[Any]) -> Callable[..., list[Any]]:  # fmt: skip
    """A function of inputs: the limits of parameters of `shapes` that have the boxes `found`."""
    each = [side for box in found if box is not None for side in box]
    with BUILDING:
        function = pytensor.function(list(inputs), each, mode=PYTHON, on_unused_input="ignore")

    def limits(*values: Any) -> list[Any]:
        known = iter(function(*values))
        return [
            None if box is None else tuple(np.broadcast_to(next(known), shape) for _ in range(2))
            for box, shape in zip(found, shapes, strict=True)
        ]

    return limits


class Linearized(NamedTuple):
    """A cost and constraints where a point is.

    Attributes
    ----------
    gradient, values : vectors
        Of the cost, and of the constraints.
    jacobian : matrix
    low, high : vectors
        The limits of the constraints.
    """

    gradient: np.ndarray
    values: np.ndarray
    jacobian: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def active(self, free: np.ndarray | None, tolerance: float = 1e-6) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the Jacobian of the constraints that are active, and the multipliers of all, by least squares.

        A constraint is active that is at a limit but for `tolerance`, and one that is near and whose multiplier is
        larger than its distance, since the product of the two is what a minimizer has made small.
        """
        sides = np.stack([self.low, self.high])
        gaps = np.abs(self.values - sides) / np.maximum(1, np.abs(np.where(np.isfinite(sides), sides, 0)))
        gap = np.min(gaps, axis=0, initial=np.inf)
        near = gap <= tolerance**0.5
        sizes = np.abs(self._multipliers(near, free)) / max(1, np.max(np.abs(self.gradient), initial=0))
        active = near & ((gap <= tolerance) | (sizes > gap))
        return self.jacobian[active], self._multipliers(active, free)

    def _multipliers(self, rows: np.ndarray, free: np.ndarray | None) -> np.ndarray:
        found, columns = np.zeros(len(self.values)), slice(None) if free is None else free
        if rows.any():
            found[rows] = np.linalg.lstsq(self.jacobian[rows][:, columns].T, self.gradient[columns], rcond=None)[0]
        return found


class Lagrangian(NamedTuple):
    """A cost with constraints, as expressions of parameters.

    Attributes
    ----------
    parameters : list of variables
    inputs : list of variables
    at : callable
        From a point and values of inputs to a `Linearized`.
    value : scalar variable
        The Lagrangian.
    multipliers : vector
        A placeholder for them in it.
    """

    parameters: list[Any]
    inputs: list[Any]
    at: Callable[..., Linearized]
    value: Any
    multipliers: Any

    @classmethod
    def of(cls, parameters: Sequence[Any], cost: Any, constraints: Constraints, inputs: Sequence[Any]) -> Lagrangian:
        """That of `cost`, checked."""
        f = Objective.of(parameters, cost, name="covariance", constraints=constraints)
        rows: Any = f.rows
        with BUILDING:
            values, jacobian = rows.at(f.pack(f.parameters))
            points = [p.type() for p in f.parameters]
            outputs = [f.pack(f.gradients), values, jacobian, *rows.box]
            outputs = replaced(outputs, dict(zip(f.parameters, points, strict=True)))
            function = pytensor.function([*points, *inputs], outputs, mode=PYTHON, on_unused_input="ignore")

        def at(point: Sequence[np.ndarray], given: Sequence[Any]) -> Linearized:
            return Linearized(*(np.asarray(part, "float64") for part in function(*point, *given)))

        multipliers = pt.tensor("multipliers", dtype=f.dtype, shape=(rows.size,))
        return cls(list(f.parameters), list(inputs), at, cost - dot(multipliers, values), multipliers)

    def products(self, mode: CompileMode) -> Callable[..., Any]:
        """As the function `products`; behind the inputs it takes the multipliers."""
        function = products(self.parameters, self.value, None, [*self.inputs, self.multipliers], mode)
        return lambda *arrays: function(*arrays[:-1], arrays[-1].astype(self.multipliers.type.dtype))


class SecondDerivatives(NamedTuple):
    """What is known of the second derivatives at a point. The products are taken when they are needed.

    Attributes
    ----------
    matrix : callable
        It returns what `information` does.
    error : float
        The relative error of the products.
    differs : bool
        Whether they are differences.
    build : callable
        From a vector to a point.
    free : boolean vector or None
        Which components are not at a bound; None without bounds.
    normals : matrix or None
        The Jacobian of the constraints that are active; None without constraints.
    """

    matrix: Callable[[], tuple[np.ndarray, float | None]]
    error: float
    differs: bool
    build: Callable[[np.ndarray], Any]
    free: np.ndarray | None = None
    normals: np.ndarray | None = None


def products(parameters: Sequence[Any], cost: Any, residuals: Sequence[Any] | None, inputs: Sequence[Any],
             mode: CompileMode, robust: Robust | None = None) -> Callable[..., Any]:  # fmt: skip
    """A function of a point, of vectors and of inputs: the products of second derivatives with the vectors.

    With `residuals` it returns their derivatives along the vectors, and the residuals, in the place of these; both
    weighted where they have a loss.
    """
    with BUILDING:
        variables, outputs = products_graph(parameters, cost, residuals, inputs, robust)
        return pytensor.function(variables, outputs, mode=mode, on_unused_input="ignore")


def products_graph(parameters: Sequence[Any], cost: Any, residuals: Sequence[Any] | None, inputs: Sequence[Any],
                   robust: Robust | None = None) -> tuple[list[Any], list[Any]]:  # fmt: skip
    """The variables of that function, and what it returns as expressions of them."""
    vectors, points = ([p.type() for p in parameters] for _ in range(2))
    if residuals is None:
        outputs = second_derivatives(parameters, differentiate(cost, parameters), vectors, "a covariance")
    else:
        robust = robust or Robust.of("linear", 1.0)
        outputs = [*pushforward(robust.linearized(residuals), parameters, vectors), *robust.roots(residuals)]
    outputs = replaced(outputs, dict(zip(parameters, points, strict=True)))
    return [*points, *vectors, *inputs], outputs


def information(function: Callable[..., Any], point: Sequence[np.ndarray], inputs: Sequence[Any],
                of_residuals: bool, rows: tuple[int, ...] = ()) -> tuple[np.ndarray, Any]:  # fmt: skip
    """The matrix of second derivatives; or :math:`J` and the variance of the residuals, NaN if they are too few.

    With `rows` those of so many points, which all arrays have for their first axes. Of these, residuals that are zero
    and have no derivatives do not count: they fill up data sets that are shorter than others.
    """
    columns: list[np.ndarray] = []
    values: Any = ()
    for vectors in basis([array[(0,) * len(rows)] for array in point]):
        values = function(*point, *vectors, *inputs)
        columns.append(
            np.concatenate([np.reshape(v, (*rows, -1)) for v in values[: len(values) // (1 + of_residuals)]], -1)
        )
    matrix = np.stack(columns, axis=-1).astype("float64") if columns else np.zeros((*rows, 0, 0))
    if not of_residuals:
        return (matrix + np.swapaxes(matrix, -2, -1)) / 2, None
    roots = [np.reshape(r, (*rows, -1)) for r in values[len(values) // 2 :]]
    squares = sum(np.sum(np.square(r, dtype="float64"), axis=-1) for r in roots)
    if not rows:
        spare = matrix.shape[0] - matrix.shape[1]
        return matrix, squares / spare if spare > 0 else np.nan
    spare = ((matrix != 0).any(axis=-1) | (np.concatenate(roots, axis=-1) != 0)).sum(axis=-1) - matrix.shape[-1]
    return matrix, np.where(spare > 0, squares / np.maximum(spare, 1), np.nan)


def basis(point: Sequence[np.ndarray]) -> Any:
    """The unit vectors, each in the shapes of `point`."""
    for position, array in enumerate(point):
        for component in range(array.size):
            vectors = [np.zeros_like(a) for a in point]
            vectors[position].reshape(-1)[component] = 1
            yield vectors


def precision(point: Sequence[np.ndarray]) -> float:
    """The relative error of exact derivatives at `point`."""
    return max((float(np.finfo(array.dtype).eps) for array in point), default=0.0)


def inverted(matrix: np.ndarray, variance: float | None, error: float, absolute_sigma: bool = False,
             free: np.ndarray | None = None, normals: np.ndarray | None = None) -> Array:  # fmt: skip
    """The covariance of `matrix`, that of second derivatives or :math:`J`, whose relative error is `error`.

    Rows and columns of components that are not `free` are zero; by default all are. Nothing varies along `normals`, the
    rows of a matrix.

    Raises
    ------
    ValueError
        If it is not positive definite within the error, whatever the units of the components; if `absolute_sigma` is
        said of no residuals; or if these are too few.
    """
    if check_flag("absolute_sigma", absolute_sigma) and variance is None:
        raise ValueError("absolute_sigma is about residuals, which this minimization does not have; leave it out")
    if free is not None and not free.all():
        result: Array = np.zeros((free.size, free.size))
        part = matrix[:, free] if variance is not None else matrix[np.ix_(free, free)]
        if free.any():
            part_of_normals = None if normals is None else normals[:, free]
            result[np.ix_(free, free)] = inverted(part, variance, error, absolute_sigma, normals=part_of_normals)
        return result
    if normals is not None and normals.size and np.isfinite(matrix).all():
        Z = tangents(matrix, normals, error)
        # As a sum of squares no variance is negative.
        half = Z @ np.linalg.cholesky(np.asarray(inverted(Z.T @ matrix @ Z, variance, error)))
        along: Array = half @ half.T
        return along
    if not np.isfinite(matrix).all():
        raise ValueError("there is no covariance here: the second derivatives are not finite at this point")
    result, values = _inverse(matrix, 1.0 if variance is None or absolute_sigma else variance, variance is not None)
    positive = _is_positive(values, error, variance is not None)
    if not positive:
        raise ValueError(
            "there is no covariance here: the matrix of second derivatives is not positive definite (its smallest "
            f"eigenvalue is {values.min():.3g} with all of its diagonal scaled to 1). The point is no minimum, or the "
            "data do not determine all components: leave one out, or add a penalty or a prior"
        )
    if not (variance is None or absolute_sigma or np.isfinite(variance)):
        raise ValueError(
            "there are no more residuals than components, so their variance is not known; if the residuals are in "
            "units of their standard deviations, pass absolute_sigma=True"
        )
    return result


def tangents(matrix: np.ndarray, normals: np.ndarray, error: float) -> np.ndarray:
    """A basis of the space on which `normals` are zero, as columns, orthonormal in units of the diagonal of `matrix`.

    Rows that depend on others within the relative error `error` change nothing.
    """
    sizes = np.diagonal(matrix)
    units = np.sqrt(np.where(sizes > 0, sizes, 1.0))
    rows = normals / units
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    _, values, right = np.linalg.svd(rows / np.where(lengths > 0, lengths, 1.0))
    rank = int(np.sum(values > max(rows.shape) * error))
    return right[rank:].T / units[:, None]


def inverses(matrices: np.ndarray, variances: Any, error: float, free: np.ndarray | None = None,
             normals: Sequence[np.ndarray] | None = None, absolute_sigma: bool = False) -> Array:  # fmt: skip
    """The covariances of many matrices, as `inverted` of one; NaN where there is none.

    With `normals` they are of second derivatives, and each has its own.

    Raises
    ------
    ValueError
        If `absolute_sigma` is said of no residuals.
    """
    if check_flag("absolute_sigma", absolute_sigma) and variances is None:
        raise ValueError("absolute_sigma is about residuals, which this minimization does not have; leave it out")
    if normals is not None:
        several: Array = np.full(matrices.shape, np.nan)
        for row, (matrix, own) in enumerate(zip(matrices, normals, strict=True)):
            with suppress(ValueError):
                several[row] = inverted(matrix, None, error, False, None if free is None else free[row], own)
        return several
    if free is not None and not free.all():
        result: Array = np.zeros((*free.shape, free.shape[1]))
        for pattern in np.unique(free, axis=0):
            members, inside = np.flatnonzero((free == pattern).all(axis=1)), np.flatnonzero(pattern)
            part = (
                matrices[members][:, :, inside] if variances is not None else matrices[np.ix_(members, inside, inside)]
            )
            known = None if variances is None else variances[members]
            result[np.ix_(members, inside, inside)] = inverses(part, known, error, absolute_sigma=absolute_sigma)
        return result
    finite = np.isfinite(matrices).all(axis=(1, 2))
    scales = np.ones(len(matrices)) if variances is None or absolute_sigma else variances
    result, values = _inverse(np.where(finite[:, None, None], matrices, 0), scales, variances is not None)
    good = finite & _is_positive(values, error, variances is not None) & np.isfinite(scales)
    return np.where(good[:, None, None], result, np.nan)


def _inverse(matrix: np.ndarray, variance: Any, of_residuals: bool) -> tuple[np.ndarray, np.ndarray]:
    """The covariance of a matrix or of many, and the eigenvalues that decide whether it is one.

    They are of components in their own units, so that no choice of units decides; and of J itself, whose condition is
    the root of that of its square.
    """
    if of_residuals:
        sizes = np.linalg.norm(matrix, axis=-2)
        units = np.where(sizes > 0, sizes, 1.0)
        full = matrix.shape[-2] < matrix.shape[-1]
        _, s, rows = np.linalg.svd(matrix / units[..., None, :], full_matrices=full)
        values, vectors = np.zeros_like(units), np.swapaxes(rows, -2, -1)
        values[..., : s.shape[-1]] = s**2
    else:
        sizes = np.diagonal(matrix, axis1=-2, axis2=-1)
        units = np.sqrt(np.where(sizes > 0, sizes, 1.0))
        values, vectors = np.linalg.eigh(matrix / (units[..., :, None] * units[..., None, :]))
    if not values.size:
        return np.zeros((*values.shape, values.shape[-1])), values
    values = np.where((sizes > 0).all(axis=-1, keepdims=True), values, np.minimum(values, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.asarray(variance)[..., None, None] * (vectors / values[..., None, :])
        found = scaled @ np.swapaxes(vectors, -2, -1) / (units[..., :, None] * units[..., None, :])
    return found, values


def _is_positive(values: np.ndarray, error: float, of_residuals: bool) -> Any:
    """Whether eigenvalues of matrices with such a relative error are positive."""
    least = values.shape[-1] * error
    return (values > (least**2 if of_residuals else least)).all(axis=-1)


def propagated(parameters: Sequence[Any], outputs: Sequence[Any], matrix: np.ndarray, inputs: Mapping[Any, Any],
               mode: CompileMode) -> list[np.ndarray]:  # fmt: skip
    r"""The standard errors of `outputs`, functions of parameters whose covariance is `matrix`, where these are now.

    By the delta method, :math:`\operatorname{diag}(J C J^T)^{1/2}` (Casella and Berger (2002), section 5.5.4), with a
    derivative along a vector for each component of the parameters.
    """
    point = [np.asarray(p.get_value(borrow=True)) for p in parameters]
    vectors = [p.type() for p in parameters]
    with BUILDING:
        pushed = pushforward(outputs, parameters, vectors)
        function = pytensor.function([*vectors, *inputs], pushed, mode=mode, on_unused_input="ignore")
    values, directions = np.linalg.eigh(matrix)
    # C = R R^T, so that the columns of R suffice.
    root = directions * np.sqrt(np.maximum(values, 0))
    ends = np.cumsum([array.size for array in point])[:-1]
    total: list[Any] = [0.0] * len(outputs)
    for column in root.T:
        parts = np.split(column, ends)
        along = [part.reshape(a.shape).astype(a.dtype) for part, a in zip(parts, point, strict=True)]
        derivatives = function(*along, *inputs.values())
        total = [sum_ + np.square(d, dtype="float64") for sum_, d in zip(total, derivatives, strict=True)]
    return [np.sqrt(sum_) for sum_ in total]


def laplace_evidence(log_density: float, matrix: np.ndarray) -> float:
    r"""Laplace's approximation of the logarithm of the integral of a density over :math:`n` variables.

    .. math:: \log p(\hat\theta) + \tfrac{n}{2} \log 2 \pi + \tfrac{1}{2} \log |C|

    with the log density at its mode and the covariance there (MacKay (2003), Information theory, inference, and
    learning algorithms, equation 27.6).
    """
    _, size = np.linalg.slogdet(matrix)
    return float(log_density + matrix.shape[0] / 2 * np.log(2 * np.pi) + size / 2)
