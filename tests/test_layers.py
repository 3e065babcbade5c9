"""The architecture, as the imports show it."""

import ast
import subprocess
import sys
from pathlib import Path

import optapi


PACKAGE = Path(optapi.__file__).parent

# A module imports only from those before it.
ORDER = [
    *("compat", "checks", "updates", "state", "schedules", "loops", "structures", "oracle", "numpy_linker"),
    *("search", "moments", "gradients", "objective", "directions", "descent"),
    *("stopping", "tuning"),
    *("first_order", "individual_rates", "conjugate", "quasi_newton", "stochastic_quasi_newton", "natural"),
    *("hessian_free", "second_order", "least_squares"),
    *("transforms", "batches"),
    "optimizers",
    *("evaluator", "steps", "rules", "results", "limits", "progress", "comparison"),
    *("drivers", "programs", "minimizations", "compiled", "scipy_method"),
    *("profiles", "plot"),
    "__init__",
]
FAMILIES = {
    *("first_order", "individual_rates", "conjugate", "quasi_newton", "stochastic_quasi_newton", "natural"),
    *("hessian_free", "second_order", "least_squares"),
}


def imports(module):
    """The modules of the package that `module` imports."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {name.name for name in node.names}
    return found


def test_modules_import_only_from_layers_above():
    assert sorted(ORDER) == sorted(p.stem for p in PACKAGE.glob("*.py"))
    for position, module in enumerate(ORDER):
        assert imports(module) <= set(ORDER[:position]), module


def test_families_do_not_import_each_other():
    for family in FAMILIES:
        assert not imports(family) & FAMILIES


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
