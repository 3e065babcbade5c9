"""Descent: what the rules share that search along a direction, or try the steps of a model.

Such a rule works out a direction from what it remembers, and from the step what to remember next. The rest is here:
the start of a call, the line, what happens if a search fails, when to give up, and what is reported::

    f = Objective.of(parameters, cost, gradients, stop, updates, ..., name=name, needs_cost=True)
    start = Descent.start(f, line_search, exact)
    end = start.line_search(-times(H, start.gradient), first=step_size)
    return start.finish(end, {H: ...})

A rule that limits its steps by a trust region or by damping tries them with `Descent.trust_region` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from ..graph.loops import FALSE, repeat
from ..line_search import LineSearch, Step, Trial
from ..objective import Objective
from ..typing import Scalar, StepSize, Tensor, Updates
from ._linear_algebra import dot, largest, norm


ZERO = pt.constant(np.int64(0))
# Each step is a fraction of the one before: this is more than floating-point numbers allow.
MAX_TRIALS = 100


class End(NamedTuple):
    """Where a search led.

    Attributes
    ----------
    point, cost, gradient : variables
        Those held after the call; those of the start if the search failed.
    step, change : vectors
        The change of the point, and that of the gradient, :math:`s` and :math:`y` of the papers.
    direction : vector
        What was searched along.
    steepest, failed : boolean scalar variable
        Whether that was the steepest descent, and whether the point has not moved.
    restarted : boolean scalar variable
        Whether there was a step along the steepest descent, so that what the rule had learnt before does not count.
    found : Step
        What the search returned.
    """

    point: Any
    cost: Any
    gradient: Any
    step: Any
    change: Any
    direction: Any
    steepest: Any
    failed: Any
    restarted: Any
    found: Step


class Proposal(NamedTuple):
    """A step that a model of the cost proposes.

    Attributes
    ----------
    step : vector
    decrease : scalar variable
        That of the cost by the model.
    products : integer scalar variable
        How many products with the matrix of the model it took.
    full : boolean scalar variable
        Whether the step is as long as it may be.
    """

    step: Any
    decrease: Any
    products: Any = ZERO
    full: Any = FALSE


class Descent(NamedTuple):
    """The start of a call: the point as one vector, the cost and the gradient there.

    Attributes
    ----------
    objective : Objective
    line_search : callable
    point, cost, gradient : variables
    converged : boolean scalar variable
        Whether the gradient meets the tolerance, so that nothing is to move.
    evaluated, kept
        The evaluations done, 0 if the point is that of the last call, and the state for the point, see
        `Objective.current`.
    remembered : tuple of variables
        The state of the search.
    stuck : integer scalar variable
        State: 1 if the search of the last call has failed. This one then goes along the steepest descent.
    """

    objective: Objective
    method: Any
    point: Any
    cost: Any
    gradient: Any
    converged: Any
    evaluated: Any
    kept: tuple[Any, ...]
    remembered: tuple[Any, ...]
    stuck: Any

    @property
    def still(self) -> Any:
        """Whether nothing is to move: the rule has stopped, or the gradient meets the tolerance."""
        return self.objective.stopped | self.converged

    @classmethod
    def start(cls, objective: Objective, line_search: LineSearch, exact: bool | None) -> Descent:
        """The start of a call of a rule that goes along a direction with `line_search`."""
        if not callable(line_search):
            raise TypeError(
                f"line_search is {line_search!r}; pass a function of optapi.line_search, for instance weak_wolfe"
            )
        here, evaluated, kept = objective.current(exact)
        converged = objective.converged([here.gradient])
        remembered = line_search.begin(objective.name, here.cost.type.dtype) if hasattr(line_search, "begin") else ()
        stuck = objective.state("stuck", dtype="int64")
        return cls(objective, line_search, *here, converged, evaluated, kept, remembered, stuck)

    def line_search(
        self,
        direction: Tensor | None = None,
        first: StepSize | None = None,
        fresh: Tensor | None = None,
    ) -> End:
        r"""Search along `direction`, or along the steepest descent where that does not descend or has failed.

        Parameters
        ----------
        direction : vector, optional
            By default the steepest descent.
        first : scalar or schedule, optional
            The first step size to try. By default 1, and :math:`1 / \max(1, \|g\|)` along the steepest descent.
        fresh : boolean scalar variable, optional
            Where true, the search is along the steepest descent whatever `direction` is.
        """
        f, x, g = self.objective, self.point, self.gradient
        if direction is None:
            d, steepest = -g, pt.constant(np.bool_(True))
        else:
            steepest = ~(dot(g, direction) < 0) | pt.gt(self.stuck, 0)
            if fresh is not None:
                steepest = steepest | fresh
            d = pt.switch(steepest, -g, direction)
        slope = dot(g, d)
        if first is None:
            one = pt.ones_like(slope)
            first = pt.switch(steepest, one / pt.maximum(one, norm(g)), one)
        else:
            first = f.step_size(first)

        def line(a: Any) -> Trial:
            there = f.at(x + a.astype(f.dtype) * d)
            return Trial(there.cost, dot(there.gradient, d), (there.point, there.gradient))

        first = pt.switch(self.still, pt.zeros_like(first), first)
        found = self.method(line, Trial(self.cost, slope, (x, g)), first, *self.remembered)
        x_new, g_new = found.trial.carry
        # At round-off level a step may pass the tests of the search and leave the point where it is.
        failed = found.failed | self.still | pt.all(pt.eq(x_new, x))
        restarted = steepest & ~failed
        return End(x_new, found.trial.cost, g_new, x_new - x, g_new - g, d, steepest, failed, restarted, found)

    def trust_region(
        self,
        propose: Callable[..., Proposal],
        sizes: Sequence[Any],
        adjust: Callable[..., Sequence[Any]],
        least: Scalar | np.ndarray,
    ) -> tuple[End, list[Any]]:
        r"""Try the steps that a model of the cost proposes, until one is taken.

        The quality of a step :math:`p` is the ratio of the decrease of the cost to the one that the model promises,

        .. math:: \rho = \frac{f(x) - f(x + p) + \delta}{m(0) - m(p) + \delta}, \qquad
            \delta = 8 \epsilon |f(x)|

        with :math:`\epsilon` the machine precision: where both decreases are lost in the rounding errors of the cost,
        the model is trusted. A step that leads to a cost or gradient that is not finite has the quality -1. One that
        does not move the point ends the search, which has then failed.

        Parameters
        ----------
        propose : callable
            From the sizes to a `Proposal`.
        sizes : list of variables
            What limits the step, for instance a radius, at first.
        adjust : callable
            From the quality, the proposal and the sizes to the next sizes.
        least : scalar
            The step is taken if its quality is larger.

        Returns
        -------
        End
            Its `found` counts the evaluations.
        list of variables
            The next sizes; and the number of products that the proposals took.

        References
        ----------
        Conn, Gould and Toint (2000), Trust-region methods, section 17.4.2, for the rounding errors.
        """
        f, x = self.objective, self.point
        noise = np.asarray(8 * np.finfo(self.cost.type.dtype).eps, self.cost.type.dtype) * abs(self.cost)

        def turn(count: Any, products: Any, point: Any, cost: Any, gradient: Any, *sizes: Any) -> Any:
            proposed = propose(*sizes)
            there = f.at(x + proposed.step)
            fine = pt.isfinite(there.cost) & pt.all(pt.isfinite(there.gradient)) & (proposed.decrease > 0)
            quality = (self.cost - there.cost + noise) / (proposed.decrease + noise)
            quality = pt.switch(fine, quality, -pt.ones_like(quality)).astype(f.dtype)
            taken = quality > least
            held = (pt.switch(taken, new, old) for new, old in zip(there, (point, cost, gradient), strict=True))
            over = taken | pt.all(pt.eq(there.point, x)) | ~pt.all(pt.isfinite(proposed.step))
            return [count + 1, products + proposed.products, *held, *adjust(quality, proposed, *sizes)], over

        able = pt.isfinite(self.cost) & pt.all(pt.isfinite(self.gradient)) & ~self.still
        begin = [np.int64(0), np.int64(0), x, self.cost, self.gradient, *sizes]
        count, products, *held = repeat(turn, begin, pt.switch(able, MAX_TRIALS, 0))
        (x_new, cost, g_new), sizes = held[:3], held[3:]
        failed = pt.eq(count, 0) | pt.all(pt.eq(x_new, x))
        s = x_new - x
        found = Step(pt.ones_like(cost), Trial(cost, dot(self.gradient, s), (x_new, g_new)), count, failed)
        # There is no other direction to try.
        steepest = pt.constant(np.bool_(True))
        end = End(x_new, cost, g_new, s, g_new - self.gradient, s, steepest, failed, ~failed, found)
        return end, [*sizes, products]

    def finish(
        self,
        end: End,
        new: Updates,
        patience: int | None = None,
        reports: dict[str, Any] | None = None,
        unheld: Updates | None = None,
    ) -> Updates:
        """Close the rule.

        The algorithm has finished when the gradient meets the tolerance or vanishes; when a search along the steepest
        descent has failed; and when more than `patience` calls on end have found no cost below the lowest.

        Parameters
        ----------
        end : End
        new : dict
            The next values of the rule's state.
        patience : int, optional
            How many calls are borne that do not lower the cost; by default 10, and 100 with a search that remembers.
        reports : dict, optional
            What the rule reports beside the rest, see `Objective.finish`.
        unheld : dict, optional
            As `new`, for state that has not changed where `End.failed` is true, see `Objective.finish`.
        """
        f = self.objective
        new = {**dict(zip(f.parameters, f.unpack(end.point), strict=True)), **new, self.stuck: end.failed}
        if self.kept:
            new |= zip(self.kept, (end.point, end.cost, end.gradient), strict=True)
        new |= zip(self.remembered, end.found.memory, strict=True)
        settled = f.converged([end.gradient]) | pt.all(pt.eq(end.gradient, 0))
        lost = end.failed & end.steepest
        if f.stop is not None:
            # At round-off level a run may go round among points of about the same cost.
            level = f.state("level", dtype="int64")
            lowest = self.cost
            if self.kept:
                # What was the lowest counts as long as the point is that of the last call.
                best = f.state("lowest", dtype=self.cost.type.dtype, fill=np.inf)
                lowest = pt.switch(pt.eq(self.evaluated, 0), best, self.cost)
                new[best] = pt.switch(end.cost < lowest, end.cost, lowest)
            new[level] = pt.switch(end.cost < lowest, 0, level + 1)
            if patience is None:
                patience = 100 if self.remembered else 10
            lost = lost | (new[level] > patience)
        lost = lost & ~(self.converged | settled)
        finite = pt.isfinite(self.cost) & pt.all(pt.isfinite(self.gradient))
        return f.finish(
            new,
            self.converged,
            lost | settled,
            reports={
                "reason": pt.switch(lost, pt.switch(finite, 2, 3), 0).astype("int64"),
                "evaluations": self.evaluated + end.found.evaluations,
                "cost": end.cost,
                "gradient_size": largest(end.gradient),
                **(reports or {}),
            },
            unheld=unheld,
        )
