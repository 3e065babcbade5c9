"""Stateful optimizers: they step a model along gradients that were computed elsewhere, by a sampler or a simulator.

An optimizer here holds numbers, not graphs: it needs no compilation, and it can be copied and pickled at any time. The
running averages are those of `moments`, which the symbolic rules use too.

Models and gradients are pytrees: an array, or a list, tuple or mapping of pytrees. A list or tuple of numbers is one
vector. The gradient has the structure of the model, with arrays of the same shapes.

References
----------
The interface is that of the optimizers of paysage (Unlearn.AI, 2016 to 2018, https://github.com/drckf/paysage), whose
numbers `historical` brings back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import numpy as np
from pytensor.graph.basic import Variable

from .checks import check_flag, check_number
from .feasible import limits, projected_gradients, put_inside
from .hints import hinted
from .moments import correction, running_average
from .pytree import PyTree, largest, real_array, tree_map
from .typing import Tree


# A number, a schedule, or an iterator over numbers.
StepSizes = float | Iterator[float] | Callable[[int], float]

EPSILON = 1e-8
HISTORICAL_EPSILON = float(np.finfo("float32").eps)


class GradientMemory:
    r"""The first two moments of the gradients, as exponential running averages.

    .. math:: m \leftarrow w_1 m + (1 - w_1) g, \qquad v \leftarrow w_2 v + (1 - w_2) g^2

    Both begin at zero.

    Parameters
    ----------
    mean_weight : float
        :math:`w_1`, the weight of the past in the mean, from 0 to below 1. With 0 `update` leaves the mean out.
    mean_square_weight : float
        :math:`w_2`, the same of the mean square. With 0 `update` leaves it out, and `normalize` changes nothing.
    historical : bool
        Whether to begin at the first gradient and its square, to take constants for the bias correction, and to
        normalize with another :math:`\epsilon` at another place, see `normalize`.

    Attributes
    ----------
    mean_gradient, mean_square_gradient : pytree of arrays or None
        :math:`m` and :math:`v`, of the shapes and dtypes of the gradients (float64 for integers); None before the first
        update. They are replaced at an update, not changed in place.
    mean_updates, mean_square_updates : int
        The number of gradients in each.

    Examples
    --------
    >>> memory = optapi.GradientMemory(mean_weight=0.5)
    >>> memory.update([np.array([1.0, 2.0])])
    >>> memory.mean_gradient
    [array([0.5, 1. ])]
    """

    @hinted
    def __init__(self, mean_weight: float = 0.9, mean_square_weight: float = 0.0, *, historical: bool = False) -> None:
        self.mean_weight = _number("mean_weight", mean_weight, below=1)
        self.mean_square_weight = _number("mean_square_weight", mean_square_weight, below=1)
        self.historical = check_flag("historical", historical)
        self.mean_gradient: Any = None
        self.mean_square_gradient: Any = None
        self.mean_updates = 0
        self.mean_square_updates = 0

    def update(self, grad: Tree) -> None:
        """Add a gradient to each of the two averages whose weight is not 0.

        Raises
        ------
        ValueError
            If `grad` has another structure or other shapes than the gradients before it. Nothing has changed then.
        TypeError
            If a leaf of `grad` is not a real array or number. Nothing has changed then.
        """
        if self.mean_weight:
            self.update_mean(grad)
        if self.mean_square_weight:
            self.update_mean_square(grad)

    def update_mean(self, grad: Tree) -> None:
        """Add a gradient to the mean; errors as in `update`."""
        self.mean_gradient = self._averaged(self.mean_gradient, grad, self.mean_weight, lambda g: g)
        self.mean_updates += 1

    def update_mean_square(self, grad: Tree) -> None:
        """Add the square of a gradient to the mean square; errors as in `update`."""
        self.mean_square_gradient = self._averaged(
            self.mean_square_gradient, grad, self.mean_square_weight, lambda g: g * g
        )
        self.mean_square_updates += 1

    def _averaged(self, average: Any, grad: Any, weight: float, moment: Callable[[Any], Any]) -> Any:
        """The next value of `average`. It shares no array with `grad`, which the caller may write to."""
        if average is None:
            first = tree_map(lambda g: np.array(moment(_floating(g))), {"grad": grad})
            if self.historical:
                return first
            average = tree_map(np.zeros_like, {"grad": first})
        w = np.float64(weight)

        def next_average(m: Any, g: Any) -> Any:
            return running_average(m, moment(_floating(g)).astype(m.dtype, copy=False), w)

        return tree_map(next_average, {"the memory": average, "grad": grad})

    def normalize(self, grad: Tree, unbiased: bool = False) -> Any:
        r"""Divide `grad` by the root of the mean square.

        .. math:: \frac{g}{\sqrt{v} + \epsilon} \quad \text{or, unbiased,} \quad
            \frac{g / (1 - w_1^s)}{\sqrt{v / (1 - w_2^t)} + \epsilon}

        with :math:`\epsilon = 10^{-8}`, and :math:`s, t` the numbers of gradients in the mean and the mean square. A
        mean without gradients, or of weight 0, needs no correction. With `historical`

        .. math:: \frac{g}{\sqrt{\epsilon + v}} \quad \text{or} \quad
            \frac{g / (1 - w_1)}{\sqrt{\epsilon + v / (1 - w_2)}}

        with :math:`\epsilon = 2^{-23}`, the distance of float32 numbers at 1.

        Parameters
        ----------
        grad : pytree of arrays
            A gradient or, for steps like Adam's, `mean_gradient`.
        unbiased : bool
            Whether to correct both averages for their start at zero; `grad` is then the mean.

        Returns
        -------
        pytree of arrays
            `grad` itself if `mean_square_weight` is 0, or before the first update of the mean square.

        Raises
        ------
        ValueError, TypeError
            As in `update`.
        """
        check_flag("unbiased", unbiased)
        if not self.mean_square_weight or self.mean_square_gradient is None:
            return grad
        if not unbiased:
            c1 = c2 = 1.0
        elif self.historical:
            c1, c2 = 1.0 - self.mean_weight, 1.0 - self.mean_square_weight
        else:
            c1 = correction(self.mean_weight, self.mean_updates) if self.mean_updates else 1.0
            c2 = correction(self.mean_square_weight, self.mean_square_updates)

        def normalized(v: Any, g: Any) -> Any:
            if self.historical:
                return (g / c1) / np.sqrt(HISTORICAL_EPSILON + v / c2)
            return (g / c1) / (np.sqrt(v / c2) + EPSILON)

        return tree_map(normalized, {"the memory": self.mean_square_gradient, "grad": grad})


class Optimizer:
    r"""Base of the optimizers: a step size, a test of convergence, and the step of a model.

    .. math:: x \leftarrow x - a d

    with the direction :math:`d` that the method `direction` of a subclass returns.

    Parameters
    ----------
    stepsize : number, schedule or iterator
        The step size :math:`a`. A schedule, as in `optapi.schedules`, or any other function of the count, is called
        with 0, 1, ... An iterator, such as a generator, yields one value after the other. `update_lr` goes to the next
        value; the first value is taken by the first call of `update_lr` or `update`, whichever comes first. So
        `update_lr` can be called at the beginning of each epoch or at its end.
    tolerance : number or None
        The `magnitude` at which `check_convergence` returns True; None for never.
    ascent : bool
        Whether to maximize.
    historical : bool
        Whether to compute what the optimizers of paysage did where it differs from the textbooks: running averages
        begin at the first gradient, their corrections are constants, :math:`\epsilon = 2^{-23}` is inside of the
        root, and convergence is judged by the last change of the parameters. In paysage `update_lr` had to be called
        before `update`.

    skip_nonfinite : bool
        Whether to skip an update in which the step or a running average would not be finite, as `skip_nonfinite` does
        of updates: one gradient whose square overflows, above 1.8e19 in float32, would else stay in a mean square for
        ever.
    bounds : as the model, or one pair, optional
        Pairs ``(low, high)``, in the forms that `minimize` takes for a start that is put together as the model is.
        After a step the parameters are put inside, and the gradient that convergence is judged by is projected. A model
        with `parameter_update` is given the change that leads there, so that it is inside but for rounding.

    Attributes
    ----------
    lr : float or None
        The present step size, None until the first value is taken.
    skipped : int
        The number of updates that were skipped.
    count : int
        The number of values taken.
    magnitude : float
        What `check_convergence` compares with the tolerance; NaN until the first update.

    Notes
    -----
    An optimizer can be pickled and copied with `copy.deepcopy`, and the copy continues bit for bit, if its step size is
    a number or a schedule of this package: Python cannot copy generators. Instances share nothing.

    Examples
    --------
    >>> class SignDescent(optapi.Optimizer):
    ...     def direction(self, grad):
    ...         return [np.sign(g) for g in grad]
    >>> model = [np.array([1.0, -2.0])]
    >>> SignDescent(stepsize=0.5).update(model, [np.array([3.0, -0.1])])
    >>> model
    [array([ 0.5, -1.5])]
    """

    @hinted
    def __init__(self, stepsize: StepSizes = 1e-3, tolerance: float | None = 1e-7, ascent: bool = False, *,
                 historical: bool = False, skip_nonfinite: bool = False,
                 bounds: Any = None) -> None:  # fmt: skip
        if not callable(stepsize) and not hasattr(stepsize, "__next__"):
            stepsize = _number("stepsize", stepsize)
        self.stepsize = stepsize
        self.tolerance = None if tolerance is None else _number("tolerance", tolerance)
        self.ascent = check_flag("ascent", ascent)
        self.historical = check_flag("historical", historical)
        self.skip_nonfinite = check_flag("skip_nonfinite", skip_nonfinite)
        self.bounds = bounds
        self.skipped = 0
        self.lr: float | None = None
        self.count = 0
        self.magnitude = np.nan

    def update_lr(self) -> None:
        """Go to the next value of the step size.

        Raises
        ------
        ValueError
            If an iterator has ended; the step size stays as it was. A StopIteration would silently end a loop around
            the call.
        """
        value = self.stepsize
        if hasattr(value, "__next__"):
            try:
                value = next(value)
            except StopIteration:
                raise ValueError(
                    f"stepsize is an iterator that ended after {self.count} values; "
                    "pass one that goes on, a schedule or a number"
                ) from None
        elif callable(value):
            value = value(self.count)
        self.lr = _number("stepsize", value)
        self.count += 1

    def check_convergence(self) -> bool:
        """Whether no component of the last gradient exceeded the tolerance in absolute value.

        With `historical`, whether the root mean square of the last change of the parameters did not: the mean squares
        of all arrays are summed, and divided by the number of entries of the model (its layers).

        False before the first update, and if a component was NaN.
        """
        return self.tolerance is not None and bool(self.magnitude <= self.tolerance)

    def update(self, model: Any, grad: Tree) -> None:
        """Step the model along a gradient.

        Parameters
        ----------
        model : pytree of arrays, or object
            Arrays are changed in place. An object has the pytree as its attribute `parameters`, and a method
            `parameter_update(delta)` that subtracts the pytree `delta` from them.
        grad : pytree of arrays
            The gradient with respect to the parameters. It is cast to their dtypes, and is not changed or kept.

        Raises
        ------
        ValueError
            If `grad` has another structure or other shapes than the parameters, or these have changed since the last
            update; the message names the place. If an array of the model cannot be written to or is listed twice.
            Nothing has changed then.
        TypeError
            If a parameter is not an array of real floating-point numbers, or a leaf of `grad` not one of real numbers.
            Nothing has changed then.
        """
        outside = hasattr(model, "parameter_update")
        name, parameters = ("model.parameters", model.parameters) if outside else ("model", model)
        _check_parameters(name, parameters, in_place=not outside)
        grad = tree_map(lambda p, g: g.astype(p.dtype), {name: parameters, "grad": grad})
        leaves = _leaves(parameters)
        inside = limits(self.bounds, PyTree.of(parameters), leaves)
        if self.lr is None:
            self.update_lr()
        rate = -self.lr if self.ascent else self.lr  # type: ignore[operator]
        before = {name: copy(v) if isinstance(v, GradientMemory) else v for name, v in vars(self).items()}
        direction = self.direction(grad)
        delta = tree_map(lambda p, d: np.asarray(rate * d, p.dtype), {name: parameters, "the direction": direction})
        if self.skip_nonfinite and not self._is_finite(delta):
            vars(self).update(before)
            self.skipped += 1
            return
        if inside is not None:
            slopes = projected_gradients(leaves, [-g if self.ascent else g for g in _leaves(grad)], inside)
            feasible = put_inside([p - d for p, d in zip(leaves, _leaves(delta), strict=True)], inside)
            delta = PyTree.of(delta).build([p - new for p, new in zip(leaves, feasible, strict=True)])
        else:
            slopes = _leaves(grad)
        self.magnitude = _root_mean_square(delta) if self.historical else largest(slopes)
        if outside:
            model.parameter_update(delta)
        elif inside is not None:
            for p, new in zip(leaves, feasible, strict=True):
                np.copyto(p, new)
        else:
            tree_map(lambda p, d: np.subtract(p, d, out=p), {name: parameters, "the step": delta})

    def _is_finite(self, delta: Any) -> bool:
        """Whether a step and the running averages are."""
        memories = [value for value in vars(self).values() if isinstance(value, GradientMemory)]
        averages = [tree for m in memories for tree in (m.mean_gradient, m.mean_square_gradient) if tree is not None]
        return all(np.isfinite(leaf).all() for tree in (delta, *averages) for leaf in _leaves(tree))

    def direction(self, grad: Tree) -> Any:
        """The direction :math:`d`, which times the step size is subtracted from the parameters, or added under ascent.

        Parameters
        ----------
        grad : pytree of arrays
            The gradient, of the structure, shapes and dtypes of the parameters.

        Returns
        -------
        pytree of arrays
            Of the same structure and shapes.
        """
        raise NotImplementedError(f"{type(self).__name__} has no direction; define one, or use Gradient")


class Gradient(Optimizer):
    r"""Gradient descent, :math:`d = g`, or ascent.

    Parameters
    ----------
    stepsize, tolerance, ascent, historical, skip_nonfinite, bounds
        As in `Optimizer`.

    References
    ----------
    Robbins and Monro (1951), A stochastic approximation method.

    Examples
    --------
    >>> model = {"weights": np.array([1.0, 2.0])}
    >>> optimizer = optapi.Gradient(stepsize=optapi.schedules.Power(0.1, scale=10))
    >>> optimizer.update(model, {"weights": np.array([1.0, -1.0])})
    >>> model
    {'weights': array([0.9, 2.1])}
    """

    def direction(self, grad: Tree) -> Any:
        return grad


class Momentum(Optimizer):
    r"""Gradient descent with momentum.

    .. math:: d \leftarrow \mu d + g

    as in ``optapi.sgd(momentum=...)``: the present step size scales the whole sum. With `historical` :math:`d` is the
    running average of the gradients, :math:`d \leftarrow \mu d + (1 - \mu) g`, which begins at the first of them.

    Parameters
    ----------
    momentum : float
        :math:`\mu`, from 0 to below 1.
    stepsize, tolerance, ascent, historical, skip_nonfinite, bounds
        As in `Optimizer`.

    References
    ----------
    Polyak (1964), Some methods of speeding up the convergence of iteration methods; Qian (1999), On the momentum term
    in gradient descent learning algorithms.

    Examples
    --------
    >>> model = [np.array([1.0])]
    >>> optimizer = optapi.Momentum(stepsize=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     optimizer.update(model, [np.array([1.0])])
    >>> model
    [array([0.75])]
    """

    @hinted
    def __init__(self, stepsize: StepSizes = 1e-3, momentum: float = 0.9, tolerance: float | None = 1e-7,
                 ascent: bool = False, *, historical: bool = False, skip_nonfinite: bool = False,
                 bounds: Any = None) -> None:  # fmt: skip
        super().__init__(
            stepsize, tolerance, ascent, historical=historical, skip_nonfinite=skip_nonfinite, bounds=bounds
        )
        self.memory = GradientMemory(_number("momentum", momentum, below=1), historical=historical)

    def direction(self, grad: Tree) -> Any:
        self.memory.update_mean(grad)
        if self.historical:
            return self.memory.mean_gradient
        # A running average from zero, divided by 1 - mu, is the sum of the gradients with weights 1, mu, mu^2, ...
        weight = 1.0 - self.memory.mean_weight
        return tree_map(lambda m: m / weight, {"the memory": self.memory.mean_gradient})


class RMSProp(Optimizer):
    r"""RMSProp: gradients divided by the root of their mean square.

    .. math:: v \leftarrow w v + (1 - w) g^2, \qquad d = \frac{g}{\sqrt{v} + \epsilon}

    with :math:`v` zero at first, so that the first step has the size :math:`a / \sqrt{1 - w}`, and
    :math:`\epsilon = 10^{-8}`. With `historical`, the `normalize` of `GradientMemory`, unbiased.

    Parameters
    ----------
    mean_square_weight : float
        :math:`w`, above 0 and below 1.
    stepsize, tolerance, ascent, historical, skip_nonfinite, bounds
        As in `Optimizer`.

    References
    ----------
    Tieleman and Hinton (2012), Neural networks for machine learning, lecture 6e.

    Examples
    --------
    >>> model = [np.array([4.0])]
    >>> optimizer = optapi.RMSProp(stepsize=0.01)
    >>> for _ in range(600):
    ...     optimizer.update(model, [2 * model[0]])
    >>> bool(abs(model[0][0]) < 0.02)
    True
    """

    @hinted
    def __init__(self, stepsize: StepSizes = 1e-3, mean_square_weight: float = 0.9, tolerance: float | None = 1e-7,
                 ascent: bool = False, *, historical: bool = False, skip_nonfinite: bool = False,
                 bounds: Any = None) -> None:  # fmt: skip
        super().__init__(
            stepsize, tolerance, ascent, historical=historical, skip_nonfinite=skip_nonfinite, bounds=bounds
        )
        self.memory = _normalizing(0.0, mean_square_weight, historical)

    def direction(self, grad: Tree) -> Any:
        self.memory.update_mean_square(grad)
        return self.memory.normalize(grad, unbiased=self.historical)


class ADAM(Optimizer):
    r"""Adam, as in `optapi.adam`: the mean of the gradients divided by the root of their mean square.

    .. math:: d = \frac{m / (1 - w_1^t)}{\sqrt{v / (1 - w_2^t)} + \epsilon}

    with the moments :math:`m, v` of a `GradientMemory`, the number :math:`t` of this update, from 1, and
    :math:`\epsilon = 10^{-8}`. With `historical`, the `normalize` there, unbiased.

    Parameters
    ----------
    mean_weight : float
        :math:`w_1`, from 0 to below 1.
    mean_square_weight : float
        :math:`w_2`, above 0 and below 1.
    stepsize, tolerance, ascent, historical, skip_nonfinite, bounds
        As in `Optimizer`.

    References
    ----------
    Kingma and Ba (2015), Adam: a method for stochastic optimization, algorithm 1.

    Examples
    --------
    >>> model = [np.array([4.0])]
    >>> optimizer = optapi.ADAM(stepsize=0.1)
    >>> while not optimizer.check_convergence():
    ...     optimizer.update(model, [2 * model[0]])
    >>> bool(abs(model[0][0]) < 1e-6)
    True
    """

    @hinted
    def __init__(self, stepsize: StepSizes = 1e-3, mean_weight: float = 0.9, mean_square_weight: float = 0.999,
                 tolerance: float | None = 1e-7, ascent: bool = False, *, historical: bool = False,
                 skip_nonfinite: bool = False,
                 bounds: Any = None) -> None:  # fmt: skip
        super().__init__(
            stepsize, tolerance, ascent, historical=historical, skip_nonfinite=skip_nonfinite, bounds=bounds
        )
        self.memory = _normalizing(mean_weight, mean_square_weight, historical)

    def direction(self, grad: Tree) -> Any:
        self.memory.update_mean(grad)
        self.memory.update_mean_square(grad)
        return self.memory.normalize(self.memory.mean_gradient, unbiased=True)


# The names in lower case are those of paysage.
gradient, momentum, rmsprop, adam = Gradient, Momentum, RMSProp, ADAM


def _normalizing(mean_weight: float, mean_square_weight: float, historical: bool) -> GradientMemory:
    """A memory whose `normalize` divides."""
    memory = GradientMemory(mean_weight, mean_square_weight, historical=historical)
    if not memory.mean_square_weight:
        raise ValueError("mean_square_weight is 0, so nothing would be normalized; pass one above 0, or use Momentum")
    return memory


def _number(argument: str, value: Any, *, below: float = np.inf) -> float:
    """`value` as a float of at least 0 and less than `below`."""
    if isinstance(value, Variable):
        raise TypeError(f"{argument} is the PyTensor variable {value}; optimizers hold numbers, so pass a number")
    return check_number(argument, value, low=0, below=below)


def _floating(array: np.ndarray) -> np.ndarray:
    """`array` in floating point."""
    return array if array.dtype.kind == "f" else array.astype("float64")


def _check_parameters(name: str, parameters: Any, in_place: bool) -> None:
    """`parameters` can be optimized and, if `in_place`, written to."""
    leaves = PyTree.of(parameters).leaves(name, parameters)
    if not leaves or (isinstance(parameters, list | tuple) and not parameters):
        raise ValueError(f"{name} is empty; pass at least one array")
    seen: dict[int, str] = {}
    for place, parameter in leaves:
        if in_place and not isinstance(parameter, np.ndarray):
            raise TypeError(
                f"{place} is a {type(parameter).__name__}; pass NumPy arrays, which are updated in place, "
                "or an object with parameters and parameter_update(delta)"
            )
        dtype = real_array(place, parameter).dtype
        if dtype.kind != "f":
            raise TypeError(f"{place} has dtype {dtype}; only floating-point arrays can be optimized")
        if in_place and not parameter.flags.writeable:
            raise ValueError(f"{place} is read-only; pass an array that can be updated in place, for instance a copy")
        if in_place and id(parameter) in seen:
            raise ValueError(f"{place} is the same array as {seen[id(parameter)]}; list it once")
        seen[id(parameter)] = place


def _leaves(tree: Any) -> list[np.ndarray]:
    """The arrays of a pytree."""
    return [leaf for _, leaf in PyTree.of(tree).leaves("", tree)]


def _root_mean_square(tree: Any) -> float:
    """The root of the sum of the mean squares of all arrays, divided by the number of entries."""
    means = [np.mean(np.square(array)) for array in _leaves(tree) if array.size]
    return float(np.sqrt(np.sum(means) / len(PyTree.of(tree).parts or [tree])))
