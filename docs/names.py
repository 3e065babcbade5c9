"""The public names of optapi, by the module that each is from: what the pages list, and the tests look for."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import optapi
import optapi.distributed
import optapi.pymc
import optapi.scipy


# In the source of a page, and alone on its line: all names of the module, with their docstrings.
MEMBERS = re.compile(r"^<!-- members of ([\w.]+) -->$", flags=re.MULTILINE)
# All rules, and all names, each with a sentence.
RULES, NAMES = "<!-- all rules -->", "<!-- all names -->"
# Classes whose objects are made by functions, or by methods of the class.
MADE = {"optapi.CompiledMinimizer", "optapi.pymc.CompiledMAP", "optapi.Objective", "optapi.profiles.Benchmark"}
# What has no docstring of its own.
CONSTANTS = {
    "optapi.PYTHON": "The mode of `pytensor.function` that runs a graph on NumPy alone: nothing is compiled by C or "
    "numba, so a function is ready in a fraction of a second, and each operation then costs microseconds of Python.",
    "optapi.line_search.nonmonotone": "`optapi.line_search.NonMonotone` with its default options.",
}


def public() -> dict[str, dict[str, Any]]:
    """From each module that something public is from to its public things, by the names that users write."""
    found: dict[str, dict[str, Any]] = {}
    for name in optapi.__all__:
        thing = getattr(optapi, name)
        if isinstance(thing, ModuleType):
            for part in thing.__all__ if hasattr(thing, "__all__") else ():
                # What stands in the package itself is called by its name there.
                called = f"optapi.{part}" if part in optapi.__all__ else f"optapi.{name}.{part}"
                found.setdefault(name, {})[called] = getattr(thing, part)
        else:
            module = getattr(thing, "__module__", "").removeprefix("optapi.")
            found.setdefault(module if name != "PYTHON" else "graph.numpy_linker", {})[f"optapi.{name}"] = thing
    for name, module in {"scipy": optapi.scipy, "pymc": optapi.pymc, "distributed": optapi.distributed}.items():
        found[name] = {f"optapi.{name}.{part}": getattr(module, part) for part in module.__all__}
    return {module: dict(sorted(things.items(), key=place)) for module, things in found.items()}


def place(item: tuple[str, Any]) -> tuple[str, bool]:
    """Where a name stands in a list: by its letters, a function before a class of the same name."""
    name, thing = item
    return name.lower(), isinstance(thing, type)


def is_rule(thing: Any) -> bool:
    """Whether something public is a rule."""
    taken = ["parameters", "cost", "gradients"]
    return inspect.isfunction(thing) and list(inspect.signature(thing).parameters)[:3] == taken


def documented(folder: Path) -> dict[str, Path]:
    """From each module whose members a page of `folder` shows to that page."""
    pages = sorted(folder.glob("**/*.md"))
    return {module: page for page in pages for module in MEMBERS.findall(page.read_text())}


def sentence(name: str, thing: Any) -> str:
    """The first sentence of a docstring, on one line."""
    paragraph = CONSTANTS.get(name) or inspect.getdoc(thing).split("\n\n")[0]
    return " ".join(paragraph.split()).partition(": :math:")[0]


def directive(name: str, thing: Any) -> str:
    """The reStructuredText that shows the docstring of something public."""
    if inspect.isfunction(thing):
        return f".. autofunction:: {name}"
    if name in CONSTANTS:
        return f".. py:data:: {name}\n\n   {CONSTANTS[name]}"
    lines = [f".. autoclass:: {name}"]
    base = thing in (
        *(optapi.prox.Penalty, optapi.prox.Projection),
        *(optapi.bijections.Bijection, optapi.manifolds.Manifold),
    )
    plain = optapi.schedules.Schedule | optapi.prox.Penalty | optapi.bijections.Bijection | tuple
    plain |= optapi.manifolds.Manifold
    if base or not issubclass(thing, plain):
        lines.append("   :members:")
    if is_dataclass(thing):
        # A field whose default is a function is no method.
        lines.append(f"   :exclude-members: {', '.join(field.name for field in fields(thing))}")
    if getattr(vars(thing).get("__call__"), "__doc__", None):
        lines.append("   :special-members: __call__")
    return "\n".join(lines)


def members(module: str) -> str:
    """The Markdown of all public names of a module, nothing if there is no such module."""
    things = public().get(module, {})
    body = "\n\n".join(directive(name, thing) for name, thing in things.items())
    return f"```{{eval-rst}}\n{body}\n```"


def table(head: tuple[str, str], things: dict[str, Any]) -> str:
    """A Markdown table of names, each with a sentence."""
    rows = [f"| `{name}` | {sentence(name, thing)} |" for name, thing in things.items()]
    text = "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *rows])
    # A bar would end the cell.
    return re.sub(
        r":math:(`[^`]*`)",
        lambda found: "{math}" + found[1].replace(r"\|", r"\Vert ").replace("|", r"\vert "),
        text,
    )


def rules() -> str:
    """The Markdown of the tables of all rules, family by family, in the order in which the page lists them.

    Above each table is the first paragraph of the family's page, which says when to take its rules.
    """
    folder = Path(__file__).parent / "rules"
    order = (folder / "index.md").read_text()
    pages = {module: page.stem for module, page in documented(folder).items()}
    families: dict[str, dict[str, Any]] = {}
    for module, things in public().items():
        family = {name: thing for name, thing in things.items() if is_rule(thing)}
        if family:
            families.setdefault(pages.get(module, module), {}).update(family)
    parts = []
    for page, family in sorted(families.items(), key=lambda item: order.find(f"\n{item[0]}\n") % len(order)):
        title, purpose = (folder / f"{page}.md").read_text().removeprefix("# ").split("\n\n")[:2]
        parts.append(f"## [{title}]({page}.md)\n\n{purpose}\n\n{table(('rule', ''), family)}")
    return "\n\n".join(parts)


def everything() -> str:
    """The Markdown of the table of all public names."""
    things = {name: thing for module in public().values() for name, thing in module.items()}
    return table(("name", ""), dict(sorted(things.items(), key=place)))


def filled(source: str) -> str:
    """The source of a page with what is made from the code in its places."""
    source = MEMBERS.sub(lambda found: members(found[1]), source)
    if RULES in source:
        source = source.replace(RULES, rules())
    return source.replace(NAMES, everything()) if NAMES in source else source
