"""Differences: the derivative of a NumPy function from its own values."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import factorial
from numbers import Integral
from typing import Any

import numpy as np

from ..checks import warn
from ..feasible import Limits, put_inside


# The schemes of SciPy: by which power of the relative error of the cost a step is shorter than the component that
# moves, and the power that the relative error of the derivative is of it.
SCHEMES = {"2-point": (1 / 2, 1 / 2), "3-point": (1 / 3, 2 / 3), "cs": (1 / 2, 1.0)}
# A cost whose relative error is so many times the rounding of a number is noisy.
NOISY = 1000
# So many derivatives after each other are taken before forward differences are compared with central ones.
CHECKED = 20
# A difference with fewer such roundings of the cost has no digits.
DIGITS = 1000

# From arrays of the point to the cost there; costs at many points; both are counted by who passes them.
Costs = Callable[[Iterable[list[np.ndarray]]], list[Any]]


class Workers:
    """Where costs at several points are evaluated: here, in processes, or by a function such as `map`.

    Parameters
    ----------
    workers : int, callable or None
        The number of processes, -1 for one for each processor; or ``workers(function, points)``, which returns or
        yields the values in order.

    Raises
    ------
    TypeError, ValueError
        If it is anything else.
    """

    def __init__(self, workers: int | Callable[..., Iterable[Any]] | None = None):
        if not (workers is None or callable(workers)):
            if isinstance(workers, bool | np.bool_) or not isinstance(workers, Integral):
                raise TypeError(f"workers is {workers!r}; pass a number of processes, or a function such as map")
            if workers < 1 and workers != -1:
                raise ValueError(f"workers is {workers}; pass a number of processes, or -1 for one for each processor")
        self.workers = workers
        self._pool: Any = None
        self._end: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"workers": self.workers, "_pool": None, "_end": None}

    def map(self, function: Callable[..., Any], points: Iterable[Any]) -> Iterable[Any]:
        """The values of `function` at `points`, in order."""
        if callable(self.workers):
            return self.workers(function, points)
        if self.workers in (None, 1):
            return map(function, points)
        if self._pool is None:
            # Here, since it takes a tenth of what `import optapi` does.
            from multiprocessing import Pool

            self._pool = Pool(None if self.workers == -1 else self.workers)
            self._end = weakref.finalize(self, self._pool.terminate)
        values: Iterable[Any] = self._pool.map(function, points)
        return values

    def close(self) -> None:
        """End the processes. They are made anew when they are needed."""
        if self._pool is not None:
            self._end()
            self._pool = None


class Room:
    """How far each component of a point may move.

    Parameters
    ----------
    point : list of arrays
    x : vector
        Its components.
    limits : list or None
        The bounds, see `feasible.limits`.
    """

    def __init__(self, point: Sequence[np.ndarray], x: np.ndarray, limits: Limits | None):
        self.limits = limits
        if limits is None:
            return
        free = [(np.full_like(a, -np.inf), np.full_like(a, np.inf)) for a in point]
        low, high = (flat(side) for side in zip(*(b or f for b, f in zip(limits, free, strict=True)), strict=True))
        self.behind, self.ahead = x - low, high - x

    def movable(self, where: np.ndarray) -> np.ndarray:
        """Those of the components `where` that may move."""
        return where if self.limits is None else where[np.maximum(self.behind, self.ahead)[where] > 0]

    def inside(self, costs: Costs) -> Costs:
        """`costs`, of the nearest points inside: of points inside but for rounding."""
        if self.limits is None:
            return costs
        return lambda points: costs(put_inside(point, self.limits) for point in points)

    def one(self, h: np.ndarray) -> np.ndarray:
        """The steps `h`; where there is no room for one, it is turned around, or as long as there is room."""
        if self.limits is None:
            return h
        largest = np.maximum(self.behind, self.ahead)
        other = np.where(np.abs(h) <= largest, -h, np.where(self.ahead >= self.behind, largest, -largest))
        return np.where(h <= self.ahead, np.where(-h <= self.behind, h, other), other)

    def two(self, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The steps `h` and `-h`; where there is no room for both, one of them and twice this."""
        if self.limits is None:
            return h, -h
        both = np.abs(h) <= np.minimum(self.behind, self.ahead)
        way = np.minimum(np.abs(h), np.maximum(self.behind, self.ahead) / 2)
        way = np.where(both, h, np.where(self.ahead >= self.behind, way, -way))
        return way, np.where(both, -way, 2 * way)

    def straight(self, way: np.ndarray, count: int) -> np.ndarray:
        """`way`, which is to be taken so many times; turned around or zero where there is no room for that."""
        if self.limits is None:
            return way
        return np.where(count * way <= self.ahead, way, np.where(count * way <= self.behind, -way, 0.0))


FREE = Room((), np.zeros(0), None)


class Differences:
    r"""The derivative of a cost by differences.

    A step is a power of the relative error of the cost, by default that of rounding, times the size of the component
    that moves. This size is :math:`\max(|x_i|, s_i)`, where :math:`s_i` is the size of the component at the start, at
    most 1; and it is 1 where the component is zero at the start, or so small that a difference would have no digits.
    Where a value is not finite, the difference is one-sided, with the other neighbor.

    Inside of bounds, a forward step without room is turned around, or shortened; central differences become one-sided
    ones of the same order. The derivative along a component whose bounds are equal is 0 and takes no values.

    Forward differences lose their digits where the derivative becomes small. So each 20th derivative is by central
    ones, and if the two differ by more than a tenth, all are from then on.

    If the cost is noisy at the start, the steps of ``"2-point"`` are those of Moré and Wild (2012), from the noise and
    the second derivatives there; those of ``"3-point"`` the power of the noise.

    Parameters
    ----------
    scheme : "2-point", "3-point" or "cs"
        Forward differences; central ones; or the imaginary part of the cost at a complex point, which is exact to
        rounding, and asks for a cost that takes complex numbers.
    relative : number or array, optional
        SciPy's ``finite_diff_rel_step``: steps relative to :math:`|x_i|`.
    absolute : number or array, optional
        Steps, SciPy's ``eps``. With either, or with `scipy`, the steps are SciPy's, and noise is not looked for.
    scipy : bool
        Whether sizes are SciPy's, :math:`\max(1, |x_i|)`.
    fixed : bool
        Whether forward differences are not compared with central ones.

    Attributes
    ----------
    floor : vector or None
        :math:`s_i`, once the first derivative is known.
    steps : vector or None
        The steps for a noisy cost.
    noise : float
        The relative error of the cost.

    References
    ----------
    Dennis and Schnabel (1983), Numerical methods for unconstrained optimization, section 5.4; Moré and Wild (2011),
    Estimating computational noise, and (2012), Estimating derivatives of noisy simulations.
    """

    def __init__(self, scheme: str, relative: Any = None, absolute: Any = None, scipy: bool = False,
                 fixed: bool = False):  # fmt: skip
        if scheme not in SCHEMES:
            raise ValueError(f"df is {scheme!r}; pass a function, True, or one of {', '.join(map(repr, SCHEMES))}")
        self.scheme, self.relative, self.absolute = scheme, relative, absolute
        self.own = not scipy and relative is None and absolute is None
        self.fixed = fixed
        self._epsilon: np.ndarray | None = None
        self._scale: Any = None
        self.floor: np.ndarray | None = None
        self.steps: np.ndarray | None = None
        self.noise = 0.0
        self.taken = 0

    def found(self) -> dict[str, Any]:
        """What was found out on the way, as plain numbers."""
        vectors = {name: getattr(self, name) for name in ("floor", "steps")}
        plain = {name: None if vector is None else vector.tolist() for name, vector in vectors.items()}
        return {"scheme": self.scheme, "noise": self.noise, "taken": self.taken, **plain}

    def restore(self, found: dict[str, Any], size: int) -> None:
        """Take up what `found` returned of a point with `size` components.

        Raises
        ------
        ValueError
            If it is not such.
        """
        if not is_found(found) or any(found[k] is not None and len(found[k]) != size for k in ("floor", "steps")):
            raise ValueError("its steps of differences are not those of its point")
        self.scheme, self.noise, self.taken = found["scheme"], found["noise"], found["taken"]
        self.floor, self.steps = (None if found[k] is None else np.array(found[k]) for k in ("floor", "steps"))

    def error(self, epsilon: float) -> float:
        """The relative error of the derivative, for numbers of the precision `epsilon`."""
        return max(epsilon, self.noise) ** SCHEMES[self.scheme][1]

    def __call__(self, costs: Costs, point: Sequence[np.ndarray], cost: float,
                 limits: Limits | None = None) -> list[np.ndarray]:  # fmt: skip
        """The derivative at `point`, where the cost is `cost`.

        Parameters
        ----------
        costs : callable
            From points to the costs there.
        limits : list, optional
            The bounds of the points, see `feasible.limits`.
        """
        before = dict(vars(self))
        try:
            return self._taken(costs, point, cost, limits)
        except BaseException:
            # What was found out on the way does not count: the next call begins anew.
            vars(self).update(before)
            raise

    def _taken(self, costs: Costs, point: Sequence[np.ndarray], cost: float,
               limits: Limits | None) -> list[np.ndarray]:  # fmt: skip
        x = flat(point)
        room = Room(point, x, limits)
        if self.scheme != "cs":
            costs = room.inside(costs)
        if self._epsilon is None:
            self._epsilon = np.concatenate([np.full(a.size, np.finfo(a.dtype).eps, "float64") for a in point])
        self.taken += 1
        if self.own and self.floor is None:
            return self._first(costs, point, x, self._epsilon, cost, room)
        slope = self._at(costs, point, self._steps(x), cost, room)
        if self.taken % CHECKED == 0 and self.scheme == "2-point" and not (self.fixed or self.noise):
            slope = self._checked(costs, point, x, slope, cost, room)
        return unflat(slope, point)

    def _checked(self, costs: Costs, point: Any, x: np.ndarray, forward: np.ndarray, cost: float,
                 room: Room) -> np.ndarray:  # fmt: skip
        """The central differences, which are taken from now on if the `forward` ones are no longer right."""
        central = Differences("3-point", scipy=not self.own)
        central.floor, central._epsilon = self.floor, self._epsilon
        slope = central._at(costs, point, central._steps(x), cost, room)
        if np.max(np.abs(forward - slope), initial=0.0) > np.max(np.abs(slope), initial=0.0) / 10:
            self.scheme, self.absolute, self._scale = "3-point", None, None
        return slope

    def _first(self, costs: Costs, point: Any, x: np.ndarray, epsilon: np.ndarray, cost: float,
               room: Room) -> list[np.ndarray]:  # fmt: skip
        """The first derivative of all, which finds out about sizes and noise."""
        self.floor = np.where(x == 0, 1.0, np.minimum(np.abs(x), 1.0))
        sizes = np.maximum(np.abs(x), self.floor)
        if self.scheme == "cs":
            slope = self._at(costs, point, self._steps(x), cost, room)
            check_complex(costs, point, x, sizes, float(epsilon.max(initial=0.0)), slope, room)
            return unflat(slope, point)
        self.noise, level = noise(costs, point, x, sizes, float(epsilon.max(initial=0.0)), cost, room)
        if self.noise and self.scheme == "2-point":
            self.steps = noisy_steps(costs, point, x, sizes, level, self.noise, cost, room)
        h = self._steps(x)
        slope = self._at(costs, point, h, cost, room)
        if not self.noise:
            few = np.flatnonzero((np.abs(slope * h) <= DIGITS * epsilon * abs(cost)) & (self.floor < 1))
            if few.size:
                self.floor[few] = 1.0
                slope[few] = self._at(costs, point, self._steps(x), cost, room, few)[few]
        return unflat(slope, point)

    def _steps(self, x: np.ndarray) -> np.ndarray:
        """The steps, all away from zero."""
        if self.steps is not None:
            return self.steps
        if self._scale is None or self.noise:
            self._scale = np.maximum(self._epsilon, self.noise) ** SCHEMES[self.scheme][0]  # type: ignore[arg-type]
        size, floor = np.abs(x), self.floor if self.own else 1.0
        h = self._scale * np.maximum(size, floor)  # type: ignore[arg-type]
        if self.own:
            return np.where(x < 0, -h, h)
        h = np.where(x < 0, -h, h)
        if self.absolute is not None:
            chosen = np.broadcast_to(np.asarray(self.absolute, "float64"), x.shape)
        elif self.relative is not None:
            chosen = np.asarray(self.relative, "float64") * np.where(x < 0, -size, size)
        else:
            return h
        moves = np.abs(chosen) > (0 if self.scheme == "cs" else self._epsilon * size)
        return np.where(moves, chosen, h)

    def _at(self, costs: Costs, point: Any, h: np.ndarray, cost: float, room: Room,
            where: np.ndarray | None = None) -> np.ndarray:  # fmt: skip
        """The derivatives in the components `where`, by default all, with steps `h`; zero in the others."""
        where, slope = room.movable(np.arange(h.size) if where is None else where), np.zeros(h.size)
        if self.scheme == "cs":
            slope[where] = np.array([v.imag for v in costs(moved(point, where, 1j * h[where]))], "float64") / h[where]
            return slope
        if self.scheme == "3-point":
            h, other = (steps[where] for steps in room.two(h))
            around = other == -h
            h, other = rounded(point, where, h), rounded(point, where, other)
            near, far = costs_at(costs, point, where, h), costs_at(costs, point, where, other)
            finite = np.isfinite(near)
            both = np.where(around, (near - far) / (h - other), (4 * near - 3 * cost - far) / (2 * h))
            one = np.where(finite, (near - cost) / h, (far - cost) / other)
            slope[where] = np.where(finite & np.isfinite(far), both, one)
            return slope
        h = room.one(h)
        way = rounded(point, where, h[where])
        ahead = costs_at(costs, point, where, way)
        slope[where] = (ahead - cost) / way
        lost = where[~np.isfinite(ahead)]
        if lost.size:
            back = rounded(point, lost, room.one(-h)[lost])
            slope[lost] = (costs_at(costs, point, lost, back) - cost) / back
        return slope


def check_complex(costs: Costs, point: Sequence[np.ndarray], x: np.ndarray, size: np.ndarray, epsilon: float,
                  slope: np.ndarray, room: Room) -> None:  # fmt: skip
    """Warn if the derivative `slope` by complex steps is not that by real ones, along one direction.

    A function such as `abs` drops the imaginary part, which nothing else would tell.
    """
    way = epsilon ** (1 / 3) * size * (1 + np.arange(x.size) * 0.6180339887 % 1)
    way = np.where(room.straight(way, 1) == way, np.where(room.straight(-way, 1) == -way, way, 0.0), 0.0)
    parts = [np.result_type(array, np.complex64) for array in point]
    ends = [[a.astype(kind) for a, kind in zip(unflat(x + side * way, point), parts, strict=True)] for side in (1, -1)]
    ahead, behind = (float(value.real) for value in costs(ends))
    told, seen = float(slope @ way), (ahead - behind) / 2
    error = NOISY * epsilon * max(abs(ahead), abs(behind)) + 0.1 * max(abs(told), abs(seen))
    if np.isfinite(seen) and abs(told - seen) > error:
        warn(
            "the derivative by complex steps is not that by differences: f drops the imaginary part, as abs, max and "
            "comparisons do, or is not smooth; pass df='3-point', or write f with functions of complex numbers"
        )


def rounded(point: Sequence[np.ndarray], where: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The steps of the components `where` of a point that are taken where `steps` round with the components."""
    if len(point) == 1:
        x = point[0].reshape(-1)[where]
        taken = (x + steps.astype(x.dtype)).astype("float64") - x
    else:
        every = np.zeros(sum(array.size for array in point))
        every[where] = steps
        ahead = [array + step for array, step in zip(point, unflat(every, point), strict=True)]
        taken = (flat(ahead) - flat(point))[where]
    return np.where(taken == 0, steps, taken)


def is_found(found: object) -> bool:
    """Whether `found` is such as `Differences.found` returns."""
    if not isinstance(found, dict) or set(found) != {"scheme", "noise", "taken", "floor", "steps"}:
        return False
    if found["scheme"] not in SCHEMES or type(found["taken"]) is not int or found["taken"] < 0:
        return False
    vectors = [found[k] for k in ("floor", "steps") if found[k] is not None]
    numbers = [found["noise"], *(v for vector in vectors for v in (vector if isinstance(vector, list) else [None]))]
    return all(type(v) is float and np.isfinite(v) for v in numbers) and found["noise"] >= 0


def flat(point: Sequence[np.ndarray]) -> np.ndarray:
    """The components of a point, in float64."""
    if len(point) == 1:
        return point[0].ravel().astype("float64")
    return np.concatenate([array.ravel().astype("float64") for array in point])


def unflat(vector: np.ndarray, point: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The parts of `vector` as the arrays of `point`."""
    if len(point) == 1:
        return [vector.reshape(point[0].shape).astype(point[0].dtype, copy=False)]
    parts = np.split(vector, np.cumsum([array.size for array in point])[:-1])
    return [part.reshape(array.shape).astype(array.dtype) for part, array in zip(parts, point, strict=True)]


def moved(point: Sequence[np.ndarray], where: Iterable[int], steps: np.ndarray) -> Iterator[list[np.ndarray]]:
    """For each of the components `where` a copy of `point` in which it alone is moved by its step."""
    if steps.dtype.kind == "c":
        point = [array.astype(np.result_type(array, np.complex64)) for array in point]
    if len(point) == 1:
        for component, step in zip(where, steps.tolist(), strict=True):
            array = point[0].copy()
            array.reshape(-1)[component] += step
            yield [array]
        return
    places = [(number, i) for number, array in enumerate(point) for i in range(array.size)]
    for component, step in zip(where, steps.tolist(), strict=True):
        arrays, (number, i) = [array.copy() for array in point], places[component]
        arrays[number].reshape(-1)[i] += step
        yield arrays


def costs_at(costs: Costs, point: Sequence[np.ndarray], where: Any, steps: np.ndarray) -> np.ndarray:
    """The costs where each of the components `where` is moved by its step."""
    return np.array(costs(moved(point, where, steps)), "float64")


def noise(costs: Costs, point: Sequence[np.ndarray], x: np.ndarray, size: np.ndarray, epsilon: float,
          cost: float, room: Room = FREE) -> tuple[float, float]:  # fmt: skip
    """The noise of the cost near a point, relative to the cost and as it is, both 0 if it is that of rounding.

    Two more values tell: the second difference over a short way is rounding for a smooth cost. If it is more, the noise
    is that of a difference table of seven values, ECnoise of Moré and Wild (2011), section 5.
    """
    # Powers of 2, so that the points are exact; not all alike, since a cost may be the same along a diagonal.
    way = room.straight(2.0 ** (np.floor(np.log2(size * epsilon ** (2 / 3))) - np.arange(x.size) % 4), 6)

    def along(*counts: int) -> list[float]:
        return [float(value) for value in costs(unflat(x + k * way, point) for k in counts)]

    values = [cost, *along(1, 2)]
    largest = max(map(abs, values))
    if not np.isfinite(largest):
        return 0.0, 0.0
    if values[0] == values[1] == values[2]:
        # The cost may be worked out in a lower precision, which is noise too. It shows on a longer way, between the
        # numbers of that precision.
        way = room.straight(way * (1.618 * 2.0**17), 6)
        values = [cost, *along(*range(1, 7))]
    elif abs(values[0] - 2 * values[1] + values[2]) > NOISY * epsilon * largest:
        values += along(*range(3, 7))
    if len(values) == 3 or not np.isfinite(values).all():
        return 0.0, 0.0
    table, levels = np.array(values), []
    for order in range(1, len(values)):
        table = np.diff(table)
        gamma = factorial(order) ** 2 / factorial(2 * order)
        changes = table.min() < 0 < table.max()
        levels.append((np.sqrt(gamma * np.mean(table**2)), changes))
    level = levels[-1][0]
    for three in zip(levels, levels[1:], levels[2:], strict=False):
        if three[0][1] and max(s for s, _ in three) <= 4 * min(s for s, _ in three):
            level = three[0][0]
            break
    relative = float(level / max(*np.abs(values), np.finfo(float).tiny))
    return (relative, float(level)) if relative > NOISY * epsilon else (0.0, 0.0)


def noisy_steps(costs: Costs, point: Sequence[np.ndarray], x: np.ndarray, size: np.ndarray, level: float,
                relative: float, cost: float, room: Room = FREE) -> np.ndarray:  # fmt: skip
    r"""The steps of forward differences of a cost with noise `level`, Moré and Wild (2012), algorithm 5.1.

    .. math:: h = 8^{1/4} \sqrt{\epsilon_f / |f''|}

    with second differences for :math:`f''`, over ways that are tried twice.
    """
    way = min(relative, 1.0) ** (1 / 4) * size
    second = np.zeros_like(x)
    left = room.movable(np.arange(x.size))
    for _ in range(2):
        to, other = (ways[left] for ways in room.two(way))
        ahead, behind = costs_at(costs, point, left, to), costs_at(costs, point, left, other)
        change = np.abs(np.where(other == -to, ahead - 2 * cost + behind, cost - 2 * ahead + behind))
        near = np.maximum(np.abs(ahead - cost), np.abs(behind - cost)) <= 0.1 * np.maximum(
            abs(cost), np.maximum(np.abs(ahead), np.abs(behind))
        )
        finite = np.isfinite(change)
        second[left[finite]] = np.maximum(change, level)[finite] / to[finite] ** 2
        left = left[~(finite & near & (change >= 100 * level))]
        if not left.size:
            break
        known = second[left] > 0
        way[left] = np.where(known, (level / np.where(known, second[left], 1.0)) ** (1 / 4), way[left] / 10)
    known = second > 0
    h = 8 ** (1 / 4) * np.sqrt(level / np.where(known, second, 1.0))
    return np.where(known, np.minimum(h, size), way) * np.where(x >= 0, 1.0, -1.0)
