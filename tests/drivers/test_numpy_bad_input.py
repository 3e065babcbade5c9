"""Generated bad calls of the NumPy interface: a documented error or a correct answer, and nothing is changed."""

import copy
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import optapi


class Mine(Exception):
    """Raised by a function of the caller."""


def leaves(x):
    if isinstance(x, dict):
        return [leaf for child in x.values() for leaf in leaves(child)]
    if isinstance(x, list | tuple) and not all(isinstance(child, int | float) for child in x):
        return [leaf for child in x for leaf in leaves(child)]
    return [np.asarray(x)]


def cost(x):
    return sum(float(np.sum((np.asarray(leaf, "float64") - 1) ** 2)) for leaf in leaves(x))


def slope(x):
    if isinstance(x, dict):
        return {key: slope(child) for key, child in x.items()}
    if isinstance(x, list | tuple):
        return [slope(child) for child in x]
    return 2 * (x - 1)


STARTS = [
    *(
        np.zeros(3),
        np.zeros((2, 2)),
        np.zeros(()),
        np.zeros(0),
        np.zeros((0, 3)),
        0.0,
        3,
        True,
        None,
        "start",
        b"x",
        1j,
    ),
    *(
        np.zeros(3, "float32"),
        np.zeros(3, "float16"),
        np.zeros(3, "longdouble"),
        np.zeros(3, complex),
        np.zeros(3, bool),
    ),
    *(np.arange(3), np.zeros(3, object), np.array(["a"]), np.array([0.0, np.nan]), np.array([np.inf])),
    *([], [0, 1], [0.5, None], [[1.0], [1.0, 2.0]], [np.zeros(2), np.zeros(3)], [np.zeros(2), "a"], [[[]]], ()),
    *(
        {"a": np.zeros(2), "b": 1.0},
        {},
        {"a": []},
        {1: {}},
        {"a": None},
        (np.zeros(1), [np.zeros(2)]),
        {1, 2},
        range(3),
    ),
    *(np.zeros(6)[::2], np.zeros((2, 3), order="F"), np.ma.masked_array([0.0, 1.0], [True, False]), slice(3), np.zeros),
]
ANSWERS = ["right", "none", "nan", "inf", "string", "shape", "list", "complex", "raise", "structure", "integer", "huge"]
KEYWORDS = {
    "args": [(), 3, None, (1, 2), "ab"],
    "max_iterations": [None, 0, 1, -1, 2.5, "3", True, np.int64(3), np.nan, [3]],
    "max_evaluations": [None, 0, 2, -1, 1.5, "x", False],
    "time_limit": [None, 0, 1e-3, -1, "x", np.nan, np.inf, True, [1]],
    "target": [None, 0.5, -np.inf, np.nan, "x", 1j],
    "cost_tolerance": [None, 0, 1e-3, -1, np.nan, "x"],
    "step_tolerance": [None, 0.0, 1e-3, -1, np.nan, [1]],
    "callback": [None, 3, "x", list, lambda x: None, lambda intermediate_result: None, lambda: None],
    "progressbar": [False, True, "yes", 3, None],
    "verbose": [False, True, 5, -1, "x", 2.5, None],
    "trace": [False, True, "x", 1, None],
    "check_gradient": [False, True, "x", None],
    "hessp": [None, 3, lambda x, v: v],
    "mode": [None, 3, "NOT A MODE", optapi.PYTHON],
    "full_output": [True, False, "x", None],
    "step_size": [0.1, -1, np.nan, "x", [1], None, np.inf],
    "tolerance": [None, 1e-3, -1, np.nan, "x"],
    "ascent": [False, True],
    "memory": [3, 0, 2.5, "x"],
    "unknown": [3],
    "cost": [3],
    "stop": [None],
    "residuals": [None],
}
DF = [None, True, False, 3, "x"]
RULES = [optapi.sgd, None, 3, "lbfgs", "lbgfs", print, lambda parameters, **kw: {}]


class Function:
    """What the caller passes: `right` answers, and from call `k` on something else."""

    def __init__(self, right, answer, k):
        self.right, self.answer, self.k, self.calls = right, answer, k, 0

    def __call__(self, x, *args):
        self.calls += 1
        right = self.right(x)
        if self.calls < self.k:
            return right
        first = leaves(right)[0] if leaves(right) else np.zeros(1)
        answers = {"none": None, "nan": first * np.nan, "inf": first * 0 + np.inf, "string": "answer"}
        answers |= {
            "shape": np.zeros((2, 5)),
            "complex": first * 1j,
            "structure": {"other": [1.0]},
            "huge": first + 1e308,
        }
        answers |= {"list": first.tolist(), "integer": np.asarray(first).astype(int)}
        if self.answer == "raise":
            raise Mine
        return answers.get(self.answer, right)


@st.composite
def calls(draw):
    """A call with one or two things wrong, or none."""
    good = [np.zeros(3), [np.zeros(2), np.zeros(())], {"a": np.zeros((2, 1))}]
    call = {
        "x0": draw(st.sampled_from(good)),
        "f": ("right", 1),
        "df": draw(st.sampled_from(["df", True])),
        "slope": ("right", 1),
        "rule": draw(st.sampled_from([optapi.lbfgs, optapi.adam])),
        "keywords": {},
    }
    for wrong in draw(st.lists(st.sampled_from([*call, "keywords", "x0"]), max_size=2)):
        if wrong in ("f", "slope"):
            call[wrong] = draw(st.sampled_from(ANSWERS)), draw(st.integers(1, 4))
        elif wrong == "keywords":
            name = draw(st.sampled_from(sorted(KEYWORDS)))
            call["keywords"][name] = draw(st.sampled_from(KEYWORDS[name]))
        else:
            call[wrong] = draw(st.sampled_from({"x0": STARTS, "df": DF, "rule": RULES}[wrong]))
    return call


def same(one, other):
    if isinstance(one, np.ndarray):
        if one.dtype == object:
            return one.tolist() == other.tolist()
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return one is other or one == other or (one != one and other != other)


@settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(call=calls())
@example(
    call={"x0": np.zeros(3), "f": ("right", 1), "df": "df", "slope": ("right", 1), "rule": optapi.lbfgs, "keywords": {}}
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::optapi.OptimizationWarning")
def test_a_documented_error_or_a_correct_answer(call, capsys):
    x0, f = call["x0"], Function(cost, *call["f"])
    df = Function(slope, *call["slope"]) if call["df"] == "df" else call["df"]
    if df is True:
        f.right = lambda x: (cost(x), slope(x))
    keywords = {"max_iterations": 25, **call["keywords"]}
    before = copy.deepcopy(x0)
    began = time.perf_counter()
    try:
        with np.errstate(all="ignore"):
            answer = optapi.minimize(x0, f, df, call["rule"], **keywords)
    except Mine:
        assert "raise" in (call["f"][0], call["slope"][0])
    except (TypeError, ValueError) as error:
        assert len(str(error)) > 20 or call["df"] is None  # a sentence, or an error of f on expressions
    else:
        correct(answer, f, df, x0, keywords)
    assert same(x0, before)
    assert time.perf_counter() - began < 30


def correct(answer, f, df, x0, keywords):
    """`answer` is what was asked for."""
    assert callable(f)
    assert callable(df) or df in (None, True)
    if keywords.get("full_output") is not True:
        assert [leaf.shape for leaf in leaves(answer)] == [leaf.shape for leaf in leaves(x0)]
        assert all(np.all(np.isfinite(leaf)) for leaf in leaves(answer))
        return
    assert answer.status in (0, 1, 2, 3, 4, 5)
    assert answer.success == (answer.status in (0, 5))
    assert answer.message.endswith(".")
    assert answer.nit <= keywords["max_iterations"] if keywords["max_iterations"] is not None else True
    assert [leaf.shape for leaf in leaves(answer.x)] == [leaf.shape for leaf in leaves(x0)]
    if f.answer == "right" and (df is None or df is True or df.answer == "right"):
        assert answer.fun == pytest.approx(cost(answer.x))
        better = answer.fun >= cost(x0) if keywords.get("ascent") else answer.fun <= cost(x0)
        assert better
        if answer.status == 0 and not {"tolerance", "cost_tolerance", "step_tolerance"} & set(keywords):
            assert cost(answer.x) < 1e-6
