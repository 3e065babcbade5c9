"""Natural gradients: steps in the metric of the covariance of the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from ..checks import as_dtype, as_list, as_tensor, called, check_choice, check_count, check_flag
from ..graph.loops import cond
from ..hints import hinted
from ..moments import correction
from ..objective import Objective
from ..state import shape_of
from ..typing import Scalar, StepSize, Updates, Variables
from ..vectors import guarded
from ._linear_algebra import ratio


@hinted
def tonga(parameters: Variables, cost: Variable | None = None, gradients: Variables | None = None,
          stop: Variable | None = None, updates: Updates | None = None, *, step_size: StepSize = 1e-2, rank: int = 5,
          every: int = 50, block: str = "all", forgetting: Scalar = 0.995, regularization: Scalar = 1.0,
          per_example: Sequence[Any] | None = None, normalize: bool = False, tolerance: Scalar | None = None,
          ascent: bool = False, name: str = "tonga") -> Updates:  # fmt: skip
    r"""TONGA: online natural gradient, with a covariance of the gradients of low rank.

    .. math:: C \leftarrow \gamma C + g g^T, \qquad x \leftarrow x - a \, (C + \lambda I)^{-1} g

    The covariance is kept as :math:`C = X X^T`. The columns of :math:`X` are the scaled eigenvectors of the `rank`
    largest eigenvalues, and the gradients since the last decomposition. At each `every`-th call :math:`C` is decomposed
    and only its `rank` largest eigenvalues are kept. What is solved and decomposed is the Gram matrix :math:`X^T X`:

    .. math:: (X X^T + \lambda I)^{-1} g = X (X^T X + \lambda I)^{-1} e

    where :math:`e` is the unit vector of the column :math:`g`. With the gradients :math:`g_i` of :math:`m` examples in
    `per_example`, :math:`C \leftarrow \gamma C + \frac{1}{m} \sum_i g_i g_i^T` is decomposed at each call, and

    .. math:: (X X^T + \lambda I)^{-1} g = \big(g - X (X^T X + \lambda I)^{-1} X^T g\big) / \lambda

    Parameters
    ----------
    parameters, cost, gradients, stop, updates, tolerance, ascent, name
        As in every rule.
    step_size : scalar or schedule
        :math:`a`, in units of the cost: :math:`C^{-1} g` has the units of the parameters over those of the cost.
    rank : int
        The number of eigenvectors that are kept.
    every : int
        The number of calls between eigendecompositions; not used with `per_example`.
    block : {"all", "parameter", "row"}
        Whether there is one covariance of all components, one for each parameter, or one for each row of a parameter
        (the components with one index along its first axis; a vector is one row). In a matrix with a row for each unit,
        the rows are the units' incoming weights.
    forgetting : scalar
        :math:`\gamma`, from 0 to 1.
    regularization : scalar
        :math:`\lambda`, in units of the squared gradient; above 0. With a large one the rule is `sgd` with the step
        size :math:`a/\lambda`.
    per_example : list of variables, optional
        For each parameter the gradients of single examples, or of small batches, with one more axis in front. By
        default the covariance is that of `gradients`. For means over batches of :math:`m` examples the covariance of
        the noise is :math:`m` times smaller, and so should be :math:`\lambda`.
    normalize : bool
        Whether to multiply the direction by the sum :math:`(1 - \gamma^t)/(1 - \gamma)` of the weights in :math:`C`,
        with :math:`t` the number of the update. Then the direction is that of the weighted mean of :math:`g g^T` in the
        place of :math:`C`, and of :math:`\lambda` over the sum.

    Returns
    -------
    dict
        Next values of the parameters; of :math:`X` and of the Gram matrix for each block; of the count of updates.

    Notes
    -----
    With :math:`k` for `rank` and :math:`b` for `every`. Cost per call: one gradient, :math:`3(k + b)n` multiplications
    and a solve of size :math:`k + b`; at every :math:`b`-th call an eigendecomposition of that size and
    :math:`k(k + b)n` multiplications. Memory: :math:`k + b` numbers per parameter component. With `per_example` the
    memory is :math:`k` numbers per component, and the cost per call is the gradients, an eigendecomposition of size
    :math:`k + m` and :math:`(k + m)(2k + m)n` multiplications.

    The first step is :math:`a g/(\lambda + \|g\|^2)`, no longer than :math:`a/(2 \sqrt\lambda)`.

    References
    ----------
    Le Roux, Manzagol and Bengio (2008), Topmoumoute online natural gradient algorithm, section 4. Its exponents of
    :math:`\gamma` within a block are misprinted; here they are those of the covariance defined above.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(200, 2))
    >>> targets = features @ [1.0, -2.0]
    >>> x, y = pt.dmatrix("x"), pt.dvector("y")
    >>> w = pytensor.shared(np.zeros(2), name="w")
    >>> cost = pt.mean((x @ w - y) ** 2) / 2
    >>> updates = optapi.tonga([w], cost, step_size=0.5, rank=2, every=10, regularization=0.1)
    >>> train = pytensor.function([x, y], cost, updates=updates)
    >>> for rows in np.split(np.arange(200), 20) * 10:
    ...     _ = train(features[rows], targets[rows])
    >>> w.get_value().round(2)
    array([ 1., -2.])
    """
    f = Objective.of(parameters, cost, gradients, stop, updates, tolerance=tolerance, ascent=ascent, name=name)
    rank, every = check_count("rank", rank), check_count("every", every)
    check_choice("block", block, ("all", "parameter", "row"))
    check_flag("normalize", normalize)
    gamma = f.scalar("forgetting", forgetting, 0, 1)
    lam = f.scalar("regularization", regularization, low=float(np.finfo("float64").tiny))
    groups = _groups(f, block)
    owners = [None] if block == "all" else f.parameters
    means = [array[:, 0] for array in _split(f, [g[None] for g in f.gradients], groups)]
    examples = [None] * len(groups)
    if per_example is not None:
        examples = _split(f, _check_examples(per_example, f.parameters), groups)
    scale = f.step_size(step_size)
    if normalize:
        weights = ratio(correction(gamma, f.count + 1), 1.0 - gamma)
        scale = scale * pt.switch(pt.eq(gamma, 1), f.count + 1.0, weights)

    new: Updates = {}
    directions = []
    for g, batch, (blocks, size), owner in zip(means, examples, groups, owners, strict=True):
        dtype = g.type.dtype
        decay, root_decay, ridge = (as_dtype(s, dtype) for s in (gamma, pt.sqrt(gamma), lam))
        slots = rank if batch is not None else rank + every
        X = f.state("vectors", (blocks, slots, size), dtype, parameter=owner)
        if batch is not None:
            batch = batch / as_dtype(pt.sqrt(batch.shape[1]), dtype)
            columns = pt.concatenate([root_decay * X, batch], axis=1)
            gram = pt.matmul(columns, columns.mT)
            inner = _times(columns, g)
            direction = (g - _combined(columns, _solved(gram, ridge, inner))) / ridge
            new[X] = pt.matmul(_eigenvectors(gram, rank)[1], columns)
        else:
            G = f.state("gram", (blocks, slots, slots), dtype, parameter=owner)
            since = f.count % every
            newest = pt.eq(np.arange(slots), rank + since)
            # The columns are scaled at each call, where the paper keeps powers of 1/gamma: any gamma works, 0 included,
            # and X X' is the covariance at any time.
            columns = pt.switch(newest[:, None], g[:, None, :], root_decay * X)
            inner = _times(columns, g)
            gram = pt.switch(newest[None, :], inner[:, :, None], decay * G)
            gram = pt.switch(newest[:, None], inner[:, None, :], gram)
            unit = pt.broadcast_to(newest.astype(dtype), (blocks, slots))
            direction = _combined(columns, _solved(gram, ridge, unit))
            full = pt.eq(since, every - 1) & ~f.stopped
            new[X], new[G] = cond(full, partial(_truncated, rank), [columns, gram], [columns, gram])
        directions.append(direction)
    for (p, _, a), v in zip(f.each(scale), _joined(f, directions, block), strict=True):
        new[p] = p - a * v
    return f.finish(new)


def _groups(f: Objective, block: str) -> list[tuple[int, int]]:
    """For each of the arrays of `_split`: the number of blocks, and the size of a block."""
    if block == "all":
        return [(1, f.size)]
    shapes = [shape_of(p) for p in f.parameters]
    rows = [shape[0] if block == "row" and len(shape) > 1 else 1 for shape in shapes]
    return [(n, prod(shape) // max(n, 1)) for n, shape in zip(rows, shapes, strict=True)]


def _split(f: Objective, tensors: Sequence[Any], groups: Sequence[tuple[int, int]]) -> list[Any]:
    """`tensors`, which have an axis of examples in front, as arrays of shape (blocks, examples, size).

    The blocks are an axis, so that one code serves all kinds of block.
    """
    sizes = [prod(shape_of(p)) for p in f.parameters]
    flat = [t.reshape((t.shape[0], size)) for t, size in zip(tensors, sizes, strict=True)]
    if len(groups) == 1:
        flat = [pt.concatenate([as_dtype(t, f.dtype) for t in flat], axis=1)]
    return [t.reshape((t.shape[0], *group)).dimshuffle(1, 0, 2) for t, group in zip(flat, groups, strict=True)]


def _joined(f: Objective, arrays: Sequence[Any], block: str) -> list[Any]:
    """The inverse of `_split`: a tensor for each parameter."""
    if block == "all":
        return f.unpack(arrays[0][0])
    shapes = [shape_of(p) for p in f.parameters]
    return [array.reshape(shape) if shape else array[0, 0] for array, shape in zip(arrays, shapes, strict=True)]


def _check_examples(per_example: Any, parameters: Sequence[Any]) -> list[Any]:
    """The option `per_example`, checked: for each of `parameters` a tensor of its dtype with one more axis."""
    tensors = as_list("per_example", per_example)
    if len(tensors) != len(parameters):
        raise ValueError(
            f"per_example has {len(tensors)} entries for {len(parameters)} parameters; pass one for each parameter"
        )
    checked = []
    for entry, p in zip(tensors, parameters, strict=True):
        tensor = as_tensor(f"the entry of {called(p)} in per_example", entry)
        if tensor.type.ndim != p.type.ndim + 1:
            raise ValueError(
                f"the entry of {called(p)} in per_example has {tensor.type.ndim} dimensions; "
                f"pass {p.type.ndim + 1}, the first one for the examples"
            )
        checked.append(as_dtype(tensor, p.type.dtype))
    return checked


def _times(columns: Any, g: Any) -> Any:
    """The inner products of the rows of `columns` with `g`, in each block."""
    return pt.sum(columns * g[:, None, :], axis=2)


def _combined(columns: Any, weights: Any) -> Any:
    """The sum of the rows of `columns` with `weights`, in each block."""
    return pt.sum(columns * weights[:, :, None], axis=1)


def _solved(gram: Any, ridge: Any, right: Any) -> Any:
    """The solution of `gram` plus `ridge` times the identity, in each block.

    A ridge below the rounding errors of `gram` is raised to their size, so that the matrix is positive definite.
    """
    gram, nonfinite = guarded(gram)
    info = np.finfo(gram.type.dtype)
    size, identity = gram.shape[1].astype(gram.type.dtype), pt.eye(gram.shape[1], dtype=gram.type.dtype)
    # As a sum over all, of which numba makes less than of a diagonal.
    trace = pt.sum(gram * identity, axis=(1, 2))
    ridge = pt.maximum(pt.maximum(ridge, size * info.eps * trace), info.tiny)
    matrix = gram + ridge[:, None, None] * identity
    solution: Any = pt.linalg.solve(matrix, right[:, :, None], assume_a="pos", check_finite=False, b_ndim=2)
    return solution[:, :, 0] + nonfinite


def _eigenvectors(gram: Any, rank: int) -> tuple[Any, Any]:
    """The `rank` largest eigenvalues of `gram` and their eigenvectors, as rows, in each block.

    Their sign is that with which the combined vectors have a nonnegative weight of the newest gradient.
    """
    gram, nonfinite = guarded(gram)
    decomposition: Any = pt.linalg.eigh(gram)
    values, vectors = decomposition
    vectors = vectors[:, :, -rank:]
    vectors = pt.switch(pt.lt(vectors[:, -1, :], 0)[:, None, :], -vectors, vectors)
    return values[:, -rank:] + nonfinite, vectors.mT


def _truncated(rank: int, columns: Any, gram: Any) -> list[Any]:
    """`columns` and `gram` of the covariance with its `rank` largest eigenvalues only; the other rows are zero."""
    values, vectors = _eigenvectors(gram, rank)
    truncated = pt.concatenate([pt.matmul(vectors, columns), pt.zeros_like(columns[:, rank:])], axis=1)
    diagonal = pt.concatenate([pt.maximum(values, pt.zeros_like(values)), pt.zeros_like(gram[:, 0, rank:])], axis=1)
    return [truncated, diagonal[:, None, :] * pt.eye(gram.type.shape[1], dtype=gram.type.dtype)]
