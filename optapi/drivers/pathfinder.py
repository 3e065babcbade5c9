"""Pathfinder: normal distributions along the path of a quasi-Newton minimization (Zhang et al., 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .paths import Paths


class Normals(NamedTuple):
    r"""Normal distributions, a row for each.

    Their covariances are :math:`A^{1/2} (I + Q (M - I) Q^T) A^{1/2}` with the diagonals :math:`A` and orthonormal
    columns :math:`Q`, so a draw costs as much as its numbers. Any root of :math:`M` makes draws; this one is symmetric,
    where a triangular one would have to be the lower.

    Attributes
    ----------
    means, scales : matrix
        Of shape (rows, components); the scales are the roots of the diagonals.
    bases : array
        The columns, of shape (rows, components, rank).
    roots : array
        Those of the matrices :math:`M`, of shape (rows, rank, rank).
    log_determinants : vector
        NaN where a matrix is not positive definite.
    """

    means: np.ndarray
    scales: np.ndarray
    bases: np.ndarray
    roots: np.ndarray
    log_determinants: np.ndarray

    def transformed(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Standard normal draws, of shape (rows, draws, components), as draws of these, with their log densities."""
        projected = u @ self.bases
        turned = u + (projected @ self.roots - projected) @ self.bases.swapaxes(1, 2)
        constant = self.log_determinants[:, None] + u.shape[-1] * np.log(2 * np.pi)
        return self.means[:, None] + self.scales[:, None] * turned, -0.5 * (constant + np.square(u).sum(axis=-1))


def diagonal(alpha: np.ndarray, s: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The next diagonal of an inverse Hessian (Gilbert and Lemaréchal (1989), equation 4.9)."""
    a, b, c = z @ (alpha * z), z @ s, s @ (s / alpha)
    return b / (a / alpha + z**2 - a / c * (s / alpha) ** 2)


def along(points: np.ndarray, gradients: np.ndarray, memory: int) -> Normals:
    """The normal distributions at the points of a path, but for its first (Zhang et al. (2022), algorithms 3 and 4).

    The inverse Hessians are those of L-BFGS, with the last `memory` pairs of steps and changes of the gradient that
    have positive curvature.
    """
    points, gradients = points.astype(float), gradients.astype(float)
    steps, changes = np.diff(points, axis=0), np.diff(gradients, axis=0)
    count, n = steps.shape
    alphas, alpha = np.empty((count, n)), np.ones(n)
    taken = np.zeros(count, bool)
    for i, (s, z) in enumerate(zip(steps, changes, strict=True)):
        if s @ z > 1e-12 * (z @ z):
            taken[i], new = True, diagonal(alpha, s, z)
            alpha = new if (np.isfinite(new) & (new > 0)).all() else alpha
        alphas[i] = alpha
    # Before the first pair there are pairs of zeros, which change nothing.
    last = np.cumsum(taken)[:, None] + np.arange(memory)
    s, z = (np.concatenate([np.zeros((memory, n)), pairs[taken]])[last] for pairs in (steps, changes))
    scales = np.sqrt(alphas)
    s, z = s / scales[:, None], z * scales[:, None]
    # H = A^(1/2) (I + B G B^T) A^(1/2) with B = (Z, S) as scaled here (Byrd, Nocedal and Schnabel (1994), theorem 2.2).
    upper = np.triu(s @ z.swapaxes(1, 2))
    eta = np.diagonal(upper, axis1=1, axis2=2)
    inverse = np.linalg.inv(upper + (eta == 0)[:, None] * np.eye(memory))
    turned = inverse.swapaxes(1, 2)
    corner = turned @ (eta[:, None] * np.eye(memory) + z @ z.swapaxes(1, 2)) @ inverse
    middle = np.block([[np.zeros_like(inverse), -inverse], [-turned, corner]])
    bases, r = np.linalg.qr(np.concatenate([z, s], axis=1).swapaxes(1, 2))
    added = r @ middle @ r.swapaxes(1, 2)
    added[~np.isfinite(added).all(axis=(1, 2))] = -np.eye(added.shape[-1])  # for eigh, which would raise
    values, vectors = np.linalg.eigh(np.eye(added.shape[-1]) + (added + added.swapaxes(1, 2)) / 2)
    values[values <= 0] = np.nan
    roots = (vectors * np.sqrt(values)[:, None]) @ vectors.swapaxes(1, 2)
    scaled = scales * gradients[1:]
    newton = scaled + np.einsum("lij,ljk,lmk,lm->li", bases, added, bases, scaled, optimize=True)
    log_determinants = np.log(alphas).sum(axis=1) + np.log(values).sum(axis=1)
    return Normals(points[1:] - scales * newton, scales, bases, roots, log_determinants)


class Drawn(NamedTuple):
    """Draws of each path, from the normal distribution at its best point.

    Attributes
    ----------
    draws : array
        Of shape (paths, draws, components).
    log_weights : matrix
        The log densities less those of the normal distributions; -inf where they are not finite.
    bounds : vector
        The evidence lower bounds; -inf of a path that has none.
    places : vector of int
        Which points of the paths are the best.
    """

    draws: np.ndarray
    log_weights: np.ndarray
    bounds: np.ndarray
    places: np.ndarray


def drawn(paths: Paths, log_density: Callable[[np.ndarray], np.ndarray], memory: int, estimating: int, draws: int,
          rng: np.random.Generator) -> Drawn:  # fmt: skip
    """From each path the normal distribution with the largest evidence lower bound (Zhang et al. (2022), algorithm 1).

    `log_density` takes rows of points; the bounds are means of `estimating` draws.
    """

    def weighed(normals: Normals, count: int) -> tuple[np.ndarray, np.ndarray]:
        x, logq = normals.transformed(rng.normal(size=(len(normals.means), count, paths.points.shape[-1])))
        ratios = log_density(x.reshape(-1, x.shape[-1])).reshape(logq.shape) - logq
        return x, np.where(np.isfinite(ratios), ratios, -np.inf)

    count, n = len(paths.points), paths.points.shape[-1]
    found = Drawn(np.zeros((count, draws, n)), np.full((count, draws), -np.inf), np.full(count, -np.inf),
                  np.zeros(count, int))  # fmt: skip
    for i, end in enumerate(paths.iterations):
        if end == 0:
            continue
        normals = along(paths.points[i, : end + 1], paths.gradients[i, : end + 1], memory)
        bounds = weighed(normals, estimating)[1].mean(axis=1)
        best = int(np.argmax(bounds))
        if np.isfinite(bounds[best]):
            x, weights = weighed(Normals(*(a[best : best + 1] for a in normals)), draws)
            found.draws[i], found.log_weights[i] = x[0], weights[0]
            found.bounds[i], found.places[i] = bounds[best], best + 1
    return found


def normalized(log_weights: np.ndarray, smooth: bool) -> tuple[np.ndarray, float]:
    """The logarithms of weights that sum to 1, and Pareto's k; NaN where no tail is smoothed, as of a few draws."""
    weights, k = log_weights - log_weights.max(), np.nan
    finite = np.isfinite(weights)
    if smooth and finite.sum() >= 25:
        from arviz_stats.base import array_stats

        weights[finite], k = array_stats.psislw(-weights[finite])  # of log likelihoods, so with the other sign
    return weights - np.log(np.exp(weights).sum()), float(k)


def resampled(log_weights: np.ndarray, count: int | None, replace: bool, rng: np.random.Generator) -> np.ndarray:
    """Which of the draws are picked, by their weights; without a `count` all that have one."""
    flat = log_weights.ravel()
    some = np.flatnonzero(np.isfinite(flat))
    if count is None:
        return some
    if replace:
        return rng.choice(flat.size, count, p=np.exp(flat))
    if count > some.size:
        raise ValueError(f"num_draws is {count}, and {some.size} draws have a weight; raise num_draws_per_path")
    # The largest of log weights with Gumbel's noise are a sample without replacement, however small the weights are.
    return some[np.argsort(-flat[some] - rng.gumbel(size=some.size))[:count]]
