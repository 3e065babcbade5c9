"""The test problems are those of the paper, and what the rules make of them."""

from functools import cache

import more_garbow_hillstrom as mgh
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from more_garbow_hillstrom import PROBLEMS
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from scipy.optimize import least_squares, minimize

import optapi
from optapi import PYTHON


# At the standard starting points, by programs that are not ours: numbers are what the C translation of MINPACK's test
# functions gives, strings the digits that were published for algorithm 566, which some of them have at a dimension of
# their own.
AT_START = [
    (mgh.rosenbrock(), 24.2),
    (mgh.freudenstein_roth(), 400.5),
    (mgh.powell_badly_scaled(), 1.13526171734838),
    (mgh.brown_badly_scaled(), "1.00e+12"),
    (mgh.beale(), "1.42e+01"),
    (mgh.jennrich_sampson(), 4171.30616196049),
    (mgh.helical_valley(), 2500.0),
    (mgh.bard(), 41.681695861678),
    (mgh.gaussian(), "3.89e-06"),
    (mgh.meyer(), 1693607809.43615),
    (mgh.gulf(), "1.21e+01"),
    (mgh.box(), 1031.1538106094),
    (mgh.powell_singular(), 215.0),
    (mgh.wood(), "1.92e+04"),
    (mgh.kowalik_osborne(), 0.00531317227210854),
    (mgh.brown_dennis(), 7926693.33699743),
    (mgh.osborne_1(), 0.87902629354464),
    (mgh.biggs(), "7.79e-01"),
    (mgh.osborne_2(), 2.09341951421206),
    (mgh.watson(), 30.0),
    (mgh.extended_rosenbrock(40), "4.84e+02"),
    (mgh.extended_powell_singular(60), 15 * 215.0),
    (mgh.penalty_1(60), "5.45e+09"),
    (mgh.penalty_2(65), "2.87e+05"),
    (mgh.variably_dimensioned(40), "9.39e+10"),
    (mgh.trigonometric(), 0.00707575946622261),
    (mgh.trigonometric(40), "2.01e-03"),
    (mgh.brown_almost_linear(), 273.248047828674),
    (mgh.discrete_boundary_value(), 0.00078851910126482),
    (mgh.discrete_integral(), 0.0634168415794527),
    (mgh.broyden_tridiagonal(), 21.0),
    (mgh.broyden_banded(), 360.0),
    (mgh.linear_full_rank(), 25.0),
    (mgh.linear_rank_1(), 84985.0),
    (mgh.linear_rank_1_zeros(), 15886.0),
    (mgh.chebyquad(), 0.0386176982859303),
]


def test_there_are_35():
    assert [problem.number for problem in PROBLEMS] == list(range(1, 36))
    assert {problem.number for problem, _ in AT_START} == set(range(1, 36))


@pytest.mark.parametrize("problem, value", AT_START, ids=lambda p: f"{p}-{p.start.size}" if hasattr(p, "start") else "")
def test_at_the_start(problem, value):
    found = problem.evaluate(problem.start)[0]
    if isinstance(value, str):
        assert f"{found:.2e}" == value
    else:
        assert found == pytest.approx(value, rel=1e-13)


def residuals_of(problem):
    x = pt.dvector()
    return pytensor.function([x], problem.at(x), mode=PYTHON)


def polished(residuals, point):
    """The sum of squares where Levenberg and Marquardt's method ends."""
    exactly = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "max_nfev": 5000}
    return 2 * least_squares(residuals, np.array(point, float), jac="3-point", **exactly).cost


def published(minimum):
    """`minimum` as `value` has it: the paper gives six digits of which the last is not rounded."""
    return pytest.approx(minimum, rel=1e-5, abs=1e-20)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_gradient_and_the_minimum(problem):
    residuals = residuals_of(problem)
    # Differences of the residuals lose fewer digits than those of their squares.
    point = problem.start + 0.01 * np.cos(np.arange(problem.start.size)) * np.maximum(1, abs(problem.start))
    r, widths = residuals(point), 1e-5 * np.maximum(abs(point), 1)
    steps = zip(np.diag(widths), widths, strict=True)
    jacobian = np.array([(residuals(point + w) - residuals(point - w)) / (2 * h) for w, h in steps])
    value, gradient = problem.evaluate(point)
    assert value == pytest.approx(np.sum(r**2), rel=1e-14)
    wanted, noise = 2 * jacobian @ r, 2 * np.finfo(float).eps / 1e-5 * np.max(abs(r)) * np.sum(abs(r))
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-6 * np.max(abs(wanted)) + noise)

    found = polished(residuals, problem.start)
    assert found == published(problem.reached(found))


# Points at, or near, the minima that the paper gives and the standard start does not lead to; and other dimensions.
ELSEWHERE = [
    (mgh.freudenstein_roth(), [5, 4], 0.0),
    (mgh.bard(), [0.840666667, -1e9, -1e9], 17.4286),
    (mgh.kowalik_osborne(), [1e6, -14.0758, -2e7, -2e7], 1.02734e-3),
    (mgh.biggs(), [1.71141599, 17.68319818, 1.16314366, 5.18656155, 1.71141599, 1.16314366], 5.65565e-3),
    (mgh.brown_almost_linear(), [*np.zeros(9), 11.0], 1.0),
    (mgh.trigonometric(), np.zeros(10), 0.0),
    (mgh.watson(9), np.zeros(9), 1.39976e-6),
    (mgh.watson(12), np.zeros(12), 4.72238e-10),
    (mgh.penalty_1(4), [1, 2, 3, 4], 2.24997e-5),
    (mgh.penalty_2(4), np.full(4, 0.5), 9.37629e-6),
    (mgh.chebyquad(10), np.arange(1, 11) / 11, 6.50395e-3),
]


@pytest.mark.parametrize("problem, point, minimum", ELSEWHERE, ids=lambda p: str(p) if hasattr(p, "start") else "")
def test_other_minima(problem, point, minimum):
    assert minimum in problem.minima
    value, gradient = problem.evaluate(np.array(point, float))
    found = value if np.max(abs(gradient)) <= 1e-7 else polished(residuals_of(problem), point)
    assert found == published(minimum)


def test_a_minimum_that_is_not_published():
    """The gradient vanishes there, and the Hessian is positive definite."""
    problem = mgh.broyden_banded()
    [minimum] = problem.others
    assert [p for p in PROBLEMS if p.others] == [p for p in PROBLEMS if p.name == problem.name]
    x = np.array([0.21071386, 0.26097669, 0.22794767, 0.19702559, 0.20322969])
    x = np.append(x, [0.22191598, 0.16281224, 0.04830253, -0.07935658, -0.15312519])
    value, gradient = problem.evaluate(x)
    assert value == pytest.approx(minimum, rel=1e-8)
    assert np.max(abs(gradient)) < 1e-6
    steps = 1e-5 * np.eye(10)
    hessian = np.array([(problem.evaluate(x + h)[1] - problem.evaluate(x - h)[1]) / 2e-5 for h in steps])
    assert np.min(np.linalg.eigvalsh((hessian + hessian.T) / 2)) > 0.2


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_float32(problem):
    x = pt.fvector()
    cost = problem.cost([x])
    assert cost.dtype == "float32"
    value = pytensor.function([x], cost, mode=PYTHON)(problem.start.astype("float32"))
    assert value == pytest.approx(problem.evaluate(problem.start)[0], rel=1e-4)


# What the rules make of them


class Switched(Op):
    """The cost and gradient of whichever problem is set, so that a rule is compiled once for each dimension."""

    problem = None

    def make_node(self, x):
        return Apply(self, [x], [pt.dscalar(), x.type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0], outputs[1][0] = self.problem.evaluate(inputs[0])


@cache
def compiled(rule, n):
    """The step of the rule in n dimensions; what it runs on is set in the Op that is returned."""
    op = Switched()
    p, stop = pytensor.shared(np.zeros(n), name="p", shape=(n,)), pytensor.shared(np.int64(0), name="stop")
    cost, gradient = op(p)
    updates = rule([p], cost, gradients=[gradient], stop=stop, tolerance=1e-6)
    step = pytensor.function([], [], updates=updates, mode=PYTHON)
    return op, p, stop, updates, step, [v.get_value() for v in updates]


@cache
def minimized(rule, problem):
    """The cost where the rule ends from the standard start, or comes to in SciPy's limit for conjugate gradients, and
    the evaluations until there."""
    op, p, stop, updates, step, begin = compiled(rule, problem.start.size)
    for variable, value in zip(updates, begin, strict=True):
        variable.set_value(value)
    op.problem = problem
    p.set_value(problem.start)
    iterations = 0
    while not stop.get_value() and iterations < 200 * problem.start.size:
        step()
        iterations += 1
    [evaluations] = optapi.reports(updates)["evaluations"]
    return float(problem.evaluate(p.get_value())[0]), int(evaluations.get_value())


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_minimum_is_reached(problem):
    assert problem.reached(minimized(optapi.hager_zhang_cg, problem)[0]) is not None


def test_evaluations_of_hager_zhang_beside_those_of_scipy():
    ratios, options = [], {"gtol": 1e-6, "ftol": 1e-20}
    for problem in PROBLEMS:
        theirs = minimize(problem.evaluate, problem.start, jac=True, method="L-BFGS-B", options=options)
        if problem.reached(theirs.fun) is not None:
            ratios.append(minimized(optapi.hager_zhang_cg, problem)[1] / theirs.nfev)
    assert len(ratios) >= 32
    assert np.exp(np.mean(np.log(ratios))) < 1.3


def test_a_step_that_rounding_does_not_take_is_judged_by_the_model():
    problem = mgh.linear_rank_1()
    p, stop = pytensor.shared(problem.start.astype("float32"), name="p"), pytensor.shared(np.int64(0), name="stop")
    updates = optapi.trust_region_cg([p], problem.cost([p]), stop=stop, tolerance=1e-6)
    step = pytensor.function([], [], updates=updates, mode=PYTHON)
    while not stop.get_value():
        step()
    [reason], [size] = (optapi.reports(updates)[role] for role in ("reason", "gradient_size"))
    assert size.get_value() > 1e-6
    assert reason.get_value() == 7
    assert problem.evaluate(p.get_value().astype("float64"))[0] == published(problem.minima[0])
