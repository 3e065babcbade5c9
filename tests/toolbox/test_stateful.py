"""The stateful optimizers: the symbolic rules and the textbooks are their reference, and paysage where historical."""

import pickle
from collections import OrderedDict, namedtuple
from copy import deepcopy

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from problems import PROBLEMS

import optapi
from optapi import ADAM, Gradient, GradientMemory, Momentum, Optimizer, RMSProp, schedules, stateful


EPS = 2.0**-23
OPTIMIZERS = [Gradient, Momentum, RMSProp, ADAM]
Layer = namedtuple("Layer", ["weights", "bias"])

every = pytest.mark.parametrize("make", OPTIMIZERS)
either = pytest.mark.parametrize("historical", [False, True])


def rule_points(rule, starts, gradient, steps, compiled, **options):
    """The points of a symbolic rule with the gradients as inputs."""
    shared = [pytensor.shared(np.array(x)) for x in starts]
    inputs = [x.type() for x in shared]
    step = compiled(rule(shared, gradients=inputs, **options), inputs)
    for _ in range(steps):
        step(*gradient([x.get_value() for x in shared]))
        yield [x.get_value() for x in shared]


def rmsprop_points(starts, gradient, steps, a, w):
    x, vs = list(starts), [0.0 for _ in starts]
    for _ in range(steps):
        gs = gradient(x)
        vs = [w * v + (1 - w) * g**2 for v, g in zip(vs, gs, strict=True)]
        x = [p - a * g / (np.sqrt(v) + 1e-8) for p, g, v in zip(x, gs, vs, strict=True)]
        yield x


# Textbook numbers


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("name", ["gradient", "momentum", "rmsprop", "adam"])
def test_sixty_steps_equal_those_of_the_rules(name, problem, compiled):
    starts, gradient, steps = problem.starts, problem.gradients, 60
    if name == "rmsprop":
        optimizer, points = RMSProp(0.01), rmsprop_points(starts, gradient, steps, 0.01, 0.9)
    elif name == "adam":
        optimizer, points = ADAM(0.01), rule_points(optapi.adam, starts, gradient, steps, compiled, step_size=0.01)
    else:
        mu = 0.9 if name == "momentum" else 0.0
        optimizer = Momentum(1e-4, mu) if mu else Gradient(1e-4)
        points = rule_points(optapi.sgd, starts, gradient, steps, compiled, step_size=1e-4, momentum=mu)
    model = [np.array(x) for x in starts]
    for expected in points:
        optimizer.update(model, gradient(model))
        for x, y in zip(model, expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14)


def test_momentum_scales_its_whole_sum_by_the_present_step_size(compiled):
    schedule = schedules.Exponential(0.1, 0.5)
    p, g = pytensor.shared(np.zeros(2)), pt.dvector()
    step = compiled(optapi.sgd([p], gradients=[g], step_size=schedule, momentum=0.9), [g])
    model, optimizer = [np.zeros(2)], Momentum(schedule)
    for k in range(5):
        grad = np.array([1.0, np.cos(k)])
        step(grad)
        optimizer.update_lr()
        optimizer.update(model, [grad])
        np.testing.assert_allclose(model[0], p.get_value(), rtol=1e-12)


@every
@either
def test_ascent_is_descent_along_minus_the_gradient(make, historical):
    up, down = [np.ones(3)], [np.ones(3)]
    climb, fall = make(0.1, ascent=True, historical=historical), make(0.1, historical=historical)
    for k in range(5):
        grad = np.cos(np.arange(3.0) + k)
        climb.update(up, [grad])
        fall.update(down, [-grad])
        assert (up[0] == down[0]).all()


# The numbers of paysage: spec 1.4


@pytest.mark.parametrize("make", [RMSProp, ADAM])
def test_historical_first_step(make):
    """Fact 1: lr sqrt(1 - w2) sgn(g), and lr sqrt(1 - w2) / (1 - w1) sgn(g), the same number by coincidence."""
    model, grad = [np.zeros(2)], [np.array([30.0, -2000.0])]
    make(0.01, historical=True).update(model, grad)
    np.testing.assert_allclose(model[0], [-0.00316228, 0.00316228], rtol=2e-6)

    model = [np.zeros(2)]
    make(0.01).update(model, grad)
    size = 0.01 if make is ADAM else 0.01 / np.sqrt(0.1)
    np.testing.assert_allclose(model[0], [-size, size], rtol=1e-6)


def test_historical_momentum_has_no_warm_up():
    """Fact 2: with a constant gradient each step is lr g; the textbook's is lr (1 - w^t) / (1 - w) g."""
    old, new, grad = [np.zeros(2)], [np.zeros(2)], [np.array([2.0, -3.0])]
    historical, textbook = Momentum(0.1, historical=True), Momentum(0.1)
    for t in range(1, 6):
        old_before, new_before = old[0].copy(), new[0].copy()
        historical.update(old, grad)
        textbook.update(new, grad)
        np.testing.assert_allclose(old_before - old[0], 0.1 * grad[0], rtol=1e-14)
        np.testing.assert_allclose(new_before - new[0], 0.1 * (1 - 0.9**t) / 0.1 * grad[0], rtol=1e-12)


def test_second_direction():
    """Fact 3: 0.9 g1 + 0.1 g2 from the first gradient on, (0.9 g1 + g2) / 1.9 with the correction of Adam."""
    g1, g2 = np.array([1.0, 2.0]), np.array([-3.0, 5.0])
    memory, zero = GradientMemory(historical=True), GradientMemory()
    for g in (g1, g2):
        memory.update([g])
        zero.update([g])
    np.testing.assert_allclose(memory.mean_gradient[0], 0.9 * g1 + 0.1 * g2, rtol=1e-14)
    np.testing.assert_allclose(memory.mean_gradient[0], zero.mean_gradient[0] + 0.9**2 * g1, rtol=1e-14)
    np.testing.assert_allclose(zero.mean_gradient[0] / (1 - 0.9**2), (0.9 * g1 + g2) / 1.9, rtol=1e-14)


@pytest.mark.parametrize("make, w1, w2", [(RMSProp, 0.0, 0.9), (ADAM, 0.9, 0.999)])
def test_historical_trajectory(make, w1, w2):
    optimizer, model = make(0.01, historical=True), [np.ones(3)]
    x, m, v = np.ones(3), None, None
    for k in range(10):
        g = 1e-3 * np.cos(np.arange(3) + k)
        m, v = (g, g**2) if m is None else (w1 * m + (1 - w1) * g, w2 * v + (1 - w2) * g**2)
        x = x - 0.01 * (m / (1 - w1)) / np.sqrt(EPS + v / (1 - w2))
        optimizer.update(model, [g])
        np.testing.assert_allclose(model[0], x, rtol=1e-13)


def test_historical_convergence_is_of_the_last_change():
    optimizer = Gradient(0.1, tolerance=0.03, historical=True)
    # Three arrays in two entries: 0.1 sqrt((0.01 + 0.04 + 0.09) / 2) = 0.0265. An empty one has no mean.
    model = [{"w": np.zeros(2), "b": np.zeros(()), "none": np.zeros(0)}, np.zeros(4)]
    optimizer.update(model, [{"w": np.full(2, 0.1), "b": 0.2, "none": np.zeros(0)}, np.full(4, 0.3)])
    np.testing.assert_allclose(optimizer.magnitude, 0.1 * np.sqrt(0.14 / 2), rtol=1e-14)
    assert optimizer.check_convergence()
    optimizer.update(model, [{"w": np.full(2, 1.0), "b": 0.2, "none": np.zeros(0)}, np.full(4, 0.3)])
    assert not optimizer.check_convergence()


# GradientMemory


def test_memory_changes_itself_and_returns_none():
    memory = GradientMemory(0.9, 0.5)
    assert memory.update([np.array([2.0])]) is None
    assert memory.update_mean([np.array([2.0])]) is None
    assert memory.update_mean_square([np.array([4.0])]) is None
    np.testing.assert_allclose(memory.mean_gradient[0], 0.9 * 0.2 + 0.2)
    np.testing.assert_allclose(memory.mean_square_gradient[0], 0.5 * 2 + 8)
    assert (memory.mean_updates, memory.mean_square_updates) == (2, 2)


def test_memory_keeps_only_what_has_a_weight():
    grad = [np.array([2.0])]
    mean, square = GradientMemory(), GradientMemory(0.0, 0.9)
    mean.update(grad)
    square.update(grad)
    assert mean.mean_square_gradient is None
    assert square.mean_gradient is None
    assert mean.normalize(grad) is grad
    assert GradientMemory(0.9, 0.9).normalize(grad) is grad  # nothing is remembered yet


def test_normalize():
    g1, g2 = np.array([1.0, 2.0]), np.array([-3.0, 5.0])
    memory, old = GradientMemory(0.9, 0.99), GradientMemory(0.9, 0.99, historical=True)
    for g in (g1, g2):
        memory.update([g])
        old.update([g])
    v = 0.99 * 0.01 * g1**2 + 0.01 * g2**2
    [plain], [unbiased] = memory.normalize([g2]), memory.normalize([g2], unbiased=True)
    np.testing.assert_allclose(plain, g2 / (np.sqrt(v) + 1e-8), rtol=1e-13)
    np.testing.assert_allclose(unbiased, g2 / (1 - 0.9**2) / (np.sqrt(v / (1 - 0.99**2)) + 1e-8), rtol=1e-13)
    v = 0.99 * g1**2 + 0.01 * g2**2
    [plain], [unbiased] = old.normalize([g2]), old.normalize([g2], unbiased=True)
    np.testing.assert_allclose(plain, g2 / np.sqrt(EPS + v), rtol=1e-13)
    np.testing.assert_allclose(unbiased, g2 / 0.1 / np.sqrt(EPS + v / 0.01), rtol=1e-13)


def test_each_average_is_corrected_by_its_own_number_of_gradients():
    memory, g = GradientMemory(0.9, 0.99), np.array([-3.0, 5.0])
    memory.update_mean_square([g])
    np.testing.assert_allclose(memory.normalize([g], unbiased=True)[0], np.sign(g), rtol=1e-8)
    memory.update_mean_square([g])
    memory.update_mean([g])
    np.testing.assert_allclose(memory.normalize(memory.mean_gradient, unbiased=True)[0], np.sign(g), rtol=1e-8)


def test_a_weight_of_zero_normalizes_nothing():
    memory, grad = GradientMemory(0.9, 0.0), [np.array([2.0])]
    memory.update_mean_square(grad)
    assert memory.normalize(grad) is grad


@either
def test_memory_does_not_keep_the_arrays_of_the_gradient(historical):
    memory, g = GradientMemory(0.9, 0.9, historical=historical), np.array([2.0])
    memory.update([g])
    mean, square = float(memory.mean_gradient[0][0]), float(memory.mean_square_gradient[0][0])
    g[:] = 100.0
    assert (memory.mean_gradient[0], memory.mean_square_gradient[0]) == (mean, square)


def test_memory_refuses_another_structure():
    memory = GradientMemory(0.9, 0.9)
    memory.update({"a": np.zeros(2)})
    before = pickle.dumps(memory)
    with pytest.raises(ValueError, match=r"grad\['a'\] has shape \(3,\), the memory\['a'\] \(2,\)"):
        memory.update({"a": np.zeros(3)})
    with pytest.raises(
        ValueError, match=r"grad is a dict with the keys \['b'\]; it has to be a dict with the keys \['a'\]"
    ):
        memory.update({"b": np.zeros(2)})
    with pytest.raises(TypeError, match=r"grad\['a'\] is a str"):
        memory.update({"a": "text"})
    assert pickle.dumps(memory) == before


# Step sizes


def halves():
    value = 0.5
    while value > 0.1:
        yield value
        value /= 2


def sizes(optimizer, order):
    """The step sizes of a few epochs, of which each has two updates, and update_lr before or after them."""
    model, seen = [np.zeros(1)], []
    for _ in range(3):
        if order == "before":
            optimizer.update_lr()
        for _ in range(2):
            optimizer.update(model, [np.ones(1)])
            seen.append(optimizer.lr)
        if order == "after" and len(seen) < 6:
            optimizer.update_lr()
    return seen


@either
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("stepsize", [halves, lambda: schedules.Exponential(0.5, 0.5), lambda: lambda t: 0.5**t / 2])
def test_update_lr_before_or_after_an_epoch(stepsize, order, historical):
    optimizer = Gradient(stepsize(), historical=historical)
    assert sizes(optimizer, order) == [0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert optimizer.count == 3


def test_a_number_stays():
    assert sizes(Gradient(np.float32(0.5)), "before") == [0.5] * 6


def test_warm_up_gives_numbers():
    assert sizes(Gradient(schedules.WarmUp(0.5, 1)), "before") == [0.25] * 2 + [0.5] * 4


def test_an_iterator_that_ends_says_so_and_keeps_its_last_value():
    optimizer = Gradient(iter([0.5]))
    optimizer.update_lr()
    with pytest.raises(ValueError, match="stepsize is an iterator that ended after 1 values"):
        optimizer.update_lr()
    assert (optimizer.lr, optimizer.count) == (0.5, 1)
    model = [np.zeros(2)]
    with pytest.raises(ValueError, match="ended after 0 values"):
        Momentum(iter([])).update(model, [np.ones(2)])
    assert (model[0] == 0).all()


@pytest.mark.parametrize(
    "stepsize, error", [(-0.1, ValueError), (np.nan, ValueError), ("0.1", TypeError), ([0.1], ValueError)]
)
def test_bad_step_sizes(stepsize, error):
    with pytest.raises(error, match="stepsize is "):
        Gradient(stepsize)
    with pytest.raises(error, match="stepsize is "):
        Gradient(iter([stepsize])).update([np.zeros(2)], [np.ones(2)])


def test_symbolic_step_sizes_are_refused():
    with pytest.raises(TypeError, match="stepsize is the PyTensor variable"):
        Gradient(pytensor.shared(0.1))
    with pytest.raises(TypeError, match="stepsize is the PyTensor variable"):
        Gradient(schedules.Power(pytensor.shared(0.1))).update_lr()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Momentum(momentum=1.0),
        lambda: RMSProp(mean_square_weight=0),
        lambda: RMSProp(mean_square_weight=1.0),
        lambda: ADAM(mean_weight=-0.1),
        lambda: ADAM(mean_square_weight=0.0),
        lambda: GradientMemory(np.nan),
        lambda: Gradient(tolerance=-1.0),
    ],
)
def test_bad_hyper_parameters(make):
    with pytest.raises(ValueError, match=r"^(momentum|mean_weight|mean_square_weight|tolerance) is "):
        make()


# Convergence


@every
def test_convergence_is_of_the_largest_component(make):
    optimizer, model = make(tolerance=1e-3), [np.zeros(2), np.zeros((1, 2)), np.zeros(0)]
    assert not optimizer.check_convergence()  # before any update
    for bad in (2e-3, -2e-3, np.nan, np.inf):
        optimizer.update(deepcopy(model), [np.zeros(2), np.array([[0.0, bad]]), np.zeros(0)])
        assert optimizer.check_convergence() is False
    optimizer.update(model, [np.full(2, 1e-3), np.full((1, 2), -1e-3), np.zeros(0)])
    assert optimizer.check_convergence() is True


def test_without_a_tolerance_nothing_converges():
    optimizer = Gradient(tolerance=None)
    optimizer.update([np.zeros(2)], [np.zeros(2)])
    assert not optimizer.check_convergence()


@either
def test_nan_is_never_convergence(historical):
    optimizer = Gradient(tolerance=1e300, historical=historical)
    optimizer.update([np.zeros(2)], [np.array([0.0, np.nan])])
    assert not optimizer.check_convergence()


# Models


@every
@pytest.mark.parametrize(
    "structure",
    [
        lambda a, b, c: [a, b, c],
        lambda a, b, c: (a, b, c),
        lambda a, b, c: {"a": a, "b": b, "c": c},
        lambda a, b, c: OrderedDict(c=c, b=b, a=a),
        lambda a, b, c: {"layers": [{"w": a, "b": b}], "out": (c,)},
        lambda a, b, c: [Layer(a, b), c],
        lambda a, b, c: Layer([a, c], b),
    ],
)
def test_structures(make, structure):
    shapes = [(2, 3), (), (4,)]
    model, alone = [np.ones(s) for s in shapes], [np.ones(s) for s in shapes]
    tree, optimizer = structure(*model), make(0.1)
    each = [make(0.1) for _ in shapes]
    for k in range(3):
        grads = [np.cos(np.arange(np.prod(s, dtype=int)) + k).reshape(s) for s in shapes]
        assert optimizer.update(tree, structure(*grads)) is None
        for single, x, g in zip(each, alone, grads, strict=True):
            single.update(x, g)  # an array is a model, too
    for x, y in zip(model, alone, strict=True):
        assert (x == y).all()
        assert not (x == 1).all()


class Machine:
    """A model that subtracts what it is given."""

    def __init__(self):
        self.parameters = {"w": np.ones(2), "layer": Layer([np.ones(3)], np.ones(()))}

    def parameter_update(self, delta):
        assert isinstance(delta["layer"], Layer)
        self.parameters = {
            "w": self.parameters["w"] - delta["w"],
            "layer": Layer(
                [self.parameters["layer"].weights[0] - delta["layer"].weights[0]],
                self.parameters["layer"].bias - delta["layer"].bias,
            ),
        }


@every
def test_an_object_subtracts_delta(make):
    machine, other, kept = Machine(), Machine(), Machine().parameters
    grad = {"layer": Layer([[0.5] * 3], 0.2), "w": np.array([1.0, -1.0])}
    grad["layer"].weights[0] = np.array(grad["layer"].weights[0])
    machine.parameters["w"].flags.writeable = False  # it is for the object to say what can be written to
    make(0.1).update(machine, grad)
    make(0.1).update(other.parameters, grad)
    assert (machine.parameters["w"] == other.parameters["w"]).all()
    assert (machine.parameters["layer"].bias == other.parameters["layer"].bias).all()
    assert (machine.parameters["w"] - kept["w"])[0] < 0  # descent


@every
@either
def test_dtypes_stay(make, historical):
    model = [np.ones(3, "float32"), np.ones((), "float64"), np.ones((2, 2), "float16")]
    optimizer = make(np.float64(0.1), historical=historical)
    for _ in range(2):
        optimizer.update(model, [np.full(3, 0.5), 1, np.full((2, 2), 0.5, "float32")])
    assert [x.dtype.name for x in model] == ["float32", "float64", "float16"]
    if hasattr(optimizer, "memory"):
        kept = optimizer.memory.mean_gradient or optimizer.memory.mean_square_gradient
        assert [x.dtype.name for x in kept] == ["float32", "float64", "float16"]


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_float32_arithmetic_is_that_of_the_rules(name, compiled):
    rule, make = {"momentum": (optapi.sgd, Momentum), "adam": (optapi.adam, ADAM)}[name]
    options = {"momentum": 0.9} if name == "momentum" else {}
    p, g = pytensor.shared(np.ones(4, "float32")), pt.fvector()
    step = compiled(rule([p], gradients=[g], step_size=0.01, **options), [g])
    model, optimizer = [np.ones(4, "float32")], make(0.01)
    for k in range(30):
        grad = np.cos(np.arange(4) + k).astype("float32")
        step(grad)
        optimizer.update(model, [grad])
    np.testing.assert_allclose(model[0], p.get_value(), rtol=3e-6)


def test_a_view_is_written_through():
    whole = np.zeros((3, 4))
    Gradient(1.0).update(
        {"columns": whole[:, 1:3], "transposed": whole.T[3:]},
        {"columns": 1.0 + np.zeros((3, 2)), "transposed": np.ones((1, 3))},
    )
    assert (whole == [[0, -1, -1, -1]] * 3).all()


@every
@either
def test_the_gradient_may_be_the_model_and_is_not_kept(make, historical):
    x, copy = np.array([1.0, -2.0]), np.array([1.0, -2.0])
    one, two = make(0.1, historical=historical), make(0.1, historical=historical)
    for _ in range(3):
        one.update([x], [x])  # the gradient of x'x/2
        two.update([copy], [copy.copy()])
    assert (x == copy).all()


def read_only():
    array = np.zeros(2)
    array.flags.writeable = False
    return array


TWICE = np.zeros(2)
BAD = [
    ([np.zeros(2), np.zeros(3)], [np.ones(2)] * 2, ValueError, r"grad\[1\] has shape \(2,\), model\[1\] \(3,\)"),
    ([np.zeros(2)], [np.float64(1.0)], ValueError, r"grad\[0\] has shape \(\), model\[0\] \(2,\)"),
    ([np.zeros(2)], [np.ones(2), np.ones(2)], ValueError, "grad is a list of 2; it has to be a list of 1, as model is"),
    ({"a": np.zeros(2), "b": np.zeros(2)}, {"a": np.ones(2)}, ValueError, "dict with the keys .*'a', 'b'"),
    ([{"a": np.zeros(2)}], [{"b": np.ones(2)}], ValueError, r"grad\[0\] .*, as model\[0\] is"),
    ([np.zeros(2)], [[1.0, [2.0]]], TypeError, r"grad\[0\] is a list that does not make an array"),
    ([[np.zeros(2)]], [np.ones((1, 2))], ValueError, r"\(1, 2\); it has to be a list of 1, as model\[0\]"),
    ([np.zeros(2), read_only()], [np.ones(2), np.ones(2)], ValueError, r"model\[1\] is read-only"),
    ([TWICE, {"a": TWICE}], [np.ones(2), {"a": np.ones(2)}], ValueError, r"\['a'\] is the same array as model\[0\]"),
    ([], [], ValueError, "model is empty"),
    ([0.0], [1.0], TypeError, "model is a list; pass NumPy arrays"),
    ([np.zeros(2), 0.0], [np.ones(2), 1.0], TypeError, r"model\[1\] is a float; pass NumPy arrays"),
    (None, [1.0], TypeError, "model is a NoneType; pass NumPy arrays"),
    ([np.zeros(2, int)], [np.ones(2)], TypeError, r"model\[0\] has dtype int64"),
    ([np.zeros(2, complex)], [np.ones(2)], TypeError, r"model\[0\] is a ndarray of dtype complex128"),
    ([np.zeros(2)], [np.ones(2, complex)], TypeError, r"grad\[0\] is a ndarray of dtype complex128"),
    ([np.zeros(2)], [None], TypeError, r"grad\[0\] is a NoneType"),
]  # fmt: skip


@every
@pytest.mark.parametrize("model, grad, error, words", BAD, ids=[words for *_, words in BAD])
def test_bad_input_changes_nothing(make, model, grad, error, words):
    optimizer, before = make(halves()), deepcopy(model)
    state = pickle.dumps(getattr(optimizer, "memory", None))
    with pytest.raises(error, match=words):
        optimizer.update(model, grad)
    assert repr(model) == repr(before)
    assert pickle.dumps(getattr(optimizer, "memory", None)) == state
    assert optimizer.lr is None  # nothing was drawn


@every
def test_a_list_of_numbers_is_one_vector(make):
    one, other = [np.ones(3)], [np.ones(3)]
    make(0.1).update(one, [[1.0, 2.0, 3.0]])
    make(0.1).update(other, [np.array([1.0, 2.0, 3.0])])
    np.testing.assert_array_equal(one[0], other[0])
    memory = GradientMemory(0.5)
    memory.update((1.0, 2.0))
    np.testing.assert_array_equal(memory.mean_gradient, [0.5, 1.0])


@pytest.mark.parametrize("make", [Momentum, RMSProp, ADAM])
def test_another_model_is_refused(make):
    optimizer, model = make(), [np.zeros(3)]
    optimizer.update([np.zeros(2)], [np.ones(2)])
    with pytest.raises(ValueError, match=r"grad\[0\] has shape \(3,\), the memory\[0\] \(2,\)"):
        optimizer.update(model, [np.ones(3)])
    assert (model[0] == 0).all()


# Objects


@every
@either
@pytest.mark.parametrize("copy", [deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
def test_pause_and_resume(make, historical, copy):
    def run(optimizer, model, epochs):
        for k in epochs:
            optimizer.update_lr()
            for i in range(3):
                optimizer.update(model, {"a": np.cos(model["a"] * k + i)})

    whole, parts = {"a": np.ones(3)}, {"a": np.ones(3)}
    one, two = (make(schedules.Power(0.1), historical=historical) for _ in range(2))
    run(one, whole, range(6))
    run(two, parts, range(3))
    resumed, parts = copy(two), copy(parts)
    run(resumed, parts, range(3, 6))
    assert (whole["a"] == parts["a"]).all()
    assert one.check_convergence() == resumed.check_convergence()


@every
def test_default_instances_share_nothing(make):
    one, two = make(), make()
    one.update([np.zeros(2)], [np.ones(2)])
    assert (two.lr, two.count) == (None, 0)
    assert np.isnan(two.magnitude)
    if hasattr(two, "memory"):
        assert two.memory.mean_gradient is None
        assert two.memory.mean_square_gradient is None
        assert one.memory is not two.memory


def test_signatures_and_aliases_of_the_founding_text():
    assert isinstance(Momentum(0.1, 0.9, 1e-7, True), Optimizer)
    assert RMSProp(0.1, 0.8, 1e-7, True).memory.mean_square_weight == 0.8
    adam = ADAM(0.1, 0.8, 0.99, 1e-3, True)
    assert (adam.memory.mean_weight, adam.memory.mean_square_weight, adam.tolerance) == (0.8, 0.99, 1e-3)
    assert stateful.adam is ADAM
    assert stateful.gradient is Gradient
    with pytest.raises(NotImplementedError, match="Optimizer has no direction"):
        Optimizer().update([np.zeros(2)], [np.ones(2)])


def test_an_optimizer_of_ones_own():
    class SignDescent(Optimizer):
        def direction(self, grad):
            return [np.sign(g).astype("float64") for g in grad]

    model = [np.zeros(2, "float32")]
    SignDescent(0.5).update(model, [np.array([3.0, -4.0])])
    assert (model[0] == [-0.5, 0.5]).all()

    class Machine32(Machine):
        def __init__(self):
            self.parameters = model

        def parameter_update(self, delta):
            assert delta[0].dtype == "float32"

    SignDescent(0.5).update(Machine32(), [np.array([3.0, -4.0])])


def test_a_direction_of_another_structure_changes_nothing():
    class Wrong(Optimizer):
        def direction(self, grad):
            return [grad[0], np.zeros(5)]

    model = [np.zeros(2), np.zeros(2)]
    with pytest.raises(ValueError, match=r"the direction\[1\] has shape \(5,\)"):
        Wrong().update(model, [np.ones(2), np.ones(2)])
    assert (model[0] == 0).all()


@pytest.mark.parametrize("kind", [optapi.ADAM, optapi.RMSProp, optapi.Momentum, optapi.Gradient])
def test_one_gradient_that_overflows_is_left_out(kind):
    """What comes after it is what would have come without it; else a mean square stays infinite for ever."""
    gradients = [np.array([1.0, -2.0], "float32"), np.array([0.5, 0.1], "float32")]
    bad = [np.array([1e20, 1.0], "float32"), np.array([np.nan, 1.0], "float32")]
    guarded, alone = kind(stepsize=0.1, skip_nonfinite=True), kind(stepsize=0.1)
    one, other = [np.ones(2, "float32")], [np.ones(2, "float32")]
    with np.errstate(all="ignore"):
        for gradient in [gradients[0], bad[1], gradients[1]]:
            guarded.update(one, [gradient])
        for gradient in gradients:
            alone.update(other, [gradient])
        assert guarded.skipped == 1
        np.testing.assert_array_equal(one[0], other[0])
        assert guarded.magnitude == alone.magnitude
        guarded.update(one, [bad[0]])
    squares = kind in (optapi.ADAM, optapi.RMSProp)
    assert guarded.skipped == 1 + squares


@pytest.mark.parametrize("kind", [optapi.Gradient, optapi.Momentum, optapi.RMSProp, optapi.ADAM])
def test_bounds_are_in_the_structure_of_the_model(kind):
    target = {"a": np.array([3.0, 0.2]), "b": np.array([[-5.0]])}
    model = {"a": np.array([9.0, 0.0]), "b": np.zeros((1, 1))}
    optimizer = kind(stepsize=optapi.schedules.Exponential(0.2, 0.99), tolerance=1e-2, bounds={"a": [(0, 1), None]})
    for _ in range(1000):
        optimizer.update(model, {name: model[name] - target[name] for name in model})
        assert 0 <= model["a"][0] <= 1
        if optimizer.check_convergence():
            break
        optimizer.update_lr()
    assert optimizer.check_convergence()
    assert model["a"][0] == 1
    # The gradient that was small is that before the step.
    np.testing.assert_allclose(model["a"][1], 0.2, atol=0.2)
    np.testing.assert_allclose(model["b"], -5, atol=0.2)


def test_bounds_under_ascent_and_of_a_model_that_steps_itself():
    class Model:
        def __init__(self):
            self.parameters = [np.zeros(2)]

        def parameter_update(self, delta):
            self.parameters = [p - d for p, d in zip(self.parameters, delta, strict=True)]

    model = Model()
    optimizer = optapi.Gradient(stepsize=1.0, ascent=True, bounds=(-1, 0.5))
    for _ in range(2):
        optimizer.update(model, [np.array([3.0, -3.0])])
    np.testing.assert_array_equal(model.parameters[0], [0.5, -1.0])
    assert optimizer.check_convergence()


def test_bounds_of_another_structure_change_nothing():
    model = [np.zeros(2)]
    with pytest.raises(ValueError, match="bounds is a dict"):
        optapi.Gradient(bounds={"a": (0, 1)}).update(model, [np.ones(2)])
    np.testing.assert_array_equal(model[0], 0)
