"""Plain NumPy twins of Newton's methods and of those for least squares, written from the books, on dense matrices."""

import numpy as np
from reference.quasi_newton import strong_wolfe


class Rosenbrock:
    """The extended function of Rosenbrock as half a sum of squares, with all derivatives by hand."""

    start = np.array([-1.2, 1.0, 0.5, 2.0])

    def residuals(self, x):
        return np.concatenate([10 * (x[1::2] - x[::2] ** 2), 1 - x[::2]])

    def jacobian(self, x):
        half = x.size // 2
        J = np.zeros((x.size, x.size))
        for i in range(half):
            J[i, 2 * i], J[i, 2 * i + 1], J[half + i, 2 * i] = -20 * x[2 * i], 10.0, -1.0
        return J

    def hessian(self, x):
        J, r = self.jacobian(x), self.residuals(x)
        H = J.T @ J
        for i in range(x.size // 2):
            H[2 * i, 2 * i] -= 20 * r[i]
        return H


class Decay:
    """A curve of two exponentials fitted to seven numbers: the residuals do not vanish."""

    start = np.array([2.0, 0.3, 0.5, 4.0])
    times = np.linspace(0.0, 3.0, 7)
    data = np.array([2.1, 1.3, 0.8, 0.62, 0.39, 0.35, 0.21])

    def parts(self, x):
        return np.exp(-x[1] * self.times), np.exp(-x[3] * self.times)

    def residuals(self, x):
        slow, fast = self.parts(x)
        return x[0] * slow + x[2] * fast - self.data

    def jacobian(self, x):
        slow, fast = self.parts(x)
        return np.column_stack([slow, -x[0] * self.times * slow, fast, -x[2] * self.times * fast])

    def hessian(self, x):
        (slow, fast), r, t = self.parts(x), self.residuals(x), self.times
        H = self.jacobian(x).T @ self.jacobian(x)
        for i, curve in ((0, slow), (2, fast)):
            H[i, i + 1] -= r @ (t * curve)
            H[i + 1, i] -= r @ (t * curve)
            H[i + 1, i + 1] += r @ (x[i] * t**2 * curve)
        return H


# SciPy's, with their first and second derivatives.
LOSSES = {
    "soft_l1": lambda z: (2 * (np.sqrt(1 + z) - 1), (1 + z) ** -0.5, -((1 + z) ** -1.5) / 2),
    "huber": lambda z: (
        np.where(z <= 1, z, 2 * np.sqrt(np.maximum(z, 1)) - 1),
        np.where(z <= 1, 1, np.maximum(z, 1) ** -0.5),
        np.where(z <= 1, 0, -(np.maximum(z, 1) ** -1.5) / 2),
    ),
    "cauchy": lambda z: (np.log(1 + z), 1 / (1 + z), -1 / (1 + z) ** 2),
    "arctan": lambda z: (np.arctan(z), 1 / (1 + z**2), -2 * z / (1 + z**2) ** 2),
}


class Robust:
    """A least-squares problem with a loss, as the weighted residuals and derivatives of Triggs, in SciPy's form."""

    def __init__(self, problem, loss, f_scale):
        self.problem, self.start = problem, problem.start
        self.loss, self.f_scale = LOSSES[loss], f_scale

    def weighted(self, x):
        r, J = self.problem.residuals(x), self.problem.jacobian(x)
        z = (r / self.f_scale) ** 2
        rho = self.loss(z)
        w = np.sqrt(np.maximum(rho[1] + 2 * rho[2] * z, np.finfo(float).eps))
        return self.f_scale**2 * np.sum(rho[0]) / 2, rho[1] * r / w, w[:, None] * J

    def cost(self, x):
        return self.weighted(x)[0]

    def residuals(self, x):
        return self.weighted(x)[1]

    def jacobian(self, x):
        return self.weighted(x)[2]


def cost(problem, x):
    if isinstance(problem, Robust):
        return problem.cost(x)
    return problem.residuals(x) @ problem.residuals(x) / 2


def gradient(problem, x):
    return problem.jacobian(x).T @ problem.residuals(x)


class Run:
    """A run from given points, or free. A twin gives ``step(problem, x)``, which returns the next point."""

    def points(self, problem, x, steps, along=None):
        """The points after each step. With `along`, points, each step starts at the point there."""
        found = []
        for count in range(steps):
            found.append(self.step(problem, x))
            x = found[-1] if along is None else along[count]
        return found


def searched(problem, x, d, steepest=False):
    """The point that the search finds along `d`."""
    g = gradient(problem, x)
    if steepest or not g @ d < 0:
        d, first = -g, 1 / max(1, np.linalg.norm(g))
    else:
        first = 1.0

    def line(a):
        return cost(problem, x + a * d), gradient(problem, x + a * d) @ d

    return x + strong_wolfe(line, cost(problem, x), g @ d, first)[0] * d


class Newton(Run):
    """Nocedal and Wright (2006), section 3.4, with the absolute values of the eigenvalues."""

    def step(self, problem, x):
        values, vectors = np.linalg.eigh(problem.hessian(x))
        B = vectors @ np.diag(abs(values)) @ vectors.T
        return searched(problem, x, -np.linalg.solve(B, gradient(problem, x)))


class NewtonCG(Run):
    """Nocedal and Wright (2006), algorithm 7.1, but for a step along each direction without positive curvature."""

    def step(self, problem, x):
        g, B = gradient(problem, x), problem.hessian(x)
        size = np.linalg.norm(g)
        tolerance = min(0.5, np.sqrt(size)) * size
        z, r, d = np.zeros_like(x), g, -g
        while True:
            curvature = d @ B @ d
            if curvature <= 0:
                return searched(problem, x, z + (r @ r) / (np.linalg.norm(d) * np.linalg.norm(B @ d)) * d)
            a = (r @ r) / curvature
            z = z + a * d
            r_new = r + a * B @ d
            if np.linalg.norm(r_new) < tolerance:
                return searched(problem, x, z)
            d = -r_new + (r_new @ r_new) / (r @ r) * d
            r = r_new


def quality(problem, x, p, promised):
    """The ratio of the decrease to the promised one, by Conn, Gould and Toint (2000), section 17.4.2."""
    noise = 8 * np.finfo(float).eps * cost(problem, x)
    return (cost(problem, x) - cost(problem, x + p) + noise) / (promised + noise)


class TrustRegion(Run):
    """Nocedal and Wright (2006), algorithms 7.2 and 4.1; of a step that is refused a quarter is the next radius."""

    def __init__(self, radius=1.0, accept=0.15):
        self.radius, self.accept = radius, accept

    def steihaug(self, g, B):
        """The step, and whether it ends at the boundary."""
        size = np.linalg.norm(g)
        tolerance = min(0.5, np.sqrt(size)) * size
        z, r, d = np.zeros_like(g), g, -g

        def boundary():
            a, b, c = d @ d, 2 * z @ d, z @ z - self.radius**2
            roots = np.roots([a, b, c])
            return z + max(roots) * d, True

        while True:
            curvature = d @ B @ d
            if curvature <= 0:
                return boundary()
            a = (r @ r) / curvature
            if np.linalg.norm(z + a * d) >= self.radius:
                return boundary()
            z = z + a * d
            r_new = r + a * B @ d
            if np.linalg.norm(r_new) < tolerance:
                return z, False
            d = -r_new + (r_new @ r_new) / (r @ r) * d
            r = r_new

    def step(self, problem, x):
        g, B = gradient(problem, x), problem.hessian(x)
        while True:
            p, full = self.steihaug(g, B)
            rho = quality(problem, x, p, -(g @ p + p @ B @ p / 2))
            if rho < 1 / 4:
                self.radius = np.linalg.norm(p) / 4
            elif rho > 3 / 4 and full:
                self.radius = 2 * self.radius
            if rho > self.accept:
                return x + p


class GaussNewton(Run):
    """Nocedal and Wright (2006), section 10.3."""

    def step(self, problem, x):
        return searched(problem, x, -np.linalg.lstsq(problem.jacobian(x), problem.residuals(x), rcond=None)[0])


class LevenbergMarquardt(Run):
    """Madsen, Nielsen and Tingleff (2004), algorithm 3.16; with scales, those of Moré (1978) if `scaled`."""

    def __init__(self, scaled=False, tau=1e-3, x_scale=1.0):
        self.scaled, self.tau, self.mu, self.D, self.x_scale = scaled, tau, None, 0.0, x_scale

    def step(self, problem, x):
        J, r = problem.jacobian(x), problem.residuals(x)
        self.D = np.maximum(self.D, np.linalg.norm(J, axis=0)) if self.scaled else np.ones(x.size) / self.x_scale
        if self.mu is None:
            self.mu = self.tau * max(np.diag(J.T @ J) / self.D**2)
        nu = 2.0
        while True:
            damped = np.vstack([J, np.sqrt(self.mu) * np.diag(self.D)])
            h = np.linalg.lstsq(damped, -np.concatenate([r, np.zeros(x.size)]), rcond=None)[0]
            promised = h @ (self.mu * self.D**2 * h - J.T @ r) / 2
            rho = quality(problem, x, h, promised)
            if rho > 0:
                self.mu *= max(1 / 3, 1 - (2 * rho - 1) ** 3)
                return x + h
            self.mu, nu = self.mu * nu, 2 * nu
