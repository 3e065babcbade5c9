"""General constraints in the drivers: all forms, results, verdicts."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.optimize import LinearConstraint, NonlinearConstraint

import optapi
from optapi import minimize, minimize_iterator


START = [2.0, 0.0]


def f(x):
    return (x[0] - 1) ** 2 + (x[1] - 2.5) ** 2


def df(x):
    return np.array([2 * (x[0] - 1), 2 * (x[1] - 2.5)])


# The half plane x - 2y >= -2 in all forms; the minimum there is (1.4, 1.7), its multiplier 0.8.
def line(x):
    return x[0] - 2 * x[1] + 2


def gradient(x):
    return [1.0, -2.0]


FORMS = {
    "a dictionary": {"type": "ineq", "fun": line},
    "with jac": [{"type": "ineq", "fun": line, "jac": gradient}],
    "with args": ({"type": "ineq", "fun": lambda x, a: x[0] - a * x[1] + 2, "args": (2,)},),
    "linear": LinearConstraint([[1, -2]], -2),
    "linear, one row": LinearConstraint([1, -2], -2, np.inf),
    "nonlinear": NonlinearConstraint(line, 0, np.inf),
    "nonlinear, 3-point": [NonlinearConstraint(line, 0, np.inf, jac="3-point")],
    "nonlinear, jac": NonlinearConstraint(line, 0, np.inf, jac=lambda x: np.array([[1.0, -2.0]])),
    "a triple": (line, 0, None),
    "triples": [(line, 0, None), (lambda x: -x[0] - 2 * x[1], -6, None)],
    "NumPy": (lambda x: np.dot([1.0, -2.0], np.asarray(x, float)), -2, None),
    "no arrays": (lambda x: [float(line(x))], 0, None),
}


@pytest.mark.parametrize("derivative", [df, None, "2-point"], ids=["df", "none", "differences"])
@pytest.mark.parametrize("form", FORMS)
def test_all_forms(form, derivative):
    result = minimize(START, f, derivative, constraints=FORMS[form], full_output=True)
    assert result.success
    np.testing.assert_allclose(result.x, [1.4, 1.7], atol=2e-6)
    np.testing.assert_allclose(result.multipliers[0], [0.8], atol=1e-5)
    assert result.violation <= 1e-6
    assert "derivative of the Lagrangian" in result.message


@pytest.mark.parametrize("rule", ["sqp", "augmented_lagrangian"])
def test_what_a_result_has(rule):
    result = minimize(
        START, f, df, rule, bounds=[(1.25, None), (0, None)], full_output=True,
        constraints=[(lambda x: x, -5, 5), (line, 0, None), (lambda x: x[0] ** 2 + x[1], 3)],
    )  # fmt: skip
    np.testing.assert_allclose(result.x, [1.25, 1.4375], atol=1e-5)
    assert [y.shape for y in result.multipliers] == [(2,), (1,), (1,)]
    assert result.active.tolist() == [-1, 0]
    # g - J'y is that of the bound.
    J = np.array([[1, 0], [0, 1], [1, -2], [2 * 1.25, 1]])
    np.testing.assert_allclose(
        result.jac - J.T @ np.concatenate(result.multipliers), result.bound_multipliers, atol=1e-4
    )
    assert result.bound_multipliers[0] > 0
    assert result.optimality <= 1e-4


@pytest.mark.parametrize("rule", ["sqp", "augmented_lagrangian"])
def test_a_trace_has_the_violation_of_each_point(rule, tmp_path, capsys):
    points = []
    keywords = {"constraints": [(line, 0, None), (lambda x: x[0] * x[1], 3)], "bounds": (0, None)}

    def violation(x):
        return max(0.0, -line(x), abs(x[0] * x[1] - 3))

    result = minimize(
        START, f, df, rule, trace=True, verbose=True, callback=lambda x: points.append(x), full_output=True,
        **keywords,
    )  # fmt: skip
    trace = result.trace
    np.testing.assert_allclose(trace["violation"], [violation(x) for x in [START, *points]], rtol=1e-12, atol=1e-15)
    assert trace["violation"][0] > 1 > 1e-6 >= trace["violation"][-1]
    head, first = capsys.readouterr().out.splitlines()[:2]
    assert head.split()[-1] == "violation"
    assert float(first.split()[-1]) == pytest.approx(violation(START), rel=1e-3)
    # A file has it too.
    iterator = optapi.minimize_iterator(START, f, df, rule, trace=True, **keywords)
    next(iterator)
    iterator.save(tmp_path / "run.npz")
    again = optapi.minimize_iterator.load(tmp_path / "run.npz", f, df, rule, **keywords)
    np.testing.assert_array_equal(again.result.trace["violation"], trace["violation"][:2])


def test_a_structure_of_arrays():
    result = minimize(
        {"a": START, "b": 1.0}, lambda p: f(p["a"]) + p["b"] ** 2, bounds={"b": (0.5, None)}, full_output=True,
        constraints=[(lambda p: line(p["a"]), 0, None), (lambda p: p["a"][0] * p["b"], 0.7)],
    )  # fmt: skip
    np.testing.assert_allclose(result.x["a"], [1.4, 1.7], atol=1e-5)
    assert result.bound_multipliers["b"].shape == ()


def test_each_point_is_evaluated_once():
    points, jacobians = [], []

    def constraint(x):
        points.append(x.tobytes())
        return x[0] ** 2 + x[1] ** 2

    def derivative(x):
        jacobians.append(x.tobytes())
        return 2 * x

    result = minimize(START, f, df, constraints=NonlinearConstraint(constraint, 1, 2, jac=derivative), full_output=True)
    # The first one finds out how many there are.
    assert len(set(points)) >= len(points) - 1
    assert len(set(jacobians)) == len(jacobians)
    assert len(points) <= result.nfev + 1


@pytest.mark.parametrize(
    "fun", [lambda x: 1 - np.dot(x, x), lambda x: 1 - np.linalg.norm(x) ** 2, lambda x: 1 - np.inner(x, x)]
)
def test_functions_that_take_a_variable_for_a_number_are_differenced(fun):
    result = minimize(
        np.full(2, 0.1), lambda x: ((x - [3, 4]) ** 2).sum(), constraints=(fun, 0, None), full_output=True
    )
    assert result.success
    np.testing.assert_allclose(result.x, [0.6, 0.8], atol=1e-5)


def test_one_value_with_a_small_component_is_differenced():
    result = minimize(
        [3.0, 1e-9],
        lambda x: (x**2).sum(),
        constraints=NonlinearConstraint(lambda x: x[0] + x[1], 2, 2),
        full_output=True,
    )
    np.testing.assert_allclose(result.x, [1, 1], atol=1e-5)


def test_differences_stay_inside_of_the_bounds():
    seen = []

    def constraint(x):
        if isinstance(x, np.ndarray):
            seen.append(x.copy())
        return float(x[0] + x[1] ** 2)

    result = minimize([0.5, 0.0], f, df, constraints=(constraint, None, 1.5), bounds=(-1, 1), full_output=True)
    assert result.success
    assert np.all(np.abs(seen) <= 1)


def test_none_are_none():
    for none in ((), [], None):
        result = minimize(START, f, df, constraints=none, full_output=True)
        assert "violation" not in result
        np.testing.assert_allclose(result.x, [1, 2.5], atol=1e-5)


def test_large_points_go_to_the_augmented_lagrangian():
    mu = np.linspace(-1, 1, 301)
    iterator = minimize_iterator(
        np.zeros(301),
        lambda w: (w**2).sum() / 2 - (mu * w).sum(),
        lambda w: w - mu,
        constraints=LinearConstraint(np.ones(301), 1, 1),
    )
    for _ in iterator:
        pass
    assert iterator.opt_algo is optapi.augmented_lagrangian
    np.testing.assert_allclose(iterator.x, mu + 1 / 301, atol=1e-5)


def test_nothing_infeasible_is_a_success():
    result = minimize(START, f, df, constraints=[(line, 0, None), (line, None, -1)], full_output=True)
    assert (result.status, result.success) == (6, False)
    assert result.message.startswith("Infeasible")
    assert 0.5 <= result.violation <= 1
    with pytest.warns(optapi.OptimizationWarning, match="Infeasible"):
        minimize(START, f, df, constraints=[(line, 0, None), (line, None, -1)])
    # Neither a target nor a cost that stays the same, where the constraints do not hold.
    for options in ({"target": 10.0}, {"cost_tolerance": 10.0}, {"step_tolerance": 10.0}):
        result = minimize([1.0, 2.4], f, df, constraints=[(line, 0, None)], full_output=True, **options)
        assert result.success
        assert result.violation <= 1e-6


def test_feasible_points_are_better():
    """The start is as good as can be, and infeasible."""
    result = minimize([1.0, 2.5], f, df, constraints=[(line, 0, None)], max_iterations=1, full_output=True)
    assert result.status == 1
    assert result.x.tolist() != [1.0, 2.5]
    assert result.violation <= 1.001  # it was 2


@pytest.mark.parametrize("rule", ["sqp", "augmented_lagrangian"])
def test_a_file_goes_on_bit_for_bit(rule, tmp_path):
    options = {"constraints": [(lambda x: x[0] * x[1], 1, 1.5)], "bounds": [(0, 5), (None, 2)]}

    def rest(iterator):
        return [state.iterate.tolist() for state in iterator], iterator.result.multipliers[0].tolist()

    iterator = minimize_iterator(START, f, df, rule, **options)
    next(iterator)
    next(iterator)
    iterator.save(tmp_path / "file.npz")
    expected = rest(iterator)
    with pytest.raises(TypeError, match=r"does not hold .*constraints"):
        minimize_iterator.load(tmp_path / "file.npz", f, df)
    assert rest(minimize_iterator.load(tmp_path / "file.npz", f, df, **options)) == expected


@pytest.mark.parametrize("rule", ["sqp", "augmented_lagrangian"])
def test_compiled(rule):
    x, y = pytensor.shared(np.array(START), name="x"), pytensor.shared(1.0, name="y")
    limit = pt.dscalar("limit")
    run = optapi.compile_minimizer(
        [x, y],
        f(x) + y**2,
        rule,
        inputs=[limit],
        constraints=[(line(x), 0, None), (x[0] * y, limit)],
        mode=optapi.PYTHON,
    )
    for value in (0.7, 1.4):
        result = run(value)
        assert result.success
        assert result.x["x"][0] * result.x["y"] == pytest.approx(value, abs=1e-6)
        assert [m.shape for m in result.multipliers] == [(), ()]
        assert result.violation <= 1e-6


def test_of_many_starts_the_feasible_ones_come_first():
    """Along the line x = 0 no step leads to the constraint, and the cost is lower there."""
    x = pytensor.shared(np.zeros(2), name="x")
    run = optapi.compile_minimizer([x], pt.sum(x**2), constraints=(x[0] ** 2, 1), mode=optapi.PYTHON)
    best, other = run.from_starts([np.array([[0.0, 0.5], [2.0, 0.5]])])
    assert best.success
    assert other.violation == 1
    assert other.fun < best.fun


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        (3, r"constraints\[0\] is a int; pass SciPy's"),
        ([{"type": "less", "fun": line}], r"constraints\[0\] has the type 'less'; pass 'eq' or 'ineq'"),
        ({"fun": line}, r"constraints\[0\] has the keys \['fun'\]"),
        ([(line, 1, 0)], r"constraints\[0\] has a low above its high"),
        ([(line, np.nan)], r"constraints\[0\] has a limit that is NaN"),
        ([(line, "a", None)], r"the low of constraints\[0\] is a str"),
        ([(line, np.zeros(3), None)], r"constraints\[0\] has 3 numbers for its low, and 1 values"),
        (LinearConstraint(np.eye(3), 0, 1), r"constraints\[0\] has a matrix of shape \(3, 3\)"),
        (NonlinearConstraint(line, 0, 1, keep_feasible=True), "keep_feasible"),
        ([(lambda x: "a", 0)], "has to return an array of real numbers"),
        ({"type": "eq", "fun": line, "jac": lambda x: np.ones(3)}, r"has shape \(3,\) for 1 values"),
        ({"type": "eq", "fun": line, "jac": 3}, r"constraints\[0\] has jac a int"),
        ({"type": "eq", "fun": line, "jac": "5-point"}, "has jac '5-point'"),
    ],
)
def test_what_is_wrong_is_named(constraints, words):
    with pytest.raises((TypeError, ValueError), match=words):
        minimize(START, f, df, constraints=constraints)


def test_a_linear_constraint_needs_a_vector():
    with pytest.raises(TypeError, match="is linear in a vector"):
        minimize([START], lambda p: f(p[0]), constraints=LinearConstraint(np.eye(2), 0, 1))


def test_rules_without_constraints_say_so():
    with pytest.raises(TypeError, match="lbfgs takes no constraints; use sqp"):
        minimize(START, f, df, "lbfgs", constraints=[(line, 0, None)])


def test_what_a_constraint_raises_comes_out():
    def constraint(x):
        if x[0] != 2:
            raise RuntimeError("no")
        return x[0]

    with pytest.raises(RuntimeError, match="no"):
        minimize(START, f, df, constraints=[{"type": "ineq", "fun": constraint, "jac": lambda x: [1.0, 0.0]}])
