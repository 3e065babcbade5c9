"""Hints: what to type in the place of a wrong word.

`WORDS` alone knows how SciPy, PyTorch, Optax and Keras call what has another name here.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar


P = ParamSpec("P")
R = TypeVar("R")

# What every rule takes.
PASSED = ("parameters", "cost", "gradients", "stop", "updates")

# From a keyword of another library to those of ours that may be meant; the first that is taken counts.
WORDS = {
    # SciPy
    "fun": ("f", "cost", "residuals"),
    "func": ("f", "cost", "residuals"),
    "function": ("f", "cost", "residuals"),
    "x": ("x0", "parameters"),
    "x0": ("start",),
    "x_0": ("x0",),
    "init": ("x0", "parameters"),
    "init_params": ("x0", "parameters"),
    "jac": ("df", "gradients"),
    "fprime": ("df", "gradients"),
    "hess": ("hessp",),
    "method": ("opt_algo", "rule"),
    "tol": ("tolerance",),
    "gtol": ("tolerance",),
    "ftol": ("cost_tolerance",),
    "xtol": ("step_tolerance",),
    "maxiter": ("max_iterations",),
    "max_iter": ("max_iterations",),
    "max_iters": ("max_iterations",),
    "maxfun": ("max_evaluations",),
    "maxfev": ("max_evaluations",),
    "max_nfev": ("max_evaluations",),
    "maxcor": ("memory",),
    "disp": ("verbose",),
    "iprint": ("verbose",),
    "return_all": ("trace",),
    "lam": ("l1", "weight"),
    "lambda": ("l1", "weight"),
    "alpha": ("l1", "weight", "step_size"),
    "penalty": ("prox", "l1"),
    "regularizer": ("prox", "l1"),
    "lb": ("bounds",),
    "ub": ("bounds",),
    "lower": ("bounds",),
    "upper": ("bounds",),
    "diag": ("x_scale",),
    "scale": ("x_scale",),
    "xdata": ("x",),
    "ydata": ("y",),
    "random_state": ("seed",),
    "rng": ("seed",),
    # PyTorch, Optax and Keras
    "solver": ("opt_algo",),
    "optimizer": ("opt_algo", "rule"),
    "algorithm": ("opt_algo",),
    "rule": ("opt_algo",),
    "opt_algo": ("rule", "method"),
    "algo": ("opt_algo",),
    "params": ("parameters", "x0"),
    "variables": ("parameters",),
    "loss": ("cost", "f"),
    "objective": ("cost", "f"),
    "grad": ("gradients", "df"),
    "grads": ("gradients",),
    "gradient": ("gradients", "df"),
    "value_and_grad": ("df",),
    "lr": ("step_size", "stepsize"),
    "learning_rate": ("step_size", "stepsize"),
    "init_value": ("step_size",),
    "step": ("step_size", "stepsize"),
    "stepsize": ("step_size",),
    "step_size": ("stepsize",),
    "betas": ("mean_weight", "mean_square_weight"),
    "beta1": ("mean_weight",),
    "beta_1": ("mean_weight",),
    "b1": ("mean_weight",),
    "beta2": ("mean_square_weight", "norm_weight"),
    "beta_2": ("mean_square_weight", "norm_weight"),
    "b2": ("mean_square_weight", "norm_weight"),
    "rho": ("mean_square_weight",),
    "eps": ("epsilon",),
    "weight_decay": ("decay",),
    "maximize": ("ascent",),
    "history_size": ("memory",),
    "memory_size": ("memory",),
    "line_search_fn": ("line_search",),
    "linesearch": ("line_search",),
    "epochs": ("max_iterations",),
    "steps": ("max_iterations",),
    "num_steps": ("max_iterations",),
    "n_iter": ("max_iterations",),
    "niter": ("max_iterations",),
}
# Those that are a pair there.
PAIRS = {"betas": "{0}= and {1}=, two numbers"}
# What is no keyword here, and what to do.
SENTENCES = {
    "options": "pass what is in options as keywords, for instance max_iterations=100",
    "prox": "take proximal_lbfgs or proximal_gradient, or a first-order rule such as adam; lbfgs has l1=",
    "manifold": "take lbfgs, barzilai_borwein or conjugate_gradient, which have it",
    "clipnorm": "clip the gradients before the rule: optapi.gradients.clip_norm",
    "clipvalue": "clip the gradients before the rule: optapi.gradients.clip",
    "global_clipnorm": "clip the gradients before the rule: optapi.gradients.clip_global_norm",
    "use_ema": "average the parameters after the rule: optapi.average",
    "weight_decay": "add a penalty to the cost, or pass gradients that optapi.gradients.decay returns",
    "nesterov": "the rule is optapi.nesterov",
    "schedule": "pass the schedule as step_size",
    "clip": "clip the gradients before the rule: optapi.gradients.clip",
}
# From a public name of another library, in small letters without underscores, to ours.
NAMES = {
    "gradientdescent": "sgd",
    "steepestdescent": "sgd",
    "lbfgsb": "lbfgs",
    "fminlbfgsb": "lbfgs",
    "fminbfgs": "bfgs",
    "fmincg": "polak_ribiere",
    "fminncg": "newton_cg",
    "nonlinearcg": "polak_ribiere",
    "cg": "conjugate_gradient",
    "trustncg": "trust_region_cg",
    "trustkrylov": "trust_region_cg",
    "lm": "levenberg_marquardt",
    "leastsq": "levenberg_marquardt",
    "checkgrad": "check_gradient",
    "asgd": "average",
    "polyakaveraging": "average",
    "swa": "average",
    "ema": "average",
    "applyifinite": "skip_nonfinite",
    "applyiffinite": "skip_nonfinite",
    "multisteps": "accumulate",
    "reducelronplateau": "reduce_on_plateau",
    "vmap": "batch",
    "whileloop": "loop",
    "clip": "gradients.clip",
    "argmin": "solve",
    "minimise": "minimize",
    "rootfind": "root",
    "findroot": "root",
    "fsolve": "root",
    "fixedpointiteration": "fixed_point",
    "andersonacceleration": "fixed_point",
    "owlqn": "lbfgs",
    "psgd": "kron",
    "psgdkron": "kron",
    "fista": "proximal_gradient",
    "ista": "proximal_gradient",
    "proximalgradientdescent": "proximal_gradient",
    "projectedgradient": "proximal_gradient",
    "proximalgradient": "proximal_gradient",
    "exponentiatedgradient": "mirror_descent",
    "conditionalgradient": "frank_wolfe",
    "clipbyglobalnorm": "gradients.clip_global_norm",
    "clipgradnorm": "gradients.clip_global_norm",
    "cosinedecay": "schedules.Cosine",
    "exponentialdecay": "schedules.Exponential",
    "piecewiseconstant": "schedules.Piecewise",
    "earlystopping": "stopping.patience",
}


def hint(name: str, known: Iterable[str]) -> str | None:
    """What to do in the place of the keyword `name` where those of `known` are taken; None if nothing is near."""
    known = list(known)
    ours = [word for word in WORDS.get(name, ()) if word in known]
    if name in PAIRS and len(ours) > 1:
        return "use " + PAIRS[name].format(*ours)
    if not ours and name in SENTENCES:
        return SENTENCES[name]
    others = sorted((rule for rule, keywords in rules() if name in keywords), key=lambda rule: rule != "lbfgs")[:3]
    if ours:
        return f"use {ours[0]}=" + (f"; as a keyword of its own {', '.join(others)} have it" if others else "")
    if others:
        return f"it is taken by {', '.join(others)}"
    near = difflib.get_close_matches(name, known, n=1)
    return f"use {near[0]}=" if near else None


def rules() -> Iterator[tuple[str, Iterable[str]]]:
    """The names of the rules of the package, with the keywords that they take."""
    package: Any = sys.modules["optapi"]
    for name in package.__all__:
        function = getattr(package, name)
        if inspect.isfunction(function):
            keywords = inspect.signature(function).parameters
            if set(PASSED) <= set(keywords):
                yield name, keywords


def unexpected(function: str, name: str, known: Sequence[str]) -> str:
    """The message of `function` for the keyword `name`, which it does not take, while it takes `known`."""
    return f"{function} takes no keyword {name!r}; " + (hint(name, known) or f"it takes {', '.join(known)}")


def unknown(package: str, name: str, names: Sequence[str]) -> str:
    """The message for ``package.name``, which there is not, where there are `names`."""
    plain = {n.lower().replace("_", ""): n for n in names}
    key = name.lower().replace("_", "")
    found = plain.get(key) or NAMES.get(key)
    if found is None:
        near = difflib.get_close_matches(key, [*plain, *NAMES], n=1, cutoff=0.75)
        found = (plain | NAMES)[near[0]] if near else None
    return f"{package} has no {name!r}" + (f"; use {package}.{found}" if found else f"; dir({package}) lists its names")


def hinted(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which answers a keyword that it does not take with the one that is meant.

    One that passes other keywords on answers so where an argument is missing.
    """

    @functools.cache
    def takes() -> tuple[list[str], list[str], int, bool]:
        """The keywords that it takes, those it needs, whether it is a method, and whether it passes others on."""
        # At the first call with keywords: a hundred signatures would be a tenth of the time of `import optapi`.
        everything = list(inspect.signature(function).parameters.values())
        parameters = [p for p in everything if p.name != "self"]
        known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        required = [p.name for p in parameters if p.default is p.empty and p.name in known]
        return known, required, len(everything) - len(parameters), len(known) < len(parameters)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs:
            known, required, bound, passes_on = takes()
            wrong: list[Any] = [name for name in kwargs if name not in known]
            if wrong and passes_on:
                missing = {name for name in required[len(args) - bound :] if name not in kwargs}
                wrong = [name for name in wrong if missing.intersection(WORDS.get(name, ()))]
            if wrong:
                raise TypeError(unexpected(function.__qualname__.removesuffix(".__init__"), wrong[0], known))
        return function(*args, **kwargs)

    return call
