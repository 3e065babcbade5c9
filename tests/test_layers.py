"""The architecture, as the imports show it."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import optapi


PACKAGE = Path(optapi.__file__).parent

# A module imports only from those before it; so a wing, a line here, imports only from those above, but for what state
# needs of PyTensor.
ORDER = [
    *("typing", "hints", "checks", "engines", "notes", "updates", "pytree", "files", "graph.compat", "state"),
    "vectors",
    *("graph.replace", "graph.loops", "graph.members", "graph.batches", "graph.oracle", "graph.derivatives"),
    *("graph.implicit", "graph.products", "graph.ordered", "graph.decompositions", "graph.generators"),
    "graph.by_hand",
    *("graph.numpy_linker", "graph.waiting"),
    *("graph.external", "graph.numba_source", "graph.numba", "graph.jax", "graph.threads"),
    *("schedules", "line_search", "moments", "draws", "gradients", "scaling", "losses", "feasible", "constraints"),
    *("prox", "manifolds", "bijections", "objective"),
    *("rules._linear_algebra", "quadratic", "rules._descent", "rules._projected", "rules._split"),
    *("rules.first_order", "rules.sign_based", "rules.adam_variants", "rules.large_batch", "rules.parameter_free"),
    *("rules.groups", "rules.matrices", "rules.diagonal_curvature", "rules.per_parameter_rates"),
    *("rules.conjugate_gradient", "rules.quasi_newton"),
    *("rules.stochastic_quasi_newton", "rules.natural_gradient", "rules.proximal", "rules.online"),
    *("rules.newton", "rules.least_squares", "rules.hessian_free", "rules.constrained"),
    *("augmented", "stopping", "tuning", "transforms", "stateful"),
    *("drivers.locks", "drivers.options", "drivers.penalties", "drivers.on_manifolds"),
    *("drivers.covariance", "drivers.differences"),
    *("drivers.evaluator", "drivers.vector_functions", "drivers.constraint_functions", "drivers.gradient_check"),
    *("drivers.termination", "drivers.results", "drivers.progress", "drivers.program"),
    *("drivers.oracle_program", "drivers.external", "drivers.loop_program", "drivers.run", "drivers.members"),
    *("solutions", "drivers.numpy", "drivers.paths", "drivers.compiled", "distributed"),
    *("drivers.many_fits", "drivers.least_squares", "drivers.scipy_least_squares"),
    *("drivers.scipy", "drivers.scipy_constraints", "scipy", "drivers.pathfinder", "drivers.pymc_model", "pymc"),
    *("profiles", "plot", "testing"),
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
        # Muon hands what is no matrix to AdamW.
        assert not imports(family) & families - ({"rules.first_order"} if family == "rules.matrices" else set())


# What modules outside of graph/ use of PyTensor, all of it documented. The rest, which may change with any version, is
# used in graph/ alone.
PUBLIC = {
    "pytensor": {"pytensor"},
    "pytensor.tensor": {"pytensor.tensor"},
    "pytensor.compile.mode": {"Mode", "get_mode"},
    "pytensor.compile.sharedvalue": {"SharedVariable"},
    "pytensor.graph.basic": {"Constant", "Variable"},
    "pytensor.graph.replace": {"graph_replace", "vectorize_graph"},
    "pytensor.graph.traversal": {"ancestors", "explicit_graph_inputs", "graph_inputs"},
    "pytensor.tensor.random.type": {"RandomType"},
    "pytensor.tensor.type": {"TensorType", "float_dtypes", "integer_dtypes"},
    "pytensor.tensor.variable": {"TensorVariable"},
}
# Attributes of PyTensor's objects that are not documented.
PRIVATE = {
    *("_fn", "acc_dtype", "compile_fn", "fgraph", "idx_list", "implicit", "input_storage", "jit_fn", "maker"),
    *("nfunc_spec", "provided_optimizer", "storage", "vm"),
}


def trees():
    """The syntax tree of each module."""
    return {module: ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text()) for module in ORDER}


def test_what_is_private_in_pytensor_is_used_in_graph_alone():
    for module, tree in trees().items():
        if module.startswith("graph."):
            continue
        used = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names if alias.name.partition(".")[0] == "pytensor"}
                used |= {name for name in names if name not in PUBLIC}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "pytensor":
                used |= {alias.name for alias in node.names} - PUBLIC.get(node.module, set())
            elif isinstance(node, ast.Attribute) and node.attr in PRIVATE:
                used.add(node.attr)
        assert not used, module


def test_notes_on_variables_are_written_and_read_in_one_module():
    users = {m for m, tree in trees().items() for node in ast.walk(tree) if getattr(node, "attr", "") == "tag"}
    assert users == {"notes"}


def test_public_names_are_what_is_seen():
    assert sorted(dir(optapi)) == sorted([*optapi.__all__, "__version__"])
    names = [name for name in optapi.__all__ if inspect.ismodule(getattr(optapi, name))]
    assert names == [
        "bijections",
        "gradients",
        "line_search",
        "manifolds",
        "plot",
        "profiles",
        "prox",
        "schedules",
        "stopping",
        "testing",
        "transforms",
    ]


def test_no_module_is_hidden_by_a_function_of_its_name():
    """Else `import optapi.name` would give the function, and `optapi.name` before the import something else."""
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert not {name for name in optapi.__all__ if not inspect.ismodule(getattr(optapi, name))} & modules


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
