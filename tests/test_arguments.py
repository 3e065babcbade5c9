"""Arguments of all public functions: what is plainly wrong is refused, by a sentence that names the argument.

Each public name has a valid call in `CALLS`; the tests replace one of its arguments by another value from `POOL`.
OPTAPI_INJECTIONS is a factor of how many such calls are drawn, 1 by default.
"""

import contextlib
import inspect
import os
import signal
import sys
import tempfile
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytensor
import pytensor.sparse
import pytensor.tensor as pt
import pytest
import scipy.sparse
from pytensor.compile.sharedvalue import SharedVariable
from registry import public_rules, required

import optapi
from optapi import gradients, line_search, plot, profiles, prox, schedules, stopping, testing


FACTOR = int(os.environ.get("OPTAPI_INJECTIONS", "1"))
FILE = Path(tempfile.gettempdir()) / f"optapi_arguments_{os.getpid()}.npz"
SECONDS = 20  # that a call may take before it counts as one that hangs


def shared(value, name, dtype="float64"):
    return pytensor.shared(np.asarray(value, dtype), name=name)


def optimization(**more):
    """The arguments that all rules have."""
    p, other = shared([1.0, -2.0], "p"), shared(1.0, "other")
    cost = pt.sum((p - 1.0) ** 4)
    return {"parameters": [p], "cost": cost, "stop": pytensor.shared(0), "updates": {other: other + 1.0}} | more


def of_rule(rule):
    """A valid call of a rule."""
    arguments = optimization()
    if inspect.signature(rule).parameters.get("residuals") is not None:
        arguments["residuals"] = [(arguments["parameters"][0] - 1.0) ** 2]
    if "groups" in inspect.signature(rule).parameters:
        arguments["groups"] = [(["p"], optapi.sgd)]
    return arguments | required(rule)


def updated(*more, step_size=0.1):
    """Updates of a rule, with what else a call needs: the parameter, another one of its shape, the cost."""
    p, q, rate = shared([1.0, -2.0], "p"), shared([0.0, 0.0], "q"), shared(step_size, "rate")
    cost = pt.sum(p**2)
    known = {"p": p, "q": q, "rate": rate, "cost": cost, "updates": optapi.sgd([p], cost, step_size=rate)}
    return [known[name] for name in ("updates", *more)]


def updated_with(rule=optapi.sgd, **options):
    p = shared([1.0, -2.0], "p")
    return rule([p], pt.sum(p**2), step_size=0.1, **options)


def after(names, *more):
    """A call with the arguments `names`, the first of which is updates."""
    return lambda: dict(zip(names, updated(*more), strict=True))


def numpy_problem():
    return {"x0": np.zeros(2), "f": lambda x: float(np.sum((x - 3) ** 2)), "df": lambda x: 2 * (x - 3)}


def driver():
    return numpy_problem() | {"opt_algo": "sgd", "max_iterations": 2}


def minimizer(trace=False):
    p = shared([1.0, -2.0], "p")
    return optapi.compile_minimizer([p], pt.sum((p - 3) ** 2), "sgd", mode=optapi.PYTHON, max_iterations=2, trace=trace)


def on_data(starts=None, workers=1):
    p, y = shared([1.0, -2.0], "p"), pt.dvector("y")
    run = optapi.compile_minimizer([p], pt.sum((p - y) ** 2), "sgd", inputs=[y], mode=optapi.PYTHON, max_iterations=2)
    return run.on_data(np.ones((3, 2)), starts=starts, workers=workers)


def on_line():
    def line(a):
        return line_search.Trial((a - 2) ** 2, 2 * (a - 2))

    return {"line": line, "start": line(pt.constant(0.0))}


def results():
    problem = numpy_problem()
    return optapi.benchmark({"one": tuple(problem.values())}, {"sgd": partial(optapi.sgd, step_size=0.1)})


def traced():
    return optapi.minimize(**driver(), full_output=True, trace=True)


def generator():
    return pt.random.shared_rng(seed=1)


def conjugate_formula(**more):
    return lambda: {name: pt.dvector(name) for name in ("d", "g", "g_new")} | more


RESULTS, TRACED, MINIMIZER = results(), traced(), minimizer()
# From a name to the function, and to what makes the arguments of a valid call.
CALLS = {rule.__name__: (rule, partial(of_rule, rule)) for rule in public_rules()}
CALLS |= {
    f"stateful.{kind.__name__}": (kind, dict)
    for kind in (optapi.ADAM, optapi.Gradient, optapi.Momentum, optapi.RMSProp, optapi.Optimizer, optapi.GradientMemory)
}
CALLS |= {
    f"line_search.{search.__name__}": (search, on_line)
    for search in (
        *(line_search.backtracking, line_search.fixed, line_search.hager_zhang, line_search.more_thuente),
        *(line_search.strong_wolfe, line_search.weak_wolfe),
    )
}
CALLS |= {
    f"beta_{name}": (getattr(optapi, f"beta_{name}"), conjugate_formula())
    for name in ("dai_yuan", "fletcher_reeves", "hager_zhang", "hestenes_stiefel", "polak_ribiere")
}
CALLS |= {
    "accumulate": (
        optapi.accumulate,
        lambda: (
            {"gradients": [pt.grad(c, p) for p, c in [updated("p", "cost")[1:]]], "every": 2, "updates": {}}
            | {"parameters": [shared([1.0, -2.0], "p")]}
        ),
    ),
    "average": (optapi.average, lambda: {"updates": (u := updated("p", "q"))[0], "averages": {u[1]: u[2]}}),
    "active": (optapi.active, lambda: {"updates": updated_with(bounds=(0, 1))}),
    "multipliers": (optapi.multipliers, lambda: {"updates": updated_with(optapi.sqp, constraints=(), bounds=(0, 1))}),
    "quadratic_program": (optapi.quadratic_program, lambda: {"B": np.eye(2), "g": np.ones(2)}),
    "solve": (optapi.solve, lambda: {"parameters": [p := shared([1.0, -2.0], "p")], "cost": pt.sum(p**2)}),
    "laplace": (optapi.laplace, lambda: {"latents": [p := shared([1.0, -2.0], "p")], "neg_logp": pt.sum(p**2)}),
    "root": (optapi.root, lambda: {"parameters": [p := shared([1.0, -2.0], "p")], "equations": [p**3 - 2]}),
    "fixed_point": (
        optapi.fixed_point,
        lambda: {"parameters": [p := shared([1.0, -2.0], "p")], "images": [pt.cos(p)]},
    ),
    "batch": (
        optapi.batch,
        lambda: {"updates": (u := updated("p"))[0], "starts": {u[1]: shared(np.ones((3, 2)), "wide")}},
    ),
    "benchmark": (
        optapi.benchmark,
        lambda: {"problems": {"one": tuple(numpy_problem().values())}, "algorithms": ["sgd"]},
    ),
    "best": (
        optapi.best,
        lambda: {"updates": (u := updated("p", "q", "cost"))[0], "cost": u[3], "points": {u[1]: u[2]}},
    ),
    "bold_driver": (optapi.bold_driver, after(("updates", "step_size", "cost"), "rate", "cost")),
    "Checkpoint": (optapi.Checkpoint, lambda: {"path": str(FILE)}),
    "check_gradient": (optapi.check_gradient, numpy_problem),
    "compile_minimizer": (
        optapi.compile_minimizer,
        lambda: {k: v for k, v in optimization(opt_algo="sgd", mode=optapi.PYTHON).items() if k not in ("stop",)},
    ),
    "cond": (
        optapi.cond,
        lambda: {
            "condition": pt.gt(pt.dscalar("c"), 0),
            "body": lambda a: [2.0 * a],
            "arguments": [pt.dscalar("a")],
            "otherwise": [pt.constant(0.0)],
        },
    ),
    "covariance": (
        optapi.covariance,
        lambda: {"parameters": [p := shared([1.0, -2.0], "p")], "cost": pt.sum(p**2), "mode": optapi.PYTHON},
    ),
    "curve_fit": (
        optapi.curve_fit,
        lambda: {
            "model": lambda t, a: a * t,
            "x": np.arange(3.0),
            "y": np.array([0.0, 2.1, 3.9]),
            "p0": [1.0],
            "jac": "2-point",
        },
    ),
    "least_squares": (
        optapi.least_squares,
        lambda: {"x0": np.zeros(2), "residuals": lambda x: np.asarray(x - 3), "jac": "2-point"},
    ),
    "find_step_size": (
        optapi.find_step_size,
        lambda: {"updates": (u := updated("rate"))[0], "step_size": u[1], "run": lambda: 1.0},
    ),
    "hold": (optapi.hold, lambda: {"updates": updated()[0], "condition": pt.gt(pt.dscalar("c"), 0)}),
    "inverse_hessian": (optapi.inverse_hessian, lambda: {"updates": updated()[0]}),
    "join": (lambda join: optapi.join(join, {}), lambda: {"join": updated()[0]}),
    "load": (optapi.load, lambda: {"path": saved(u := updated()[0]), "updates": u}),
    "lookahead": (optapi.lookahead, lambda: {"updates": (u := updated("p"))[0], "parameters": [u[1]]}),
    "loop": (optapi.loop, lambda: {"updates": updated()[0], "steps": 3}),
    "minimize": (optapi.minimize, driver),
    "minimize_iterator": (optapi.minimize_iterator, driver),
    "noise": (
        optapi.noise,
        lambda: {"gradients": [pt.dvector("g")], "updates": {}, "rng": generator()},
    ),
    "project": (optapi.project, lambda: {"updates": (u := updated("p"))[0], "projections": {u[1]: abs}}),
    "reduce_on_plateau": (
        optapi.reduce_on_plateau,
        lambda: dict(zip(("step_size", "cost"), updated("rate", "cost")[1:], strict=True)) | {"updates": {}},
    ),
    "repeat": (
        optapi.repeat,
        lambda: {"body": lambda *values: (list(values), True), "start": [pt.dscalar("a")], "steps": 3},
    ),
    "reports": (optapi.reports, lambda: {"updates": updated()[0]}),
    "sample_starts": (optapi.sample_starts, lambda: {"parameters": [shared([1.0, -2.0], "p")], "count": 4}),
    "save": (optapi.save, lambda: {"path": FILE, "updates": updated()[0]}),
    "cautious": (
        optapi.cautious,
        lambda: {"updates": (u := updated("p", "cost"))[0], "gradients": {u[1]: pt.grad(u[2], u[1])}},
    ),
    "mechanic": (
        optapi.mechanic,
        lambda: {"updates": (u := updated("p", "cost"))[0], "gradients": {u[1]: pt.grad(u[2], u[1])}},
    ),
    "lawa": (optapi.lawa, lambda: {"updates": (u := updated("p", "q"))[0], "averages": {u[1]: u[2]}}),
    "svrg": (
        optapi.svrg,
        lambda: (lambda p, g: {"gradients": [g], "full_gradients": [g], "parameters": [p], "every": 2, "updates": {}})(
            (u := updated("p", "cost"))[1], pt.grad(u[2], u[1])
        ),
    ),
    "schedule_free": (
        optapi.schedule_free,
        lambda: {"updates": (u := updated("p"))[0], "parameters": [u[1]], "step_size": 0.1},
    ),
    "scipy_method": (optapi.scipy_method, lambda: {"opt_algo": "sgd"}),
    "skip_nonfinite": (optapi.skip_nonfinite, lambda: {"updates": updated()[0]}),
    "Objective": (
        optapi.Objective.of,
        lambda: optimization(name="mine"),
    ),
    "Oracle": (optapi.Oracle, lambda: {"call": lambda x: (0.0, [x])}),
    "Oracle()": (
        lambda parameters, inputs: optapi.Oracle(lambda x, y: (0.0, [x]))(parameters, inputs),
        lambda: {"parameters": [shared([1.0, -2.0], "p")], "inputs": pt.dvector("data")},
    ),
    "Benchmark": (profiles.Benchmark, lambda: {"results": dict(RESULTS)}),
    "Benchmark.measure": (RESULTS.measure, dict),
    "Benchmark.on": (RESULTS.on, lambda: {"problem": "one"}),
    "CompiledMinimizer.on_data": (on_data, dict),
    "CompiledMinimizer.from_starts": (MINIMIZER.from_starts, lambda: {"starts": [np.ones((3, 2))]}),
    "gradients.center": (gradients.center, lambda: {"gradients": [pt.dvector("g")]}),
    "gradients.clip": (gradients.clip, lambda: {"gradients": [pt.dvector("g")], "limit": 1.0}),
    "gradients.clip_global_norm": (gradients.clip_global_norm, lambda: {"gradients": [pt.dvector("g")], "limit": 1.0}),
    "gradients.clip_norm": (gradients.clip_norm, lambda: {"gradients": [pt.dvector("g")], "limit": 1.0}),
    "gradients.clip_adaptive": (
        gradients.clip_adaptive,
        lambda: {"gradients": [pt.dvector("g")], "parameters": [shared([1.0, -2.0], "p")]},
    ),
    "gradients.sharpness_aware": (
        gradients.sharpness_aware,
        lambda: {"cost": pt.sum((p := shared([1.0, -2.0], "p")) ** 2), "parameters": [p]},
    ),
    "gradients.decay": (
        gradients.decay,
        lambda: {"gradients": [pt.dvector("g")], "parameters": [shared([1.0, -2.0], "p")], "coefficient": 0.1},
    ),
    "stopping.all_of": (
        stopping.all_of,
        lambda: {"stops": [pytensor.shared(0)], "stop": pytensor.shared(0), "updates": {}},
    ),
    "stopping.patience": (
        stopping.patience,
        lambda: {"cost": pt.dscalar("cost"), "stop": pytensor.shared(0), "updates": {}},
    ),
    "line_search.NonMonotone": (
        lambda **fields: line_search.NonMonotone(**fields).begin("rule", "float64"),
        lambda: {"line_search": line_search.backtracking, "memory": 3, "weight": None},
    ),
    "plot.data_profile": (plot.data_profile, lambda: {"results": RESULTS}),
    "plot.path": (plot.path, lambda: {"runs": np.ones((3, 2))}),
    "plot.performance_profile": (plot.performance_profile, lambda: {"results": RESULTS}),
    "plot.schedule": (plot.schedule, lambda: {"step_sizes": 0.1, "steps": 3}),
    "plot.trace": (plot.trace, lambda: {"runs": TRACED}),
    "profiles.fraction_solved": (profiles.fraction_solved, lambda: {"costs": np.ones((2, 2)), "limits": [1.0]}),
    "profiles.performance_ratios": (profiles.performance_ratios, lambda: {"costs": np.ones((2, 2))}),
    "testing.check_rule": (testing.check_rule, lambda: {"rule": optapi.sgd, "step_size": 0.1}),
}
CALLS |= {
    f"schedules.{name}": (getattr(schedules, name), lambda given=given: dict(given))
    for name, given in {
        "Constant": {"initial": 0.1},
        "Cosine": {"initial": 0.1, "steps": 5},
        "CosineRestarts": {"initial": 0.1, "steps": 5},
        "Exponential": {"initial": 0.1, "factor": 0.5},
        "InverseSquareRoot": {"initial": 0.1, "steps": 5},
        "Join": {"schedules": (0.1, 0.2), "boundaries": (5,)},
        "Linear": {"initial": 0.1, "steps": 5},
        "OneCycle": {"peak": 0.1, "steps": 100},
        "Rex": {"peak": 0.1, "steps": 5},
        "WarmupStableDecay": {"peak": 0.1, "warm_up": 5, "stable": 5, "decay": 5},
        "Piecewise": {"values": (0.1, 0.2), "boundaries": (5,)},
        "Polynomial": {"initial": 0.1, "steps": 5},
        "Power": {"initial": 0.1},
        "SearchThenConverge": {"initial": 0.1, "scale": 10.0, "limit": 1.0},
        "Step": {"initial": 0.1, "steps": 5},
        "Triangular": {"initial": 0.1, "peak": 0.2, "steps": 5},
        "WarmUp": {"schedule": 0.1, "steps": 5},
    }.items()
}
CALLS |= {
    f"prox.{name}": (getattr(prox, name), lambda given=given: dict(given))
    for name, given in {
        "L1": {"weight": 0.1},
        "ElasticNet": {"weight": 0.1, "ridge": 0.1},
        "NonNegativeL1": {"weight": 0.1},
        "Ridge": {"weight": 0.1},
        "NonNegativeRidge": {"weight": 0.1},
        "Huber": {"weight": 0.1},
        "NegativeLog": {"weight": 0.1},
        "Entropy": {"weight": 0.1},
        "GroupL2": {"weight": 0.1, "axis": 0},
        "SparseGroup": {"l1": 0.1, "group": 0.1, "groups": [0, 0, 1]},
        "Nuclear": {"weight": 0.1},
        "MaxNorm": {"weight": 0.1},
        "TotalVariation1D": {"weight": 0.1},
        "Box": {"low": 0.0, "high": 1.0},
        "NonNegative": {},
        "Simplex": {"radius": 1.0},
        "L1Ball": {"radius": 1.0},
        "L2Ball": {"radius": 1.0},
        "LinfBall": {"radius": 1.0},
        "Sphere": {"radius": 1.0},
        "Hyperplane": {"normal": [1.0, 2.0], "offset": 0.5},
        "Halfspace": {"normal": [1.0, 2.0], "offset": 0.5},
        "Affine": {"matrix": [[1.0, 2.0]], "offset": [0.5]},
        "BoxSection": {"low": 0.0, "high": 1.0, "weights": 1.0, "total": 1.5},
        "CappedSimplex": {"total": 1.5},
        "Isotonic": {},
        "SecondOrderCone": {},
        "PSD": {},
        "Dykstra": {"sets": [prox.NonNegative(), prox.L2Ball()]},
    }.items()
}
CALLS |= {
    f"bijections.{name}": (getattr(optapi.bijections, name), dict)
    for name in ("Exponential", "Interval", "Ordered", "Orthogonal", "Positive", "Simplex", "UnitVector")
}
CALLS |= {f"manifolds.{name}": (getattr(optapi.manifolds, name), dict) for name in ("Sphere", "Stiefel")}
# Names that have no arguments of their own to check, and why.
WITHOUT = {
    "PYTHON": "a mode",
    "OptimizationWarning": "a warning",
    "OptimizeResult": "a dictionary",
    "BatchResult": "a dictionary",
    "FitResult": "a dictionary",
    "CompiledMinimizer": "compile_minimizer makes it",
    "schedules.Schedule": "a base class without fields",
    "bijections.Bijection": "a base class without fields",
    "manifolds.Manifold": "a base class without fields",
    "prox.Penalty": "a base class without fields",
    "prox.Projection": "a base class without fields",
    "Laplace": "a plain tuple",
    "Solution": "a plain tuple",
    "line_search.Step": "a plain tuple",
    "line_search.Trial": "a plain tuple",
    "line_search.nonmonotone": "a NonMonotone",
}


def saved(updates):
    optapi.save(FILE, updates)
    return FILE


POOL = {
    "text": lambda: "nonsense",
    "no text": lambda: "",
    "fraction": lambda: 0.5,
    "zero": lambda: 0,
    "negative": lambda: -3,
    "nan": lambda: np.nan,
    "float64 nan": lambda: np.float64("nan"),
    "infinite": lambda: np.inf,
    "huge": lambda: 10**400,
    "None": lambda: None,
    "true": lambda: True,
    "object": object,
    "empty list": list,
    "empty dictionary": dict,
    "list of text": lambda: ["a", None],
    "dictionary of text": lambda: {"a": 1},
    "long vector": lambda: np.ones(7),
    "matrix": lambda: np.ones((2, 3)),
    "complex": lambda: 1j,
    "bytes": lambda: b"x",
    "function": lambda: lambda *args, **kwargs: None,
    "generator": lambda: (i for i in range(3)),
    "set": lambda: {1.0},
    "class": lambda: int,
    "array of objects": lambda: np.array([None, "a"], object),
    "array of text": lambda: np.array(["a", "b"]),
    "ragged list": lambda: [[1.0], [1.0, 2.0]],
    "symbolic vector": lambda: pt.dvector("v"),
    "symbolic integer": lambda: pt.lscalar("i"),
    "symbolic complex": lambda: pt.zscalar("z"),
    "sparse matrix": lambda: pytensor.sparse.csr_matrix("s"),
    "random generator": lambda: pt.random.shared_rng(seed=1),
    "variable of text": lambda: {pt.dvector("v"): "a"},
}
NUMBERS = {"fraction", "zero", "negative"}
# What may be right for an argument of such an annotation, so that it need not be refused. All else has to be.
MAY_BE_RIGHT = {
    "bool": {"true"},
    "bool | str": {"true"},
    "bool | int": {"true", "zero", "huge"},
    "int": {"zero"},
    "int | Variable": {"zero", "symbolic integer"},
    "float": NUMBERS,
    "Scalar": NUMBERS | {"symbolic integer"},
    "StepSize": NUMBERS | {"symbolic integer"},
    "StepSizes": NUMBERS | {"function", "class", "generator"},
    "XScale": NUMBERS - {"zero", "negative"} | {"symbolic vector", "symbolic integer"},
    "Weight": NUMBERS - {"negative"} | {"long vector", "matrix", "symbolic vector", "symbolic integer"},
    "Numbers": NUMBERS | {"long vector", "matrix", "symbolic vector", "symbolic integer", "infinite"},
    "Axis": {"negative", "zero"},
    "Weights": NUMBERS - {"negative"} | {"symbolic vector", "symbolic integer", "empty dictionary"},
    "Prox": set(),
    "str": set(),
    "Updates": {"empty dictionary"},
    "Bounds": {"empty dictionary"},
    "Variables": {"symbolic vector"},
    "Variable": set(),
    "Tensor": {"symbolic vector", "symbolic integer", "long vector", "zero", "negative", "true", "empty list"},
    "Axes": set(),
    "ArrayLike": NUMBERS | {"long vector", "matrix", "infinite", "nan", "float64 nan", "true", "huge", "empty list"},
    "CompileMode": set(),
    "Derivative": {"function", "class", "true"},
    "Mask": {"class"},
    "Sequence[bool] | Callable[[Any], bool]": {"class"},
    "LineSearch": {"function", "class"},
    "Formula": {"function", "class"},
    "OptAlgo": {"function", "class"},
}
# What is drawn for none of these: too large to be made, or of which the call itself would be long.
NEVER = {"int": {"huge"}, "int | None": {"huge"}, "int | Variable": {"huge"}, "CompileMode": {"None"}}


def may_be_right(name, parameter):
    """The entries of the pool that need not be refused in the place of `parameter`, None if none has to be."""
    annotation = str(parameter.annotation)
    optional = annotation.endswith(" | None")
    annotation = annotation.removesuffix(" | None")
    known = {"function", "class"} if annotation.startswith("Callable") else MAY_BE_RIGHT.get(annotation)
    if known is None:
        return None
    right = known | ({"None"} if optional or parameter.default is None else set())
    return right | ({"text"} if name in ("name", "problem") else {"empty list"} if name == "inputs" else set())


def signature(function):
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def arguments():
    """Each argument of each call: the name of the call, the function, what makes the call, and the argument."""
    return [
        (call, function, make, name, parameter)
        for call, (function, make) in sorted(CALLS.items())
        for name, parameter in signature(function).items()
    ]


def public():
    """All public names that can be called, of the package and of its modules."""
    for name in optapi.__all__:
        if isinstance(getattr(optapi, name), types.ModuleType):
            module = getattr(optapi, name)
            yield from (f"{name}.{part}" for part in getattr(module, "__all__", ()))
        else:
            yield name


def test_no_public_name_is_missing():
    called = {name.removeprefix("stateful.") for name in CALLS} | set(WITHOUT)
    called |= {"profiles.Benchmark", "profiles.benchmark"}  # the same as without the module
    assert set(public()) <= called
    assert not set(WITHOUT) & set(CALLS)


@contextlib.contextmanager
def limited():
    """No longer than `SECONDS`."""

    def out_of_time(*_):
        raise TimeoutError(f"a call takes longer than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def snapshot(value):
    """What a call must not change of `value`."""
    if isinstance(value, SharedVariable):
        held = value.get_value()
        return value, held.bit_generator.state if isinstance(held, np.random.Generator) else held
    if isinstance(value, dict):
        return [(snapshot(k), snapshot(v)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return [snapshot(part) for part in value]
    return value.copy() if isinstance(value, np.ndarray) else value


def same(first, second):
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)
    return first is second or (isinstance(first, int | float | str | dict) and first == second)


def verdict(call, function, make, name, parameter, entry):
    """What is wrong with how the call deals with the pool's `entry` in the place of `name`; None if nothing is."""
    given = make()
    others = {n: v for n, v in given.items() if n != name}
    before = snapshot(others)
    wrong = POOL[entry]()
    try:
        with limited():
            function(**{**given, name: wrong})
    except (TypeError, ValueError, KeyError) as error:
        # What a function of the user raises comes out as it is.
        its = [("x0", "ragged list"), ("x0", "dictionary of text")]
        its += [("arguments", "random generator"), ("arguments", "symbolic complex"), ("ascent", "true")]
        users = entry in ("function", "class") or (name, entry) in its or (call, name) == ("curve_fit", "x")
        if not users and name.removesuffix("s") not in str(error):
            return f"{type(error).__name__} without the name of the argument: {error!s:.150}"
        if not same(before, snapshot(others)):
            return "something of the caller's has changed"
    except BaseException as error:
        if call == "testing.check_rule" and isinstance(error, AssertionError):
            return None  # which says what the rule breaks
        if (call, name) == ("curve_fit", "x") and isinstance(error, Exception):
            return None  # of the model
        return f"{type(error).__name__}: {error!s:.150}"
    else:
        close_figures()
        right = may_be_right(name, parameter)
        if right is not None and entry not in right:
            return "passes silently"
    return None


@pytest.fixture(autouse=True)
def _quiet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a path of nonsense may be written to
    with np.errstate(all="ignore"):
        yield
    FILE.unlink(missing_ok=True)
    close_figures()


def close_figures():
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def drawn(count, seed=0):
    """`count` pairs of an argument and an entry of the pool, in rounds in which each call has one."""
    by_call = {}
    for argument in arguments():
        by_call.setdefault(argument[0], []).append(argument)
    calls = [call for call in by_call if plots() or not call.startswith("plot.")]
    # Each call has draws of its own, so that they stay as they are when names are added.
    draws = {call: np.random.default_rng([seed, *call.encode()]) for call in calls}
    for number in range(count):
        call = calls[number % len(calls)]
        options, rng = by_call[call], draws[call]
        argument = options[rng.integers(len(options))]
        entries = [e for e in POOL if e not in NEVER.get(str(argument[-1].annotation), ())]
        yield argument, entries[rng.integers(len(entries))]


def plots():
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    return True


@pytest.mark.filterwarnings("ignore::optapi.OptimizationWarning")  # of the limit of iterations
def test_valid_calls_are_valid():
    rules = {rule.__name__ for rule in public_rules()}  # see the contract tests
    for call, (function, make) in CALLS.items():
        if call not in rules | {"testing.check_rule"} and (plots() or "plot." not in call):
            function(**make())


@pytest.mark.filterwarnings("ignore::optapi.OptimizationWarning")
@pytest.mark.parametrize("part", range(4))
def test_wrong_arguments_are_refused(part):
    bad = {}
    for argument, entry in drawn(100 * FACTOR, seed=part):
        found = verdict(*argument, entry)
        if found is not None:
            bad[argument[0], argument[3], entry] = found
    assert not bad, "\n".join(f"{key}: {found}" for key, found in bad.items())


FLAGS = [argument for argument in arguments() if str(argument[-1].annotation).startswith("bool")]


@pytest.mark.filterwarnings("ignore::optapi.OptimizationWarning")
@pytest.mark.parametrize("argument", FLAGS, ids=lambda argument: f"{argument[0]}-{argument[3]}")
def test_flags_are_flags(argument):
    """Whatever is annotated as a flag refuses what is none, and takes those of NumPy."""
    call, function, make, name, parameter = argument
    given = make()
    for wrong in ("False", 2, np.nan, b"x", object()):
        if str(parameter.annotation) == "bool | int" and type(wrong) is int:
            continue
        with pytest.raises((TypeError, ValueError), match=name):
            function(**{**given, name: wrong})
    if call != "testing.check_rule":
        function(**{**given, name: np.bool_(False)})


UPDATES = [argument for argument in arguments() if argument[3] in ("updates", "join")]


@pytest.mark.parametrize("argument", UPDATES, ids=lambda argument: argument[0])
def test_updates_are_a_dictionary_of_updates(argument):
    _, function, make, name, _ = argument
    x = pt.dscalar("x")
    for wrong in ("abc", [], 2.5, x, {"a": x}, {x: "1"}, {x: None}, [(x, x)]):
        with pytest.raises(TypeError, match=name):
            function(**{**make(), name: wrong})


def test_sparse_parameters_and_gradients_are_refused():
    dense = shared(np.zeros((2, 3)), "dense")
    sparse = pytensor.shared(scipy.sparse.csr_matrix(np.eye(2)), name="sparse")
    with pytest.raises(TypeError, match="'sparse' is of type"):
        optapi.sgd([sparse], pytensor.sparse.sp_sum(sparse))
    with pytest.raises(TypeError, match="gradient of 'dense' in gradients is sparse"):
        optapi.sgd([dense], gradients=[pytensor.sparse.csr_matrix("g")])


# What was once refused badly: the call, the argument, and the entry of the pool.
FOUND = [
    ("CompiledMinimizer.from_starts", "starts", "array of text"),
    ("CompiledMinimizer.from_starts", "workers", "class"),
    ("CompiledMinimizer.on_data", "workers", "function"),
    ("benchmark", "engine", "class"),
    ("check_gradient", "df", "None"),
    ("cond", "arguments", "sparse matrix"),
    ("cond", "otherwise", "sparse matrix"),
    ("cond", "otherwise", "symbolic vector"),
    ("covariance", "inputs", "dictionary of text"),
    ("covariance", "inputs", "variable of text"),
    ("curve_fit", "jac", "true"),
    ("curve_fit", "x", "empty list"),
    ("curve_fit", "y", "matrix"),
    ("fixed_point", "images", "ragged list"),
    ("gauss_newton", "loss", "function"),
    ("gradients.clip_global_norm", "gradients", "empty list"),
    ("laplace", "latents", "symbolic vector"),
    ("laplace", "rule", "function"),
    ("least_squares", "tolerance", "symbolic integer"),
    ("least_squares", "x0", "empty list"),
    ("mechanic", "gradients", "empty dictionary"),
    ("plot.path", "runs", "array of objects"),
    ("plot.trace", "runs", "empty dictionary"),
    ("quadratic_program", "g", "long vector"),
    ("sgd", "dampening", "ragged list"),
    ("svrg", "full_gradients", "None"),
    ("tonga", "per_example", "sparse matrix"),
]


@pytest.mark.filterwarnings("ignore::optapi.OptimizationWarning")
@pytest.mark.parametrize(("call", "name", "entry"), FOUND)
def test_what_was_once_refused_badly(call, name, entry):
    if call.startswith("plot.") and not plots():
        pytest.skip("there is no matplotlib")
    [argument] = [argument for argument in arguments() if (argument[0], argument[3]) == (call, name)]
    assert verdict(*argument, entry) is None
