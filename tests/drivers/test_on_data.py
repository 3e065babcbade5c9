"""Minimizations on many data sets at once: as one after another, in all modes; bad input; and what fails."""

import pickle
import signal
import time

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from registry import representatives

import optapi
from optapi import compile_minimizer
from optapi.drivers.members import Members
from optapi.graph.numpy_linker import STEP


TIMES = np.linspace(0.0, 2.0, 7)


def decay(count=5, seed=0):
    """Data with noise of a decaying exponential, a row for each data set."""
    rng = np.random.default_rng(seed)
    return rng.uniform(1, 3, (count, 1)) * np.exp(-rng.uniform(0.5, 2, (count, 1)) * TIMES) + 0.05 * rng.normal(
        size=(count, 7)
    )


def fit(mode=STEP, weighted=False, **keywords):
    """A minimizer of the squares of what a decaying exponential leaves of data."""
    a, b, y, w = pytensor.shared(1.5, name="a"), pytensor.shared(1.0, name="b"), pt.dvector("y"), pt.dvector("w")
    residuals = a * pt.exp(-b * TIMES) - y
    residuals = residuals * w if weighted else residuals
    inputs = [y, w] if weighted else [y]
    return compile_minimizer([a, b], residuals=residuals, inputs=inputs, mode=mode, **keywords)


def one_by_one(run, data, starts=None):
    """The same by single runs."""
    results = []
    for row, y in enumerate(data):
        run.restart()
        for p, values in zip(run.parameters, starts or (), strict=starts is not None):
            p.set_value(values[row])
        results.append(run(y))
    run.restart()
    return results


def same(result, singles, rtol=1e-7):
    """The result of many, and those of single ones."""
    assert result.status.tolist() == [r.status for r in singles]
    assert result.success.tolist() == [r.success for r in singles]
    assert result.nit.tolist() == [r.nit for r in singles]
    np.testing.assert_allclose(result.fun, [r.fun for r in singles], rtol=rtol, atol=1e-12)
    for place, array in enumerate(result.x):
        np.testing.assert_allclose(array, [r.x[place] for r in singles], rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("row", representatives(), ids=str)
def test_rules_of_each_structure(row):
    x, y = pytensor.shared(np.array([0.5, -0.5]), name="x"), pt.dvector("y")
    residuals = pt.stack([x[0] - y[0], 2 * (x[1] - y[1]), x[0] * x[1]])
    options = {"residuals": residuals} if row.needs_residuals else {}
    run = compile_minimizer(
        [x], pt.sum(residuals**2) / 2, row.rule, inputs=[y], max_iterations=12, mode=STEP, **row.options, **options
    )
    data = np.array([[1.0, 0.5], [0.2, -0.7], [0.5, -0.5]])
    result = run.on_data(data)
    assert x.get_value().tolist() == [0.5, -0.5]
    same(result, one_by_one(run, data))


@pytest.mark.parametrize(
    "mode",
    [
        STEP,
        optapi.PYTHON,
        pytest.param("NUMBA", marks=[pytest.mark.numba, pytest.mark.long]),
        pytest.param("JAX", marks=pytest.mark.jax),
    ],
)
def test_fits(mode):
    run, data = fit(mode), decay()
    data[1, 3] = np.nan
    result = run.on_data(data)
    singles = one_by_one(run, data)
    same(result, singles)
    assert result.status.tolist() == [0, 3, 0, 0, 0]
    assert np.isnan(result.fun[1])
    assert result.message == "4 of 5 converged; 1 not finite (status 3), the first of them row 1."
    covariance = result.covariance()
    assert covariance.shape == (5, 2, 2)
    assert np.isnan(covariance[1]).all()
    for place in (0, 2, 3, 4):
        np.testing.assert_allclose(covariance[place], singles[place].covariance(), rtol=1e-6)
        error = singles[place].standard_errors()["b"]
        assert result.standard_errors()["b"][place] == pytest.approx(error, rel=1e-6)
    assert all(run._compiled.values()), "it was done one after another"
    np.testing.assert_allclose(run.on_data(data[2:]).x["a"], result.x["a"][2:], rtol=1e-9)
    other = np.asfortranarray(data)
    other.flags.writeable = False
    np.testing.assert_array_equal(run.on_data(other).x["b"], result.x["b"])
    starts = [np.linspace(1, 2, 5), np.linspace(0.5, 1.5, 5)]
    same(run.on_data(data, starts=starts), one_by_one(run, data, starts))
    if isinstance(mode, str):
        many = run.on_data(decay(200), workers=2)
        np.testing.assert_allclose(many.x["b"], run.on_data(decay(200)).x["b"], rtol=1e-9)


def test_weights_make_rows_shorter():
    run, data = fit(weighted=True), decay(3)
    weights = (np.arange(7) < np.array([[7], [5], [4]])).astype(float)
    filled = np.where(weights > 0, data, 0.0)
    result = run.on_data(filled, w=weights)
    for row in range(3):
        known = weights[row] > 0
        alone = optapi.curve_fit(lambda t, a, b: a * pt.exp(-b * t), TIMES[known], data[row][known], [1.5, 1.0])
        np.testing.assert_allclose([array[row] for array in result.x], alone.x, rtol=1e-4)
    # One row of weights is that of all.
    np.testing.assert_allclose(run.on_data(data, np.ones(7)).x["b"], fit().on_data(data).x["b"], rtol=1e-9)


@pytest.mark.parametrize(
    "keywords", [{"cost_tolerance": 1e-9}, {"max_evaluations": 4}, {"target": 0.02}, {"time_limit": 60.0}]
)
def test_limits_that_look_at_each_iteration(keywords):
    run, data = fit(**keywords), decay(3)
    same(run.on_data(data), one_by_one(run, data))
    assert not run._compiled


def test_no_iterations():
    run, data = fit(max_iterations=0), decay(3)
    result = run.on_data(data)
    same(result, one_by_one(run, data))
    assert result.status.tolist() == [1, 1, 1]


@pytest.mark.parametrize("together", [True, False])
def test_bounds(together):
    a, b, y = pytensor.shared(1.5, name="a"), pytensor.shared(1.0, name="b"), pt.dvector("y")
    # Bounds that the data say are those of each minimization.
    bounds = {b: (0.9, 1.2 if together else 1.2 + 0 * y[0])}
    run = compile_minimizer([a, b], residuals=a * pt.exp(-b * TIMES) - y, inputs=[y], mode=STEP, bounds=bounds)
    data = decay(6)
    result, singles = run.on_data(data), one_by_one(run, data)
    same(result, singles)
    assert any(run._compiled.values()) is together
    assert np.isin(result.x["b"], (0.9, 1.2)).any()
    if together:
        for row, single in enumerate(singles):
            np.testing.assert_allclose(result.covariance()[row], single.covariance(), rtol=1e-6, atol=1e-15)


def test_a_cost_that_is_no_sum_of_squares():
    x, y = pytensor.shared(np.ones(2), name="x"), pt.dvector("y")
    run = compile_minimizer([x], -pt.sum((x - y) ** 2 + 0.1 * x**4), inputs=[y], ascent=True, mode=STEP)
    data = np.array([[1.0, 2.0], [0.3, -1.0]])
    result, singles = run.on_data(data), one_by_one(run, data)
    same(result, singles, rtol=1e-5)
    for row in range(2):
        np.testing.assert_allclose(result.covariance()[row], singles[row].covariance(), rtol=1e-4)
    with pytest.raises(ValueError, match="absolute_sigma"):
        result.covariance(absolute_sigma=True)


def test_the_cost_draws():
    generator = pytensor.shared(np.random.default_rng(0), name="generator")
    next_generator, noise = pt.random.normal.make_node(generator, None, 0.0, 1.0).outputs
    x, y = pytensor.shared(0.0, name="x"), pt.dscalar("y")
    cost = (x - y) ** 2 + 0.01 * noise * x
    run = compile_minimizer(
        [x], cost, "sgd", step_size=0.1, inputs=[y], updates={generator: next_generator}, max_iterations=30, mode=STEP
    )
    result = run.on_data([1.0, -1.0])
    np.testing.assert_allclose(result.x["x"], [1.0, -1.0], atol=0.1)
    assert not run._compiled


def test_in_pieces(monkeypatch):
    monkeypatch.setattr("optapi.drivers.members.MOST", 3)
    run, data = fit(), decay(7)
    result = run.on_data(data)
    same(result, one_by_one(run, data))
    monkeypatch.setattr("optapi.drivers.loop_program.NUMBERS", 30)
    assert result.covariance().shape == (7, 2, 2)


def test_one_that_raises_does_not_take_the_others_along():
    def call(x, y):
        if y < 0:
            raise ArithmeticError("negative")
        return (x - y) ** 2, [2 * (x - y)]

    x, y = pytensor.shared(0.0, name="x"), pt.dscalar("y")
    cost = optapi.Oracle(call)([x], y)
    run = compile_minimizer([x], cost, inputs=[y], mode=STEP)
    result = run.on_data([1.0, -1.0, 2.0])
    assert result.status.tolist() == [0, 3, 0]
    assert list(result.errors) == [1]
    assert isinstance(result.errors[1], ArithmeticError)
    np.testing.assert_allclose(result.x["x"], [1.0, 0.0, 2.0], atol=1e-5)
    with pytest.raises(ArithmeticError, match="negative"):
        run.on_data([-1.0, -2.0])


def test_bad_input():
    run, data = fit(weighted=True), decay(3)
    for arguments, keywords, error, message in (
        ((data[0], data[0]), {}, ValueError, "no input has an axis more.*from_starts"),
        ((data, data[:2]), {}, ValueError, "3 rows for 'y', 2 rows for 'w'"),
        ((data[:0], data[0]), {}, ValueError, "0 rows for 'y'"),
        ((data[0, 0], data), {}, TypeError, "the input 'y' does not fit"),
        ((data[None], data), {}, TypeError, "the input 'y' does not fit"),
        (([[1.0], [1.0, 2.0]], data), {}, ValueError, "'y' has rows of different lengths.*weights of zero"),
        ((data,), {}, TypeError, "1 inputs are given"),
        ((data, data), {"starts": [np.ones(2), np.ones(2)]}, ValueError, "starts have 2 rows for 3 data sets"),
        ((data, data), {"starts": [np.ones(3)]}, ValueError, "starts has to be a list of 2"),
        ((data, data), {"starts": [np.ones((3, 1)), np.ones(3)]}, ValueError, "starts for 'a' are of shape"),
        ((data, data), {"workers": 0}, ValueError, "workers"),
        ((data, data), {"workers": 2}, ValueError, "in this mode one thread keeps the others waiting"),
    ):
        with pytest.raises(error, match=message):
            run.on_data(*arguments, **keywords)
    run.parameters[0].set_value(np.nan)
    with pytest.raises(ValueError, match="not finite"):
        run.on_data(data, data)
    x, y = pytensor.shared(0.0, name="x"), pt.dscalar("y")
    endless = compile_minimizer([x], (x - y) ** 2, "sgd", step_size=0.1, inputs=[y], tolerance=None, mode=STEP)
    with pytest.raises(ValueError, match="sgd has no end: pass max_iterations"):
        endless.on_data([1.0, 2.0])


def test_a_pickle_of_the_result_has_its_arrays():
    result = pickle.loads(pickle.dumps(fit().on_data(decay(2))))
    assert result.x["a"].shape == (2,)
    with pytest.raises(ValueError, match="no second derivatives"):
        result.covariance()


def test_an_interrupt_and_the_bar(monkeypatch, capsys):
    run, data = fit(progressbar="force"), decay(4)
    run.on_data(data)
    assert "4" in capsys.readouterr().err
    # Where the tests run in the background, a shell has the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    # Python takes notice of it only between two of its instructions.
    monkeypatch.setattr(Members, "__call__", lambda *_: (signal.raise_signal(signal.SIGINT), time.sleep(1)))
    try:
        with pytest.raises(KeyboardInterrupt):
            run.on_data(data)
    finally:
        signal.signal(signal.SIGINT, before)
    assert run._running is False


def model(t, height, rate):
    return height * pt.exp(-rate * t)


def test_curve_fit_of_many():
    data = decay(6)
    fits = optapi.curve_fit(model, TIMES, data, [1.5, 1.0], many=True)
    assert fits.x.shape == (6, 2)
    assert fits.success.all()
    errors = fits.standard_errors()
    for row, y in enumerate(data):
        alone = optapi.curve_fit(model, TIMES, y, [1.5, 1.0])
        np.testing.assert_allclose(fits.x[row], alone.x, rtol=1e-6)
        np.testing.assert_allclose(fits.fun[row], alone.fun, rtol=1e-9)
        np.testing.assert_allclose(errors[row], alone.standard_errors(), rtol=1e-5)
        np.testing.assert_allclose(fits.covariance()[row], alone.covariance(), rtol=1e-5)


def test_the_units_of_the_data_and_of_the_parameters_do_not_matter():
    unit = 1e-12
    data, start = decay(4), np.array([1.5, 1.0])
    expected = optapi.curve_fit(model, TIMES, data, start, many=True)
    fits = optapi.curve_fit(model, TIMES / unit, data * unit, start * unit, many=True)
    np.testing.assert_allclose(fits.x / unit, expected.x, rtol=1e-7)
    assert fits.success.all()
    assert abs(fits.nit - expected.nit).max() <= 1


def test_curve_fit_of_rows_with_gaps():
    data, sigma = decay(4), np.full((4, 7), 0.05)
    sigma[1, 5:], sigma[2, ::3] = np.inf, np.inf
    data[1, 5:], data[3, 2] = np.nan, np.nan
    starts = {"height": np.linspace(1, 2, 4), "rate": np.linspace(0.7, 1.2, 4)}
    start, bounds = {"height": 1.0, "rate": 1.0}, {"rate": (0.2, 1.1)}
    fits = optapi.curve_fit(
        model, TIMES, data, start, sigma, absolute_sigma=True, many=True, starts=starts, bounds=bounds
    )
    errors = fits.standard_errors()
    assert fits.status.tolist() == [0, 0, 0, 3]
    assert np.isnan([errors["rate"][3], errors["height"][3]]).all()
    for row in range(3):
        known = np.isfinite(sigma[row])
        alone = optapi.curve_fit(model, TIMES[known], data[row][known], start, 0.05, absolute_sigma=True, bounds=bounds)
        for name in start:
            np.testing.assert_allclose(fits.x[name][row], alone.x[name], rtol=1e-6)
            np.testing.assert_allclose(errors[name][row], alone.standard_errors()[name], rtol=1e-4, atol=1e-12)
            relative = alone.standard_errors(absolute_sigma=False)[name]
            np.testing.assert_allclose(fits.standard_errors(False)[name][row], relative, rtol=1e-4, atol=1e-12)


def test_bad_input_of_many_fits():
    data = decay(3)
    for keywords, error, message in (
        ({"y": data[0, 0]}, ValueError, "y has shape"),
        ({"sigma": np.ones((3, 2))}, ValueError, "sigma has shape"),
        ({"sigma": 0.0}, ValueError, "positive"),
        ({"jac": "2-point"}, TypeError, "jac"),
        ({"starts": np.ones((2, 2))}, ValueError, r"the starts have \[3, 2\] rows"),
        ({"starts": np.ones(2)}, ValueError, "starts"),
        ({"starts": np.ones((3, 2)), "many": False}, TypeError, "pass many=True"),
        ({"model": lambda t, a, b: np.interp(t, [0, a], [0, b])}, TypeError, "write it with functions of pytensor"),
        ({"many": 3}, TypeError, "many"),
        ({"tolerance": -1.0}, ValueError, "tolerance"),
    ):
        arguments = {"model": model, "x": TIMES, "y": data, "p0": [1.0, 1.0], "many": True} | keywords
        with pytest.raises(error, match=message):
            optapi.curve_fit(**arguments)


def test_least_squares_of_many():
    def residuals(x, y, w):
        return w * (x[0] * pt.exp(-x[1] * TIMES) - y)

    data, weights = decay(4), np.ones((4, 7))
    weights[2, 4:] = 0
    fits = optapi.least_squares([1.5, 1.0], residuals, args=(data, weights), many=True)
    starts = np.array([[1.5, 1.0], [2.0, 1.0], [1.0, 0.5], [1.5, 1.5]])
    other = optapi.least_squares([1.5, 1.0], residuals, args=(data, weights), many=True, starts=starts)
    np.testing.assert_allclose(other.x, fits.x, rtol=1e-6)
    for row in range(4):
        alone = optapi.least_squares([1.5, 1.0], residuals, args=(data[row], weights[row]))
        np.testing.assert_allclose(fits.x[row], alone.x, rtol=1e-6)
    for keywords, error, message in (
        ({"args": ()}, ValueError, "args has no rows"),
        ({"args": (data, weights[:2])}, ValueError, r"have \[4, 2\] rows"),
        ({"jac": "2-point"}, TypeError, "jac"),
        ({"many": False, "workers": 2}, TypeError, "pass many=True"),
    ):
        with pytest.raises(error, match=message):
            optapi.least_squares([1.5, 1.0], residuals, **{"args": (data, weights), "many": True} | keywords)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.ones((3, 5)), np.ones((3, 5)), r"shape \(3, 5\) for a row of y of shape \(5,\)"),
        (np.arange(5.0), np.ones((5, 3)), r"shape \(5,\) for a row of y of shape \(3,\)"),
        (np.arange(5.0), np.ones(5), r"y has shape \(5,\)"),
    ],
)
def test_rows_that_the_model_does_not_fit(x, y, said):
    with pytest.raises(ValueError, match=said):
        optapi.curve_fit(lambda t, a, b: a * np.exp(-b * t), x, y, [1.0, 1.0], many=True)


def test_a_model_whose_shape_is_not_known_beforehand():
    times = np.arange(8.0)
    y = np.array([[2.0], [3.0]]) * np.exp(-0.5 * times)
    fits = optapi.curve_fit(
        lambda t, a, b: (a * pt.exp(-b * t))[: pt.as_tensor(t).shape[0]], times, y, [1.0, 1.0], many=True
    )
    np.testing.assert_allclose(fits.x, [[2.0, 0.5], [3.0, 0.5]], rtol=1e-6)


def shares(rule, mode=STEP, **options):
    """Shares of counts, at most 0.4 each, whose sum is 1; and the sum of their squares at most `most`."""
    counts, most = pt.tensor("counts", shape=(4,), dtype="float64"), pt.dscalar("most")
    p = pytensor.shared(np.full(4, 0.25), name="p", shape=(4,))
    return p, optapi.compile_minimizer(
        [p], -pt.sum(counts * pt.log(p)), rule, inputs=[counts, most], mode=mode, bounds=(1e-3, 0.4),
        constraints=[(pt.sum(p), 1), (pt.sum(p**2), None, most)], **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "mode"),
    [("sqp", STEP), ("augmented_lagrangian", STEP), pytest.param("sqp", "NUMBA", marks=pytest.mark.numba)],
)
def test_with_constraints_they_are_as_alone(rule, mode):
    p, run = shares(rule, mode, max_iterations=400)
    counts = np.random.default_rng(0).integers(1, 30, (6, 4)).astype(float)
    most = np.array([1.0, 0.3, 0.27, 0.2, 1.0, 0.28])  # 0.2 cannot be
    counts[4, 2] = np.nan
    assert run._program.takes_members([True, True])
    result = run.on_data(counts, most)
    for row in range(6):
        p.set_value(np.full(4, 0.25))
        alone = run(counts[row], most[row])
        assert (result.status[row], result.nit[row]) == (alone.status, alone.nit)
        # The derivative in the result of one is that of the cost, which is not what was minimized.
        assert alone.nfev - result.nfev[row] == (rule == "augmented_lagrangian" and alone.status != 3)
        np.testing.assert_allclose(result.x["p"][row], alone.x["p"], atol=1e-8)
        np.testing.assert_allclose(result.fun[row], alone.fun, rtol=1e-8)
    assert result.status.tolist() == [0, 0, 0, 6, 3, 0]
