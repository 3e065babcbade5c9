"""The two faces, NumPy functions and compiled costs, run one engine: the same counts, verdicts and points."""

import functools
import itertools
import pickle

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.optimize import rosen, rosen_der

import optapi
from optapi.graph.numpy_linker import STEP


START = np.array([-1.2, 1.0])


def compiled(rule, **options):
    x = pytensor.shared(START.copy(), name="x")
    cost = 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2
    return optapi.compile_minimizer([x], cost, rule, mode=STEP, **options)()


ADAM = {"step_size": 0.05, "max_iterations": 3000}


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize(
    ("rule", "options", "expected"),
    [
        ("adam", {**ADAM, "target": 0.01}, (830, 831, 5)),
        ("adam", {"step_size": 0.3, "cost_tolerance": 1e-3}, None),
        ("adam", {**ADAM, "step_tolerance": 1e-3}, None),
        ("adam", {**ADAM, "max_evaluations": 20}, (19, 20, 1)),
        ("adam", {"step_size": 0.1, "tolerance": 1e-2}, None),
        ("adam", {"step_size": 0.1, "max_iterations": 25}, (25, 26, 1)),
        ("sgd", {"step_size": 1.0}, None),  # diverges
        ("sgd", {"step_size": 1e-3, "max_iterations": 30}, (30, 31, 1)),
        ("momentum", {"step_size": 1e-3, "target": 1.0}, None),
        ("rprop", {"max_iterations": 100}, None),
        ("rprop", {"target": 1.0, "max_iterations": 500}, None),
        ("rprop", {"max_evaluations": 20}, None),
        ("barzilai_borwein", {"max_iterations": 30}, None),
        *(
            (rule, options, None)
            for rule in ("lbfgs", "bfgs", "newton")
            for options in ({}, {"target": 1e-2}, {"cost_tolerance": 1e-3}, {"max_evaluations": 20})
        ),
    ],
)
def test_both_faces_count_and_end_alike(rule, options, expected):
    one = optapi.minimize(START, rosen, rosen_der, rule, full_output=True, trace=True, **options)
    other = compiled(rule, **options)
    assert (one.nit, one.nfev, one.status) == (other.nit, other.nfev, other.status)
    assert expected is None or (one.nit, one.nfev, one.status) == expected
    assert other.fun == pytest.approx(one.fun, rel=1e-6, abs=1e-10)
    np.testing.assert_allclose(other.x[0], one.x, rtol=1e-6)
    np.testing.assert_allclose(other.iterate[0], one.iterate, rtol=1e-6)
    assert other.message.partition(",")[0] == one.message.partition(",")[0]
    # An evaluation for the start, and one for each iteration that moves the point.
    if rule in ("adam", "sgd", "rprop", "momentum"):
        assert one.nfev == 1 + np.count_nonzero(one.trace["step"])


def test_a_point_that_is_held_is_not_evaluated_again():
    """One of the steps of Rprop after a change of sign is of length zero."""
    points = []

    def cost(x):
        points.append(x.copy())
        return rosen(x)

    result = optapi.minimize(START, cost, rosen_der, "rprop", full_output=True, max_iterations=100)
    assert result.nfev == len(points) < 101
    assert all(np.any(one != other) for one, other in itertools.pairwise(points))


def test_what_was_evaluated_of_the_best_point_is_kept():
    """With momentum it runs past the minimizer; the result needs no further evaluation there."""
    x = pytensor.shared(np.array([1.0]), name="x")
    run = optapi.compile_minimizer([x], x[0] ** 4, "momentum", step_size=0.1, max_iterations=13, mode=STEP)
    result = run()
    assert (result.nit, result.nfev, result.njev) == (13, 14, 14)
    assert result.fun < result.iterate[0][0] ** 4
    np.testing.assert_allclose(result.jac[0], 4 * result.x[0] ** 3, rtol=1e-12)


def test_a_file_of_the_other_face_is_refused(tmp_path):
    x = pytensor.shared(START.copy(), name="x")
    cost = 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2
    run = optapi.compile_minimizer([x], cost, "lbfgs", mode=STEP, max_iterations=3)
    run()
    run.save(tmp_path / "compiled.npz")
    with pytest.raises(ValueError, match="has the format 'optapi compiled minimizer', not 'optapi minimize_it"):
        optapi.minimize_iterator.load(tmp_path / "compiled.npz", rosen, rosen_der)
    iterator = optapi.minimize_iterator(START, rosen, rosen_der, "lbfgs")
    next(iterator)
    iterator.save(tmp_path / "iterator.npz")
    with pytest.raises(ValueError, match="has the format 'optapi minimize_iterator', not 'optapi compiled m"):
        run.load(tmp_path / "iterator.npz")
    for path in ("compiled.npz", "iterator.npz"):
        with np.load(tmp_path / path, allow_pickle=False) as file:
            names = set(file.files)
        assert {"now/point/0/", "now/cost/", "now/gradient/0/", "best/point/0/", "values/x/"} <= names


def test_a_pickle_has_no_inputs_in_it():
    """They may be large, and are passed again to go on."""
    data, x = pt.dvector("data"), pytensor.shared(np.zeros(2), name="x")
    cost = pt.mean(data) * pt.sum((x - 1) ** 4)
    run = optapi.compile_minimizer([x], cost, "lbfgs", inputs=[data], max_iterations=2, mode=STEP)
    values = np.random.default_rng(0).uniform(1, 2, size=100_000)
    run(values)
    kept = pickle.dumps(run)
    assert len(kept) < 200_000
    assert pickle.loads(kept).resume(values).nit == 4


@pytest.mark.parametrize("together", [True, False])
def test_a_bad_start_is_no_iteration_of_any_batch(together):
    x = pytensor.shared(0.5, name="x")
    run = optapi.compile_minimizer(
        [x], (x - 2) ** 2 + 0 * pt.log(x), "adam", step_size=0.1, max_iterations=20, mode=STEP
    )
    good, other, bad = run.from_starts(np.array([-1.0, 1.0, 2.5]), together=together)
    assert (bad.start, bad.status, bad.nit, bad.nfev) == (0, 3, 0, 1)
    assert "at the start" in bad.message
    assert {(r.status, r.nit, r.nfev) for r in (good, other)} == {(1, 20, 21)}


def test_a_lower_limit_ends_what_is_loaded(tmp_path):
    iterator = optapi.minimize_iterator(START, rosen, rosen_der, "lbfgs")
    for _ in range(5):
        next(iterator)
    iterator.save(tmp_path / "run.npz")
    loaded = optapi.minimize_iterator.load(tmp_path / "run.npz", rosen, rosen_der, max_iterations=4)
    assert (loaded.nit, loaded.status, list(loaded)) == (5, 1, [])


def test_ascent_is_known_also_where_it_is_an_option_of_a_partial():
    rule = functools.partial(optapi.lbfgs, ascent=True)
    assert optapi.minimize([0.0], lambda x: -np.sum((x - 3) ** 2), lambda x: -2 * (x - 3), rule) == pytest.approx(3.0)
    x = pytensor.shared(np.zeros(1), name="x")
    result = optapi.compile_minimizer([x], -((x[0] - 3) ** 2), rule, mode=STEP, target=-1e-9)()
    assert (result.status, result.fun) == (5, pytest.approx(0.0, abs=1e-9))
    with pytest.raises(TypeError, match="ascent is 'no'; pass True or False"):
        optapi.minimize([0.0], rosen, rosen_der, "lbfgs", ascent="no")


def test_a_rule_of_the_user_is_compiled_anew():
    """It may read what changes: here its own attribute."""

    def scaled_descent(parameters, cost=None, gradients=None, stop=None, updates=None, *, name="scaled_descent"):
        f = optapi.Objective.of(parameters, cost, gradients, stop, updates, name=name)
        return f.finish({p: p - scaled_descent.rate * g for p, g in f.each()})

    globals()["scaled_descent"] = scaled_descent
    scaled_descent.__qualname__, points = "scaled_descent", []
    for scaled_descent.rate in (0.1, 0.3):
        options = {"max_iterations": 1, "full_output": True}
        points.append(optapi.minimize([1.0], lambda x: x @ x, lambda x: 2 * x, scaled_descent, **options).x)
    np.testing.assert_allclose(points, [[0.8], [0.4]], rtol=1e-15)


def test_a_rule_over_a_part_of_the_parameters():
    """The point that it keeps is not that of the driver."""
    u, v = (pytensor.shared(np.full(2, value), name=name) for name, value in (("u", 1.0), ("v", 2.0)))

    def both(parameters, cost=None, gradients=None, stop=None, updates=None, *, name="both"):
        updates = optapi.lbfgs(parameters[:1], cost, updates=updates, exact=True)
        return optapi.sgd(parameters[1:], cost, updates=updates, step_size=0.25)

    cost = (u**2).sum() + (v**2).sum()
    result = optapi.compile_minimizer([u, v], cost, both, mode=STEP, target=1e-3, max_iterations=50)()
    assert result.status == 5 and result.fun <= 1e-3


def test_a_target_of_its_own_for_what_is_loaded(tmp_path):
    run = optapi.minimize_iterator(START, rosen, rosen_der, "lbfgs", target=1.0)
    for _ in run:
        pass
    run.save(tmp_path / "run.npz")
    for target, goes_on in ((1.0, False), (1e-6, True)):
        loaded = optapi.minimize_iterator.load(tmp_path / "run.npz", rosen, rosen_der, target=target)
        assert (loaded.status is None) == goes_on
    assert [state.status for state in loaded][-1] == 5 and loaded.fun <= 1e-6


def test_inputs_that_were_changed_in_place_are_others():
    x, w = pytensor.shared(np.ones(2), name="x"), pytensor.tensor.dvector("w")
    run = optapi.compile_minimizer([x], ((x - w) ** 4).sum(), "lbfgs", inputs=[w], mode=STEP, max_iterations=2)
    values = np.array([3.0, 4.0])
    run(values)
    values[:] = 100.0
    with pytest.raises(ValueError, match="the inputs are not those of the minimization to resume"):
        run.resume(values)


@pytest.mark.parametrize("beyond", [np.nan, -np.inf])
def test_a_derivative_beside_a_wall_does_not_agree(beyond):
    with np.errstate(invalid="ignore"):
        comparison = optapi.check_gradient(lambda x: x[0] if x[0] <= 1 else beyond, lambda x: [100.0], [1.0])
    assert not comparison.agrees


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
@pytest.mark.parametrize("rule", ["adam", "lbfgs", "newton", "trust_region_cg", "krylov_subspace_descent", "idbd"])
def test_a_point_without_components_has_converged(rule, shape):
    """There is no component of the gradient that exceeds the tolerance; the cost is that of the only point."""
    q = pytensor.shared(np.zeros(shape), name="q")
    for result, x in (
        (found := optapi.compile_minimizer([q], 2.5 + pt.sum(q**2), rule, mode=STEP)(), found.x[0]),
        (found := optapi.minimize(np.zeros(shape), lambda x: 2.5, np.copy, rule, full_output=True), found.x),
    ):
        assert (result.status, result.nit, result.fun, x.shape) == (0, 0, 2.5, shape)
