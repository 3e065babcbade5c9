"""A hierarchical Poisson model of breast cancer in 301 counties, fitted from ten starts: by optapi and by SciPy.

The deaths from 1950 to 1960 in the counties of North Carolina, South Carolina and Georgia, beside the numbers of women
there in 1960 (Rice, Mathematical Statistics and Data Analysis; with statsmodels). In county i there are

    deaths[i] ~ Poisson(women[i] * rate[i]),    rate[i] ~ Gamma(shape, mean = exp(level + slope * (log women[i] - c))).

Without the rates, which can be integrated out, the likelihood has three parameters: the level, the slope, which says
whether the rate is another one in large counties, and the shape, which says how much the counties differ beyond that.
What is known of a rate afterwards is again a gamma distribution, whose mean lies between the county's own rate and that
of all: the fewer women, the nearer to that of all.
"""

from time import perf_counter

import numpy as np
import pytensor
import pytensor.tensor as pt
import scipy.optimize
from pytensor.graph.replace import graph_replace
from statsmodels.datasets import cancer

import optapi


TOLERANCE = 1e-5


def counties():
    """The deaths and the numbers of women."""
    data = cancer.load().data
    return (data[name].to_numpy(dtype=float) for name in ("cancer", "population"))


def model():
    """The parameters, and the negative logarithm of the likelihood but for a constant, for one county on average."""
    deaths, women = counties()
    level, slope, log_shape = (pytensor.shared(v, name=n) for v, n in ((-5.0, "level"), (0.0, "slope"), (1.0, "shape")))
    shape = pt.exp(log_shape)
    mean = women * pt.exp(level + slope * (np.log(women) - np.log(women).mean()))
    likelihood = (
        *(pt.gammaln(shape + deaths), -pt.gammaln(shape), shape * log_shape, deaths * pt.log(mean)),
        -(shape + deaths) * pt.log(shape + mean),
    )
    return [level, slope, log_shape], -pt.mean(sum(likelihood[1:], likelihood[0]))


def by_scipy(parameters, cost, starts, mode):
    """The results of L-BFGS-B on the compiled cost and gradient, and the seconds of all minimizations."""
    x = pt.dvector("x")
    outputs = [cost, *pytensor.grad(cost, parameters)]
    value, *gradients = graph_replace(outputs, dict(zip(parameters, [x[0], x[1], x[2]], strict=True)))
    both = pytensor.function([x], [value, pt.stack(gradients)], mode=mode, trust_input=True)

    def f(x):
        value, gradient = both(x)
        return float(value), gradient

    options = {"gtol": TOLERANCE, "ftol": 0.0, "maxcor": 10}
    points = np.column_stack(starts)
    f(points[0])
    began = perf_counter()
    found = [scipy.optimize.minimize(f, point, jac=True, method="L-BFGS-B", options=options) for point in points]
    return found, perf_counter() - began


def by_optapi(parameters, cost, starts, mode):
    """The same by `compile_minimizer`."""
    run = optapi.compile_minimizer(parameters, cost, "lbfgs", tolerance=TOLERANCE, mode=mode)
    run.from_starts(starts)
    began = perf_counter()
    found = run.from_starts(starts)
    return found, perf_counter() - began


def main(mode="NUMBA", count=10):
    parameters, cost = model()
    starts = optapi.sample_starts(parameters, count, "latin_hypercube", scale=[2.0, 0.5, 3.0], seed=0)
    ours, our_seconds = by_optapi(parameters, cost, starts, mode)
    theirs, their_seconds = by_scipy(parameters, cost, starts, mode)
    rows = {
        "milliseconds": [round(1e3 * our_seconds, 2), round(1e3 * their_seconds, 2)],
        "iterations": [sum(r.nit for r in found) for found in (ours, theirs)],
        "evaluations": [sum(r.nfev for r in found) for found in (ours, theirs)],
        "converged": [sum(bool(r.success) for r in found) for found in (ours, theirs)],
        "lowest cost": [round(min(r.fun for r in found), 9) for found in (ours, theirs)],
        "highest cost": [round(max(r.fun for r in found), 9) for found in (ours, theirs)],
    }
    print(f"{f'{count} starts':14}{'optapi':>16}{'SciPy':>16}")
    for name, (one, other) in rows.items():
        print(f"{name:14}{one:16}{other:16}")

    best, other = ours[0], min(theirs, key=lambda r: r.fun)
    apart = max(abs(np.array(best.x) - other.x))
    print(f"largest difference of a parameter at the two optima: {apart:.1e}")
    level, slope, shape = best.x[0], best.x[1], np.exp(best.x[2])
    deaths, women = counties()
    mean = np.exp(level + slope * (np.log(women) - np.log(women).mean()))
    rates = (shape + deaths) / (shape / mean + women)
    errors = np.array(best.standard_errors()) / np.sqrt(deaths.size)  # the cost is a mean
    print(f"\ndeaths for 10,000 women in a county of usual size: {1e4 * np.exp(level):.1f}")
    print(f"slope {slope:.3f} (standard error {errors[1]:.3f})")
    print(f"the counties differ by {100 / np.sqrt(shape):.0f} % beyond that; own rates for 10,000 are from", end=" ")
    print(f"{1e4 * (deaths / women).min():.1f} to {1e4 * (deaths / women).max():.1f},", end=" ")
    print(f"their estimates from {1e4 * rates.min():.1f} to {1e4 * rates.max():.1f}")
    return ours, theirs, apart


if __name__ == "__main__":
    main()
