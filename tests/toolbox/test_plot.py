"""What the pictures show: the data in the axes."""

import subprocess
import sys

import numpy as np
import pytensor.tensor as pt
import pytest
from test_profiles import hand, result  # noqa: F401

import optapi
from optapi import minimize, minimize_iterator, plot, schedules


matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def quiet():
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    yield
    plt.close("all")


def f(x):
    return np.sum((x - [1, 2]) ** 2)


def df(x):
    return 2 * (x - [1, 2])


def run(rule=optapi.lbfgs, **options):
    return minimize([5.0, 5.0], f, df, rule, full_output=True, trace=True, **options)


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else []


def drawn(axes):
    """The lines by label, without those that are not in the legend."""
    return {line.get_label(): line.get_xydata().T for line in axes.lines if not line.get_label().startswith("_")}


def test_a_trace():
    one = run(optapi.sgd, step_size=0.2, max_iterations=6)
    axes = plot.trace(one)
    [line] = axes.lines
    np.testing.assert_array_equal(line.get_xydata().T, [np.arange(7), one.trace["cost"]])
    assert axes.get_xlabel() == "iterations" and axes.get_ylabel() == "cost"
    assert axes.get_legend() is None

    axes = plot.trace({"A": one, "B": run()}, "step", "evaluations")
    assert labels(axes) == ["A", "B"] and axes.get_yscale() == "log"
    spent, steps = drawn(axes)["A"]
    np.testing.assert_array_equal(spent, one.trace["evaluations"])
    assert np.isnan(steps[0])  # no step has been taken at the start
    np.testing.assert_array_equal(steps[1:], one.trace["step"][1:])

    spent, sizes = plot.trace([one, one], "gradient_size", "seconds").lines[1].get_xydata().T
    np.testing.assert_array_equal(sizes, one.trace["gradient_size"])
    np.testing.assert_array_equal(spent, one.trace["seconds"])


def test_a_trace_of_the_distance_from_the_minimum():
    def lower(x):
        return f(x) - 7

    one = minimize([5.0, 5.0], lower, df, optapi.sgd, step_size=0.2, full_output=True, trace=True, max_iterations=5)
    axes = plot.trace(one, minimum=-7.0)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), one.trace["cost"] + 7)
    assert axes.get_yscale() == "log"
    assert plot.trace(one).get_yscale() == "linear"


def test_a_trace_of_iterators_on_given_axes():
    iterators = [minimize_iterator([5.0, 5.0], f, df, rule, trace=True) for rule in (optapi.sgd, optapi.lbfgs)]
    for iterator in iterators:
        next(iterator)
    figure = matplotlib.figure.Figure()
    axes = figure.subplots()
    assert plot.trace(iterators, axes=axes) is axes
    assert labels(axes) == ["sgd", "lbfgs"]
    assert [len(x) for x, _ in drawn(axes).values()] == [2, 2]
    plot.trace({"later": run()}, axes=axes)
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 3
    # The traces themselves, and a dictionary with pairs for keys.
    assert list(drawn(plot.trace({("p", "a"): iterators[0].result.trace}))) == ["p, a"]


def test_many_lines_can_be_told_apart():
    axes = plot.trace([result([3, 2, 1], [1, 2, 3])] * 28)
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 28


def test_a_trace_of_nothing_that_was_traced():
    untraced = minimize([5.0, 5.0], f, df, optapi.lbfgs, full_output=True)
    with pytest.raises(ValueError, match="no trace; pass trace=True"):
        plot.trace(untraced)
    with pytest.raises(TypeError, match="runs is a int, which cannot be drawn"):
        plot.trace(3)
    with pytest.raises(ValueError, match="y is 'costs'"):
        plot.trace(run(), "costs")


def test_a_path():
    iterator = minimize_iterator([5.0, 5.0], f, df, optapi.sgd, step_size=0.25, max_iterations=4)
    next(iterator)
    axes = plot.path(iterator)
    way = [[1, 2] + np.array([4, 3]) * 0.5**k for k in range(1, 5)]
    np.testing.assert_allclose(drawn(axes)["sgd"].T, way)
    assert iterator.nit == 1  # a copy went on
    # The contours: the levels are those of f less its lowest value in sight.
    filled, lines = axes.collections
    for level, paths in zip(lines.levels, lines.get_paths(), strict=True):
        for x in paths.vertices[:5]:
            assert f(x) == pytest.approx(level, rel=0.2, abs=0.05)
    assert len(lines.levels) == len(filled.levels) == 16
    assert axes.get_xlim()[0] < 1.25 and axes.get_xlim()[1] > 3


def test_a_path_of_a_structure_and_a_symbolic_cost():
    start = {"u": np.array(5.0), "v": np.array([5.0])}

    def symbolic(x):
        return (x["u"] - 1) ** 2 + pt.sum((x["v"] - 2) ** 2)

    axes = plot.path({"mine": minimize_iterator(start, symbolic, None, optapi.lbfgs)}, points=10)
    np.testing.assert_allclose(drawn(axes)["mine"].T[[0, -1]], [[5, 5], [1, 2]], atol=1e-6)
    assert len(axes.collections) == 2


def test_paths_of_points():
    first, second = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[3.0, 0.0], [1.0, 2.0], [1.0, 2.0]])
    axes = plot.path({"a": first, "b": second})
    assert not axes.collections and labels(axes) == ["a", "b"]
    np.testing.assert_array_equal(drawn(axes)["b"].T, second)
    np.testing.assert_allclose(axes.get_xlim(), (1.5 - 0.62 * 3, 1.5 + 0.62 * 3))
    assert len(plot.path(first, f, points=9).collections) == 2
    assert not plot.path(first, lambda x: 3.0, points=9).collections  # a plane has no contours
    with pytest.raises(ValueError, match="only points of two components"):
        plot.path(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="only points of two components"):
        plot.path(minimize_iterator(np.zeros(3), lambda x: x @ x, lambda x: 2 * x, optapi.lbfgs))


def test_schedules():
    cosine = schedules.Cosine(0.1, 10)
    axes = plot.schedule([cosine, 0.05, lambda t: 1 / (1 + t)], 5)
    shown = list(drawn(axes).values())
    np.testing.assert_array_equal(shown[0], [np.arange(5), cosine(np.arange(5))])
    np.testing.assert_array_equal(shown[1][1], 5 * [0.05])
    np.testing.assert_allclose(shown[2][1], 1 / np.arange(1, 6))
    assert labels(axes)[0] == repr(cosine) and labels(axes)[1] == "0.05"
    assert list(drawn(plot.schedule({"mine": cosine}, 3))) == ["mine"]


def test_profiles(hand):  # noqa: F811
    axes = plot.performance_profile(hand, accuracy=0.1)
    lines = drawn(axes)
    assert list(lines) == ["a", "b", "c"]
    np.testing.assert_allclose(lines["a"], [[1, 1, 2, 2.2], [0.5, 0.5, 1, 1]])
    np.testing.assert_allclose(lines["c"], [[1, 2.2], [0, 0]])
    assert {line.get_drawstyle() for line in axes.lines} == {"steps-post"} and axes.get_xscale() == "log"

    lines = drawn(plot.data_profile(hand, accuracy=0.1))
    # 5 and 12 evaluations, of 1 and 3 components.
    np.testing.assert_allclose(lines["a"], [[0, 2.5, 3, 5.5], [0, 0.5, 1, 1]])
    np.testing.assert_allclose(lines["b"], [[0, 1.5, 5, 5.5], [0, 0.5, 1, 1]])

    lines = drawn(plot.performance_profile(dict(hand), "iterations", accuracy=None))
    np.testing.assert_allclose(lines["b"], [[1, 1, 2.2], [1, 1, 1]])
    with pytest.raises(TypeError, match="results is a list"):
        plot.performance_profile([])


def test_without_matplotlib_it_says_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib.pyplot'] = None\n"
        "import optapi\n"
        "try: optapi.plot.schedule(0.1, 3)\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "optapi.plot needs matplotlib; install it with pip install 'optapi[plot]'"
