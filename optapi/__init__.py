"""Symbolic optimizers on PyTensor: one implementation of each algorithm, as updates for ``pytensor.function``."""

from . import gradients, schedules, search, stopping, transforms
from .batches import batch
from .compat import PYTHON
from .first_order import adadelta, adagrad, adam, adamax, adamw, momentum, nadam, nesterov, radam, rmsprop, sgd
from .loops import hold, loop, repeat, when
from .objective import Objective
from .optimizers import ADAM, Gradient, GradientMemory, Momentum, Optimizer, RMSProp
from .quasi_newton import lbfgs
from .state import load, save
from .transforms import (
    accumulate,
    average,
    best,
    bold_driver,
    lookahead,
    noise,
    project,
    reduce_on_plateau,
    skip_nonfinite,
)
from .updates import join, reports


__all__ = [
    "ADAM",
    "PYTHON",
    "Gradient",
    "GradientMemory",
    "Momentum",
    "Objective",
    "Optimizer",
    "RMSProp",
    "accumulate",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "average",
    "batch",
    "best",
    "bold_driver",
    "gradients",
    "hold",
    "join",
    "lbfgs",
    "load",
    "lookahead",
    "loop",
    "momentum",
    "nadam",
    "nesterov",
    "noise",
    "project",
    "radam",
    "reduce_on_plateau",
    "repeat",
    "reports",
    "rmsprop",
    "save",
    "schedules",
    "search",
    "sgd",
    "skip_nonfinite",
    "stopping",
    "transforms",
    "when",
]

__version__ = "0.1.0"
