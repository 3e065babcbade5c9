"""A PyMC model as parameters and a cost, and results as PyMC's trees. All that calls PyMC for it is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import get_mode
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors

from ..checks import is_generator
from ..graph.compat import lowered, rewritten
from ..graph.derivatives import differentiate, lacks_gradient
from ..graph.members import vectorized
from ..graph.numpy_linker import PYTHON
from ..graph.replace import CHECKED
from .options import check_kind_of_mode
from .pathfinder import Drawn
from .program import joined


BACKENDS = {"python": "PYTHON", "numba": "NUMBA", "c": "CVM", "cvm": "CVM", "jax": "JAX"}
# What PyMC's rewrite of its checks of parameters into nothing is called.
UNCHECKED = "local_remove_check_parameter"
# What results have that is no number or vector, or that the tree has elsewhere.
LEFT_OUT = ("hess_inv", "trace", "error")


def imported() -> Any:
    """PyMC.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import pymc
    except ImportError as error:
        raise ImportError("PyMC is not installed; install it with: pip install 'optapi[pymc]'") from error
    return pymc


def mode_of(model: Any, backend: str | None, compile_kwargs: Mapping[str, Any] | None, default: Any = PYTHON) -> Any:
    """The mode that PyMC's names say, else `default`, in which the parameter checks of `model` are values.

    An assertion would end the minimization at a trial point; instead the density is zero there.
    """
    given = dict(compile_kwargs or {})
    mode = given.pop("mode", None)
    if given:
        raise TypeError(f"compile_kwargs has {', '.join(map(repr, given))}; only 'mode' is taken here")
    if backend is not None:
        if mode is not None:
            raise ValueError("backend and compile_kwargs['mode'] are both given; pass one of them")
        if not isinstance(backend, str) or backend.lower() not in BACKENDS:
            raise ValueError(f"backend is {backend!r}; pass one of {', '.join(map(repr, BACKENDS))}")
        mode = BACKENDS[backend.lower()]
    check_kind_of_mode(mode)
    return get_mode(default if mode is None else mode).including(CHECKED if model.check_bounds else UNCHECKED)


class Density:
    """The logarithm of a model's density, negative, as a cost of shared variables.

    Attributes
    ----------
    model : pymc.Model
    variables : list of variables
        The value variables that are optimized, in the order of the model.
    shared : dict
        From all value variables to shared variables; those that are not optimized keep their start.
    parameters : list of shared variables
    cost : scalar variable
    updates : dict
        Of the generators that the cost draws from, as of ``pm.Minibatch``.
    jacobian : bool
        Whether the density is that of the value variables, with the Jacobian of their transforms.
    """

    def __init__(self, model: Any, vars: Any, jacobian: bool, mode: Any):
        imported()
        from pymc.pytensorf import collect_default_updates, rewrite_pregrad

        self.model, self.jacobian, self.mode = model, jacobian, mode
        self.variables = chosen(model, vars)
        self._functions: dict[Any, tuple[Any, dict[Any, Any]]] = {}
        start = self.start(None, None, None)
        self.shared = {
            v: pytensor.shared(start[v.name].copy(), name=v.name, shape=start[v.name].shape) for v in model.value_vars
        }
        self.parameters = [self.shared[v] for v in self.variables]
        # The checks are values already here: in a batch a check is one of all members together.
        checks = CHECKED if model.check_bounds else UNCHECKED
        (cost,) = rewritten(self._placed([-model.logp(jacobian=jacobian)]), "canonicalize", checks)
        self.cost = rewrite_pregrad(cost)
        self.updates = dict(collect_default_updates(outputs=[self.cost]))
        self._check_gradients()

    def _placed(self, outputs: Sequence[Any]) -> list[Any]:
        """`outputs` with the shared variables in the places of the value variables."""
        placed: Any = graph_replace(list(outputs), self.shared, strict=False)
        return list(placed)

    def _terms(self) -> dict[str, Any]:
        """The terms of the log density, by the names of the variables whose they are."""
        factors = [*self.model.basic_RVs, *self.model.potentials]
        terms = self.model.logp(factors, sum=False, jacobian=self.jacobian)
        return dict(zip([f.name for f in factors], self._placed([term.sum() for term in terms]), strict=True))

    def _check_gradients(self) -> None:
        lacking = lacks_gradient(self.cost, self.parameters)
        if not lacking:
            return
        names = ", ".join(repr(p.name) for p in lacking)
        terms = [name for name, term in self._terms().items() if lacks_gradient(term, lacking)]
        raise ValueError(
            f"the log density has no gradient with respect to {names}, in its terms of {', '.join(map(repr, terms))}; "
            "leave them out of vars, where they keep their start, give the operation a gradient, or call pm.find_MAP "
            "with method='powell'"
        )

    # Starts

    def start(self, initvals: Mapping[Any, Any] | None, jitter: bool | None, seed: int | None) -> dict[str, np.ndarray]:
        """A start: from the names of all value variables to their values, as PyMC makes them.

        What makes it is compiled once for each set of variables in `initvals`.
        """
        from pymc.initial_point import make_initial_point_fn

        if not (initvals is None or isinstance(initvals, Mapping)):
            raise TypeError(f"initvals is a {type(initvals).__name__}; pass a dictionary from variables to values")
        given = {getattr(key, "name", key): value for key, value in (initvals or {}).items()}
        fixed = {name: value for name, value in given.items() if isinstance(value, str | Variable)}
        numbers = {name: np.asarray(value) for name, value in given.items() if name not in fixed}
        key = (bool(jitter), *fixed.items(), *((name, value.ndim) for name, value in numbers.items()))
        if key not in self._functions:
            for name in given:
                self._check_known(name)
            held: dict[Any, Any] = {
                name: pytensor.shared(value.astype(float), shape=(None,) * value.ndim)
                for name, value in numbers.items()
            }
            rvs = {self.model.values_to_rvs[v] for v in self.variables} if jitter else set()
            made = make_initial_point_fn(model=self.model, overrides={**fixed, **held}, jitter_rvs=rvs)
            self._functions[key] = made, held
        function, held = self._functions[key]
        for name, value in numbers.items():
            held[name].set_value(value.astype(float))
        found = function(0 if seed is None else seed)
        point = {v.name: np.asarray(found[v.name], v.dtype) for v in self.model.value_vars}
        for variable, shared in getattr(self, "shared", {}).items():
            name, shape = variable.name, point[variable.name].shape
            if shape != shared.type.shape:
                raise ValueError(f"initvals give {name!r} the shape {shape}; its shape is {shared.type.shape}")
        return point

    def _check_known(self, name: Any) -> None:
        model = self.model
        known = [*(rv.name for rv in model.free_RVs), *(v.name for v in model.value_vars)]
        if name not in known:
            raise KeyError(f"initvals has {name!r}, which is no free variable of the model; it has {', '.join(known)}")

    def hold(self, point: Mapping[str, np.ndarray]) -> None:
        """Let the shared variables have the values of `point`."""
        for variable, shared in self.shared.items():
            shared.set_value(np.array(point[variable.name], variable.dtype))

    def held(self) -> dict[str, np.ndarray]:
        """The values that the shared variables have."""
        return {v.name: np.array(shared.get_value(borrow=True)) for v, shared in self.shared.items()}

    def split(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows of components as an array for each parameter, with the axis of the rows in front."""
        shapes = [p.type.shape for p in self.parameters]
        parts = np.split(rows, np.cumsum([prod(shape) for shape in shapes])[:-1], axis=1)
        return [
            part.reshape(-1, *shape).astype(v.dtype)
            for part, shape, v in zip(parts, shapes, self.variables, strict=True)
        ]

    def points(self, rows: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Rows of components as values of all value variables; those that are not optimized are as they are held."""
        held, names = self.held(), [v.name for v in self.variables]
        return [held | dict(zip(names, values, strict=True)) for values in zip(*self.split(rows), strict=True)]

    @cached_property
    def _by_rows(self) -> Callable[..., Any]:
        now = {p: p.type() for p in self.parameters}
        return vectorized(list(now.values()), graph_replace([-self.cost], now), [True] * len(now), self.mode)

    def by_rows(self, rows: np.ndarray, block: int) -> np.ndarray:
        """The log density at rows of components, of which at most `block` are evaluated at a time."""
        # JAX compiles anew for each other number of rows.
        count = -(-len(rows) // block) * block if type(self.mode.linker).__name__ == "JAXLinker" else len(rows)
        places = np.minimum(np.arange(count), len(rows) - 1)
        found = [self._by_rows(*self.split(rows[places[i : i + block]]))[0] for i in range(0, count, block)]
        return np.concatenate([np.asarray(values, float) for values in found])[: len(rows)]

    def check_continuous(self) -> None:
        """The density is that of all variables that are not observed, each continuous, as they are transformed."""
        others = [v.name for v in self.shared if v not in self.variables]
        if others:
            names = ", ".join(map(repr, others))
            raise TypeError(f"there are draws of continuous variables alone, and of all; but {names} keep their start")
        if not self.jacobian:
            raise ValueError("the density is that of the natural scale; pass jacobian=True to compile_MAP")

    def why_not_finite(self, advice: str = "Pass initvals, or jitter=True") -> str:
        """What is not finite where the shared variables are now: the terms, or the gradients, and of what."""
        terms = self._terms()
        gradients = differentiate(self.cost, self.parameters)
        function = pytensor.function([], [*terms.values(), *gradients], mode=self.mode, on_unused_input="ignore")
        found = [np.asarray(value) for value in function()]
        values = dict(zip(terms, found, strict=False))
        bad = {name: float(value) for name, value in values.items() if not np.isfinite(value)}
        if bad:
            said = ", ".join(f"that of {name!r} is {value:g}" for name, value in bad.items())
            read = set(ancestors([terms[name] for name in bad]))
            of = [v for v in self.shared.values() if v in read]
            what = f"the log density is not finite at the start: {said}"
        else:
            of = [p for p, g in zip(self.parameters, found[len(terms) :], strict=True) if not np.isfinite(g).all()]
            names = ", ".join(repr(p.name) for p in of)
            what = f"the gradient with respect to {names} is not finite at the start, where the log density is"
        points = "; ".join(f"{v.name} = {np.array2string(v.get_value(), threshold=6, precision=4)}" for v in of)
        where = f", at {points}" if points else ""
        return f"{what}{where}. {advice}; model.debug() of PyMC says more"

    # Results

    @cached_property
    def unobserved(self) -> Any:
        """A function of the value variables: all unobserved variables, transformed, natural and deterministic."""
        from pymc.pytensorf import compile

        values, outputs = self.model.value_vars, self.model.unobserved_value_vars
        return compile(values, outputs, mode="FAST_COMPILE", on_unused_input="ignore")

    def natural(self) -> dict[str, Any]:
        """The free variables on their natural scale, and the deterministic ones, as expressions of the parameters."""
        values = {v.name for v in self.shared}
        free = {rv.name for rv in self.model.free_RVs}
        named = {v.name: v for v in self.model.unobserved_value_vars if v.name in free or v.name not in values}
        tensors = list(named.values())
        if any(hasattr(v.type, "dims") for v in tensors):
            # PyTensor differentiates variables with dims after it has lowered them.
            tensors = lowered([v.values if hasattr(v.type, "dims") else v for v in tensors])
        placed = dict(zip(named, self._placed(tensors), strict=True))
        return {name: v for name, v in placed.items() if v.type.dtype.startswith("float")}

    def named(self, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All unobserved variables at `point`, by name."""
        values = self.unobserved(**point)
        return {v.name: np.asarray(a) for v, a in zip(self.model.unobserved_value_vars, values, strict=True)}

    def labels(self) -> list[str]:
        """A name for each component of the parameters, with the coordinates of the model."""
        model, found = self.model, []
        for v, p in zip(self.variables, self.parameters, strict=True):
            shape = p.type.shape
            dims = model.named_vars_to_dims.get(model.values_to_rvs[v].name) or (None,) * len(shape)
            if len(dims) != len(shape):
                dims = (None,) * len(shape)
            known = [model.coords.get(dim) for dim in dims]
            axes = [c if c is not None and len(c) == n else range(n) for c, n in zip(known, shape, strict=True)]
            found += [f"{v.name}[{','.join(map(str, place))}]" if shape else v.name for place in product(*axes)]
        return found

    def tree(self, points: Sequence[Mapping[str, np.ndarray]], groups: Mapping[str, Any],
             idata_kwargs: Mapping[str, Any] | None) -> Any:  # fmt: skip
        """PyMC's tree of draws, with further groups beside its own."""
        pymc = imported()
        from pymc.backends.base import MultiTrace
        from pymc.backends.ndarray import NDArray

        first = self.named(points[0])
        shapes, dtypes = ({n: getattr(a, what) for n, a in first.items()} for what in ("shape", "dtype"))
        trace = NDArray(model=self.model, fn=self.unobserved, var_shapes=shapes, var_dtypes=dtypes)
        trace.setup(draws=len(points), chain=0)
        for point in points:
            trace.record(point, in_warmup=False)
        trace.close()
        tree = pymc.to_inference_data(MultiTrace([trace]), model=self.model, **dict(idata_kwargs or {}))
        if "sample_stats" in tree.children and not tree["sample_stats"].data_vars:
            del tree["sample_stats"]
        from xarray import DataTree

        for name, dataset in groups.items():
            tree[name] = DataTree(dataset=dataset)
        return tree

    def fit_group(self, mean: np.ndarray, covariance: np.ndarray | None, **more: float) -> Any:
        """The group ``fit``: the mode of the value variables, and their covariance."""
        from xarray import DataArray, Dataset

        labels = self.labels()
        data = {"mean_vector": DataArray(mean, dims=["rows"], coords={"rows": labels})}
        if covariance is not None:
            coordinates = {"rows": labels, "columns": labels}
            data["covariance_matrix"] = DataArray(covariance, dims=["rows", "columns"], coords=coordinates)
        return Dataset(data | {name: DataArray(value) for name, value in more.items()})

    def pathfinder_group(self, found: Drawn, iterations: np.ndarray, weights: np.ndarray, k: float,
                         picked: np.ndarray) -> Any:  # fmt: skip
        """The group ``pathfinder``: what was found on each path, the weights of its draws, and which were picked."""
        from xarray import Dataset

        data: dict[str, Any] = {
            "elbo": ("path", found.bounds),
            "elbo_argmax": ("path", found.places),
            "lbfgs_niter": ("path", iterations),
            "log_weights": (("path", "path_draw"), weights),
            "draw_path": ("draw", picked // weights.shape[1]),
        }
        return Dataset(data if np.isnan(k) else data | {"pareto_k": k})

    def result_group(self, result: Any, rule: str, others: Sequence[Any] = ()) -> Any:
        """The group ``optimizer_result``: the entries of a result, and a row for each start if there were several."""
        from xarray import DataArray, Dataset

        data: dict[str, Any] = {"method": DataArray(rule)}
        for name in result:
            if name in LEFT_OUT:
                continue
            value = result[name]
            if isinstance(value, list):
                data[name] = DataArray(joined(value), dims=["variables"], coords={"variables": self.labels()})
            else:
                data[name] = DataArray(value)
        for name in ("fun", "status", "success", "nit", "nfev", "start") if others else ():
            data[f"starts_{name}"] = DataArray([other[name] for other in others], dims=["starts"])
        return Dataset(data)


def chosen(model: Any, vars: Any) -> list[Any]:
    """The value variables of a model that `vars` names, by default the continuous ones, in the order of the model.

    Raises
    ------
    ValueError, TypeError
        If there are none, or one is discrete, or none of the model's.
    """
    if vars is None:
        found = list(model.continuous_value_vars)
        if not found:
            raise ValueError("the model has no continuous variables that are not observed, so nothing to optimize")
        return found
    listed = list(vars) if isinstance(vars, list | tuple | set) else [vars]
    by_name = {rv.name: value for rv, value in model.rvs_to_values.items() if value in model.value_vars}
    by_name |= {value.name: value for value in model.value_vars}
    wanted = []
    for variable in listed:
        name = getattr(variable, "name", variable)
        if not isinstance(name, str) or name not in by_name:
            raise ValueError(
                f"vars has {name!r}, which is no free variable of the model; it has {', '.join(by_name)}. Of a "
                "deterministic variable or a potential pass the free variables that it depends on"
            )
        wanted.append(by_name[name])
    if not wanted:
        raise ValueError("vars is empty; pass at least one variable, or leave it out")
    discrete = [v.name for v in wanted if v.dtype not in ("float32", "float64")]
    if discrete:
        names = ", ".join(map(repr, discrete))
        raise TypeError(f"vars has {names}, discrete variables; leave them out, and they keep their start")
    return [v for v in model.value_vars if v in wanted]


def generators_of(outputs: Sequence[Any]) -> dict[Any, Any]:
    """The next states of the generators that PyMC's `outputs` draw from."""
    from pymc.pytensorf import collect_default_updates

    return {v: new for v, new in collect_default_updates(outputs=list(outputs)).items() if is_generator(v)}


def by_adapter(rule: Callable[..., Any], options: Mapping[str, Any], gradients: Any, parameters: Any) -> Any:
    """The updates of a rule as PyMC asks for them: by gradients, or by the cost that they are of."""
    parameters = list(parameters)
    given = {"gradients": list(gradients)} if isinstance(gradients, list | tuple) else {"cost": pt.as_tensor(gradients)}
    return rule(parameters, **given, **options)
