"""Benchmarks, and profiles against values worked out by hand."""

import pickle
from functools import partial

import numpy as np
import pytest

import optapi
from optapi import OptimizeResult, profiles
from optapi.profiles import Benchmark


def quadratic(x, scale=1.0):
    return scale * np.sum((x - 1) ** 2)


def slope(x, scale=1.0):
    return scale * 2 * (x - 1)


def result(costs, evaluations, x=(0.0,), success=True, seconds=None):
    """A result as a traced minimization returns it."""
    trace = {"cost": np.array(costs, float), "evaluations": np.array(evaluations, float)}
    trace["seconds"] = np.array(evaluations, float) / 10 if seconds is None else seconds
    return OptimizeResult(
        x=np.array(x),
        fun=costs[-1],
        jac=np.zeros(len(x)),
        nit=len(costs) - 1,
        nfev=evaluations[-1],
        success=success,
        status=0 if success else 1,
        trace=trace,
    )


@pytest.fixture
def hand():
    """Two problems and three algorithms."""
    return Benchmark(
        {
            # The minimum is 0; within a tenth is at most 1.
            ("p", "a"): result([10, 5, 0.9, 0.0], [1, 3, 5, 9]),
            ("p", "b"): result([10, 0.5, 2.0], [1, 10, 20]),
            ("p", "c"): result([10, 8, 7], [1, 2, 3], success=False),
            # The lowest is -2, the start 8; within a tenth is at most -1.
            ("q", "a"): result([8, np.nan, -1.5], [1, 2, 12], x=(0.0, 0.0, 0.0)),
            ("q", "b"): result([8, -2], [1, 6], x=(0.0, 0.0, 0.0)),
            ("q", "c"): result([8, 3], [1, 2], x=(0.0, 0.0, 0.0), success=False),
        }
    )


def test_what_was_spent(hand):
    inf = np.inf
    np.testing.assert_array_equal(hand.measure(accuracy=0.1), [[5, 10, inf], [12, 6, inf]])
    np.testing.assert_array_equal(hand.measure("iterations", accuracy=0.1), [[2, 1, inf], [2, 1, inf]])
    np.testing.assert_array_equal(hand.measure("seconds", accuracy=0.1), [[0.5, 1.0, inf], [1.2, 0.6, inf]])
    # By a minimum that is known, b no longer solves q, where the accuracy leaves 10 % of 18.
    np.testing.assert_array_equal(hand.measure(accuracy=0.1, minima={"q": -10}), [[5, 10, inf], [inf, inf, inf]])
    # By the verdict of the algorithm itself.
    np.testing.assert_array_equal(hand.measure(accuracy=None), [[9, 20, inf], [12, 6, inf]])
    np.testing.assert_array_equal(hand.measure("iterations", None), [[3, 2, inf], [2, 1, inf]])
    np.testing.assert_array_equal(hand.sizes(), [1, 3])


def test_a_derivative_that_is_not_a_number_has_no_size():
    run = result([1.0], [1])
    run["jac"] = {"a": np.ones(2), "b": [np.zeros(3), np.array(np.nan)]}
    assert np.isnan(Benchmark({("p", "a"): run}).rows()[0]["gradient_size"])
    run["jac"] = {"a": np.ones(2), "b": [np.zeros(0), -2.0]}
    assert Benchmark({("p", "a"): run}).rows()[0]["gradient_size"] == 2.0


def test_a_start_at_the_minimum_is_solved_there():
    found = Benchmark({("p", "a"): result([0.0], [1]), ("p", "b"): result([0.0, 0.0], [1, 4])})
    np.testing.assert_array_equal(found.measure(accuracy=0.0), [[1, 1]])
    np.testing.assert_array_equal(profiles.performance_ratios(found.measure("iterations", 0.0)), [[1, 1]])


def test_profiles_by_hand(hand):
    inf = np.inf
    ratios = profiles.performance_ratios(hand.measure(accuracy=0.1))
    np.testing.assert_array_equal(ratios, [[1, 2, inf], [2, 1, inf]])
    np.testing.assert_array_equal(
        profiles.fraction_solved(ratios, [1, 1.99, 2]), [[0.5, 0.5, 0], [0.5, 0.5, 0], [1, 1, 0]]
    )
    np.testing.assert_array_equal(profiles.performance_ratios([[0.0, 3.0], [inf, inf]]), [[1, inf], [inf, inf]])


def test_an_ascent_is_judged_by_the_highest():
    found = Benchmark({("p", "a"): result([0, 5, 10], [1, 2, 3]), ("p", "b"): result([0, 9.5], [1, 2])}, ascent=True)
    np.testing.assert_array_equal(found.measure(accuracy=0.1), [[3, 2]])
    np.testing.assert_array_equal(found.measure(accuracy=0.5, minima={"p": 8}), [[2, 2]])


def test_a_grid():
    rules = {"lbfgs": optapi.lbfgs, "slow": partial(optapi.sgd, step_size=0.05)}
    problems = {"plain": (np.zeros(2), quadratic, slope), "steep": ([3.0], quadratic, slope, {"args": (4.0,)})}
    found = optapi.benchmark(problems, rules, max_iterations=30)
    assert list(found) == [(p, a) for p in problems for a in rules]
    assert (found.problems, found.algorithms) == (["plain", "steep"], ["lbfgs", "slow"])
    for (problem, algorithm), run in found.items():
        x0, f, df, *own = problems[problem]
        alone = optapi.minimize(
            x0, f, df, rules[algorithm], max_iterations=30, full_output=True, trace=True, **(own[0] if own else {})
        )
        np.testing.assert_array_equal(run.x, alone.x)
        np.testing.assert_array_equal(run.trace["cost"], alone.trace["cost"])
    assert found["plain", "slow"].nit == 30
    assert found.on("steep") == {"lbfgs": found["steep", "lbfgs"], "slow": found["steep", "slow"]}

    rows = found.rows()
    assert rows[1]["problem"] == "plain" and rows[1]["algorithm"] == "slow" and rows[1]["iterations"] == 30
    assert rows[1]["gradient_size"] == np.max(np.abs(found["plain", "slow"].jac))
    assert rows[1]["status"].startswith("limit") and rows[0]["status"] == "converged"
    text, markdown = str(found).splitlines(), found._repr_markdown_().splitlines()
    assert len(text) == 5 and len(markdown) == 6 and "slow" in text[2] and text[0].startswith("problem")
    assert len({line.count("|") for line in markdown}) == 1


def test_it_can_be_pickled(hand):
    again = pickle.loads(pickle.dumps(Benchmark(hand, ascent=True)))
    assert type(again) is Benchmark and list(again) == list(hand) and again.ascent


def test_names_in_lists():
    found = optapi.benchmark([([0.0], quadratic, slope)], [optapi.lbfgs, partial(optapi.bfgs, step_size=0.5)])
    assert list(found) == [("quadratic", "lbfgs"), ("quadratic", "bfgs")]


def test_the_derivative_of_a_structure():
    def f(x):
        return (x["a"] - 1) ** 2 + np.sum((x["b"] + 2) ** 2)

    def df(x):
        return {"a": 2 * (x["a"] - 1), "b": 2 * (x["b"] + 2)}

    start = {"a": 0.0, "b": np.zeros(2)}
    found = optapi.benchmark({"f": (start, f, df)}, [optapi.sgd], max_iterations=1)
    assert found.rows()[0]["gradient_size"] == np.max(np.abs(found["f", "sgd"].jac["b"]))
    np.testing.assert_array_equal(found.sizes(), [3])


@pytest.mark.parametrize(
    "problems, algorithms, options, error, words",
    [
        ({}, [optapi.lbfgs], {}, ValueError, "problems is empty"),
        ({"p": 3}, [optapi.lbfgs], {}, TypeError, r"problems\['p'\] is 3; pass \(x0, f, df\)"),
        ([([0.0], quadratic, slope)] * 2, [optapi.lbfgs], {}, ValueError, "two of problems have the same name"),
        ([([0.0], quadratic, slope)], [optapi.sgd, optapi.sgd], {}, ValueError, "two of algorithms"),
        ([([0.0], quadratic, slope)], optapi.sgd, {}, TypeError, "algorithms is a function"),
        ([([0.0], quadratic, slope)], [optapi.sgd], {"trace": False}, TypeError, "trace"),
    ],
)
def test_bad_input(problems, algorithms, options, error, words):
    with pytest.raises(error, match=words):
        optapi.benchmark(problems, algorithms, **options)


def test_an_error_says_in_which_run():
    with pytest.raises(TypeError, match="memory") as caught:
        optapi.benchmark({"p": ([0.0], quadratic, slope)}, {"mine": optapi.sgd}, memory=3)
    assert caught.value.__notes__ == ["in the run of mine on p"]


def test_bad_measures(hand):
    with pytest.raises(ValueError, match="of is 'calls'"):
        hand.measure("calls")
    with pytest.raises(ValueError, match="accuracy is 1"):
        hand.measure(accuracy=1)
    with pytest.raises(ValueError, match="there is no problem 'r'; there are p, q"):
        hand.on("r")
    del hand["p", "a"]["trace"]
    with pytest.raises(ValueError, match="no trace; pass trace=True"):
        hand.measure()
