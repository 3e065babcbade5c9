"""The NumPy interface: minimize, minimize_iterator, and their files."""

import copy
import gc
import inspect
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from problems import quadratic, rosenbrock
from registry import ROWS

import optapi
from optapi import Objective, minimize, minimize_iterator, schedules
from optapi.drivers import oracle_program
from optapi.drivers.options import SYMBOLIC


A = np.diag([1.0, 4.0, 9.0])
B = np.array([1.0, -2.0, 3.0])
SOLUTION = np.linalg.solve(A, B)
START = np.zeros(3)


def f(x, scale=1.0):
    return scale * (x @ A @ x / 2 - B @ x)


def df(x, scale=1.0):
    return scale * (A @ x - B)


def rosen(x):
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def rosen_der(x):
    return rosenbrock(x.size).gradients([x])[0]


def both(x):
    return f(x), df(x)


def bits(point):
    return point.tobytes()


class Counting:
    """A function that counts its calls, and raises at one of them."""

    def __init__(self, function, fails_at=None, error=None):
        self.function, self.fails_at, self.error, self.calls = function, fails_at, error, 0
        self.points = []

    def __call__(self, x, *args):
        self.calls += 1
        self.points.append(x.copy())
        if self.calls == self.fails_at:
            raise self.error
        return self.function(x, *args)


# The founding text


def test_minimize_returns_a_point_of_the_type_of_x0():
    x = minimize(START, f, df, optapi.lbfgs)
    assert type(x) is np.ndarray
    np.testing.assert_allclose(x, SOLUTION, atol=1e-5)
    assert np.array_equal(START, np.zeros(3))


def test_the_iterator_has_what_the_founding_text_says():
    it = minimize_iterator(START, f, df, optapi.lbfgs)
    assert iter(it) is it
    assert (it.f, it.df, it.opt_algo) == (f, df, optapi.lbfgs)
    assert np.array_equal(it.x, START)
    assert next(it) is it
    assert it.next() is it
    assert (it.nit, it.status, it.success, it.message) == (2, None, False, "Not finished.")
    for _ in it:
        pass
    np.testing.assert_allclose(it.x, SOLUTION, atol=1e-5)
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(it)
        with pytest.raises(StopIteration):
            it.next()
    assert (it.status, it.success) == (0, True)


def test_options_go_to_the_rule():
    shrink = schedules.Power(0.1, scale=100)
    it = minimize_iterator(START, f, df, optapi.sgd, step_size=shrink, tolerance=1e-2)
    next(it)
    np.testing.assert_allclose(it.iterate, 0.1 * B)
    for _ in it:
        pass
    assert it.status == 0
    assert np.max(np.abs(it.jac)) <= 1e-2


def test_args_reach_the_functions():
    assert np.array_equal(
        minimize(START, f, df, optapi.lbfgs, args=(2.0,)), minimize(START, f, df, optapi.lbfgs, args=2.0)
    )
    hessp = Counting(lambda x, v, scale: scale * A @ v)
    minimize(START, f, df, newton_step, args=(3.0,), hessp=hessp, max_iterations=1, full_output=True)
    assert hessp.calls == 1


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_rule_minimizes(row):
    for problem, options in ((quadratic(4), {}), (rosenbrock(4), {} if row.searches else {"step_size": 1e-3})):
        cost = lambda x: problem.value_and_gradients([x])[0]  # noqa: B023, E731
        slope = lambda x: problem.gradients([x])[0]  # noqa: B023, E731
        [x0] = problem.starts
        x0 = abs(x0) if row.rule is optapi.mirror_descent else x0  # which knows positive numbers alone
        options = {**row.options, **options}
        signature = inspect.signature(row.rule).parameters
        if any(
            name in options or (name in signature and signature[name].default is inspect._empty) for name in SYMBOLIC
        ):
            with pytest.raises(TypeError, match="an expression of PyTensor"):
                minimize(x0, cost, slope, row.rule, **options)
            continue
        result = minimize(x0, cost, slope, row.rule, full_output=True, max_iterations=40, **options)
        assert result.status in ((0, 1) if row.searches else (0, 1, 3))
        assert result.fun == cost(result.x) < cost(x0)
        assert np.array_equal(result.jac, slope(result.x))


# df in its forms


def test_df_true():
    g = Counting(both)
    result = minimize(START, g, True, optapi.lbfgs, full_output=True)
    np.testing.assert_allclose(result.x, SOLUTION, atol=1e-5)
    assert result.nfev == result.njev == g.calls
    with pytest.raises(ValueError, match="df is True"):
        minimize(START, f, True, optapi.lbfgs)


def test_df_none_differentiates():
    def cost(x, shift):
        return pt.sum((x["a"] - shift) ** 2) + pt.exp(x["b"]) - 2 * x["b"]

    result = minimize({"a": np.zeros(2), "b": 0.0}, cost, None, optapi.lbfgs, args=(3.0,), full_output=True)
    np.testing.assert_allclose(result.x["a"], 3, atol=1e-5)
    np.testing.assert_allclose(result.x["b"], np.log(2), atol=1e-5)
    assert result.nfev > 0
    again = pickle.loads(pickle.dumps(minimize_iterator(START, symbolic, None, optapi.lbfgs)))
    assert next(again).fun < 0


def symbolic(x):
    return pt.dot(x, pt.dot(A, x)) / 2 - pt.dot(B, x)


def test_df_none_has_exact_products():
    it = minimize_iterator(START, symbolic, None, newton_step)
    next(it)
    np.testing.assert_allclose(it.iterate, A @ B, rtol=1e-14)  # the product of the second derivatives with -g
    assert it.nhev == 1


def test_a_rule_by_its_name():
    by_name = minimize(START, symbolic, None, "bfgs", full_output=True)
    itself = minimize(START, symbolic, None, optapi.bfgs, full_output=True)
    np.testing.assert_array_equal(by_name.x, itself.x)
    with pytest.raises(ValueError, match="did you mean 'lbfgs'"):
        minimize(START, symbolic, None, "lbgfs")


def test_an_unknown_keyword_gets_a_hint():
    for keyword, meant in (("maxiter", "max_iterations"), ("gtol", "tolerance"), ("memroy", "memory")):
        with pytest.raises(
            TypeError, match=f"'{keyword}': neither lbfgs nor minimize takes it; use {meant}=. lbfgs takes"
        ):
            minimize(START, symbolic, None, optapi.lbfgs, **{keyword: 3})


def test_a_rule_may_name_its_first_parameter_as_it_likes():
    def rule(weights, cost, gradients=None, stop=None, updates=None, **options):
        return optapi.lbfgs(weights, cost, gradients, stop, updates, **options)

    np.testing.assert_allclose(minimize(START, symbolic, None, rule, tolerance=1e-8), np.linalg.solve(A, B), rtol=1e-6)


@pytest.mark.parametrize(
    "cost, error",
    [(lambda x: pt.as_tensor(x) ** 2, "cost has 1 dimensions"), (lambda x: pt.scalar(), "'x0'")],
)
def test_df_none_needs_a_scalar(cost, error):
    with pytest.raises(TypeError, match=error):
        minimize(START, cost, None, optapi.lbfgs)


def newton_step(
    parameters,
    cost=None,
    gradients=None,
    stop=None,
    updates=None,
    *,
    forward=False,
    step_size=1.0,
    tolerance=None,
    ascent=False,
    name="newton_step",
):
    """A rule that moves by the product of the matrix of second derivatives with the negative gradient."""
    opened = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    d = [-g for g in opened.gradients]
    if forward:
        products = pytensor.gradient.pushforward(opened.gradients, opened.parameters, d)
    else:
        still = [pytensor.gradient.disconnected_grad(v) for v in d]
        slope = sum(pt.sum(g * v) for g, v in zip(opened.gradients, still, strict=True))
        products = pytensor.grad(slope, opened.parameters)
    return opened.finish({p: p + h for p, h in zip(opened.parameters, products, strict=True)})


@pytest.mark.parametrize("forward", [False, True])
def test_products_with_second_derivatives(forward):
    exact = minimize_iterator(START, f, df, newton_step, hessp=lambda x, v: A @ v, forward=forward)
    next(exact)
    np.testing.assert_allclose(exact.iterate, A @ B, rtol=1e-14)
    assert (exact.nhev, exact.njev) == (1, 1)
    differences = minimize_iterator(START, f, df, newton_step, forward=forward)
    next(differences)
    np.testing.assert_allclose(differences.iterate, A @ B, rtol=1e-9)
    assert (differences.nhev, differences.njev) == (0, 3)


# Structures


Pair = namedtuple("Pair", ["w", "b"])


@pytest.mark.parametrize(
    "x0",
    [
        [np.zeros(2), np.zeros(3)],
        (np.zeros(2), np.zeros((1, 3))),
        {"w": np.zeros(2), "b": np.array(0.0)},
        {"layers": [np.zeros(2), [1.0, 2.0]], 3: (np.zeros(()), np.zeros((2, 1)))},
        Pair(np.zeros(2), np.zeros(1)),
    ],
    ids=["list", "tuple", "dict", "nested", "named"],
)
def test_structures(x0):
    def leaves(tree):
        if isinstance(tree, dict):
            tree = list(tree.values())
        if isinstance(tree, list | tuple) and not isinstance(tree[0], float):
            return [leaf for child in tree for leaf in leaves(child)]
        return [np.asarray(tree)]

    def rebuilt(tree, like):
        if isinstance(like, dict):
            return {k: rebuilt(tree[k], v) for k, v in like.items()}
        if isinstance(like, list) and isinstance(like[0], float):
            return tree
        if isinstance(like, list | tuple):
            return [rebuilt(t, v) for t, v in zip(tree, like, strict=True)]
        return tree

    seen = []

    def cost(x):
        seen.append(x)
        return sum(np.sum((a - 1) ** 2) for a in leaves(x))

    def slope(x):
        if isinstance(x, dict):
            return {k: slope(v) for k, v in x.items()}
        return [slope(v) for v in x] if isinstance(x, list | tuple) else 2 * (x - 1)

    x = minimize(x0, cost, slope, optapi.lbfgs)
    assert type(x) is type(x0)
    assert [a.shape for a in leaves(x)] == [a.shape for a in leaves(x0)]
    assert all(type(point) is type(x0) for point in seen)
    assert all(np.allclose(a, 1, atol=1e-5) for a in leaves(x))


def test_a_list_of_numbers_is_one_vector():
    x = minimize([0, 0, 0], f, lambda x: list(df(x)), optapi.lbfgs)
    assert x.dtype == "float64"
    np.testing.assert_allclose(x, SOLUTION, atol=1e-5)


@pytest.mark.parametrize(
    "x0", [3.0, 3, np.float32(3), np.array(3.0), np.array([[3.0]]), np.full((2, 2), 3, "float32"), np.arange(4)]
)
def test_shapes_and_dtypes_are_kept(x0):
    seen = []

    def cost(x):
        seen.append((x.shape, x.dtype))
        return np.sum((x - 1) ** 2)

    x = minimize(x0, cost, lambda x: 2 * (x - 1), optapi.lbfgs, tolerance=1e-3)
    assert isinstance(x, np.ndarray)
    dtype = "float32" if getattr(x0, "dtype", None) == "float32" else "float64"
    assert set(seen) == {(np.shape(x0), np.dtype(dtype))}
    assert (x.shape, x.dtype) == (np.shape(x0), dtype)
    np.testing.assert_allclose(x, 1, atol=1e-3)


def test_any_array_can_be_the_start():
    for x0 in (np.zeros(6)[::2], np.zeros((3, 2), order="F")[:, 0], np.broadcast_to(0.0, 3)):
        x0.flags.writeable = False
        np.testing.assert_allclose(minimize(x0, f, df, optapi.lbfgs), SOLUTION, atol=1e-5)
    assert minimize(np.zeros(0), lambda x: 1.0, lambda x: x, optapi.lbfgs).shape == (0,)
    assert minimize([], lambda x: 1.0, lambda x: x, optapi.sgd).shape == (0,)


# Calls


def test_each_point_is_evaluated_once():
    for rule, options in ((optapi.lbfgs, {}), (optapi.adam, {"step_size": 0.3})):
        cost, slope = Counting(rosen), Counting(rosen_der)
        result = minimize(np.zeros(4), cost, slope, rule, full_output=True, max_iterations=30, **options)
        assert (result.nfev, result.njev, result.nhev) == (cost.calls, slope.calls, 0)
        for points in (cost.points, slope.points):
            assert len({bits(point) for point in points}) == len(points)


def test_a_first_order_rule_calls_once_in_an_iteration():
    cost, slope = Counting(f), Counting(df)
    it = minimize_iterator(START, cost, slope, optapi.sgd, step_size=0.1)
    for _ in range(5):
        next(it)
    assert (cost.calls, slope.calls) == (6, 5)
    assert it.fun == f(it.x)
    assert (cost.calls, slope.calls) == (6, 5)
    assert np.array_equal(it.jac, df(it.x))
    assert slope.calls == 6
    next(it)
    assert (cost.calls, slope.calls) == (7, 6)


def test_df_is_not_called_where_the_cost_is_not_finite():
    slope = Counting(lambda x: 1 - 1 / x)
    with np.errstate(all="ignore"):
        result = minimize(
            np.array([0.1, 8.0]), lambda x: np.sum(x - np.log(x)), slope, optapi.lbfgs, full_output=True, step_size=30.0
        )
    assert result.nfev > result.njev
    assert all(np.all(point > 0) for point in slope.points)
    np.testing.assert_allclose(result.x, 1, atol=1e-4)


def test_arrays_may_be_kept_changed_and_reused():
    kept, buffer = [], np.zeros(3)

    def cost(x):
        value = f(x)
        kept.append((x, x.copy()))
        return np.array([[value]])

    def slope(x):
        buffer[:] = df(x)
        x[:] = np.nan
        return buffer

    x0 = START.copy()
    x = minimize(x0, cost, slope, optapi.lbfgs)
    assert np.array_equal(x, minimize(START, f, df, optapi.lbfgs))
    assert all(np.array_equal(now, then) for now, then in kept)
    assert np.array_equal(x0, START)


def test_integers_and_lists_are_derivatives():
    x = minimize(
        np.array([3.0, 5.0]),
        lambda x: int(np.sum(x**2)),
        lambda x: np.round(2 * x).astype(int),
        optapi.sgd,
        step_size=0.25,
        max_iterations=50,
    )
    assert np.all(np.abs(x) < 0.5)


def test_warnings_of_the_function_are_its_own():
    def cost(x):
        return np.log(x - 1)[0] if x[0] < 1 else f(x)

    with pytest.warns(RuntimeWarning, match="invalid value"):
        minimize(START, cost, df, optapi.lbfgs, full_output=True)

    def divides(x):
        with np.errstate(all="raise"):
            return 1.0 / np.float64(np.sum(x) - np.sum(x))

    with pytest.raises(FloatingPointError):
        minimize(START, divides, df, optapi.lbfgs)


# What is wrong comes out


@pytest.mark.parametrize(
    "rule, mode",
    [
        (optapi.lbfgs, None),
        (optapi.adam, None),
        pytest.param(optapi.adam, "CVM", marks=pytest.mark.c),
        pytest.param(optapi.adam, "NUMBA", marks=pytest.mark.numba),
    ],
)
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("fails", ["f", "df"])
def test_exceptions_come_out_and_nothing_moves(fails, error, rule, mode):
    options = {"max_iterations": 12, "mode": mode, "trace": True}
    whole = minimize_iterator(np.zeros(4), rosen, rosen_der, rule, **options)
    for _ in whole:
        pass
    for fails_at in (1, 2, 5):
        cost, slope = Counting(rosen), Counting(rosen_der)
        broken = cost if fails == "f" else slope
        broken.fails_at, broken.error = fails_at, error
        it = minimize_iterator(np.zeros(4), cost, slope, rule, **options)
        while True:
            before = (it.nit, bits(it.iterate), bits(it.x))
            try:
                next(it)
            except type(error) as caught:
                assert caught is error
                break
        assert (it.nit, bits(it.iterate), bits(it.x)) == before
        assert it.status is None
        for _ in it:  # it goes on as if nothing had happened
            pass
        assert (it.nit, bits(it.iterate), bits(it.x)) == (whole.nit, bits(whole.iterate), bits(whole.x))
        assert np.array_equal(it.result.trace["cost"], whole.result.trace["cost"])


def test_a_signal_in_the_middle_of_a_call():
    class Interrupt(Exception):
        pass

    def handler(*args):
        raise Interrupt

    def cost(x):
        if np.any(x != 0):
            time.sleep(5)
        return f(x)

    old = signal.signal(signal.SIGALRM, handler)
    try:
        it = minimize_iterator(START, cost, df, optapi.lbfgs)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupt):
            next(it)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert (it.nit, bits(it.iterate)) == (0, bits(START))


@pytest.mark.parametrize(
    "cost, slope, message",
    [
        (lambda x: x, df, r"^f \(<lambda>\) returned an array of shape \(3,\)"),
        (lambda x: None, df, "returned None"),
        (lambda x: "1", df, "returned '1'"),
        (lambda x: 1j, df, "returned 1j"),
        (lambda x: [[1], [1, 2]], df, r"returned"),
        (f, lambda x: x[:2], r"^df \(<lambda>\) returned an array of shape \(2,\) where the point has shape \(3,\)"),
        (f, lambda x: x[:, None], r"shape \(3, 1\) where the point has shape \(3,\)"),
        (f, lambda x: None, "returned None"),
        (f, lambda x: "abc", "returned 'abc'"),
        (f, lambda x: [x, x], r"shape \(2, 3\)"),
    ],
)
def test_wrong_answers_are_named(cost, slope, message):
    it = minimize_iterator(START, cost, slope, optapi.lbfgs)
    with pytest.raises(ValueError, match=message):
        next(it)
    assert (it.nit, bits(it.iterate)) == (0, bits(START))


def test_wrong_structures_are_named():
    x0 = {"a": np.zeros(2), "b": np.zeros(3)}
    cost = lambda x: sum(np.sum(v**2) for v in x.values())  # noqa: E731
    for slope, message in [
        (lambda x: {"a": x["a"]}, "with the keys"),
        (lambda x: x["a"], "array of shape"),
        (lambda x: {"a": x["a"], "b": x["a"]}, r"in the place\['b'\], returned an array of shape \(2,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            minimize(x0, cost, slope, optapi.lbfgs)


# Endings


def test_status_0():
    result = minimize(START, f, df, optapi.lbfgs, full_output=True)
    assert (result.status, result.success) == (0, True)
    assert "1e-05" in result.message
    assert np.max(np.abs(result.jac)) <= 1e-5
    tight = minimize(START, f, df, optapi.lbfgs, full_output=True, tolerance=1e-10)
    assert np.max(np.abs(tight.jac)) <= 1e-10


def test_a_start_at_the_minimizer_is_no_iteration():
    for rule in (optapi.lbfgs, optapi.sgd):
        it = minimize_iterator(SOLUTION, f, df, rule)
        with pytest.raises(StopIteration):
            next(it)
        assert (it.nit, it.status, bits(it.x)) == (0, 0, bits(SOLUTION))
        assert (it.nfev, it.njev) == (1, 1)


def test_tolerance_of_a_rule_that_has_none():
    result = minimize(START, f, df, optapi.sgd, step_size=0.2, full_output=True)
    assert result.status == 0
    assert np.max(np.abs(result.jac)) <= 1e-5
    assert minimize(START, f, df, optapi.sgd, step_size=0.2, tolerance=None, full_output=True).status == 1


def test_status_1():
    result = minimize(np.zeros(4), rosen, rosen_der, optapi.lbfgs, max_iterations=3, full_output=True)
    assert (result.status, result.success, result.nit) == (1, False, 3)
    assert "3 iterations" in result.message
    result = minimize(np.zeros(4), rosen, rosen_der, optapi.lbfgs, max_evaluations=5, full_output=True)
    assert (result.status, result.success) == (1, False)
    assert 5 <= result.nfev < 15
    assert "5 evaluations" in result.message
    result = minimize(START, f, df, optapi.lbfgs, max_iterations=0, full_output=True)
    assert (result.status, result.nit, result.nfev) == (1, 0, 1)


@pytest.mark.parametrize("n, limit", [(2, 1000), (20, 4000), (1000, 15000)])
def test_default_limit(n, limit):
    def small(x):
        return float(np.sum(x**2))

    it = minimize_iterator(np.ones(n), small, lambda x: 2 * x, optapi.sgd, step_size=0.0)
    assert it._termination.max_iterations == limit
    it = minimize_iterator(np.ones(n), small, lambda x: 2 * x, optapi.lbfgs)
    assert it._termination.max_iterations == 15000


def test_a_narrow_valley_is_left_time():
    """The problem of Maratos as a penalty, where 1000 iterations are too few. Its least cost is -1.0000000625."""
    weight = 1e6

    def cost(x):
        return x[0] + weight * (x @ x - 1) ** 2

    def slope(x):
        return np.array([1.0, 0.0]) + 4 * weight * (x @ x - 1) * x

    def product(x, v):
        return 4 * weight * ((x @ x - 1) * v + 2 * x * (x @ v))

    x0 = np.array([1.1, 0.1])
    result = minimize(x0, cost, slope, "trust_region_cg", hessp=product, tolerance=1e-8, full_output=True)
    assert result.success and result.fun < -1.00000006


def test_status_2():
    wrong = minimize(np.ones(3), f, lambda x: -df(x), optapi.lbfgs, full_output=True)
    assert (wrong.status, wrong.success) == (2, False)
    assert "check_gradient" in wrong.message
    assert np.array_equal(wrong.x, np.ones(3))


@pytest.mark.parametrize("rule", [optapi.lbfgs, optapi.adam])
@pytest.mark.parametrize("cost, slope", [(lambda x: np.nan, df), (lambda x: np.inf, df), (f, lambda x: x * np.nan)])
def test_status_3_at_the_start(cost, slope, rule):
    slope = Counting(slope)
    result = minimize(START, cost, slope, rule, full_output=True)
    assert (result.status, result.success, result.nit, result.nfev) == (3, False, 0, 1)
    assert "start" in result.message
    assert np.array_equal(result.x, START)
    assert slope.calls <= 1


def test_status_3_on_the_way():
    with np.errstate(all="ignore"):
        result = minimize(np.full(3, 1e3), f, df, optapi.sgd, step_size=1e60, full_output=True)
    assert (result.status, result.success) == (3, False)
    assert np.isfinite(result.fun)
    assert np.array_equal(result.x, np.full(3, 1e3))
    assert "step_size" in result.message

    def cost(x):
        return f(x) if x[0] < 0.5 else np.nan

    result = minimize(START, cost, df, optapi.sgd, step_size=0.1, full_output=True)
    assert result.status == 3
    assert result.x[0] < 0.5
    assert result.fun == f(result.x)


def test_status_4():
    def slow(x):
        time.sleep(0.02)
        return rosen(x)

    began = time.perf_counter()
    result = minimize(np.zeros(4), slow, rosen_der, optapi.adam, time_limit=0.1, full_output=True, trace=True)
    assert time.perf_counter() - began < 5
    assert (result.status, result.success) == (4, False)
    assert "0.1 seconds" in result.message
    assert 1 <= result.nit <= 5
    assert minimize(START, f, df, optapi.lbfgs, time_limit=0, full_output=True).status == 4


def test_status_5():
    result = minimize(np.zeros(4), rosen, rosen_der, optapi.lbfgs, target=1.0, full_output=True)
    assert (result.status, result.success) == (5, True)
    assert 1e-3 < result.fun <= 1.0
    assert minimize(START, f, df, optapi.lbfgs, target=0.0, full_output=True).nit == 0
    up = minimize(START, lambda x: -f(x), lambda x: -df(x), optapi.lbfgs, ascent=True, target=1.0, full_output=True)
    assert up.status == 5
    assert up.fun >= 1.0


def test_cost_and_step_tolerance():
    result = minimize(START, f, df, optapi.sgd, step_size=0.1, cost_tolerance=1e-3, full_output=True, trace=True)
    assert (result.status, result.success) == (0, True)
    assert "cost_tolerance" in result.message
    change = -np.diff(result.trace["cost"])
    limit = 1e-3 * np.maximum(np.abs(result.trace["cost"][1:]), 1)
    assert np.array_equal(change <= limit, [False] * (result.nit - 1) + [True])
    result = minimize(START, f, df, optapi.sgd, step_size=0.1, step_tolerance=1e-3, full_output=True, trace=True)
    assert (result.status, result.success) == (0, True)
    assert "step_tolerance" in result.message
    assert result.trace["step"][-1] <= 1e-3 * np.linalg.norm(result.x)
    assert np.all(result.trace["step"][1:-1] > 1e-3 * np.linalg.norm(result.x))


def test_the_best_point_is_returned():
    cost = Counting(f)
    result = minimize(START, cost, df, optapi.sgd, step_size=0.2, momentum=0.95, max_iterations=20, full_output=True)
    values = [f(point) for point in cost.points]
    assert result.fun == min(values) < values[-1]
    assert np.array_equal(result.x, cost.points[np.argmin(values)])
    assert np.array_equal(result.iterate, cost.points[-1])
    assert np.array_equal(result.jac, df(result.x))


def test_ascent():
    result = minimize(START, lambda x: -f(x), lambda x: -df(x), optapi.lbfgs, ascent=True, full_output=True)
    np.testing.assert_allclose(result.x, SOLUTION, atol=1e-5)
    assert result.fun == -f(result.x)


# Control


def test_the_point_can_be_moved():
    cost, slope = Counting(rosen), Counting(rosen_der)
    it = minimize_iterator(np.zeros(3), cost, slope, optapi.lbfgs)
    for _ in range(4):
        next(it)
    it.x = [2, 2, 2]
    assert np.array_equal(it.x, np.full(3, 2.0))
    assert np.array_equal(it.iterate, it.x)
    assert it.fun == rosen(it.x)
    next(it)
    assert it.nit == 5
    assert it.fun < rosen(np.full(3, 2.0))
    for _ in it:
        pass
    np.testing.assert_allclose(it.x, 1, atol=1e-4)
    it.x = np.zeros(3)  # it goes on after its end
    assert it.status is None
    for _ in it:
        pass
    assert it.status == 0
    np.testing.assert_allclose(it.x, 1, atol=1e-4)
    for value in (np.zeros(4), [np.zeros(3)], np.full(3, np.nan), "abc"):
        with pytest.raises((ValueError, TypeError)):
            it.x = value
    np.testing.assert_allclose(it.x, 1, atol=1e-4)


def test_the_points_seen_are_copies():
    it = minimize_iterator(START, f, df, optapi.lbfgs)
    next(it)
    for point in (it.x, it.iterate, it.jac, it.result.x):
        point[:] = np.nan
    next(it)
    assert np.all(np.isfinite(it.x))


def test_a_step_inside_of_a_step_is_refused():
    def cost(x):
        if it.nit == 1:
            next(it)
        return rosen(x)

    it = minimize_iterator(np.zeros(4), cost, rosen_der, optapi.lbfgs)
    next(it)
    with pytest.raises(RuntimeError, match="middle of a step"):
        next(it)


# Copies and files


@pytest.mark.parametrize("rule", [optapi.lbfgs, optapi.adam, partial(optapi.lbfgs, memory=3)])
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "save"])
def test_resumed_runs_are_the_same_bit_for_bit(rule, way, tmp_path):
    options = {"max_iterations": 25, "trace": True}
    whole = minimize_iterator(np.zeros(4), rosen, rosen_der, rule, **options)
    points = [bits(it.iterate) for it in whole]
    it = minimize_iterator(np.zeros(4), rosen, rosen_der, rule, **options)
    resumed = []
    while True:
        if way == "pickle":
            it = pickle.loads(pickle.dumps(it))
        elif way == "deepcopy":
            it = copy.deepcopy(it)
        else:
            it.save(tmp_path / "run.npz")
            it = minimize_iterator.load(
                tmp_path / "run.npz", rosen, rosen_der, *([rule] if isinstance(rule, partial) else [])
            )
        try:
            resumed.append(bits(next(it).iterate))
        except StopIteration:
            break
    assert resumed == points
    for name in ("nit", "nfev", "njev", "nhev", "status", "message", "fun"):
        assert getattr(it, name) == getattr(whole, name), name
    for name in ("cost", "gradient_size", "step", "evaluations"):
        assert np.array_equal(it.result.trace[name], whole.result.trace[name])


def test_a_copy_goes_its_own_way():
    it = minimize_iterator(np.zeros(4), rosen, rosen_der, optapi.lbfgs)
    next(it)
    other = copy.deepcopy(it)
    before = bits(it.iterate)
    next(other)
    assert bits(it.iterate) == before
    assert (it.nit, other.nit) == (1, 2)


def test_what_a_file_holds(tmp_path):
    path = tmp_path / "run.npz"
    it = minimize_iterator(
        {"w": np.zeros(2), "b": 0.0},
        tree_cost,
        tree_slope,
        optapi.sgd,
        momentum=np.float64(0.5),
        step_size=schedules.Power(0.1),
        max_iterations=7,
    )
    next(it)
    it.save(path)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        assert json.loads(file["description/"].item())["rule"] == "sgd"
    with pytest.raises(TypeError, match="step_size"):
        minimize_iterator.load(path, tree_cost, tree_slope)
    other = minimize_iterator.load(path, tree_cost, tree_slope, step_size=schedules.Power(0.1), max_iterations=9)
    for _ in other:
        pass
    assert other.nit == 9
    with pytest.raises(ValueError, match="another state"):
        minimize_iterator.load(path, tree_cost, tree_slope, step_size=0.1, momentum=0.0)
    with pytest.raises(ValueError, match="saved by sgd, not by adam"):
        minimize_iterator.load(path, tree_cost, tree_slope, optapi.adam, step_size=0.1)


def tree_cost(x):
    return np.sum((x["w"] - 1) ** 2) + (x["b"] + 2) ** 2


def tree_slope(x):
    return {"b": 2 * (x["b"] + 2), "w": 2 * (x["w"] - 1)}


def test_a_limit_can_be_raised_and_the_run_resumed(tmp_path):
    whole = minimize(np.zeros(4), rosen, rosen_der, optapi.lbfgs, full_output=True)
    it = minimize_iterator(np.zeros(4), rosen, rosen_der, optapi.lbfgs, max_iterations=5)
    for _ in it:
        pass
    it.save(tmp_path / "run.npz")
    assert minimize_iterator.load(tmp_path / "run.npz", rosen, rosen_der).status == 1
    more = minimize_iterator.load(tmp_path / "run.npz", rosen, rosen_der, max_iterations=1000)
    assert more.status is None
    for _ in more:
        pass
    assert (more.nit, more.nfev, bits(more.x)) == (whole.nit, whole.nfev, bits(whole.x))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    minimize_iterator(Pair(np.zeros(2), np.zeros(1)), lambda x: 1.0, lambda x: x, optapi.sgd)
    with pytest.raises(TypeError, match="cannot be saved"):
        minimize_iterator(Pair(np.zeros(2), np.zeros(1)), lambda x: 1.0, lambda x: x, optapi.sgd).save(path)
    assert not path.exists()
    np.savez(path, a=np.ones(3))
    with pytest.raises(ValueError, match="not a file that optapi wrote"):
        minimize_iterator.load(path, f, df)
    path.write_bytes(pickle.dumps("a pickle"))
    with pytest.raises(ValueError, match=r"run\.npz"):
        minimize_iterator.load(path, f, df)
    np.savez(path, description=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"run\.npz"):
        minimize_iterator.load(path, f, df)


KILLED = """
import os, signal, sys
import numpy as np
import optapi
from test_numpy import rosen, rosen_der

saves, fsync = 0, os.fsync

def killing(file):
    global saves
    saves += 1
    if saves == 5:  # of each save the file, and then the folder
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(file)

os.fsync = killing
it = optapi.minimize_iterator(np.zeros(4), rosen, rosen_der, optapi.lbfgs)
for _ in it:
    it.save(sys.argv[1])
"""


def test_killed_in_the_middle_of_a_save(tmp_path):
    path = tmp_path / "run.npz"
    folders = [Path(__file__).parent, Path(__file__).parent.parent, Path(optapi.__file__).parent.parent]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-c", KILLED, str(path)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert len(list(tmp_path.iterdir())) == 2  # the file, and the one that was being written
    whole = minimize_iterator(np.zeros(4), rosen, rosen_der, optapi.lbfgs)
    points = [bits(it.iterate) for it in whole]
    it = minimize_iterator.load(path, rosen, rosen_der)
    assert it.nit == 2
    assert [bits(state.iterate) for state in it] == points[2:]


# What is built is kept


def test_a_second_call_builds_nothing(monkeypatch):
    minimize(START, f, df, optapi.lbfgs, memory=4)
    monkeypatch.setattr(oracle_program, "build", None)
    monkeypatch.setattr(pytensor, "function", None)
    x = minimize(START + 1, lambda x: 2 * f(x), lambda x: 2 * df(x), optapi.lbfgs, memory=4)
    np.testing.assert_allclose(x, SOLUTION, atol=1e-4)
    for change in ({"memory": 5}, {"memory": 4, "tolerance": 1e-4}, {"memory": 4, "ascent": True}):
        with pytest.raises(TypeError):
            minimize(START, f, df, optapi.lbfgs, **change)
    with pytest.raises(TypeError):
        minimize(START.astype("float32"), f, df, optapi.lbfgs, memory=4)


def test_functions_are_let_go():
    def call():
        cost, slope, argument = partial(f), partial(df), np.array(2.0)
        x0 = np.zeros(3)
        watched = [weakref.ref(value) for value in (cost, slope, argument, x0)]
        minimize(x0, cost, slope, optapi.lbfgs, args=(argument,))
        return watched

    watched = call()
    gc.collect()
    assert [ref() for ref in watched] == [None] * 4


def test_a_function_may_minimize():
    def inner(x):
        best = minimize(
            np.zeros(3),
            lambda y: f(y) + np.sum((y - x) ** 2),
            lambda y: df(y) + 2 * (y - x),
            optapi.lbfgs,
            tolerance=1e-10,
        )
        return f(best) + np.sum((best - x) ** 2), 2 * (x - best)

    x = minimize(START, inner, True, optapi.lbfgs)
    np.testing.assert_allclose(x, SOLUTION, atol=1e-4)


def test_two_threads():
    alone = minimize(np.zeros(6), rosen, rosen_der, optapi.lbfgs)
    found, meeting = [None, None], threading.Barrier(2)

    def work(number):
        meeting.wait()

        def cost(x):
            time.sleep(1e-4)
            return rosen(x)

        found[number] = [minimize(np.zeros(6), cost, rosen_der, optapi.lbfgs) for _ in range(2)]

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(x, alone) for points in found for x in points)


def test_iterators_take_turns():
    alone = [bits(it.iterate) for it in minimize_iterator(np.zeros(4), rosen, rosen_der, optapi.lbfgs)]
    one, two = (minimize_iterator(np.zeros(4), rosen, rosen_der, optapi.lbfgs) for _ in range(2))
    together = [(bits(a.iterate), bits(b.iterate)) for a, b in zip(one, two, strict=True)]
    assert together == list(zip(alone, alone, strict=True))


def test_the_state_of_a_rule_of_ones_own_starts_afresh():
    def remembers(parameters, cost=None, gradients=None, stop=None, updates=None, tolerance=None):
        [p] = parameters
        start = pytensor.shared(p.get_value(), name="start")
        return {p: start + 1, start: start * 1}

    globals()["remembers"] = remembers
    remembers.__qualname__ = "remembers"
    for value in (1.0, 5.0):
        it = minimize_iterator(np.full(3, value), f, df, remembers)
        next(it)
        assert np.array_equal(it.iterate, np.full(3, value + 1))


def test_a_shared_step_size_changes_on_the_way():
    step_size = pytensor.shared(np.float64(0.1))
    it = minimize_iterator(START, f, df, optapi.sgd, step_size=step_size)
    next(it)
    np.testing.assert_allclose(it.iterate, 0.1 * B)
    step_size.set_value(0.0)
    next(it)
    np.testing.assert_allclose(it.iterate, 0.1 * B)


@pytest.mark.parametrize(
    "mode",
    [
        optapi.PYTHON,
        pytest.param("CVM", marks=pytest.mark.c),
        pytest.param("NUMBA", marks=pytest.mark.numba),
    ],
)
def test_modes_agree(mode):
    first = minimize(np.zeros(4), rosen, rosen_der, optapi.lbfgs, full_output=True)
    other = minimize(np.zeros(4), rosen, rosen_der, optapi.lbfgs, full_output=True, mode=mode)
    assert (first.nit, first.nfev) == (other.nit, other.nfev)
    np.testing.assert_allclose(first.x, other.x, rtol=1e-6)


# Callbacks, progress, traces


def test_callback_with_a_result():
    seen = []

    def callback(intermediate_result):
        seen.append(intermediate_result)

    result = minimize(START, f, df, optapi.lbfgs, callback=callback, full_output=True)
    assert [r.nit for r in seen] == list(range(1, result.nit + 1))
    assert all(r.fun == f(r.x) and np.array_equal(r.jac, df(r.x)) for r in seen)
    assert (seen[0].status, seen[-1].status) == (None, 0)
    assert result.nfev == minimize(START, f, df, optapi.lbfgs, full_output=True).nfev


def test_callback_with_a_point():
    seen = []
    x = minimize([np.zeros(3)], lambda x: f(x[0]), lambda x: [df(x[0])], optapi.lbfgs, callback=seen.append)
    assert all(type(point) is list for point in seen)
    assert np.array_equal(seen[-1][0], x[0])
    seen[0][0][:] = np.nan


def test_callback_stops():
    def callback(intermediate_result):
        if intermediate_result.nit == 2:
            raise StopIteration

    it = minimize_iterator(np.zeros(4), rosen, rosen_der, optapi.lbfgs, callback=callback)
    assert len(list(it)) == 2
    assert (it.status, it.success, it.nit) == (99, False, 2)
    assert "callback" in it.message


def test_callback_raises():
    error = RuntimeError("mine")

    def callback(xk):
        raise error

    it = minimize_iterator(np.zeros(4), rosen, rosen_der, optapi.lbfgs, callback=callback)
    with pytest.raises(RuntimeError) as caught:
        next(it)
    assert caught.value is error
    assert it.nit == 1


@pytest.mark.parametrize("rule", [optapi.lbfgs, optapi.adam])
def test_trace(rule):
    result = minimize(np.zeros(4), rosen, rosen_der, rule, trace=True, max_iterations=10, full_output=True)
    trace = result.trace
    assert list(trace) == ["cost", "gradient_size", "step", "evaluations", "seconds"]
    assert all(len(column) == result.nit + 1 == 11 for column in trace.values())
    assert trace["cost"][0] == rosen(np.zeros(4))
    assert trace["cost"].min() == result.fun
    assert trace["gradient_size"][0] == 2.0
    assert trace["evaluations"][-1] == result.nfev
    assert np.all(np.diff(trace["seconds"]) > 0)
    assert trace["step"][0] == 0
    assert np.all(trace["step"][1:] > 0)
    assert "trace" not in minimize(START, f, df, optapi.lbfgs, full_output=True)


def test_verbose_prints_a_table(capsys):
    result = minimize(START, f, df, optapi.lbfgs, verbose=True, full_output=True)
    out, err = capsys.readouterr()
    head, *rows, message = out.splitlines()
    assert head.split() == ["iteration", "cost", "gradient", "step", "evaluations", "seconds"]
    assert [int(row.split()[0]) for row in rows] == list(range(result.nit + 1))
    assert all(len(row) == len(head) for row in rows)
    assert float(rows[-1].split()[1]) == pytest.approx(result.fun)
    assert message == result.message
    assert err == ""
    minimize(np.zeros(4), rosen, rosen_der, optapi.lbfgs, verbose=10)
    rows = capsys.readouterr().out.splitlines()[1:-1]
    assert [int(row.split()[0]) % 10 for row in rows[:-1]] == [0] * (len(rows) - 1)


def test_progressbar(capsys, monkeypatch):
    minimize(START, f, df, optapi.lbfgs, progressbar=True)
    assert capsys.readouterr() == ("", "")  # no terminal
    for hidden in (False, True):
        with monkeypatch.context() as context:
            if hidden:
                context.setitem(sys.modules, "rich.console", None)
            minimize(START, f, df, optapi.lbfgs, progressbar="force")
        out, err = capsys.readouterr()
        assert out == ""
        assert "lbfgs" in err
        assert "cost -" in err
        assert "gradient" in err


def test_progressbar_is_left_when_something_raises(capsys):
    cost = Counting(rosen, 5, ZeroDivisionError())
    it = minimize_iterator(np.zeros(4), cost, rosen_der, optapi.lbfgs, progressbar="force")
    with pytest.raises(ZeroDivisionError):
        for _ in it:
            pass
    assert capsys.readouterr().err.endswith("\n")
    for _ in it:
        pass
    assert it.success


# The derivative compared


def test_check_gradient():
    good = optapi.check_gradient(rosen, rosen_der, np.linspace(-1, 1, 5))
    assert good.agrees
    assert good.error < 1e-6

    def wrong(x):
        return rosen_der(x) + np.array([0, 0, 1.0, 0, 0])

    bad = optapi.check_gradient(rosen, wrong, np.linspace(-1, 1, 5))
    assert not bad.agrees
    assert bad.place == "x0[2]"
    assert bad.given == pytest.approx(bad.difference + 1)
    assert str(bad.place) in str(bad)
    with pytest.raises(ValueError, match=r"x0\[2\]: df says"):
        minimize(np.linspace(-1, 1, 5), rosen, wrong, optapi.lbfgs, check_gradient=True)
    np.testing.assert_allclose(minimize(START, f, df, optapi.lbfgs, check_gradient=True), SOLUTION, atol=1e-5)


def test_check_gradient_of_structures_and_units():
    x0 = {"w": np.full((2, 2), 0.5), "b": np.array(1.0)}
    cost = lambda x: 1e-9 * (np.sum(x["w"] ** 3) + x["b"] ** 2)  # noqa: E731
    good = lambda x: {"w": 3e-9 * x["w"] ** 2, "b": 2e-9 * x["b"]}  # noqa: E731
    bad = lambda x: {"w": 3e-9 * x["w"], "b": 2e-9 * x["b"]}  # noqa: E731
    assert optapi.check_gradient(cost, good, x0).agrees
    assert optapi.check_gradient(cost, bad, x0).place.startswith("x0['w'][")
    narrow = {k: v.astype("float32") for k, v in x0.items()}
    assert optapi.check_gradient(cost, good, narrow).agrees
    assert not optapi.check_gradient(cost, bad, narrow).agrees
    assert not optapi.check_gradient(f, lambda x: np.full(3, np.nan), START).agrees
