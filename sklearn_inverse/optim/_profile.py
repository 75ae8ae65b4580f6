"""Profiles of an objective: one coordinate held, the others optimized, step by step."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_inverse.optim._levenberg_marquardt import (
    damped_step,
    inside,
    levenberg_marquardt,
)
from sklearn_inverse.probability._laplace import inverse
from sklearn_inverse.probability._status import InversionStatus

__all__ = ["Profiles", "profile"]

FAR = 100.0  # scaled units: where an unbounded coordinate is open
N_RETRIES = 5  # shorter steps where the model fails, or a step went too far
N_POLISH = 4  # evaluations that settle where the threshold is crossed
BETTER = 1e-3  # of deviance: what shows a better optimum


class Held:
    """An objective of one sample, with one coordinate of each numbered row held."""

    def __init__(self, objective, coordinate: Tensor):
        self.objective, self.coordinate = objective, coordinate
        self.low, self.high = objective.low, objective.high
        self.is_open, self.is_eager = objective.is_open, objective.is_eager
        self.n_readings = objective.n_readings.expand(len(coordinate))

    def value(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return the objective of each row."""
        return self.objective.value(x, torch.zeros_like(rows))

    def linearize(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return value, gradient and Hessian, as if the held coordinate did nothing."""
        value, gradient, hessian = self.objective.linearize(x, torch.zeros_like(rows))
        i, j = torch.arange(len(x), device=x.device), self.coordinate[rows]
        gradient[i, j] = 0.0
        hessian[i, j] = 0.0
        hessian[i, :, j] = 0.0
        hessian[i, j, j] = 1.0
        return value, gradient, hessian


class Profiles(NamedTuple):
    """Profiles of some coordinates, with two rows each: downwards and upwards.

    Attributes
    ----------
    x : Tensor of shape (n_free,)
        The optimum: the start, or what was found to be better.

    value : float
        The objective there.

    points : list of list of (Tensor, float)
        For each row, points off the optimum and their deviances, in order of distance.

    limits : Tensor of shape (n_coordinates, 2)
        Where deviances reach the threshold: infinite where they never do, NaN beyond
        what can be run.

    is_sure : Tensor of bool of shape (n_coordinates, 2)
        Whether the others had converged there; if not, limits are too near.
    """

    x: Tensor
    value: float
    points: list
    limits: Tensor
    is_sure: Tensor


def profile(
    objective,
    start: Tensor,
    coordinates: Tensor,
    *,
    threshold: float,
    n_steps: int,
    others: Tensor | None = None,
    max_iter: int = 50,
    tol: float = 1e-5,
) -> Profiles:
    """Walk from an optimum along coordinates, both ways, all of them in step.

    Every walk ends where its deviance, twice the rise of the objective, has passed the
    threshold, or at a bound. Steps are such that the root of the deviance rises evenly;
    each starts on the line through the two points before.

    Parameters
    ----------
    objective : object
        Of one sample, as :func:`levenberg_marquardt` takes it.

    start : Tensor of shape (n_free,)
        Near the optimum.

    coordinates : Tensor of shape (n_coordinates,)
        Which to hold.

    threshold : float
        Deviance to reach.

    n_steps : int
        About how many steps this is to take.

    others : Tensor of shape (n_others, n_free), default=None
        Other optima: walks go beyond them, and every step starts from them as well.

    max_iter : int, default=50
        Most iterations at each point.

    tol : float, default=1e-5
        How near to its optimum the objective must come.

    Returns
    -------
    profiles : Profiles
        What was found. If that is better than the optimum, the walks are begun anew
        from there.
    """
    others = start[:0].reshape(0, len(start)) if others is None else others
    # Deviances are relative to the optimum: that must be exact.
    exact = 1e-4 * tol / (1 + float(objective.n_readings[0]))
    options = {"max_iter": max_iter, "tol": 1e4 * exact}
    n_restarts = 3
    while True:
        one = torch.zeros_like(coordinates[:1])
        end = levenberg_marquardt(
            objective, start[None], one, max_iter=2 * max_iter, tol=exact
        )
        walk = _Walk(objective, end, coordinates, others, threshold, options)
        walk.advance(n_steps)
        lowest, start = walk.lowest
        if lowest > -BETTER or n_restarts == 0:
            break
        n_restarts -= 1
    options["max_iter"] = 4 * max_iter
    walk.polish()
    return Profiles(
        end.x[0], float(end.value[0]), walk.points, walk.limits, walk.is_sure
    )


class _Walk:
    """All walks from one optimum."""

    def __init__(self, objective, end, coordinates, others, threshold, options):
        self.objective, self.others, self.options = objective, others, options
        self.threshold, self.value = threshold, float(end.value[0])
        self.origin = end.x[0]
        n_rows = 2 * len(coordinates)
        self.coordinate = coordinates.repeat_interleave(2)
        self.side = end.x.new_tensor([-1.0, 1.0]).repeat(len(coordinates))
        self.points: list[list] = [[] for _ in range(n_rows)]
        self.limits = end.x.new_full((n_rows,), torch.nan).reshape(-1, 2)
        self.is_sure = torch.ones_like(self.limits, dtype=torch.bool)
        spread = inverse(end.hessian)[0]
        self.variance = spread.diagonal()[self.coordinate]
        # How the others follow: the slope of the ridge at the optimum.
        self.slope = spread[self.coordinate] / self.variance[:, None]

    @property
    def lowest(self):
        """The lowest deviance on all walks, and where it is."""
        points = [(deviance, x) for row in self.points for x, deviance in row]
        return min(points, key=lambda p: p[0], default=(0.0, self.origin))

    def solve(self, i: Tensor, start: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return optima of rows with their coordinate held, and their deviances.

        Whether they converged is kept.
        """
        n_ways = 1 + len(self.others)
        starts = torch.cat(
            [start[:, None], self.others.expand(len(i), -1, -1)], dim=1
        ).clone()
        starts = torch.minimum(
            torch.maximum(starts, self.objective.low), self.objective.high
        )
        every = torch.arange(len(i), device=i.device)
        starts[every, :, self.coordinate[i]] = at[:, None]
        held = Held(self.objective, self.coordinate[i].repeat_interleave(n_ways))
        rows = torch.arange(len(held.coordinate), device=i.device)
        end = levenberg_marquardt(held, starts.flatten(0, 1), rows, **self.options)
        value, best = end.value.reshape(-1, n_ways).min(dim=1)
        x = end.x.reshape(len(i), n_ways, -1)[every, best]
        status = end.status.reshape(-1, n_ways)[every, best]
        self.is_sure.view(-1)[i] = status != InversionStatus.MAX_ITER
        return x, 2 * (value - self.value)

    def advance(self, n_steps: int) -> None:
        """Walk on until the threshold or a bound is reached."""
        coordinate, side = self.coordinate, self.side
        every = torch.arange(len(coordinate), device=coordinate.device)
        x = self.origin.repeat(len(every), 1)
        low, high = self.objective.low, self.objective.high
        end = torch.where(side < 0, low[coordinate], high[coordinate])
        here = self.origin[coordinate]
        far = torch.minimum((end - here).abs(), torch.full_like(end, FAR))
        last = here + side * far
        aim = self.threshold**0.5
        wanted = aim / n_steps
        step = torch.minimum(self.variance.sqrt() * wanted, far.clamp(max=1) / n_steps)
        slope, root = self.slope.clone(), torch.zeros_like(step)
        n_retries = torch.zeros_like(every)
        is_open = self.objective.is_open[coordinate]
        at_end = far == 0
        self.limits.view(-1)[at_end] = side[at_end] * torch.inf
        running = ~at_end
        for _ in range(8 * n_steps):
            i = running.nonzero()[:, 0]
            if len(i) == 0:
                break
            move = torch.zeros_like(x[i])
            move.scatter_(1, coordinate[i, None], (side * step)[i, None])
            at = inside(x[i], move, self.objective).gather(1, coordinate[i, None])[:, 0]
            at = torch.where(side[i] < 0, at.maximum(last[i]), at.minimum(last[i]))
            ahead = self._ahead(i, x[i])
            at = torch.where(side[i] < 0, at.maximum(ahead), at.minimum(ahead))
            change = at - x[i, coordinate[i]]
            new, deviance = self.solve(i, x[i] + slope[i] * change[:, None], at)
            new_root = deviance.clamp(min=0).sqrt()
            rise = new_root - root[i]
            # Too far, or where nothing can be run: again, with a shorter step.
            failed = ~deviance.isfinite()
            bad = failed | ((rise > 0.5 * aim) & (root[i] < aim))
            retry = bad & (n_retries[i] < N_RETRIES)
            n_retries[i[retry]] += 1
            shorter = (wanted / rise[retry]).nan_to_num(0.25).clamp(0.1, 0.5)
            step[i[retry]] = change[retry].abs() * shorter
            slope[i[retry & failed]] = 0.0
            running[i[failed & ~retry]] = False  # and the limit stays NaN
            good = ~failed & ~retry
            i, new, deviance, change = i[good], new[good], deviance[good], change[good]
            at, rise, root[i] = at[good], rise[good], new_root[good]
            for row, point, d in zip(i.tolist(), new, deviance.tolist()):
                self.points[row].append((point, d))
            slope[i] = torch.where(
                change[:, None] == 0, 0.0, (new - x[i]) / change[:, None]
            )
            x[i], n_retries[i] = new, 0
            growth = torch.where(rise > 0, wanted / rise, 2.0).clamp(0.5, 2.0)
            growth = torch.where(root[i] > aim, 2.0, growth)  # on to the next optimum
            step[i] = torch.minimum(
                change.abs() * growth, far[i].clamp(max=1) / n_steps
            )
            passed = (root[i] > aim) & self._ahead(i, new).isinf()
            stuck = is_open[i] & (change.abs() < 1e-12)
            ends = ~passed & ((at == last[i]) | stuck)
            self.limits.view(-1)[i[ends]] = side[i[ends]] * torch.inf
            running[i[passed | ends]] = False

    def _ahead(self, i: Tensor, x: Tensor) -> Tensor:
        """Return where the next optimum on each walk is, infinite behind the last."""
        side, others = self.side[i], self.others[:, self.coordinate[i]].T
        distance = side[:, None] * (others - x.gather(1, self.coordinate[i, None]))
        distance = torch.where(distance > 1e-9, distance, torch.inf)
        none = torch.full_like(side[:, None], torch.inf)
        distance = torch.cat([distance, none], dim=1).amin(dim=1)
        return x.gather(1, self.coordinate[i, None])[:, 0] + side * distance

    def polish(self) -> None:
        """Settle where deviances cross the threshold, by the secant of their roots.

        A limit that would not be there but for a bound of another coordinate is none.
        """
        aim = self.threshold**0.5
        brackets = {}
        for row, points in enumerate(self.points):
            path = [(self.origin, 0.0), *points]
            within = [d <= self.threshold for _, d in path]
            k = max(n for n, inner in enumerate(within) if inner)
            if k + 1 < len(path):
                brackets[row] = (path[k], path[k + 1])
        for _ in range(N_POLISH):
            pending = [
                row
                for row, ends in brackets.items()
                if min(abs(d - self.threshold) for _, d in ends) > 3e-4 * self.threshold
            ]
            if not pending:
                break
            i = torch.tensor(pending, device=self.coordinate.device)
            starts = []
            for row in pending:
                (a, low), (b, high) = brackets[row]
                low, high = max(low, 0.0) ** 0.5, min(high, 1e300) ** 0.5
                share = min(max((aim - low) / (high - low), 0.05), 0.95)
                starts.append(a + share * (b - a))
            start = torch.stack(starts)
            at = start.gather(1, self.coordinate[i, None])[:, 0]
            found, deviance = self.solve(i, start, at)
            for row, end in zip(pending, zip(found, deviance.tolist())):
                inner, outer = brackets[row]
                self.points[row].append(end)
                is_inner = end[1] <= self.threshold
                brackets[row] = (end, outer) if is_inner else (inner, end)
        if not brackets:
            return
        i = torch.tensor(list(brackets), device=self.coordinate.device)
        x = torch.stack(
            [
                min(ends, key=lambda end: abs(end[1] - self.threshold))[0]
                for ends in brackets.values()
            ]
        )
        at = x.gather(1, self.coordinate[i, None])[:, 0]
        is_none = self._is_held(i, x)
        self.limits.view(-1)[i] = torch.where(is_none, self.side[i] * torch.inf, at)
        for row in brackets:
            self.points[row].sort(key=partial(self._distance, self.coordinate[row]))

    def _is_held(self, i: Tensor, x: Tensor) -> Tensor:
        """Whether rows would have no limit but for the bounds of other coordinates.

        One step beyond these, damped to about one scaled unit, tells how much lower
        deviances would be, and so, by their parabola, how much wider the limits.
        """
        low, high = self.objective.low, self.objective.high
        held = Held(self.objective, self.coordinate[i])
        _, gradient, hessian = held.linearize(x, torch.arange(len(i), device=x.device))
        new = ((x <= low) & (self.origin > low)) | ((x >= high) & (self.origin < high))
        hessian = hessian + self.threshold * torch.diag_embed(new.to(x))
        free, undamped = torch.zeros_like(new), torch.zeros_like(x[:, 0])
        step = damped_step(gradient, hessian, free, undamped)
        left = self.threshold + (gradient * step).sum(dim=1)
        wider = (self.threshold / left.clamp(min=1e-12)).sqrt()
        j = self.coordinate[i]
        end = torch.where(self.side[i] < 0, low[j], high[j])
        room = (end - self.origin[j]).abs().clamp(max=FAR)
        reach = wider * (x.gather(1, j[:, None])[:, 0] - self.origin[j]).abs()
        return new.any(dim=1) & (reach >= room)

    def _distance(self, j, point):
        return float((point[0] - self.origin)[j].abs())
