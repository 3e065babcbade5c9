"""Steps within bounds: the models of L-BFGS, of Newton's method and of least squares minimized in a box."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from ..feasible import Box
from ..graph.by_hand import FirstMinimizer, repeat_by_hand
from ..graph.decompositions import eliminated
from ..graph.loops import FALSE, TRUE, repeat
from ..graph.ordered import cumulative, in_order
from ..typing import Tensor
from ..vectors import dot, norm
from ._linear_algebra import (
    BOUNDARY,
    CURVED,
    CompactHessian,
    combined,
    conjugate_gradients,
    forcing,
    ratio,
    times,
)


def model_step(room: Box, gradient: Tensor, pairs: CompactHessian) -> Any:
    r"""The step of L-BFGS-B: the model :math:`g^T d + \frac12 d^T B d` is minimized on the face of its Cauchy point.

    The minimizer over the components that are free at the Cauchy point is projected on the `room`, the box of steps.
    Where the step to it does not descend, it is shortened instead, to where the way from the Cauchy point leaves the
    box.

    References
    ----------
    Byrd, Lu, Nocedal and Zhu (1995), A limited memory algorithm for bound constrained optimization, section 5.1;
    Morales and Nocedal (2011), Remark on algorithm 778, section 3, for the projection.
    """
    g, V, theta = gradient, pairs.vectors, pairs.scale
    s, free = cauchy_step(room, g, pairs)
    mask = free.astype(g.type.dtype)
    r = mask * (g + theta * (s - combined(V, pairs.solved(times(V, s)))))
    VF = V * mask
    v = eliminated(pairs.matrix() - pt.dot(VF, VF.T), times(VF, r))
    d = -(r + combined(VF, v)) / theta
    projected = room.project(s + d)
    shortened = room.moved(s, pt.minimum(room.longest(d, s), 1) * d)
    return pt.switch(dot(g, projected) < 0, projected, shortened)


def cauchy_step(room: Box, g: Tensor, pairs: CompactHessian) -> tuple[Any, Any]:
    r"""The step to the first minimizer of the model along :math:`P(-t g)`, and which components are free there.

    On that path a component stops at its breakpoint, where it reaches its bound, and the model is a parabola between
    breakpoints. All of them are worked out at once: in the order of the breakpoints, sums from the far end over the
    components that still move give the slope and the curvature at the begin of each interval, and nothing cancels.

    References
    ----------
    Byrd, Lu, Nocedal and Zhu (1995), section 4, where the sums are updated from one interval to the next.
    """
    V, theta, inf = pairs.vectors, pairs.scale, np.asarray(np.inf, g.type.dtype)
    bound = pt.switch(g < 0, room.high, room.low)
    t = pt.switch(pt.eq(g, 0), inf, -bound / g)
    stuck = t <= 0
    t, moving = pt.switch(stuck, inf, t), pt.switch(stuck, pt.zeros_like(g), g)
    # Mostly the first interval has the minimizer, and there is no need for an order.
    p, G = times(V, moving), dot(moving, moving)
    least = np.asarray(np.finfo(g.type.dtype).eps, g.type.dtype)
    curved = theta * pt.maximum(G - dot(p, pairs.solved(p)), least * G)
    first = pt.switch(G > 0, G / curved, G)
    # It is not computed where the condition is false.
    steps = pt.switch(first > pt.min(t), 1, 0)
    fixed = V, pairs.products, theta
    *_, last = repeat_by_hand(FirstMinimizer, first_minimizer, [t, moving, first], fixed, steps)
    hit = t <= last
    step = pt.switch(hit, bound, room.project(-pt.switch(hit, pt.zeros_like(t), last) * moving))
    return step, ~(hit | stuck)


def first_minimizer(t: Any, moving: Any, last: Any, V: Any, products: Any, theta: Any) -> tuple[list[Any], Any]:
    """How far along the path the first minimizer is, in units of `t`, the breakpoints; as the turn of a loop."""
    inf = np.asarray(np.inf, t.type.dtype)
    order, end = in_order(t)
    begin = pt.concatenate([pt.zeros_like(end[:1]), end[:-1]])
    sums = cumulative(pt.concatenate([V, moving[None]]) * moving, order[::-1])[:, ::-1]
    P, G = sums[:-1], sums[-1]  # -V d and d'd of the direction d in each interval
    passed = P * pt.switch(pt.isinf(end), pt.zeros_like(end), end - begin)
    C = cumulative(passed, np.arange(V.type.shape[1])) - passed  # -V s where the interval begins
    MP = CompactHessian(None, V, products, theta, None).solved(P)
    slope = -G + theta * (begin * G - pt.sum(MP * C, axis=0))
    least = np.asarray(np.finfo(t.type.dtype).eps, t.type.dtype)
    curved = theta * pt.maximum(G - pt.sum(MP * P, axis=0), least * G)
    # The first interval with a minimizer has the first minimizer, as none lies before its interval.
    fall = pt.maximum(-slope, pt.zeros_like(slope))
    ends = (G <= 0) | (fall < curved * (end - begin))
    found = pt.min(pt.switch(ends & ~pt.isinf(begin), begin + pt.switch(G > 0, fall / curved, fall), inf))
    return [t, moving, found], TRUE


# The part of the decrease of a linear model that counts as sufficient; how many faces one step may look at.
SUFFICIENT, FACES = 0.01, 10


# From the mask of the components inside, the step so far and the gradient of the model there on the face, to the step
# from there to the minimizer on the face, how many products it took, and whether it leads as far as it may.
Solve = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


class Minimizer(NamedTuple):
    """An approximate minimizer of a quadratic model in a box and a trust region.

    Attributes
    ----------
    step : vector
    model : scalar variable
        The value of the model there.
    products : integer scalar variable
        How many products with the Hessian it took.
    at_boundary : boolean scalar variable
        Whether it is as far away as the region allows, or along a direction without positive curvature.
    """

    step: Any
    model: Any
    products: Any
    at_boundary: Any


def newton_step(room: Box, gradient: Tensor, product: Callable[[Any], Any], radius: Tensor,
                steps: int | Tensor) -> Minimizer:  # fmt: skip
    r"""The step of TRON: from the Cauchy point, conjugate gradients on one face of the box after the other.

    The Cauchy point is :math:`P(-a g)` with the largest :math:`a` of a sequence, each a tenth of the one before,
    that decreases the model :math:`g^T s + \frac12 s^T H s` by a part of what its linear part says. On the face of the
    point held, conjugate gradients lead to a step, and a projected search along it to the next point. It ends when no
    further component has met its bound, the gradient of the model on the face is small, or the region ends.

    References
    ----------
    Lin and Moré (1999), Newton's method for large bound-constrained optimization problems, sections 3 and 4. There the
    first :math:`a` is that of the last step, and grows; here the step it begins with is as long as the region.
    """
    small = forcing(room.project(-gradient))
    found = over_faces(
        room, gradient, product, radius / norm(gradient), radius, small,
        by_conjugate_gradients(product, steps, small, radius=radius), pt.switch(pt.gt(steps, 0), FACES, 0),
    )  # fmt: skip
    far = found.at_boundary | (norm(found.step) >= np.asarray(0.5, gradient.type.dtype) * radius)
    return found._replace(at_boundary=far)


def convex_step(room: Box, gradient: Tensor, product: Callable[[Any], Any], small: Tensor, solve: Solve) -> Minimizer:
    r"""The same for a model that is convex, without a region: with `solve` on the faces.

    The first :math:`a` is that of the minimizer of the model along the components of :math:`-g` that may move.
    """
    # Those of components at a bound are not part of it: the path does not bend at once.
    moves = pt.neq(room.project(-gradient), 0)
    d = pt.switch(moves, gradient, pt.zeros_like(gradient))
    first, infinite = ratio(dot(d, d), dot(d, product(d))), np.asarray(np.inf, gradient.type.dtype)
    found = over_faces(room, gradient, product, first, infinite, small, solve, FACES)
    return found._replace(products=found.products + 1)


def by_conjugate_gradients(product: Callable[[Any], Any], steps: Any, small: Tensor, **options: Any) -> Solve:
    """`Solve` by conjugate gradients; the options are those of `conjugate_gradients`."""

    def solve(mask: Any, s: Any, reduced: Any) -> tuple[Any, Any, Any]:
        solution = conjugate_gradients(lambda v: mask * product(mask * v), reduced, steps, tolerance=small, **options)
        far = pt.eq(solution.reason, BOUNDARY) | pt.eq(solution.reason, CURVED)
        return mask * solution.vector, solution.products, far

    return solve


def over_faces(room: Box, gradient: Tensor, product: Callable[[Any], Any], first: Any, within: Any, small: Any,
               solve: Solve, faces: Any) -> Minimizer:  # fmt: skip
    """From a Cauchy point, whose first trial is `first` times the negative gradient, to the last of so many faces."""
    g, dtype = gradient, gradient.type.dtype
    half, tenth, enough = (np.asarray(value, dtype) for value in (0.5, 0.1, SUFFICIENT))
    zero, nothing = pt.zeros((), dtype), pt.zeros_like(g)

    def searched(s: Any, Hs: Any, model: Any, size: Any, along: Any, factor: Any, within: Any) -> list[Any]:
        """The first step, of the sizes from `size` on, to a point with a sufficient decrease of the model."""
        slope = g + Hs

        def turn(count: Any, size: Any, found: Any, *_: Any) -> Any:
            trial = room.moved(s, size * along)
            Ht = product(trial)
            value = dot(g, trial) + half * dot(trial, Ht)
            found = (value <= model + enough * dot(slope, trial - s)) & (norm(trial) <= within)
            kept = [pt.switch(found, new, old) for new, old in zip((trial, Ht, value), (s, Hs, model), strict=True)]
            return [count + 1, factor * size, found, *kept], found

        return repeat(turn, [np.int64(0), size, FALSE, s, Hs, model], 30)

    count, _, found, *held = searched(nothing, nothing, zero, first, -g, tenth, within)

    def inside(s: Any) -> Any:
        return pt.eq(room.active(s), 0).astype(dtype)

    def face(turns: Any, products: Any, far: Any, s: Any, Hs: Any, model: Any) -> Any:
        mask = inside(s)
        along, solved_by, leaves = solve(mask, s, mask * (g + Hs))
        infinite = np.asarray(np.inf, dtype)
        tried, _, found, s, Hs, model = searched(s, Hs, model, pt.ones_like(model), along, half, infinite)
        far = found & leaves
        next_mask = inside(s)
        solved = ~(norm(next_mask * (g + Hs)) > small)
        done = ~found | far | solved | pt.all(pt.eq(mask, next_mask))
        return [turns + 1, products + solved_by + tried, far, s, Hs, model], done

    initial = [np.int64(0), count, FALSE, *held]
    _, products, far, s, _, model = repeat(face, initial, pt.switch(found, faces, 0))
    return Minimizer(s, model, products, far)
