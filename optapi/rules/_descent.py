"""Descent: the skeleton of the rules with a line search or a trust region.

Such a rule computes a direction from its state, and its next state from the step. The rest is here: the start of a
call, the line, what happens if a search fails, when to give up, and what is reported::

    f = Objective.of(parameters, cost, gradients, stop, updates, ..., name=name, needs_cost=True)
    start = Descent.start(f, line_search, exact)
    end = start.line_search(-times(H, start.gradient), first=step_size)
    return start.finish(end, {H: ...})

A rule that limits its steps by a trust region or by damping calls `Descent.trust_region` instead of
`Descent.line_search`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from ..checks import shown, takes, warn
from ..feasible import Box
from ..graph.loops import FALSE, repeat
from ..line_search import LineSearch, Step, Trial, least_fall, precision, resolution, seen_noise
from ..objective import Objective
from ..typing import Scalar, StepSize, Tensor, Updates
from ..vectors import dot, largest, norm, scaled, unit
from ._linear_algebra import CompactInverseHessian


ZERO, TRUE = pt.constant(np.int64(0)), pt.constant(np.bool_(True))
NOISY = (
    "the cost draws random numbers, or reads what updates writes, and {rule} is made for one that stays the same: it "
    "will not say that it has converged. For noisy costs take adam, sgd_qn, olbfgs, sqn, ada_qn or hessian_free"
)
# Each trial step is a fraction of the previous one: this is more trials than floating-point numbers allow.
MAX_TRIALS = 100


class End(NamedTuple):
    """The result of a search, and the point that it leads to.

    Attributes
    ----------
    point, cost, gradient : variables
        The point that the parameters hold after the call, its cost and its gradient; those of the start if the search
        failed.
    step, change : vectors
        The change of the point and the change of the gradient, :math:`s` and :math:`y` of the papers. On a manifold
        they are in the tangent space at `point`, to which what belongs to the start is projected.
    direction : vector
        The direction of the search.
    steepest, failed : boolean scalar variable
        Whether the direction is the steepest descent, and whether the point has not moved.
    restarted : boolean scalar variable
        Whether there was a step along the steepest descent, so that the rule clears its memory.
    result : Step
        What the search returned, always with a promise.
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
    result: Step


class Proposal(NamedTuple):
    """A step that a model of the cost proposes.

    Attributes
    ----------
    step : vector
    decrease : scalar variable
        The decrease of the cost that the model predicts.
    products : integer scalar variable
        How many products with the matrix of the model it took.
    at_boundary : boolean scalar variable
        Whether the step is as long as it may be, and not that to the minimizer of the model.
    """

    step: Any
    decrease: Any
    products: Any = ZERO
    at_boundary: Any = TRUE


def noisy(f: Objective) -> bool:
    """Whether the cost changes by itself, with a warning if the rule, which is not made for that, is to say its end."""
    is_noisy = f.is_noisy
    if is_noisy and f.stop is not None:
        warn(NOISY.format(rule=f.name))
    return is_noisy


class Descent(NamedTuple):
    """The start of a call.

    Attributes
    ----------
    objective : Objective
    search : callable
        The line search.
    point, cost, gradient : variables
        The point as one vector, its cost, and its gradient as one vector.
    converged : boolean scalar variable
        Whether the gradient meets the tolerance, so that the point must not move.
    evaluations : integer scalar variable
        The number of evaluations at the start of the call: 0 if the point is that of the last call.
    point_state : tuple of variables
        State for the point, its cost and its gradient; empty if `exact` is False, see `Objective.current`.
    search_state : tuple of variables
        State of the line search, see `line_search.NonMonotone`; mostly empty.
    search_failed : integer scalar variable
        State: 1 if the search of the last call has failed. This one is then along the steepest descent.
    is_noisy : bool
        Whether the cost is noisy, and the rule is not made for that: no draw of it says that the rule has finished.
    """

    objective: Objective
    search: Any
    point: Any
    cost: Any
    gradient: Any
    converged: Any
    evaluations: Any
    point_state: tuple[Any, ...]
    search_state: tuple[Any, ...]
    search_failed: Any
    is_noisy: bool

    @property
    def finished(self) -> Any:
        """Whether the point must not move: the rule has stopped, or the gradient meets the tolerance."""
        return self.objective.stopped | self.converged

    @property
    def residual(self) -> Any:
        """What vanishes at a solution, in units of the parameters: the gradient, with bounds the projected gradient."""
        return self.objective.residual(self.point, self.gradient)

    @property
    def room(self) -> Box | None:
        """The box of the steps that stay inside of the bounds, None without bounds; in units of `x_scale`."""
        f, box = self.objective, self.objective.around(self.point)
        return None if box is None else Box(*(f.unscaled(side - self.point) for side in box))

    @property
    def descent(self) -> Any:
        """The step of the steepest descent, with bounds as far as its projection."""
        return -self.gradient if self.room is None else self.room.project(-self.gradient)

    def moved(self, step: Tensor) -> Any:
        """The point that is `step`, in units of the parameters, away."""
        box = self.objective.box
        return self.point + step if box is None else box.moved(self.point, step)

    @property
    def resolved(self) -> Any:
        """A length that changes the point, and the gradient there, by much more than rounding."""
        size = largest(self.objective.unscaled(self.point))
        return np.asarray(np.sqrt(np.finfo(self.point.type.dtype).eps), self.point.type.dtype) * size

    @property
    def first_step(self) -> Any:
        r"""The step size of the first trial along the steepest descent.

        It is :math:`1 / \max(1, \|g\|)`, but at least what changes the point, and to first order the cost, by more than
        rounding.
        """
        size = norm(self.gradient if self.room is None else self.descent)
        length = pt.maximum(pt.minimum(size, pt.ones_like(size)), self.resolved)
        return pt.maximum(length, (resolution(self.cost, size) / size).astype(length.type.dtype)) / size

    @classmethod
    def start(cls, objective: Objective, line_search: LineSearch, exact: bool | None,
              takes_noise: bool = False) -> Descent:  # fmt: skip
        """Begin a call: evaluate the cost and the gradient, unless they are known, and check `line_search`.

        A rule that does not take noise warns if it is to say when it has finished, and the cost is noisy.
        """
        if not callable(line_search):
            raise TypeError(
                f"line_search is {line_search!r}; pass a function of optapi.line_search, for instance weak_wolfe"
            )
        if objective.box is not None and not takes(line_search, "limit"):
            raise TypeError(
                f"line_search is {line_search!r}, which takes no limit=; with bounds pass one of optapi.line_search"
            )
        current, evaluations, point_state = objective.current(exact)
        # The gradient may vanish where the cost is not finite.
        residual = objective.residual(current.point, current.gradient)
        converged = objective.converged([residual]) & pt.isfinite(current.cost)
        is_noisy = not takes_noise and noisy(objective)
        if is_noisy:
            converged = FALSE
        if objective.manifold is not None:
            # A start that is not on it does not stay where it is.
            converged = converged & pt.all(pt.eq(current.point, objective.pack(objective.parameters)))
        search_state: tuple[Any, ...] = ()
        if hasattr(line_search, "begin"):
            search_state = line_search.begin(objective.name, current.cost.type.dtype)
        search_failed = objective.state("search_failed", dtype="int64")
        states = point_state, search_state, search_failed
        return cls(objective, line_search, *current, converged, evaluations, *states, is_noisy)

    def line_search(self, direction: Tensor | None = None, first: StepSize | None = None,
                    restart: Tensor | None = None) -> End:  # fmt: skip
        r"""Search along `direction`, or along the steepest descent.

        It is the steepest descent where `direction` does not descend, or where the search of the last call has failed.

        Parameters
        ----------
        direction : vector, optional
            By default the steepest descent.
        first : scalar or schedule, optional
            The first step size to try. By default 1, and `first_step` along the steepest descent.
        restart : boolean scalar variable, optional
            Where true, the search is along the steepest descent whatever `direction` is.
        """
        f, x, g, room = self.objective, self.point, self.gradient, self.room
        if direction is None:
            d, steepest = self.descent, TRUE
        else:
            if f.manifold is not None:
                direction = f.manifold.tangent(x, direction)
            steepest = ~(dot(g, direction) < 0) | pt.gt(self.search_failed, 0)
            if restart is not None:
                steepest = steepest | restart
            d = pt.switch(steepest, self.descent, direction)
        size = f.step_size(pt.switch(steepest, self.first_step, 1) if first is None else first).astype(f.dtype)
        # A step size that another call has left may be too small to move any component of this point.
        movement = largest(pt.switch(pt.eq(d, 0), d, f.scaled(d) / x))
        least = np.asarray(4 * np.finfo(f.dtype).eps, f.dtype) / movement
        size = pt.switch((size > 0) & (size < least), least, size)
        # The unit of the line is of the size of the first trial, so that slopes are of that of the cost: no overflow.
        u = unit(size)
        p = scaled(d, u)
        step, options = f.scaled(p), {}
        if room is not None:
            # All of a step of a rule that knows the bounds is feasible but for rounding.
            options["limit"] = pt.maximum(room.longest(d), 1) / u

        curve = None if f.manifold is None else f.manifold.curve(x, p)

        def line(a: Any) -> Trial:
            a, velocity = a.astype(f.dtype), p
            if curve is None:
                point = self.moved(a * step)
            else:
                point, velocity = curve(a)
            trial = f.at(point)
            return Trial(trial.cost, dot(trial.gradient, velocity), (trial.point, trial.gradient))

        size = pt.switch(self.finished, pt.zeros_like(size), size / u)
        result = self.search(line, Trial(self.cost, dot(g, p), (x, g)), size, *self.search_state, **options)
        if not isinstance(result, Step):
            raise TypeError(f"line_search returned {shown(result)}; it has to return a Step of optapi.line_search")
        promise = -size * dot(g, p) / 2 if result.promise is None else result.promise
        length, result = result.size, result._replace(size=u * result.size, promise=promise)
        x_new, g_new = result.trial.carry
        # At round-off level a step may pass the tests of the search and leave the point where it is. A search that has
        # failed is not repeated in this call: that of the next call is along the steepest descent.
        failed = result.failed | self.finished | pt.all(pt.eq(x_new, x))
        # Only a step along the steepest descent clears the memory of a rule, so that a run which ends because the
        # search fails still has its inverse Hessian to report.
        restarted = steepest & ~failed
        s, y = f.unscaled(x_new - x), g_new - g
        if f.manifold is not None:
            s, y = (f.manifold.tangent(x_new, v) for v in (length.astype(f.dtype) * p, y))
        return End(x_new, result.trial.cost, g_new, s, y, d, steepest, failed, restarted, result)

    def transported(self, end: End, vector: Tensor) -> Any:
        """`vector`, which belongs to the start, on a manifold projected on the tangent space at the end."""
        manifold = self.objective.manifold
        return vector if manifold is None else manifold.tangent(end.point, vector)

    def pushed(self, pairs: CompactInverseHessian, end: End) -> CompactInverseHessian:
        """The next `pairs`, with that of the step, unless it has failed; on a manifold those of the end."""
        kept, manifold = pairs.cleared(end.restarted), self.objective.manifold
        if manifold is not None:
            kept = kept.transported(lambda rows: manifold.tangents(end.point, rows), unless=end.failed)
        return kept.push(end.step, end.change, unless=end.failed)

    def trust_region(self, propose: Callable[..., Proposal], sizes: Sequence[Any], adjust: Callable[..., Sequence[Any]],
                     min_quality: Scalar | np.ndarray,
                     restart: Sequence[Any] | None = None) -> tuple[End, list[Any]]:  # fmt: skip
        r"""Try the steps that a model of the cost proposes, until one is taken.

        The quality of a step :math:`p` is the ratio of the decrease of the cost to the decrease that the model
        predicts,

        .. math:: \rho = \frac{f(x) - f(x + p) + \delta}{m(0) - m(p) + \delta}, \qquad
            \delta = 8 \epsilon |f(x)|

        with :math:`\epsilon` the machine precision: where both decreases are lost in the rounding errors of the cost,
        the quality is about 1. Costs may be noisier than that, as sums of squares of small differences are. So where
        the model predicts less than :math:`\epsilon^{2/3} |f(x)|`, the cost is not higher by more, and the gradient is
        shorter, the decrease may also be the one that the gradients at both ends give,
        :math:`-(g(x) + g(x + p))^T p / 2`. A step to a point whose cost or gradient is not finite has the quality -1. A
        step that does not move the point ends the search, which has then failed.

        Parameters
        ----------
        propose : callable
            From the sizes to a `Proposal`. What it computes without the sizes, such as a decomposition or the forward
            pass of a product, is outside of the loop and computed once per call.
        sizes : list of variables
            The initial values of what limits the step, for instance a radius.
        adjust : callable
            From the quality, the proposal and the sizes to the next sizes.
        min_quality : scalar
            A step is taken if its quality is larger.
        restart : list of variables, optional
            The sizes with which the next call begins anew if no step was taken, unless the last call has failed too:
            where the cost is noisier than its rounding errors, quality is chance, and the sizes became small by chance.
            By default a failure is final.

        Returns
        -------
        End
            Its `result` counts the evaluations.
        list of variables
            The next sizes, and the number of products that the proposals took.

        References
        ----------
        Conn, Gould and Toint (2000), Trust-region methods, section 17.4.2, for the rounding errors.
        """
        f, x = self.objective, self.point
        # With the rounding error added above and below, a run ends by its gradient, or, if that cannot become small, by
        # patience.
        noise, one = resolution(self.cost, self.gradient), np.asarray(1, f.dtype)
        hidden = np.asarray(precision(self.cost, self.gradient) ** (2 / 3), self.cost.type.dtype) * abs(self.cost)

        def turn(count: Any, products: Any, promise: Any, lowest: Any, seen: Any, point: Any, cost: Any, gradient: Any,
                 *sizes: Any) -> Any:  # fmt: skip
            proposal = propose(*sizes)
            trial = f.at(self.moved(f.scaled(proposal.step)))
            slope = Trial(trial.cost, dot(trial.gradient, proposal.step))
            start = Trial(self.cost, dot(self.gradient, proposal.step))
            promise, seen = least_fall(promise, one, start.slope, slope), seen_noise(seen, start, one, slope)
            # Two slopes at the same point say nothing; the model does, where the step is to its minimizer.
            still = pt.all(pt.eq(trial.point, x))
            told = still & ~proposal.at_boundary & (proposal.decrease > 0) & (proposal.decrease < promise)
            promise = pt.switch(told, proposal.decrease, promise).astype(f.dtype)
            lowest = pt.switch(trial.cost < lowest, trial.cost, lowest)
            valid = pt.isfinite(trial.cost) & pt.all(pt.isfinite(trial.gradient)) & (proposal.decrease > 0)
            found = self.cost - trial.cost
            quality = (found + noise) / (proposal.decrease + noise)
            by_slopes = -dot(self.gradient + trial.gradient, proposal.step) / (2 * proposal.decrease)
            slopes = trial.gradient, self.gradient
            if f.box is not None:
                slopes = f.residual(trial.point, trial.gradient), self.residual
            falls = norm(slopes[0]) < norm(slopes[1])
            flat = (proposal.decrease < hidden) & (found > -hidden) & falls & (by_slopes > quality)
            quality = pt.switch(flat, by_slopes, quality)
            quality = pt.switch(valid, quality, -pt.ones_like(quality)).astype(f.dtype)
            accepted = quality > min_quality
            best = [pt.switch(accepted, new, old) for new, old in zip(trial, (point, cost, gradient), strict=True)]
            done = accepted | still | ~pt.all(pt.isfinite(proposal.step))
            best += adjust(quality, proposal, *sizes)
            return [count + 1, products + proposal.products, promise, lowest, seen, *best], done

        able = pt.isfinite(self.cost) & pt.all(pt.isfinite(self.gradient)) & ~self.finished
        initial = [
            np.int64(0),
            np.int64(0),
            np.asarray(np.inf, f.dtype),
            self.cost,
            pt.zeros_like(self.cost),
            x,
            self.cost,
            self.gradient,
            *sizes,
        ]
        last = repeat(turn, initial, pt.switch(able, MAX_TRIALS, 0))
        count, products, promise, lowest, seen, x_new, cost, g_new, *sizes = last
        failed = pt.eq(count, 0) | pt.all(pt.eq(x_new, x))
        s = f.unscaled(x_new - x)
        trial = Trial(cost, dot(self.gradient, s), (x_new, g_new))
        result = Step(pt.ones_like(cost), trial, count, failed, promise=promise, lowest=lowest, noise=seen)
        # Without a restart there is nothing else to try, so a failure is as final as along the steepest descent.
        steepest = TRUE
        if restart is not None:
            anew = failed & (count > 0) & pt.eq(self.search_failed, 0)
            steepest = ~anew
            sizes = [pt.switch(anew, new, size) for new, size in zip(restart, sizes, strict=True)]
        end = End(x_new, cost, g_new, s, g_new - self.gradient, s, steepest, failed, ~failed, result)
        return end, [*sizes, products]

    def finish(self, end: End, new: Updates, patience: int | None = None, reports: dict[str, Any] | None = None,
               unheld: Updates | None = None) -> Updates:  # fmt: skip
        """Close the rule.

        The algorithm has finished when the gradient meets the tolerance or vanishes, when a search along the steepest
        descent has failed, when the cost has no bound, and when more than `patience` calls in a row have made no
        progress: have found no cost below the lowest, and, where rounding hides how the cost still falls, no gradient
        below nine tenths of the smallest. It has then converged to the precision of the cost, reason 7, if what the
        slopes promise is no more than the rounding errors of the cost and of the point can hide, or than costs of
        trials were seen to be wrong. Where the cost is noisy it goes on as long as it is finite.

        Parameters
        ----------
        end : End
        new : dict
            The next values of the rule's state.
        patience : int, optional
            The number of calls in a row that may find no lower cost; by default 10, and 100 with a search that has
            state.
        reports : dict, optional
            Further reports of the rule, see `Objective.finish`.
        unheld : dict, optional
            As `new`, for state that has not changed where `End.failed` is true, see `Objective.finish`.
        """
        f = self.objective
        # In the units of the parameters.
        gradient, next_gradient = self.residual, f.residual(end.point, end.gradient)
        new = {**dict(zip(f.parameters, f.unpack(end.point), strict=True)), **new, self.search_failed: end.failed}
        if self.point_state:
            new |= zip(self.point_state, (end.point, end.cost, f.unscaled(end.gradient)), strict=True)
        new |= zip(self.search_state, end.result.memory, strict=True)
        converged = f.converged([next_gradient]) | pt.all(pt.eq(next_gradient, 0))
        converged = FALSE if self.is_noisy else converged & pt.isfinite(end.cost)
        failed = end.failed & end.steepest
        error, size = resolution(self.cost, self.gradient), largest(next_gradient)
        # A cost is not known better than it changes where the point rounds.
        epsilon = np.asarray(np.finfo(f.dtype).eps, f.dtype)
        hidden = error + epsilon * dot(abs(gradient), abs(self.point))
        hidden = pt.maximum(hidden, end.result.noise)
        promise, unbounded = end.result.promise, FALSE
        if f.stop is not None:
            # What a search promised that has failed counts with what that along the steepest descent promises.
            promised = f.state("promise", fill=np.nan)
            new[promised] = pt.switch(end.failed, promise, np.nan).astype(f.dtype)
            promise = pt.switch(promised > promise, promised, promise)
            unbounded = self._is_unbounded(end, size, new)
            # At round-off level a run may go round among points of about the same cost.
            stalled = f.state("stalled_calls", dtype="int64")
            lowest, least = self.cost, largest(gradient)
            if self.point_state:
                # The lowest cost so far counts as long as the point is that of the last call.
                lowest = self._lowest("lowest_cost", lowest, end.cost, new)
                least = self._lowest("least_gradient", least, size, new)
            falls = (end.cost <= lowest + error) & (size < np.asarray(0.9, f.dtype) * least)
            new[stalled] = pt.switch((end.cost < lowest) | falls, 0, stalled + 1)
            if patience is None:
                patience = 100 if self.search_state else 10
            failed = failed | (new[stalled] > patience) | unbounded
        finite = pt.isfinite(self.cost) & pt.all(pt.isfinite(self.gradient))
        failed = ~finite if self.is_noisy else failed & ~(self.converged | converged)
        reason = pt.switch(promise <= hidden, 7, 2)
        reason = pt.switch(finite, pt.switch(unbounded, 8, reason), 3)
        return f.finish(
            new,
            self.converged,
            failed | converged,
            reports={
                "reason": pt.switch(failed, reason, 0).astype("int64"),
                "evaluations": self.evaluations + end.result.evaluations,
                "cost": end.cost,
                "gradient_size": size,
                **(reports or {}),
            },
            unheld=unheld,
        )

    def _lowest(self, role: str, value: Any, next_value: Any, new: Updates) -> Any:
        """The lowest `value` so far, kept as state; `value` itself at a point that is not that of the last call."""
        previous = self.objective.state(role, dtype=value.type.dtype, fill=np.inf)
        lowest = pt.switch(pt.eq(self.evaluations, 0), previous, value)
        new[previous] = pt.switch(next_value < lowest, next_value, lowest)
        return lowest

    def _is_unbounded(self, end: End, size: Any, new: Updates) -> Any:
        """Whether the cost has no lower bound, as far as one can tell.

        It does if a cost is so low that no more can be asked for, and the gradient has not fallen since the start.
        """
        if end.result.lowest is None:
            return FALSE
        first = self.objective.state("first_gradient", fill=np.nan)
        gradient = self.residual
        new[first] = pt.switch(pt.isnan(first), largest(gradient), first)
        lowest = end.result.lowest
        single = "float32" in (lowest.type.dtype, self.gradient.type.dtype)
        return (lowest < np.asarray(-1e30 if single else -1e100, lowest.type.dtype)) & ~(size < new[first])
