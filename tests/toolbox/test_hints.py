"""Wrong words: each answer says what to type."""

import inspect
import re

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import optapi
from optapi.hints import NAMES, PAIRS, SENTENCES, WORDS


def rosenbrock():
    p = pytensor.shared(np.array([-1.2, 1.0]), name="p")
    return p, 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2


P, COST = rosenbrock()


# Calls, and what the answer holds.
CALLS = {
    "lr": (lambda: optapi.adam([P], COST, lr=0.1), "adam takes no keyword 'lr'; use step_size="),
    "learning_rate": (lambda: optapi.sgd([P], COST, learning_rate=0.1), "use step_size="),
    "betas": (
        lambda: optapi.adam([P], COST, betas=(0.9, 0.99)),
        "use mean_weight= and mean_square_weight=, two numbers",
    ),
    "weight_decay": (lambda: optapi.adamw([P], COST, weight_decay=0.1), "use decay="),
    "weight_decay without decay": (lambda: optapi.adagrad([P], COST, weight_decay=0.1), "optapi.gradients.decay"),
    "eps": (lambda: optapi.rmsprop([P], COST, eps=0.1), "use epsilon="),
    "nesterov": (lambda: optapi.momentum([P], COST, nesterov=True), "optapi.nesterov"),
    "maximize": (lambda: optapi.adam([P], COST, maximize=True), "use ascent="),
    "params": (lambda: optapi.adam(params=[P], cost=COST), "use parameters="),
    "loss": (lambda: optapi.adam([P], loss=COST), "use cost="),
    "loss of SciPy": (
        lambda: optapi.minimize([1.0], np.sum, np.sign, loss="huber"),
        "use f=; as a keyword of its own gauss_newton, levenberg_marquardt have it",
    ),
    "grads": (lambda: optapi.adam([P], grads=[P]), "use gradients="),
    "history_size": (lambda: optapi.lbfgs([P], COST, history_size=5), "use memory="),
    "line_search_fn": (lambda: optapi.lbfgs([P], COST, line_search_fn="strong_wolfe"), "use line_search="),
    "tol": (lambda: optapi.bfgs([P], COST, tol=1e-3), "use tolerance="),
    "misspelt": (lambda: optapi.adam([P], COST, stepsize=0.1), "use step_size="),
    "nothing near": (lambda: optapi.sgd([P], COST, colour=3), "it takes parameters, cost, gradients, stop"),
    "of a class": (lambda: optapi.ADAM(lr=0.1), "ADAM takes no keyword 'lr'; use stepsize="),
    "order of a rule": (lambda: optapi.adam(COST, [P]), "adam(parameters, cost)"),
    "order of a rule, one parameter": (lambda: optapi.lbfgs(COST, P), "lbfgs(parameters, cost)"),
    "order of compile_minimizer": (
        lambda: optapi.compile_minimizer(COST, [P], "adam"),
        "compile_minimizer(parameters, cost",
    ),
    "lr of compile_minimizer": (lambda: optapi.compile_minimizer([P], COST, "adam", lr=0.1), "use step_size="),
    "maxiter": (lambda: optapi.compile_minimizer([P], COST, "lbfgs", maxiter=3), "use max_iterations="),
    "options": (lambda: optapi.compile_minimizer([P], COST, "lbfgs", options={"maxiter": 3}), "max_iterations=100"),
    "order of minimize": (lambda: optapi.minimize(lambda x: pt.sum(x**2), [1.0]), "minimize(x0, f)"),
    "jac": (lambda: optapi.minimize([1.0], np.sum, jac=np.sign), "use df="),
    "method": (lambda: optapi.minimize([1.0], np.sum, method="BFGS"), "use opt_algo="),
    "fun": (lambda: optapi.minimize([1.0], fun=np.sum), "use f="),
    "fun of the iterator": (lambda: optapi.minimize_iterator([1.0], fun=np.sum), "use f="),
    "gtol": (lambda: optapi.minimize([1.0], np.sum, np.sign, gtol=1e-3), "use tolerance="),
    "xtol": (lambda: optapi.minimize([1.0], np.sum, np.sign, xtol=1e-3), "use step_tolerance="),
    "tol of minimize": (lambda: optapi.minimize([1.0], np.sum, np.sign, tol=1e-3), "use tolerance="),
    "bounds": (lambda: optapi.sr1([P], COST, bounds=(0, 1)), "it is taken by lbfgs"),
    "bounds of a driver": (lambda: optapi.minimize([1.0], np.sum, np.sign, "sr1", bounds=(0, 1)), "use lbfgs"),
    "Nelder-Mead": (lambda: optapi.minimize([1.0], np.sum, opt_algo="Nelder-Mead"), "scipy.optimize.minimize"),
    "a rule in the place of df": (lambda: optapi.minimize([1.0], np.sum, "bfgs"), "pass it as opt_algo='bfgs'"),
    "name of a rule": (lambda: optapi.minimize([1.0], np.sum, opt_algo="L-BFGS"), "'lbfgs'"),
    "a class as rule": (lambda: optapi.minimize([1.0], np.sum, np.sign, optapi.ADAM), "'adam'"),
    "least squares by minimize": (
        lambda: optapi.minimize([1.0], np.sum, np.sign, "levenberg_marquardt"),
        "optapi.least_squares(x0, residuals)",
    ),
    "order of least_squares": (lambda: optapi.least_squares(np.sin, [1.0]), "least_squares(x0, residuals)"),
    "xdata": (lambda: optapi.curve_fit(np.sin, xdata=[1.0], ydata=[1.0]), "use x="),
    "lower": (lambda: optapi.minimize([1.0], np.sum, np.sign, lower=0.0), "use bounds="),
    "constraints": (lambda: optapi.lbfgs([P], COST, constraints=[(P, 1)]), "it is taken by"),
    "scale": (lambda: optapi.lbfgs([P], COST, scale=3.0), "use x_scale="),
    "key of bounds": (lambda: optapi.minimize({"a": 1.0}, np.sum, np.sign, bounds={"b": (0, 1)}), "the keys ['b']"),
    "Adam": (lambda: optapi.Adam, "use optapi.adam"),
    "L_BFGS_B": (lambda: optapi.L_BFGS_B, "use optapi.lbfgs"),
    "fmin_cg": (lambda: optapi.fmin_cg, "use optapi.polak_ribiere"),
    "minimise": (lambda: optapi.minimise, "use optapi.minimize"),
    "clip_by_global_norm": (lambda: optapi.clip_by_global_norm, "use optapi.gradients.clip_global_norm"),
    "a name of nothing": (lambda: optapi.colour, "dir(optapi)"),
}


@pytest.mark.parametrize("call, answer", CALLS.values(), ids=CALLS)
def test_the_answer_says_what_to_type(call, answer):
    with pytest.raises((TypeError, ValueError, AttributeError), match=re.escape(answer)):
        call()


def test_words_lead_to_what_there_is():
    takes = set()
    for name in optapi.__all__:
        function = getattr(optapi, name)
        if callable(function) and not (inspect.isclass(function) and issubclass(function, (dict, Warning))):
            takes |= set(inspect.signature(function).parameters)
    assert {word for words in WORDS.values() for word in words} <= takes
    assert set(PAIRS) <= set(WORDS)
    for name in NAMES.values():
        where, _, attribute = name.rpartition(".")
        assert hasattr(getattr(optapi, where) if where else optapi, attribute)
    for sentence in SENTENCES.values():
        for where, attribute in re.findall(r"optapi\.(?:(\w+)\.)?(\w+)", sentence):
            assert hasattr(getattr(optapi, where) if where else optapi, attribute)


def test_every_public_function_is_hinted():
    for name in optapi.__all__:
        function = getattr(optapi, name)
        if inspect.isfunction(function):
            kinds = {p.kind for p in inspect.signature(function).parameters.values()}
            if inspect.Parameter.VAR_POSITIONAL not in kinds:
                assert hasattr(function, "__wrapped__"), name


def test_a_hinted_function_is_itself():
    assert optapi.adam.__name__ == "adam"
    assert "step_size" in inspect.signature(optapi.adam).parameters
    with pytest.raises(TypeError, match="required positional argument: 'parameters'"):
        optapi.adam(cost=COST)
