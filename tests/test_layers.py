"""The architecture, as the imports show it."""

import ast
import subprocess
import sys
from pathlib import Path

import optapi


PACKAGE = Path(optapi.__file__).parent

# A module imports only from those before it; so a wing, a line here, imports only from those above.
ORDER = [
    *("checks", "updates"),
    *("graph.compat", "graph.loops", "graph.batches", "graph.oracle", "graph.numpy_linker"),
    *("graph.numba", "graph.jax", "graph.threads"),
    *("pytree", "state", "schedules", "line_search", "moments", "gradients", "objective"),
    *("rules._linear_algebra", "rules._descent"),
    *("rules.first_order", "rules.per_parameter_rates", "rules.conjugate_gradient", "rules.quasi_newton"),
    *("rules.stochastic_quasi_newton", "rules.natural_gradient"),
    *("rules.newton", "rules.least_squares", "rules.hessian_free"),
    *("stopping", "tuning", "transforms", "stateful"),
    *("drivers.evaluator", "drivers.gradient_check", "drivers.options", "drivers.results", "drivers.termination"),
    *("drivers.progress", "drivers.program", "drivers.steps", "drivers.loop_program", "drivers.run"),
    *("drivers.numpy", "drivers.compiled", "drivers.scipy"),
    *("profiles", "plot"),
    "__init__",
]


def imports(module):
    """The modules of the package that `module` imports."""
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    package, found = path.relative_to(PACKAGE).parent.parts, set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            where = package[: len(package) + 1 - node.level]
            names = [node.module] if node.module and not (PACKAGE / "/".join([*where, node.module])).is_dir() else []
            inside = [node.module] if node.module and not names else []
            found |= {".".join([*where, *inside, name]) for name in names or [name.name for name in node.names]}
    return found


def test_modules_import_only_from_layers_above():
    modules = [p.relative_to(PACKAGE).with_suffix("").parts for p in PACKAGE.rglob("*.py")]
    assert sorted(ORDER) == sorted(".".join(m) for m in modules if len(m) == 1 or m[-1] != "__init__")
    for position, module in enumerate(ORDER):
        assert imports(module) <= set(ORDER[:position]), module


def test_families_do_not_import_each_other():
    families = {module for module in ORDER if module.startswith("rules.") and not module.startswith("rules._")}
    for family in families:
        assert not imports(family) & families


def test_importing_optapi_imports_no_backend():
    heavy = ("scipy.optimize", "matplotlib", "jax", "torch", "sklearn", "pytensor.link.numba.dispatch", "rich")
    code = f"""
import sys, pytensor, pytensor.tensor
before = set(sys.modules)
import optapi
print([m for m in set(sys.modules) - before if m.startswith({heavy!r})])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
