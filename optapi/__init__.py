"""Symbolic optimizers on PyTensor: one implementation of each algorithm, as updates for ``pytensor.function``.

Every rule is called as ``rule(parameters, cost=None, gradients=None, stop=None, updates=None, **options)``:

parameters : list of variables
    What is optimized: floating-point tensors, mostly shared, which hold the start. One variable is a list of one.
cost : scalar variable
    What is minimized. Needed unless `gradients` are given, and always by a rule that searches.
gradients : list of variables
    One for each parameter, of its shape; by default those of `cost`.
stop : shared integer scalar
    Becomes 1 when the algorithm has finished, and is 0 before. Then all that the rule writes stays as it is.
updates : dict
    Extended in place and returned; by default a new one.
step_size : number, scalar variable or schedule
    In the units of the parameters over those of the gradient, unless the rule says otherwise.
tolerance : scalar or None
    The largest size of a component of the gradient at which `stop` becomes 1; None for never.
line_search : callable
    The line search of a rule that searches, see `optapi.line_search`.
exact : bool or None
    Whether a rule that searches may use a cost and gradient again at the next call; None for a guess.
ascent : bool
    Whether to maximize.
name : str
    The prefix of the names of the rule's state, with a number if state in `updates` has that prefix already.

It returns a dictionary from the parameters, and from the variables of its own state, to their next values. Wrong
arguments are a TypeError or ValueError that names the argument, a variable that already has an update is a KeyError,
and `updates` is as it was after any error.
"""

from typing import TYPE_CHECKING

from . import (
    bijections,
    gradients,
    line_search,
    manifolds,
    plot,
    profiles,
    prox,
    schedules,
    stopping,
    testing,
    transforms,
)
from .augmented import augmented_lagrangian
from .checks import OptimizationWarning
from .constraints import multipliers
from .drivers.compiled import CompiledMinimizer, compile_minimizer, sample_starts
from .drivers.covariance import covariance
from .drivers.gradient_check import check_gradient
from .drivers.least_squares import FitResult, curve_fit, least_squares
from .drivers.numpy import minimize, minimize_iterator
from .drivers.progress import Checkpoint
from .drivers.results import BatchResult, OptimizeResult
from .drivers.scipy import scipy_method
from .feasible import active
from .graph.batches import batch
from .graph.loops import cond, hold, loop, repeat
from .graph.numpy_linker import PYTHON
from .graph.oracle import Oracle
from .hints import unknown as _unknown
from .objective import Objective
from .profiles import benchmark
from .quadratic import quadratic_program
from .rules._linear_algebra import inverse_hessian
from .rules.adam_variants import adabelief, adan, ademamix, adopt, aggmo, laprop, madgrad, mars, qhadam, qhm, yogi
from .rules.conjugate_gradient import (
    beta_dai_yuan,
    beta_fletcher_reeves,
    beta_hager_zhang,
    beta_hestenes_stiefel,
    beta_polak_ribiere,
    conjugate_gradient,
    dai_yuan,
    fletcher_reeves,
    hager_zhang_cg,
    hestenes_stiefel,
    polak_ribiere,
    scaled_conjugate_gradient,
)
from .rules.constrained import sqp
from .rules.diagonal_curvature import adahessian, sophia
from .rules.first_order import adadelta, adagrad, adam, adamax, adamw, momentum, nadam, nesterov, radam, rmsprop, sgd
from .rules.groups import partition
from .rules.hessian_free import hessian_free, krylov_subspace_descent
from .rules.large_batch import lamb, lars, novograd
from .rules.least_squares import gauss_newton, levenberg_marquardt
from .rules.matrices import adafactor, came, kron, muon, normuon, scion, shampoo, sm3, soap
from .rules.natural_gradient import tonga
from .rules.newton import newton, newton_cg, trust_region_cg
from .rules.online import ftrl, mirror_descent, rda
from .rules.parameter_free import d_adaptation, dog, momo, polyak_sgd, prodigy
from .rules.per_parameter_rates import delta_bar_delta, hypergradient, idbd, quickprop, rprop, smd, super_sab, vsgd
from .rules.proximal import frank_wolfe, proximal_gradient, proximal_lbfgs
from .rules.quasi_newton import barzilai_borwein, bfgs, lbfgs, sr1
from .rules.sign_based import lion, signum
from .rules.stochastic_quasi_newton import ada_qn, olbfgs, sgd_qn, sqn
from .solutions import Laplace, Solution, fixed_point, laplace, root, solve
from .state import load, save
from .stateful import ADAM, Gradient, GradientMemory, Momentum, Optimizer, RMSProp
from .transforms import (
    accumulate,
    average,
    best,
    bold_driver,
    cautious,
    lawa,
    lookahead,
    mechanic,
    noise,
    project,
    reduce_on_plateau,
    schedule_free,
    skip_nonfinite,
    svrg,
)
from .tuning import find_step_size
from .updates import join, reports


__all__ = [
    "ADAM",
    "PYTHON",
    "BatchResult",
    "Checkpoint",
    "CompiledMinimizer",
    "FitResult",
    "Gradient",
    "GradientMemory",
    "Laplace",
    "Momentum",
    "Objective",
    "OptimizationWarning",
    "OptimizeResult",
    "Optimizer",
    "Oracle",
    "RMSProp",
    "Solution",
    "accumulate",
    "active",
    "ada_qn",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adahessian",
    "adam",
    "adamax",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "aggmo",
    "augmented_lagrangian",
    "average",
    "barzilai_borwein",
    "batch",
    "benchmark",
    "best",
    "beta_dai_yuan",
    "beta_fletcher_reeves",
    "beta_hager_zhang",
    "beta_hestenes_stiefel",
    "beta_polak_ribiere",
    "bfgs",
    "bijections",
    "bold_driver",
    "came",
    "cautious",
    "check_gradient",
    "compile_minimizer",
    "cond",
    "conjugate_gradient",
    "covariance",
    "curve_fit",
    "d_adaptation",
    "dai_yuan",
    "delta_bar_delta",
    "dog",
    "find_step_size",
    "fixed_point",
    "fletcher_reeves",
    "frank_wolfe",
    "ftrl",
    "gauss_newton",
    "gradients",
    "hager_zhang_cg",
    "hessian_free",
    "hestenes_stiefel",
    "hold",
    "hypergradient",
    "idbd",
    "inverse_hessian",
    "join",
    "kron",
    "krylov_subspace_descent",
    "lamb",
    "laplace",
    "laprop",
    "lars",
    "lawa",
    "lbfgs",
    "least_squares",
    "levenberg_marquardt",
    "line_search",
    "lion",
    "load",
    "lookahead",
    "loop",
    "madgrad",
    "manifolds",
    "mars",
    "mechanic",
    "minimize",
    "minimize_iterator",
    "mirror_descent",
    "momentum",
    "momo",
    "multipliers",
    "muon",
    "nadam",
    "nesterov",
    "newton",
    "newton_cg",
    "noise",
    "normuon",
    "novograd",
    "olbfgs",
    "partition",
    "plot",
    "polak_ribiere",
    "polyak_sgd",
    "prodigy",
    "profiles",
    "project",
    "prox",
    "proximal_gradient",
    "proximal_lbfgs",
    "qhadam",
    "qhm",
    "quadratic_program",
    "quickprop",
    "radam",
    "rda",
    "reduce_on_plateau",
    "repeat",
    "reports",
    "rmsprop",
    "root",
    "rprop",
    "sample_starts",
    "save",
    "scaled_conjugate_gradient",
    "schedule_free",
    "schedules",
    "scion",
    "scipy_method",
    "sgd",
    "sgd_qn",
    "shampoo",
    "signum",
    "skip_nonfinite",
    "sm3",
    "smd",
    "soap",
    "solve",
    "sophia",
    "sqn",
    "sqp",
    "sr1",
    "stopping",
    "super_sab",
    "svrg",
    "testing",
    "tonga",
    "transforms",
    "trust_region_cg",
    "vsgd",
    "yogi",
]

__version__ = "0.2.0"


if not TYPE_CHECKING:  # a type checker knows the names, and would take any

    def __getattr__(name: str) -> object:
        raise AttributeError(_unknown("optapi", name, __all__))


def __dir__() -> list[str]:
    """The public names; the modules that they come from are internal."""
    return [*__all__, "__version__"]
