"""Rules as the drivers take them: by themselves or by name, with their options."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pytensor.compile.mode import Mode

from ..hints import PASSED, hint, rules
from ..typing import OptAlgo


# What a rule may need beside a cost and its gradients, and a NumPy function cannot give.
SYMBOLIC = ("residuals", "outputs", "per_example")
# A rule whose own tolerance is off by default gets this one.
TOLERANCE = 1e-5
# Algorithms of SciPy that have no counterpart here, by their names in small letters without signs.
SCIPYS = {"neldermead": "Nelder-Mead", "powell": "Powell", "cobyla": "COBYLA", "cobyqa": "COBYQA", "tnc": "TNC"}


def check_kind_of_mode(mode: Any) -> None:
    """`mode` is a mode of PyTensor, the name of one, or None."""
    if not (mode is None or isinstance(mode, str | Mode)):
        raise TypeError(f"mode is {mode!r}; pass a PyTensor mode or the name of one")


def check_rule(
    rule: Callable[..., Any], options: dict[str, Any], driver: Callable[..., Any], source: str, symbolic: bool
) -> dict[str, Any]:
    """`options` for `rule`, with a tolerance where it has none.

    Parameters
    ----------
    rule : callable
    options : dict
    driver : callable
        What takes them, and passes them on.
    source : str
        What the driver makes of it what it passes to the rule, for messages.
    symbolic : bool
        Whether the cost is an expression, so that options may be expressions too.
    """
    known, keywords = options_of(rule)
    if known is None:
        return options
    for name in options:
        if name in PASSED:
            raise TypeError(f"the keyword {name!r} is not taken here; the rule gets it from {source}")
        if name in SYMBOLIC and name in known and not symbolic:
            raise TypeError(needs(rule, name))
        if name == "bounds" and name not in known and not keywords:
            raise TypeError(f"{name_of(rule)} takes no bounds; use lbfgs, which does, or leave them out")
        if name == "constraints" and name not in known and not keywords:
            raise TypeError(f"{name_of(rule)} takes no constraints; use sqp, which does, or leave them out")
        if name not in known and not keywords:
            raise TypeError(_unknown(name, rule, [n for n in known if n not in PASSED], driver))
    for name, parameter in list(known.items())[1:]:  # the first is passed by place
        if parameter.default is parameter.empty and name not in (*PASSED, *options):
            if name in SYMBOLIC and not symbolic:
                raise TypeError(needs(rule, name))
            raise TypeError(f"{name_of(rule)} needs {name}=; pass it as a keyword")
    if "tolerance" in known and "tolerance" not in options and known["tolerance"].default is None:
        options = {**options, "tolerance": TOLERANCE}
    return options


def _unknown(name: str, rule: Any, own: list[str], driver: Any) -> str:
    """The message for the keyword `name`, which neither `rule` nor `driver` takes."""
    taken = inspect.signature(driver).parameters.items()
    of_driver = [n for n, p in taken if p.kind is p.KEYWORD_ONLY]
    called = driver.__name__.removesuffix("_iterator")  # minimize takes the same
    what = hint(name, [*own, *(n for n, p in taken if p.kind is not p.VAR_KEYWORD)])
    return (
        f"unexpected keyword {name!r}: neither {name_of(rule)} nor {called} takes it{f'; {what}' if what else ''}. "
        f"{name_of(rule)} takes {', '.join(own)}, and {called} takes {', '.join(of_driver)}"
    )


def needs(rule: Callable[..., Any], name: str) -> str:
    """The sentence for a rule that needs an expression."""
    own = "call optapi.least_squares(x0, residuals), or " if name == "residuals" else ""
    return (
        f"{name_of(rule)} needs {name}=, an expression of PyTensor, which a NumPy function does not have; {own}build "
        "the cost with PyTensor and use compile_minimizer, or call the rule on it"
    )


def plain_function(rule: Callable[..., Any]) -> Any:
    """The function of a rule, without the options that it was given before."""
    while isinstance(rule, functools.partial):
        rule = rule.func
    return rule


def name_of(rule: Callable[..., Any]) -> str:
    """The name of a rule, for messages."""
    rule = plain_function(rule)
    return getattr(rule, "__name__", type(rule).__name__)


def options_of(rule: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter] | None, bool]:
    """The named parameters of `rule`, None if they cannot be found out, and whether it takes any keyword."""
    try:
        parameters = inspect.signature(rule).parameters
    except (TypeError, ValueError):
        return None, True
    named = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def option_of(rule: Callable[..., Any], options: Mapping[str, Any], name: str) -> Any:
    """The option `name` that `rule` has with `options`: by default its own; None if it has none."""
    if name in options:
        return options[name]
    parameter = (options_of(rule)[0] or {}).get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def public_name(rule: Callable[..., Any]) -> str | None:
    """The name by which `own_rule` finds `rule`, or None."""
    name = getattr(rule, "__name__", None)
    return name if isinstance(name, str) and own_rule(name) is rule else None


def own_rule(name: str | None) -> Any:
    """The rule of the package that is called `name`, or None."""
    package = sys.modules["optapi"]
    found = getattr(package, name) if name is not None and name in package.__all__ else None
    return found if inspect.isfunction(found) and set(PASSED) <= set(options_of(found)[0] or ()) else None


def rule_of(opt_algo: OptAlgo, argument: str = "opt_algo") -> Any:
    """The rule that `opt_algo` is or names.

    Raises
    ------
    ValueError, TypeError
        If it is a string that names no rule, or cannot be called.
    """
    if not isinstance(opt_algo, str):
        own = own_rule(opt_algo.__name__.lower()) if isinstance(opt_algo, type) else None
        if own is not None:
            raise TypeError(f"{argument} is a class that makes steps one by one; pass the rule, {own.__name__!r}")
        if not callable(opt_algo):
            raise TypeError(f"{argument} is {opt_algo!r}; pass a rule, for instance optapi.lbfgs, or the name of one")
        return opt_algo
    rule = own_rule(opt_algo)
    if rule is None:
        scipys = SCIPYS.get("".join(filter(str.isalnum, opt_algo)).lower())
        if scipys is not None:
            raise ValueError(
                f"{argument} is {opt_algo!r}, an algorithm of SciPy that optapi does not have; call "
                f"scipy.optimize.minimize(f, x0, method={scipys!r}), or pass 'lbfgs', which also works without df"
            )
        names = [name for name, _ in rules()]
        near = difflib.get_close_matches(opt_algo.lower(), names, n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(map(repr, near))}?" if near else f"pass one of {', '.join(names)}"
        raise ValueError(f"{argument} is {opt_algo!r}, which is no rule of optapi; {meant}")
    return rule
