"""Steps within bounds: the model of L-BFGS minimized in a box."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

from ..feasible import Box
from ..graph.ordered import cumulative, in_order
from ..typing import Tensor
from ..vectors import dot
from ._linear_algebra import CompactHessian, combined, eliminated, times


def model_step(box: Box, point: Tensor, gradient: Tensor, pairs: CompactHessian) -> Any:
    r"""The step of L-BFGS-B: the model :math:`g^T d + \frac12 d^T B d` is minimized on the face of its Cauchy point.

    The minimizer over the components that are free at the Cauchy point is projected on the box. Where the step to it
    does not descend, it is shortened instead, to where the way from the Cauchy point leaves the box.

    References
    ----------
    Byrd, Lu, Nocedal and Zhu (1995), A limited memory algorithm for bound constrained optimization, section 5.1;
    Morales and Nocedal (2011), Remark on algorithm 778, section 3, for the projection.
    """
    x, g, V, theta = point, gradient, pairs.vectors, pairs.scale
    K = pairs.matrix()
    M = eliminated(K, pt.eye(K.type.shape[0], dtype=K.type.dtype))
    cauchy, free = cauchy_point(box, x, g, V, M, theta)
    mask = free.astype(x.type.dtype)
    s = cauchy - x
    r = mask * (g + theta * (s - combined(V, times(M, times(V, s)))))
    VF = V * mask
    v = eliminated(K - pt.dot(VF, VF.T), times(VF, r)[:, None])[:, 0]
    d = -(r + combined(VF, v)) / theta
    projected = box.project(cauchy + d)
    shortened = box.moved(cauchy, pt.minimum(box.longest(cauchy, d), 1) * d)
    return pt.switch(dot(g, projected - x) < 0, projected, shortened) - x


def cauchy_point(box: Box, x: Tensor, g: Tensor, V: Tensor, M: Tensor, theta: Tensor) -> tuple[Any, Any]:
    r"""The first minimizer of the model along the path :math:`P(x - t g)`, and which components are free there.

    On that path a component stops at its breakpoint, where it reaches its bound, and the model is a parabola between
    breakpoints. All of them are worked out at once: in the order of the breakpoints, sums from the far end over the
    components that still move give the slope and the curvature at the begin of each interval, and nothing cancels.

    References
    ----------
    Byrd, Lu, Nocedal and Zhu (1995), section 4, where the sums are updated from one interval to the next.
    """
    inf = np.asarray(np.inf, x.type.dtype)
    t = pt.switch(pt.eq(g, 0), inf, (x - pt.switch(g < 0, box.high, box.low)) / g)
    stuck = t <= 0
    t, moving = pt.switch(stuck, inf, t), pt.switch(stuck, pt.zeros_like(g), g)
    order, end = in_order(t)
    begin = pt.concatenate([pt.zeros_like(end[:1]), end[:-1]])
    sums = cumulative(pt.concatenate([V, moving[None]]) * moving, order[::-1])[:, ::-1]
    P, G = sums[:-1], sums[-1]  # -V d and d'd of the direction d in each interval
    passed = P * pt.switch(pt.isinf(end), pt.zeros_like(end), end - begin)
    C = cumulative(passed, np.arange(V.type.shape[1])) - passed  # -V (x(t) - x) where the interval begins
    MP = pt.dot(M, P)
    slope = -G + theta * (begin * G - pt.sum(MP * C, axis=0))
    least = np.asarray(np.finfo(x.type.dtype).eps, x.type.dtype)
    curved = theta * pt.maximum(G - pt.sum(MP * P, axis=0), least * G)
    # The first interval with a minimizer has the first minimizer, as none lies before its interval.
    fall = pt.maximum(-slope, pt.zeros_like(slope))
    ends = (G <= 0) | (fall < curved * (end - begin))
    last = pt.min(pt.switch(ends & ~pt.isinf(begin), begin + pt.switch(G > 0, fall / curved, fall), inf))
    hit = t <= last
    bound = pt.switch(g < 0, box.high, box.low)
    point = pt.switch(hit, bound, box.project(x - pt.switch(hit, pt.zeros_like(t), last) * moving))
    return point, ~(hit | stuck)
