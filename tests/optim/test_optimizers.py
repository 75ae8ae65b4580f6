"""Each row is minimized as if it were alone, and as SciPy does it."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from sklearn_inverse.optim._descent import descend
from sklearn_inverse.optim._lbfgs import lbfgs
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.probability._status import InversionStatus


class Box:
    """What any objective in the unit box has to say."""

    low, high = torch.zeros(2).double(), torch.ones(2).double()
    is_open = torch.zeros(2, dtype=torch.bool)
    n_readings = torch.full((3,), 2)
    is_eager = False


class Curved(Box):
    """Rosenbrock's valley in the unit box, as least squares, one per sample."""

    def __init__(self, minimum, steepness=10.0, fails=None):
        self.minimum, self.steepness, self.fails = minimum, steepness, fails

    def residuals(self, unit, sample):
        a, b = self.minimum[sample].unbind(1)
        x, y = 2 * unit.unbind(1)[0] / (2 * a), unit[:, 1] - b
        return torch.stack([self.steepness * (y + 1 - x**2), 1 - x], dim=1)

    def value(self, unit, sample):
        value = 0.5 * self.residuals(unit, sample).square().sum(1)
        if self.fails is not None:
            value = torch.where(self.fails(unit), torch.inf, value)
        return value

    def linearize(self, unit, sample):
        jacobian = torch.stack(
            [
                torch.autograd.functional.jacobian(
                    lambda u, s=s: self.residuals(u[None], s[None])[0], u
                )
                for u, s in zip(unit, sample)
            ]
        )
        residuals = self.residuals(unit, sample)
        gradient = (residuals[:, None] @ jacobian)[:, 0]
        floor = 1e-9 * torch.eye(2, dtype=unit.dtype)
        return self.value(unit, sample), gradient, jacobian.mT @ jacobian + floor

    def __call__(self, x, rows):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self.value(x, rows)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient


MINIMA = torch.tensor([[0.3, 0.6], [0.8, 0.2], [0.5, 0.5]], dtype=torch.float64)
START = torch.full((3, 2), 0.45, dtype=torch.float64)
ROWS = torch.arange(3)


class Bent(Box):
    """Residuals x + 1 and b x² + x - 1: Gauss–Newton goes from x to b x near 0.

    So it jumps to and fro, and is not attracted by the minimum at 0, where b < -1.
    """

    low, high = torch.full((1,), -1.0).double(), torch.ones(1).double()
    is_open = torch.zeros(1, dtype=torch.bool)
    n_readings = torch.full((1,), 2)

    def __init__(self, bend):
        self.bend = bend

    def residuals(self, x):
        return torch.cat([x + 1, self.bend * x**2 + x - 1], dim=1)

    def value(self, x, sample):
        return 0.5 * self.residuals(x).square().sum(dim=1)

    def linearize(self, x, sample):
        jacobian = torch.stack([torch.ones_like(x), 2 * self.bend * x + 1], dim=1)
        gradient = (self.residuals(x)[:, None] @ jacobian)[:, 0]
        return self.value(x, sample), gradient, jacobian.mT @ jacobian


@pytest.mark.parametrize("bend", [-0.3, -0.5, -0.7])
def test_levenberg_marquardt_knows_curvature_that_gauss_newton_leaves_out(bend):
    row = torch.zeros(1, dtype=torch.long)
    start = torch.full((1, 1), 0.1).double()
    end = levenberg_marquardt(Bent(bend), start, row, max_iter=100, tol=1e-12)
    assert end.status == InversionStatus.CONVERGED
    assert end.x.abs() < 1e-5
    assert end.n_iter <= 6  # without it 10, 17, 33
    # What is returned is that of Gauss–Newton all the same.
    torch.testing.assert_close(end.hessian, Bent(bend).linearize(end.x, row)[2])


def test_levenberg_marquardt_finds_the_minima():
    end = levenberg_marquardt(Curved(MINIMA), START, ROWS, max_iter=100, tol=1e-14)
    torch.testing.assert_close(end.x, MINIMA, rtol=0, atol=1e-6)
    assert (end.status == InversionStatus.CONVERGED).all()
    assert (end.n_iter < 30).all()


class Plateau(Box):
    """A bowl on the left, and far above it a plateau that hardly slopes."""

    n_readings = torch.full((1,), 2)

    def value(self, unit, sample):
        return self.linearize(unit, sample)[0]

    def linearize(self, unit, sample):
        left = unit[:, 0] < 0.5
        away = unit - 0.2
        value = torch.where(left, away.square().sum(1) / 2, 1000 - unit[:, 0])
        slope = torch.tensor([-1.0, 0.0]).double().expand(unit.shape)
        curvature = torch.where(left, 1.0, 1e4)[:, None, None]
        gradient = torch.where(left[:, None], away, slope)
        return value, gradient, curvature * torch.eye(2).double()


def test_a_start_that_cannot_catch_up_is_given_up():
    start = torch.tensor([[0.4, 0.4], [0.6, 0.6]], dtype=torch.float64)
    sample = torch.zeros(2, dtype=torch.long)
    options = {"max_iter": 50, "tol": 1e-10}
    end = levenberg_marquardt(Plateau(), start, sample, **options)
    assert end.status.tolist() == [InversionStatus.CONVERGED, InversionStatus.STALLED]
    assert end.n_iter[1] == 10
    torch.testing.assert_close(end.x[0], torch.full((2,), 0.2).double())
    alone = levenberg_marquardt(Plateau(), start[1:], sample[1:], **options)
    assert alone.n_iter.tolist() == [50]


def test_a_minimum_at_the_wall_is_that_of_scipy():
    outside = torch.tensor([[1.4, 0.9]], dtype=torch.float64)
    curved = Curved(outside, steepness=1.0)
    start, row = START[:1], ROWS[:1]
    end = levenberg_marquardt(curved, start, row, max_iter=100, tol=1e-14)
    known = minimize(
        lambda u: curved.value(torch.tensor(u)[None], row).item(),
        start[0].numpy(),
        method="L-BFGS-B",
        bounds=[(0, 1), (0, 1)],
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    np.testing.assert_allclose(end.x[0], known.x, atol=1e-5)
    assert end.x[0].max() == 1
    assert end.status[0] == InversionStatus.CONVERGED


def test_lbfgs_finds_the_minima_in_about_as_many_calls_as_scipy():
    calls = []

    def counted(x, rows):
        calls.append(len(x))
        return Curved(MINIMA)(x, rows)

    end = lbfgs(counted, START, max_iter=500, tol=1e-15)
    torch.testing.assert_close(end.x, MINIMA, rtol=0, atol=1e-5)
    known = [
        minimize(
            lambda u, i=i: Curved(MINIMA)(torch.tensor(u)[None], ROWS[i : i + 1])[
                0
            ].item(),
            START[i].numpy(),
            method="L-BFGS-B",
            jac=lambda u, i=i: Curved(MINIMA)(torch.tensor(u)[None], ROWS[i : i + 1])[
                1
            ][0].numpy(),
        ).nfev
        for i in range(3)
    ]
    assert sum(calls) < 3 * sum(known)


@pytest.mark.parametrize(
    "optimize",
    [
        lambda f, x, r: levenberg_marquardt(f, x, r, max_iter=7, tol=0),
        lambda f, x, r: lbfgs(lambda z, i: f(z, r[i]), x, max_iter=7, tol=0),
        lambda f, x, r: descend(
            lambda z, i: f(z, r[i]), x, method="adam", lr=0.01, max_iter=7
        ),
    ],
    ids=["levenberg_marquardt", "lbfgs", "adam"],
)
def test_a_row_does_not_see_the_others(optimize):
    curved = Curved(MINIMA)
    together = optimize(curved, START, ROWS)
    for i in range(3):
        alone = optimize(curved, START[i : i + 1], ROWS[i : i + 1])
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-9, atol=0)


def test_steps_into_what_cannot_be_simulated_are_not_taken():
    curved = Curved(MINIMA, fails=lambda u: u[:, 0] > 0.7)
    end = levenberg_marquardt(curved, START, ROWS, max_iter=100, tol=1e-14)
    assert (end.x[:, 0] <= 0.7).all()
    assert end.value.isfinite().all()
    torch.testing.assert_close(end.x[[0, 2]], MINIMA[[0, 2]], rtol=0, atol=1e-6)
    nowhere = Curved(MINIMA, fails=lambda u: u[:, 0] > 0)
    end = levenberg_marquardt(nowhere, START, ROWS, max_iter=100, tol=1e-14)
    assert (end.status == InversionStatus.FAILED).all()


@pytest.mark.parametrize("method", ["sgd", "adam"])
def test_descent_is_that_of_torch(method):
    curved = Curved(MINIMA[:1])
    end = descend(curved, START[:1], method=method, lr=1e-4, max_iter=25)
    x = START[:1].clone().requires_grad_()
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[method]([x], lr=1e-4)
    for _ in range(25):
        optimizer.zero_grad()
        curved.value(x, ROWS[:1]).sum().backward()
        optimizer.step()
    torch.testing.assert_close(end.x, x.detach())


class Bowl(Box):
    """Squared distance to a point, whose derivatives or values may fail."""

    def __init__(self, no_slope_above=9.0, grain=0.0):
        self.no_slope_above, self.grain = no_slope_above, grain

    def value(self, x, sample):
        value = 50 * (x - 0.8).square().sum(dim=1) + 1
        return (value / self.grain).round() * self.grain if self.grain else value

    def linearize(self, x, sample):
        value = self.value(x, sample)
        value = torch.where(x[:, 0] > self.no_slope_above, torch.inf, value)
        return value, 100 * (x - 0.8), 100 * torch.eye(2).double().expand(1, -1, -1)


def run(bowl, start=0.3, tol=1e-6):
    start = torch.full((1, 2), start, dtype=torch.float64)
    return levenberg_marquardt(bowl, start, ROWS[:1], max_iter=60, tol=tol)


def test_a_step_to_where_there_are_no_derivatives_is_taken_back():
    end = run(Bowl(no_slope_above=0.6))
    assert end.x[0, 0] <= 0.6
    assert end.value.isfinite().all()


def test_round_off_of_the_model_is_not_taken_for_a_stall():
    end = run(Bowl(grain=1e-3), tol=1e-5)
    assert end.status[0] == InversionStatus.CONVERGED
    assert (end.x - 0.8).abs().max() < 0.01


def test_an_open_bound_is_approached_but_not_reached():
    class Open(Bowl):
        high = torch.tensor([0.5, 1.0]).double()
        is_open = torch.ones(2, dtype=torch.bool)

        def value(self, x, sample):
            return super().value(x, sample).where(x[:, 0] < 0.5, torch.inf)

    end = run(Open())
    assert 0.49 < end.x[0, 0] < 0.5
    assert end.x[0, 1] == pytest.approx(0.8, abs=1e-3)


def test_ctrl_c_keeps_the_best_point_so_far():
    class Stopped(Bowl):
        n_calls = 0

        def value(self, x, sample):
            self.n_calls += 1
            if self.n_calls == 2:
                raise KeyboardInterrupt
            return super().value(x, sample)

    # The first call comes with the derivatives at the start, the second is a step.
    end = run(Stopped())
    assert end.status[0] == InversionStatus.INTERRUPTED
    assert (end.x == 0.3).all()
    assert end.value[0] == pytest.approx(26.0)


def test_a_search_that_is_stuck_does_not_claim_to_have_converged():
    def cliff(x, rows):
        # The slope points over the edge of what can be computed.
        value = torch.where(x[:, 0] > 0, torch.inf, 10 - x[:, 1])
        gradient = torch.tensor([[-1e3, -1.0]], dtype=torch.float64)
        return value, gradient.expand(len(x), -1).clone()

    start = torch.zeros(1, 2, dtype=torch.float64)
    end = lbfgs(cliff, start, max_iter=50, tol=1e-8)
    assert end.status[0] in (InversionStatus.STALLED, InversionStatus.MAX_ITER)


def bowl(x, rows):
    return 50 * (x - 0.8).square().sum(dim=1), 100 * (x - 0.8)


def test_memory_of_one_pair_is_enough_for_a_bowl():
    end = lbfgs(bowl, torch.zeros(1, 3).double(), max_iter=50, tol=1e-12, memory=1)
    assert (end.x - 0.8).abs().max() < 1e-5


def test_steps_of_lbfgs_stay_within_reach():
    seen = []

    def watched(x, rows):
        seen.append(x.clone())
        return bowl(x, rows)

    def reach(x, rows):
        return x - 0.1, x + 0.05

    end = lbfgs(
        watched, torch.zeros(1, 2).double(), max_iter=50, tol=1e-12, reach=reach
    )
    steps = torch.cat(seen).diff(dim=0)
    assert steps.max() <= 0.05 + 1e-12
    assert (end.x - 0.8).abs().max() < 1e-5


def test_every_status_has_its_sentence():
    assert len({status.sentence for status in InversionStatus}) == len(InversionStatus)
