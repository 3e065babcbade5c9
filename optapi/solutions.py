"""Solutions as variables: minimizers, roots and fixed points inside of a graph, with exact derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from .checks import (
    as_dtype,
    as_list,
    as_tensor,
    called,
    check_choice,
    check_cost,
    check_count,
    check_not_swapped,
    check_number,
    check_parameters,
    is_generator,
)
from .drivers.options import check_rule, options_of, rule_of
from .drivers.program import apply
from .feasible import Box
from .graph.derivatives import TRUE, differentiate, held, pullback, pushforward, substituted
from .graph.implicit import Solver, System, implicit, is_real, matrix, pack, unpack, vectorized_matrix
from .graph.loops import FALSE, loop, read_beside, repeat
from .graph.replace import replaced
from .hints import hinted
from .notes import note
from .objective import Objective, conjunction
from .state import shape_of
from .typing import OptAlgo, Variables
from .updates import reports
from .vectors import dot, guarded, largest, norm


# Up to so many components the matrix of a linear system is formed.
DENSE = 200
# Reasons with which a solution counts as one: converged, at the target, converged to the precision of the cost.
SOLVED = (0, 5, 7)
LIMIT = 1
# Options of rules whose solutions have other conditions of optimality than those differentiated here.
WITHOUT = ("l1", "prox", "region", "manifold")


class Solution(NamedTuple):
    """A solution, as variables.

    Attributes
    ----------
    parameters : list of variables
        The solution, one for each parameter, of its shape and dtype.
    cost : scalar variable
        The cost there; of equations half of the sum of the squares of what is left of them.
    reason : integer scalar variable
        Why the search for it ended, as in `reports`: 0 converged, 7 converged to the precision of the cost; and 1 at
        the largest number of iterations, 2 no further progress, 3 not finite, 6 infeasible, 8 unbounded below, with
        which there is no solution.
    evaluations : integer scalar variable
        Of the cost with its gradients, or of the equations.
    gradient_size : scalar variable
        The largest component of what vanishes at a solution.
    multipliers : list of variables
        Those of the constraints, as `optapi.multipliers` has them. They have derivatives too.
    bound_multipliers : list of variables
        With bounds, one for each parameter: zero where a component is not at a bound.
    """

    parameters: list[Any]
    cost: Any
    reason: Any
    evaluations: Any
    gradient_size: Any
    multipliers: Sequence[Any] = ()
    bound_multipliers: Sequence[Any] = ()


@hinted
def solve(parameters: Variables, cost: Variable | None = None, rule: OptAlgo = "lbfgs", *, start: Any = None,
          inputs: Variables | None = None, linear_solver: str | Callable[..., Any] = "auto",
          max_iterations: int = 1000, tolerance: float | None = 1e-8, on_failure: str = "nan",
          **options: Any) -> Solution:  # fmt: skip
    r"""The minimizer of `cost` as a variable, with derivatives of any order by all that the cost reads.

    At a minimizer :math:`x(\theta)` of :math:`f(x, \theta)` the gradient vanishes, so

    .. math:: \frac{\partial x}{\partial \theta} = -\left(\nabla^2_{xx} f\right)^{-1} \nabla^2_{x\theta} f

    however it was found: the iterations are not differentiated. A gradient takes one linear system with the matrix of
    second derivatives, and so does a gradient of the gradient.

    Parameters
    ----------
    parameters : list of variables
        What is optimized: variables of known shapes, from which `cost` is built; mostly placeholders such as
        ``pt.tensor("w", shape=(8,))``, or shared variables, whose values are only read.
    cost : scalar variable
    rule : callable or str
        A rule that says when it has converged, or its name.
    start : list of variables or arrays, optional
        One for each parameter. By default the value of a shared one, and zeros of others. The solution has no
        derivative by it.
    inputs : list of variables, optional
        What the solution is to have derivatives by, of what `cost` and `options` read; all by default. The rest counts
        as constant.
    linear_solver : str or callable
        How linear systems with the matrix of second derivatives are solved. "dense" forms it, by as many products as
        there are components, and factorizes it; "cg" takes conjugate gradients, with a product at each step; "auto" is
        "dense" up to 200 components and with constraints. A callable ``(product, b) -> v`` gets a function from a
        symbolic vector to its product with the matrix, and a vector, both of the components of all parameters.
    max_iterations : int
    tolerance : float or None
        The largest component of the gradient at a solution. The derivatives are those at the point found.
    on_failure : str
        "nan": where the search for the minimizer fails, its derivatives are NaN, in a batch those of that member alone.
        "ignore": they are what the formula gives.
    **options
        Options of the rule, which may be expressions, such as ``bounds=`` and ``constraints=``.

    Returns
    -------
    Solution

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said here; if the cost is random; or if the rule has a penalty, as by `l1`.

    Notes
    -----
    With `bounds` a component that is at its bound stays there, and has the derivative of the bound. With `constraints`
    the linear system is that of the conditions of Karush, Kuhn and Tucker, with the constraints that are active. Where
    a multiplier of an active one is zero, only derivatives to one side exist, and these are those of the side on which
    it is active.

    The matrix has to be positive definite, but for directions that constraints fix; where it is not, the derivatives
    are NaN with "dense" and "cg". Its derivatives are never formed: for :math:`n` components "dense" takes
    :math:`n` products with it and :math:`n^3 / 3` multiplications, for each point.

    All works under every mode of PyTensor, in ``vectorize_graph``, where the members of a batch stop on their own, and
    inside of the cost of another `solve`.

    References
    ----------
    Krantz and Parks (2013), The implicit function theorem; Blondel et al. (2022), Efficient and modular implicit
    differentiation; Fiacco (1983), Introduction to sensitivity and stability analysis in nonlinear programming,
    theorem 3.2.2, with constraints.

    Examples
    --------
    The penalty of a ridge regression, and the derivative of the error on other data by it:

    >>> rng = np.random.default_rng(0)
    >>> X, y, X_new, y_new = (rng.normal(size=shape) for shape in [(20, 3), 20, (9, 3), 9])
    >>> w, alpha = pt.tensor("w", shape=(3,)), pt.dscalar("alpha")
    >>> cost = pt.sum((X @ w - y) ** 2) + alpha * pt.sum(w**2)
    >>> [found] = optapi.solve([w], cost).parameters
    >>> error = pt.mean((X_new @ found - y_new) ** 2)
    >>> f = pytensor.function([alpha], [error, pytensor.grad(error, alpha)], mode=optapi.PYTHON)
    >>> value, slope = f(2.0)
    >>> bool(np.isclose((f(2.001)[0] - f(1.999)[0]) / 0.002, slope))
    True
    """
    check_not_swapped("solve", parameters, cost)
    if cost is None:
        raise ValueError("solve needs the cost; pass cost=, from which the conditions at its minimizer follow")
    cost = check_cost(cost)
    problem = Unknowns.of("solve", parameters, start)
    chosen = rule_of(rule, "rule")
    for name in WITHOUT:
        if options.get(name) is not None:
            raise ValueError(
                f"solve has no derivatives of solutions with {name}=; leave it out, or write it into the cost, as "
                "a smooth penalty or by optapi.bijections"
            )
    options = check_rule(chosen, options, solve, "parameters and cost", symbolic=True)
    known = options_of(chosen)[0] or {}
    if "tolerance" in known:
        options["tolerance"] = None if tolerance is None else check_number("tolerance", tolerance, 0)
    if "exact" in known and options.get("exact") is None:
        options["exact"] = True
    check_choice("on_failure", on_failure, ("nan", "ignore"))
    steps = check_count("max_iterations", max_iterations)
    _check_fixed([cost], "cost")
    [cost], options = problem.inside([cost], options, inputs)

    ascent = bool(options.get("ascent", False))
    own = {name: options.get(name) for name in ("bounds", "constraints")}
    f = Objective.of(problem.places, cost, name="solve", ascent=ascent, bounds=own["bounds"],
                     constraints=own["constraints"] or ())  # fmt: skip
    has_rows = f.rows is not None and f.rows.size > 0
    solver = _linear_solver(linear_solver, f.size, definite=not has_rows)

    stop = pytensor.shared(np.int64(0), name="stop")
    updates = apply(chosen, list(problem.places), cost=cost, stop=stop, **options)
    _check_fixed(list(updates.values()), "cost")
    begin = dict(zip(problem.places, problem.start, strict=True))
    taken = pytensor.shared(np.int64(0), name="taken")
    looped = loop(updates, steps, stop, taken=taken)
    first = [begin[v] if v in begin else _constant(v) for v in updates]
    last = dict(zip(looped, replaced(list(looped.values()), dict(zip(updates, first, strict=True))), strict=True))

    point = [last[q] for q in problem.places]
    roles = {role: [last[v] for v in variables] for role, variables in reports(updates).items()}
    reason = _largest_of(roles.get("reason", [pt.constant(np.int64(0))]))
    finite = conjunction([pt.all(pt.isfinite(x)) for x in point])
    reason = pt.switch(finite, pt.switch(last[stop] > 0, reason, LIMIT), 3).astype("int64")
    reason, point = held(reason), [held(x) for x in point]
    is_solution = TRUE if on_failure == "ignore" else _is_solved(reason)

    rows = [held(last[v]) for v in updates if note(v, "multipliers")] if has_rows else []
    found, y, w = _stationary(f, problem, point, rows, solver, is_solution)
    [value] = substituted([cost], dict(zip(problem.places, found, strict=True)))
    size = roles.get("gradient_size")
    if size is None:
        gradients = substituted(f.gradients, dict(zip(problem.places, point, strict=True)))
        size = [
            largest((g if box is None else box.residual(x, g)).ravel())
            for x, g, box in zip(point, gradients, f.boxes or [None] * len(point), strict=True)
        ]
    evaluations = sum(roles["evaluations"]) if "evaluations" in roles else last[taken]
    return Solution(found, value, reason, evaluations, held(_largest_of(size)), y, w)


@hinted
def root(parameters: Variables, equations: Variables, method: str = "newton", *, start: Any = None,
         inputs: Variables | None = None, linear_solver: str | Callable[..., Any] = "auto", max_iterations: int = 200,
         tolerance: float = 1e-8, on_failure: str = "nan") -> Solution:  # fmt: skip
    r"""A root of equations as a variable, with derivatives of any order by all that the equations read.

    At a root :math:`F(x, \theta) = 0` with the Jacobian :math:`J = \partial F / \partial x`,

    .. math:: \frac{\partial x}{\partial \theta} = -J^{-1} \frac{\partial F}{\partial \theta}

    Parameters
    ----------
    parameters, start, inputs, max_iterations, on_failure
        As in `solve`.
    equations : list of variables
        :math:`F`, which is to be zero: floating-point tensors built from `parameters`, with as many components.
    method : str
        "newton": a step of Newton, and where it makes :math:`\|F\|` no smaller, or the Jacobian is singular, one of
        Levenberg and Marquardt, shorter and shorter. "levenberg_marquardt" begins with such steps. "broyden" takes
        derivatives at the start alone, and then learns from differences.
    linear_solver : str or callable
        As in `solve`, of systems with :math:`J` and its transpose, which need not be symmetric: "dense" is by LU, "cg"
        by conjugate gradients on the normal equations. A callable ``(product, b) -> v`` is given products with
        either. With "cg" or a callable, "newton" forms no matrix, but takes conjugate gradients itself.
    tolerance : float
        The largest component of :math:`F` at a root.

    Returns
    -------
    Solution
        Its reason is also 7 where Newton's step is below the rounding of the root.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said here, or the equations are random.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, chapter 11, and equation 10.34 with the ratio of section 4.1 for
    the steps of Levenberg and Marquardt; Broyden's method: equation 11.23.

    Examples
    --------
    >>> x, a = pt.tensor("x", shape=()), pt.dscalar("a")
    >>> [found] = optapi.root([x], [x**3 - a], start=[1.0]).parameters
    >>> f = pytensor.function([a], [found, pytensor.grad(found, a)], mode=optapi.PYTHON)
    >>> print(*(value.round(6) for value in f(8.0)))
    2.0 0.083333
    """
    check_choice("method", method, ("newton", "levenberg_marquardt", "broyden"))
    system = Equations.of("root", parameters, equations, "equations", start, inputs, linear_solver)
    is_dense = linear_solver == "dense" or (linear_solver == "auto" and system.size <= DENSE)
    if method == "broyden":
        search = _broyden
    else:
        search = partial(_newton, is_dense=is_dense, damping=0.0 if method == "newton" else 1e-3)
    return system.solved(search, max_iterations, tolerance, on_failure)


@hinted
def fixed_point(parameters: Variables, images: Variables, *, start: Any = None, inputs: Variables | None = None,
                memory: int = 5, linear_solver: str | Callable[..., Any] = "auto", max_iterations: int = 1000,
                tolerance: float = 1e-8, on_failure: str = "nan") -> Solution:  # fmt: skip
    r"""A fixed point :math:`x = T(x, \theta)` as a variable, with derivatives as those of `root`.

    It is found by Anderson acceleration: the next point is :math:`T` of the combination of the last points for which
    the same combination of the residuals :math:`T(x) - x` is smallest.

    Parameters
    ----------
    parameters, start, inputs, max_iterations, on_failure
        As in `solve`.
    images : list of variables
        :math:`T`, one for each parameter, of its shape.
    memory : int
        How many steps are combined; with 0 it is the plain iteration.
    linear_solver : str or callable
        As in `root`.
    tolerance : float
        The largest component of :math:`T(x) - x`.

    Returns
    -------
    Solution

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said here, or the images are random.

    References
    ----------
    Walker and Ni (2011), Anderson acceleration for fixed-point iterations, equation 2.2; Bai, Kolter and Koltun (2019),
    Deep equilibrium models.

    Examples
    --------
    >>> x, a = pt.tensor("x", shape=()), pt.dscalar("a")
    >>> [found] = optapi.fixed_point([x], [a * pt.cos(x)]).parameters
    >>> print(pytensor.function([a], found, mode=optapi.PYTHON)(1.0).round(6))
    0.739085
    """
    count = check_count("memory", memory, low=0)
    system = Equations.of("fixed_point", parameters, images, "images", start, inputs, linear_solver, True)
    return system.solved(partial(_anderson, memory=count), max_iterations, tolerance, on_failure)


class Laplace(NamedTuple):
    r"""Laplace's approximation of an integral, as variables that have derivatives.

    Attributes
    ----------
    mode : list of variables
        The latent variables at the mode.
    log_det : scalar variable
        :math:`\log \det H` of the second derivatives :math:`H` of `neg_logp` at the mode; NaN where they are not
        positive definite.
    log_marginal : scalar variable
        :math:`\log \int p(y, z) \, dz`, approximately.
    solution : Solution
    """

    mode: list[Any]
    log_det: Any
    log_marginal: Any
    solution: Solution


@hinted
def laplace(latents: Variables, neg_logp: Variable, rule: OptAlgo = "trust_region_cg", **options: Any) -> Laplace:
    r"""Laplace's approximation: the logarithm of an integral over latent variables, from the mode and the curvature.

    .. math:: \log \int e^{-f(z)} dz \approx -f(\hat z) + \tfrac n2 \log 2 \pi - \tfrac12 \log \det H(\hat z)

    Parameters
    ----------
    latents : list of variables
        :math:`z`, of known shapes, as the parameters of `solve`.
    neg_logp : scalar variable
        :math:`f`, minus the logarithm of the joint density of data and latent variables.
    rule : callable or str
    **options
        Of `solve`, and of the rule.

    Returns
    -------
    Laplace
        Its marginal and the mode have derivatives by all that `neg_logp` reads, such as the logarithms of scales.

    Raises
    ------
    TypeError, ValueError
        As `solve`; also with bounds or constraints, or if an operation of `neg_logp` cannot be vectorized.

    Notes
    -----
    The matrix :math:`H` is formed, with :math:`n^2` numbers. The approximation is exact where :math:`f` is quadratic.

    References
    ----------
    Tierney and Kadane (1986), Accurate approximations for posterior moments and marginal densities; Rue, Martino and
    Chopin (2009), Approximate Bayesian inference for latent Gaussian models, section 3.

    Examples
    --------
    The integral of a normal density times 3:

    >>> z, s = pt.tensor("z", shape=(2,)), pt.dscalar("s")
    >>> f = pt.sum((z - 1) ** 2) / (2 * s**2) + 2 * pt.log(s) + pt.log(2 * np.pi) - pt.log(3)
    >>> found = optapi.laplace([z], f)
    >>> print(pytensor.function([s], found.log_marginal, mode=optapi.PYTHON)(0.7).round(6), np.log(3).round(6))
    1.098612 1.098612
    """
    latents = Unknowns.of("laplace", latents, options.get("start"), "latents").parameters
    neg_logp = check_cost(neg_logp, "neg_logp")
    for name in ("bounds", "constraints", "ascent"):
        if options.get(name):
            raise ValueError(f"laplace takes no {name}=; write neg_logp with free variables, see optapi.bijections")
    solution = solve(latents, neg_logp, rule, **options)
    places = [x.type() for x in solution.parameters]
    [inner] = substituted([neg_logp], dict(zip(latents, places, strict=True)))
    gradients = differentiate(inner, places)
    size, dtype = sum(prod(q.type.shape) for q in places), pack(places).type.dtype
    try:
        H = vectorized_matrix(
            lambda v: as_dtype(pack(pullback(gradients, places, unpack(v, places))), dtype), size, dtype
        )
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"the second derivatives of neg_logp cannot be vectorized ({error}); write it otherwise"
        ) from error
    [H] = replaced([H], dict(zip(places, solution.parameters, strict=True)))
    H, nonfinite = guarded((H + H.T) / 2)
    L: Any = pt.linalg.cholesky(H, lower=True, on_error="nan")
    log_det = 2 * pt.sum(pt.log(pt.diagonal(L))) + nonfinite
    log_marginal = -solution.cost + size / 2 * np.log(2 * np.pi) - log_det / 2
    return Laplace(solution.parameters, log_det, log_marginal, solution)


class Equations(NamedTuple):
    """Equations in the components of one vector.

    Attributes
    ----------
    unknowns : Unknowns
    residuals : list of variables
        One for each parameter, of its shape, expressions of the placeholders.
    dtype : str
    solver : callable
    """

    unknowns: Unknowns
    residuals: list[Any]
    dtype: str
    solver: Solver

    @classmethod
    def of(cls, function: str, parameters: Any, expressions: Any, argument: str, start: Any, inputs: Any,
           linear_solver: Any, less: bool = False) -> Equations:  # fmt: skip
        """Those that a user passed as `argument`, which with `less` are images of the parameters."""
        unknowns = Unknowns.of(function, parameters, start)
        places = unknowns.places
        given = [as_tensor(f"{argument}[{i}]", value) for i, value in enumerate(as_list(argument, expressions))]
        for i, expression in enumerate(given):
            if not is_real(expression):
                raise TypeError(f"{argument}[{i}] has dtype {expression.type.dtype}; pass floating-point expressions")
        _check_fixed(given, argument)
        found, _ = unknowns.inside(given, {}, inputs)
        if less and len(found) != len(places):
            raise ValueError(f"{argument} has {len(found)} entries for {len(places)} parameters; pass one for each")
        for i, expression in enumerate(found):
            # What a matrix of unknown size gives has the shape of its parameter.
            if len(found) == len(places) and expression.type.ndim == places[i].type.ndim:
                expression = found[i] = pt.specify_shape(expression, _meet(expression, places[i]))
            if None in expression.type.shape:
                raise TypeError(f"{argument}[{i}] has no static shape; put pt.specify_shape around it")
            if less and expression.type.shape != places[i].type.shape:
                raise ValueError(
                    f"{argument}[{i}] has shape {expression.type.shape}, its parameter {places[i].type.shape}; "
                    "pass one of the same shape"
                )
        size, wanted = (sum(prod(v.type.shape) for v in tensors) for tensors in (found, places))
        if size != wanted:
            raise ValueError(
                f"{argument} has {size} components, and the parameters have {wanted}; pass as many as there are"
            )
        dtype = pack(places).type.dtype
        residuals = unpack(as_dtype(pack(found), dtype), places)
        if less:
            residuals = [image - q for image, q in zip(residuals, places, strict=True)]
        solver = _linear_solver(linear_solver, size, symmetric=False)
        return cls(unknowns, residuals, dtype, solver)

    @property
    def size(self) -> int:
        """The number of components."""
        return sum(prod(q.type.shape) for q in self.unknowns.places)

    def at(self, x: Any) -> Any:
        """The packed residuals at a packed point."""
        places = self.unknowns.places
        return pack(substituted(self.residuals, dict(zip(places, unpack(x, places), strict=True))))

    def products(self, x: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        """The products with the Jacobian at a point, and with its transpose."""
        places = self.unknowns.places
        values = unpack(x, places)
        # Of variables of their own, since a point may be a constant.
        here = dict(zip(places, values, strict=True))

        def forward(v: Any) -> Any:
            return pack(substituted(pushforward(self.residuals, places, unpack(v, places)), here))

        def backward(v: Any) -> Any:
            return pack(substituted(pullback(self.residuals, places, unpack(v, places)), here))

        return forward, backward

    def solved(self, search: Callable[..., Any], max_iterations: int, tolerance: float, on_failure: str) -> Solution:
        """The solution that `search` finds, with its derivatives."""
        check_choice("on_failure", on_failure, ("nan", "ignore"))
        steps = check_count("max_iterations", max_iterations)
        small = np.asarray(check_number("tolerance", tolerance, 0), self.dtype)
        begin = as_dtype(pack(self.unknowns.start), self.dtype)
        found, reason, evaluations = (held(v) for v in search(self, begin, small, steps))
        is_solution = TRUE if on_failure == "ignore" else _is_solved(reason)
        places = self.unknowns.places
        unknowns = [q.type() for q in places]
        residuals = substituted(self.residuals, dict(zip(places, unknowns, strict=True)))
        point = unpack(found, places)
        exact = self.unknowns.differentiable(unknowns, residuals, point, self.solver, is_solution, False)
        left = pack(substituted(self.residuals, dict(zip(places, exact, strict=True))))
        return Solution(exact, dot(left, left) / 2, reason, evaluations, held(largest(left)))


def _newton(system: Equations, begin: Any, small: Any, steps: int, is_dense: bool, damping: float) -> tuple[Any, ...]:
    r"""Newton's method, damped as by Levenberg and Marquardt where a step does not pass.

    A step is that of the system :math:`r + J d = -F`, :math:`J^T r = \mu d`, whose solution for :math:`\mu = 0` is
    Newton's step, also where :math:`J^T J` would lose half of the digits.
    """
    n, dtype = system.size, system.dtype
    least = np.asarray(damping and 1e-6, dtype)

    def number(value: Any) -> Any:
        return np.asarray(value, dtype)

    def step(x: Any, F: Any, share: Any) -> tuple[Any, Any]:
        """The step, and what is left of the linear model after it."""
        forward, backward = system.products(x)
        if not is_dense:
            mu = share * pt.maximum(norm(backward(F)) / norm(F), number(1e-8))

            def product(v: Any) -> Any:
                return backward(forward(v)) + mu * v

            normal = cg_solver(product, product, -backward(F))
            return normal, F + forward(normal)
        J, nonfinite = guarded(matrix(forward, n, dtype))
        mu = share * pt.max(pt.sum(J**2, axis=0))
        eye = np.eye(n, dtype=dtype)
        whole = pt.concatenate([pt.concatenate([eye + 0 * J, J], axis=1), pt.concatenate([J.T, -mu * eye], axis=1)])
        whole = whole + pt.switch(pt.isnan(nonfinite), number(1), number(0)) * np.eye(2 * n, dtype=dtype)
        factors: Any = pt.linalg.lu_factor(whole)
        both = pt.linalg.lu_solve(factors, pt.concatenate([-F, pt.zeros_like(F)]), check_finite=False) + nonfinite
        return both[n:], -both[:n]

    def turn(x: Any, F: Any, share: Any, reason: Any, count: Any) -> Any:
        d, left = step(x, F, share)
        trial = x + d
        G = system.at(trial)
        now = dot(F, F)
        promised = now - dot(left, left)
        good = (now - dot(G, G) > number(1e-4) * promised) & pt.all(pt.isfinite(G)) & pt.all(pt.isfinite(trial))
        tiny = pt.eq(share, 0) & (largest(d) <= number(8 * np.finfo(dtype).eps) * largest(x))
        less = pt.switch(share > number(1e-6), share / 10, pt.zeros_like(share))
        share = pt.switch(good, pt.maximum(less, least), pt.maximum(4 * share, number(1e-4)))
        F, x = pt.switch(good, G, F), pt.switch(good, trial, x)
        lost = share > number(1e12)
        reason = pt.switch(largest(F) <= small, 0, pt.switch(tiny, 7, pt.switch(lost, 2, LIMIT)))
        return [x, F, share, reason, count + 1], pt.neq(reason, LIMIT)

    first = system.at(begin)
    start = [begin, first, number(damping), pt.constant(np.int64(LIMIT)), pt.constant(np.int64(1))]
    return _searched(turn, start, first, small, steps)


def _broyden(system: Equations, begin: Any, small: Any, steps: int) -> tuple[Any, ...]:
    """Broyden's method with a search along its steps, from the Jacobian at the start."""
    n, dtype = system.size, system.dtype
    J, nonfinite = guarded(matrix(system.products(begin)[0], n, dtype))
    eye = np.eye(n, dtype=dtype)
    factors: Any = pt.linalg.lu_factor(pt.switch(pt.isnan(nonfinite), eye, J))
    inverse = pt.linalg.lu_solve(factors, pt.as_tensor(eye), b_ndim=2, check_finite=False)
    inverse = pt.switch(pt.all(pt.isfinite(inverse)), inverse, eye)

    def turn(x: Any, F: Any, B: Any, a: Any, reason: Any, count: Any) -> Any:
        d = -a * pt.sum(B * F, axis=1)
        trial = x + d
        G = system.at(trial)
        finite = pt.all(pt.isfinite(G))
        good = finite & (norm(G) <= (1 - np.asarray(1e-4, dtype) * a) * norm(F))
        # What a trial shows counts also where it does not pass.
        By = pt.sum(B * (G - F), axis=1)
        dB = pt.sum(B * d[:, None], axis=0)
        new = B + pt.outer(d - By, dB) / dot(d, By)
        B = pt.switch(pt.all(pt.isfinite(new)), new, B)
        a = pt.switch(good, pt.ones_like(a), a / 2)
        F, x = pt.switch(good, G, F), pt.switch(good, trial, x)
        lost = a < np.asarray(1e-6, dtype)
        reason = pt.switch(largest(F) <= small, 0, pt.switch(lost, 2, LIMIT))
        return [x, F, B, a, reason, count + 1], pt.neq(reason, LIMIT)

    first, one = system.at(begin), pt.constant(np.int64(1))
    start = [begin, first, inverse, np.asarray(1, dtype), pt.constant(np.int64(LIMIT)), one]
    return _searched(turn, start, first, small, steps)


def _anderson(system: Equations, begin: Any, small: Any, steps: int, memory: int) -> tuple[Any, ...]:
    """Anderson acceleration; what it remembers is forgotten where the residual grows tenfold."""
    n, dtype = system.size, system.dtype
    m = min(memory, n)
    tiny = np.asarray(np.finfo(dtype).eps, dtype)
    eye = np.eye(m, dtype=dtype)

    def turn(x: Any, F: Any, X: Any, R: Any, reason: Any, count: Any) -> Any:
        step = F
        if m:
            gram = pt.sum(R[:, None, :] * R[None, :, :], axis=2)
            size = pt.max(pt.diagonal(gram))
            used = pt.eq(pt.diagonal(gram), 0).astype(dtype)
            factors: Any = pt.linalg.lu_factor(gram + eye * (tiny * size + used[:, None] * (size + 1)))
            weights = pt.linalg.lu_solve(factors, pt.sum(R * F, axis=1), check_finite=False)
            faster = F - pt.sum((X + R) * weights[:, None], axis=0)
            step = pt.switch(pt.all(pt.isfinite(faster)), faster, F)
        trial = x + step
        G = system.at(trial)
        if m:
            grows = ~(norm(G) <= 10 * norm(F))
            X, R = (
                pt.switch(grows, pt.zeros_like(old), pt.concatenate([new[None], old[:-1]]))
                for old, new in ((X, step), (R, G - F))
            )
        finite = pt.all(pt.isfinite(G))
        reason = pt.switch(finite, pt.switch(largest(G) <= small, 0, LIMIT), 3)
        return [trial, G, X, R, reason, count + 1], pt.neq(reason, LIMIT)

    first, nothing = system.at(begin), pt.zeros((m, n), dtype)
    start = [begin, first, nothing, nothing, pt.constant(np.int64(LIMIT)), pt.constant(np.int64(1))]
    return _searched(turn, start, first, small, steps)


def _searched(turn: Any, start: list[Any], first: Any, small: Any, steps: int) -> tuple[Any, ...]:
    """The last point, the reason and the number of evaluations of a search that begins with the residuals `first`."""
    done, finite = largest(first) <= small, pt.all(pt.isfinite(first))
    x, *_, reason, count = repeat(turn, start, pt.switch(done | ~finite, 0, steps))
    reason = pt.switch(finite, pt.switch(done, 0, reason), 3)
    return x, reason.astype("int64"), count


class Unknowns(NamedTuple):
    """What is solved for.

    Attributes
    ----------
    parameters : list of variables
        As the user passed them.
    places : list of variables
        Placeholders of known shapes for them.
    start : list of variables
    """

    parameters: list[Any]
    places: list[Any]
    start: list[Any]

    @classmethod
    def of(cls, function: str, parameters: Any, start: Any, argument: str = "parameters") -> Unknowns:
        """Those of the arguments of `function`, checked; messages call the `parameters` what `argument` says."""
        parameters = check_parameters(parameters, argument)
        places = []
        for p in parameters:
            try:
                shape = shape_of(p)
            except TypeError as error:
                raise TypeError(
                    f"the {argument.removesuffix('s')} {called(p)} of {function} has a shape that is not known, "
                    f"{p.type.shape}; make it with pt.tensor(name, shape=...), or build from "
                    "pt.specify_shape(variable, shape) and pass that"
                ) from error
            places.append(p.type.clone(shape=shape)(p.name))
        if start is None:
            given = [p if isinstance(p, SharedVariable) else np.zeros(q.type.shape, q.type.dtype)
                     for p, q in zip(parameters, places, strict=True)]  # fmt: skip
        else:
            given = [start] if not isinstance(start, list | tuple) and len(parameters) == 1 else start
            if not isinstance(given, list | tuple) or len(given) != len(parameters):
                raise ValueError(f"start has no entry for each of the {len(parameters)} parameters; pass a list")
        begin = []
        for position, (entry, q) in enumerate(zip(given, places, strict=True)):
            name = f"start[{position}]"
            value = as_tensor(name, entry)
            if value.type.ndim != q.type.ndim or any(
                one is not None and one != other for one, other in zip(value.type.shape, q.type.shape, strict=True)
            ):
                raise ValueError(f"{name} has shape {value.type.shape}, the parameter {q.type.shape}; pass one like it")
            if value.type.dtype.startswith("complex"):
                raise TypeError(f"{name} has dtype {value.type.dtype}; pass real numbers")
            begin.append(pt.specify_shape(as_dtype(value, q.type.dtype), q.type.shape))
        return cls(parameters, places, begin)

    def inside(self, outputs: Sequence[Any], options: Mapping[Any, Any] | None = None,
               inputs: Any = None) -> tuple[list[Any], Any]:  # fmt: skip
        """`outputs` and `options` with placeholders, and what is not among `inputs` held constant."""
        pairs = dict(zip(self.parameters, self.places, strict=True))
        if inputs is not None:
            inputs = as_list("inputs", inputs)
            everything = [*outputs, *_variables(options)]
            read = set(ancestors(everything))
            for position, v in enumerate(inputs):
                if not isinstance(v, Variable) or v not in read or set(self.parameters) & set(ancestors([v])):
                    raise ValueError(
                        f"inputs[{position}] is {v}, which the cost does not read beside the parameters; leave it out"
                    )
            beside = read_beside(everything, [*self.parameters, *inputs])
            pairs |= {v: held(v) for v in beside if is_real(v)}
        new = substituted(outputs, pairs)

        def mapped(value: Any) -> Any:
            if isinstance(value, Variable):
                return pairs[value] if value in pairs else substituted([value], pairs)[0]
            if isinstance(value, dict):
                return {mapped(k) if isinstance(k, Variable) else k: mapped(v) for k, v in value.items()}
            if type(value) in (list, tuple):
                return type(value)(map(mapped, value))
            return value

        return new, mapped(dict(options or {}))

    def differentiable(self, unknowns: Sequence[Any], residuals: Sequence[Any], found: Sequence[Any], solver: Solver,
                 is_solution: Any, is_symmetric: bool) -> list[Any]:  # fmt: skip
        """`found`, with the derivatives of the roots of `residuals`, which are expressions of `unknowns`."""
        outer = read_beside(residuals, unknowns)
        arguments = [v.type() for v in outer]
        inner = replaced(residuals, dict(zip(outer, arguments, strict=True)))
        return implicit(System(unknowns, arguments, inner, solver, is_symmetric), found, is_solution, outer)


def _stationary(f: Objective, problem: Unknowns, point: Sequence[Any], given: Sequence[Any], solver: Solver,
                is_solution: Any) -> tuple[list[Any], Sequence[Any], Sequence[Any]]:  # fmt: skip
    r"""A stationary point of the Lagrangian with its multipliers, as variables that have derivatives.

    They are those of a function whose gradient vanishes at `point` for :math:`x` and `given` for :math:`y`,

    .. math:: f(\bar x) - \sum_{i \in A} y_i (c_i(\bar x) - b_i) + \tfrac12 \sum_{i \notin A} y_i^2
        + \tfrac12 \sum_{j \in B} (x_j - x^0_j)^2

    for the active rows :math:`A` and the components :math:`B` at their bounds, which :math:`\bar x` has in the place of
    :math:`x`. So its matrix of second derivatives is symmetric.
    """
    boxes: list[Box | None] = f.boxes or [None] * len(problem.places)
    fixed = [
        None if box is None else (held(pt.neq(box.active(x), 0)), pt.switch(held(x <= box.low), box.low, box.high))
        for box, x in zip(boxes, point, strict=True)
    ]
    places = [q.type() for q in problem.places]

    def inside(tensors: Sequence[Any]) -> list[Any]:
        return [x if pair is None else pt.switch(pair[0], pair[1], x) for x, pair in zip(tensors, fixed, strict=True)]

    def slack(tensors: Sequence[Any]) -> Any:
        """By how much each row is away from the limit that it is at."""
        values: Any = replaced([f.rows.values], {f.rows.point: f.pack(tensors)})[0]  # type: ignore[union-attr]
        return values - sides

    cost: Any = substituted([f.cost], dict(zip(problem.places, inside(places), strict=True)))[0]
    free, unknowns, found = cost, list(places), list(point)
    for q, x, pair in zip(places, point, fixed, strict=True):
        if pair is not None:
            cost = cost + pt.sum(pt.switch(pair[0], (q - x) ** 2, pt.zeros_like(q))) / 2
    if given:
        rows: Any = f.rows
        sign = np.asarray(-1 if f.ascent else 1, f.dtype)
        y = sign * pack(given)[rows.order]
        sides = pt.switch(held(y < 0), rows.box.high, rows.box.low)
        gap, values = abs(slack(point)), abs(y)
        one = np.asarray(1, f.dtype)
        # Of two numbers of which one is zero at a solution, the larger one counts.
        is_active = held(
            (np.arange(rows.size) < rows.equalities)
            | (values / pt.maximum(one, largest(y)) > gap / pt.maximum(one, abs(sides)))
        )
        place = pt.tensor("multipliers", shape=(rows.size,), dtype=f.dtype)
        product = pt.switch(is_active, place * slack(inside(places)), pt.zeros_like(place))
        free = free - pt.sum(product)
        cost = cost - pt.sum(product) + pt.sum(pt.switch(is_active, pt.zeros_like(place), place**2)) / 2
        unknowns, found = [*places, place], [*point, y]
    residuals = differentiate(cost, unknowns, unknowns)
    exact = problem.differentiable(unknowns, residuals, found, solver, is_solution, True)
    solution = inside(exact[: len(places)])
    multipliers: Sequence[Any] = ()
    if given:
        multipliers = [sign * v for v in f.rows.given(exact[-1])]  # type: ignore[union-attr]
    if f.boxes is None:
        return solution, multipliers, []
    # The gradient of the Lagrangian by components at their bounds: by the value that `inside` has in their place.
    cut = [q.type() for q in places]
    lagrangian = substituted([f.cost], dict(zip(problem.places, cut, strict=True)))[0]
    if given:
        lagrangian = lagrangian - pt.sum(pt.switch(is_active, place * slack(cut), pt.zeros_like(place)))
    slopes = differentiate(lagrangian, cut, cut)
    slopes = substituted(slopes, dict(zip([*cut, *unknowns[len(cut) :]], [*solution, *exact[len(cut) :]], strict=True)))
    turn = -1 if f.ascent else 1
    bound_multipliers = [
        pt.zeros_like(g) if pair is None else turn * pt.switch(pair[0], g, pt.zeros_like(g))
        for g, pair in zip(slopes, fixed, strict=True)
    ]
    return solution, multipliers, bound_multipliers


# Linear systems


def _linear_solver(given: Any, size: int, definite: bool = False, symmetric: bool = True) -> Solver:
    """The solver of linear systems that is `given`, by name or as a function."""
    if callable(given) and not isinstance(given, Variable):
        call = given
        return lambda product, transposed, b: as_tensor("what linear_solver returned", call(product, b))
    check_choice("linear_solver", given, ("auto", "dense", "cg"))
    if given == "cg" and symmetric and not definite:
        raise ValueError(
            "linear_solver is 'cg', but with constraints the matrix is not definite; pass 'dense', or a callable"
        )
    if given == "auto":
        given = "dense" if size <= DENSE or (symmetric and not definite) else "cg"
    if given == "dense":
        return cholesky_solver if definite else lu_solver
    return cg_solver if definite else normal_cg_solver


def cholesky_solver(product: Callable[[Any], Any], transposed: Callable[[Any], Any], b: Any) -> Any:
    """For a positive definite matrix, which is formed; NaN for another one."""
    H, nonfinite = guarded(matrix(product, b.type.shape[0], b.type.dtype))
    L: Any = pt.linalg.cholesky((H + H.T) / 2, lower=True, on_error="nan")
    half = pt.linalg.solve_triangular(L, b, lower=True, check_finite=False, b_ndim=1)
    return pt.linalg.solve_triangular(L, half, lower=True, trans="T", check_finite=False, b_ndim=1) + nonfinite


def lu_solver(product: Callable[[Any], Any], transposed: Callable[[Any], Any], b: Any) -> Any:
    """For any regular matrix, which is formed; not finite for a singular one."""
    A, nonfinite = guarded(matrix(product, b.type.shape[0], b.type.dtype))
    factors: Any = pt.linalg.lu_factor(pt.switch(pt.isnan(nonfinite), np.eye(b.type.shape[0], dtype=b.type.dtype), A))
    return pt.linalg.lu_solve(factors, b, check_finite=False) + nonfinite


def cg_solver(product: Callable[[Any], Any], transposed: Callable[[Any], Any], b: Any) -> Any:
    """Conjugate gradients, for a positive definite matrix; NaN where they do not end."""
    dtype = b.type.dtype
    small = np.asarray(10 * np.finfo(dtype).eps, dtype)
    scale = norm(b)

    def turn(x: Any, r: Any, p: Any, rr: Any) -> Any:
        Ap = product(p)
        pAp = dot(p, Ap)
        # Along a direction without positive curvature nothing is taken, so that much is left.
        a = pt.switch(pAp > 0, rr / pt.switch(pAp > 0, pAp, pt.ones_like(pAp)), pt.zeros_like(pAp))
        r = r - a * Ap
        new = dot(r, r)
        done = (pt.sqrt(new) <= small * scale) | ~(pAp > 0) | ~pt.isfinite(new)
        return [x + a * p, r, r + new / rr * p, new], done

    some = pt.switch(scale > 0, 10 * b.type.shape[0] + 10, 0)
    x, r, *_ = repeat(turn, [pt.zeros_like(b), b, b, dot(b, b)], some)
    enough = pt.sqrt(dot(r, r)) <= np.asarray(np.finfo(dtype).eps ** 0.5, dtype) * scale
    return pt.switch(enough, x, np.asarray(np.nan, dtype))


def normal_cg_solver(product: Callable[[Any], Any], transposed: Callable[[Any], Any], b: Any) -> Any:
    """Conjugate gradients on the normal equations, for any regular matrix."""
    return cg_solver(lambda v: transposed(product(v)), lambda v: transposed(product(v)), transposed(b))


# Small things


def _check_fixed(outputs: Sequence[Any], name: str) -> None:
    for v in ancestors(list(outputs)):
        if is_generator(v):
            raise ValueError(
                f"the {name} draws random numbers, so it has no solution to differentiate; draw them outside, as data"
            )


def _variables(options: Any) -> list[Any]:
    """All variables in the options of a rule."""
    if isinstance(options, Variable):
        return [options]
    if isinstance(options, Mapping):
        options = list(options.values())
    if type(options) in (list, tuple):
        return [v for part in options for v in _variables(part)]
    return []


def _constant(variable: Any) -> Any:
    """The value that state has at first."""
    value = variable.get_value(borrow=True)
    same = value.size > 1 and bool(np.all(value == value.flat[0]))
    if same:
        return pt.full(value.shape, value.flat[0], dtype=variable.type.dtype)
    return pt.constant(np.array(value), dtype=variable.type.dtype)


def _meet(tensor: Any, other: Any) -> tuple[int | None, ...]:
    """The static shape of `tensor`, with that of `other` where it is not known."""
    return tuple(b if a is None else a for a, b in zip(tensor.type.shape, other.type.shape, strict=True))


def _is_solved(reason: Any) -> Any:
    result = FALSE
    for good in SOLVED:
        result = result | pt.eq(reason, good)
    return result


def _largest_of(values: Sequence[Any]) -> Any:
    result = values[0]
    for value in values[1:]:
        result = pt.maximum(result, value)
    return result
