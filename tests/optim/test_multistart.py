"""All starts run as one batch, which ends early only where the best was confirmed."""

import numpy as np
import pytest
import torch

from sklearn_inverse.inverse._judged import Judged
from sklearn_inverse.optim._multistart import (
    ALL,
    FIRST,
    PATIENCE,
    VARIED,
    follow,
    multistart,
)
from sklearn_inverse.optim._optimum import Optimum
from sklearn_inverse.probability import InversionStatus


def as_judged(misfit):
    """Return what is explained where nothing is left over, and follows no course."""
    strangeness = torch.where(misfit == 0, 0.0, torch.inf)
    return Judged(misfit, strangeness, torch.full_like(misfit[:, None], torch.nan))


class Wells:
    """Samples with a well at 0 and, for some, a deeper one at 10."""

    is_eager = False

    def __init__(self, has_two, depth=9.0):
        self.has_two, self.depth = torch.as_tensor(has_two), depth

    def judge(self, x, sample, hessian=None):
        return as_judged(torch.where(self.has_two[sample] & (x[:, 0] < 5), 9.0, 0.0))


def starts_of(n_samples, values):
    values = torch.as_tensor(values, dtype=torch.float64)
    return values[None, :, None].expand(n_samples, -1, -1).clone()


def roll_down(objective, calls, *, fails_at=np.inf):
    """Return a climb that ends in the nearest well, and notes what it was asked."""

    def climb(start, sample):
        calls.append(sample.tolist())
        deep = objective.has_two[sample] & (start[:, 0] > 5)
        value = torch.where(deep, -objective.depth, 0.0).double()
        failed = start[:, 0] == fails_at
        status = torch.full_like(sample, InversionStatus.CONVERGED)
        return Optimum(
            torch.where(deep, 10.0, 0.0)[:, None].double(),
            torch.where(failed, torch.inf, value),
            torch.full_like(sample, 3),
            torch.where(failed, int(InversionStatus.FAILED), status),
            torch.eye(1).double().repeat(len(start), 1, 1),
        )

    return climb


def test_every_start_is_run_and_failures_are_counted():
    wells, calls = Wells([False, True]), []
    starts = starts_of(2, [0.0, 8.0, 2.0])
    ends = multistart(wells, starts, roll_down(wells, calls, fails_at=2.0))
    assert calls == [[0, 0, 0, 1, 1, 1]]  # as one batch
    assert ends.value.tolist() == [[0, 0, np.inf], [0, -9, np.inf]]
    assert ends.n_iter.tolist() == [9, 9]
    assert ends.n_failed.tolist() == [1, 1]


def test_an_adaptive_search_goes_on_where_starts_disagree():
    wells, calls = Wells([False, True]), []
    starts = starts_of(2, [0.0] * (FIRST - 1) + [8.0] * (ALL - FIRST + 1))
    ends = multistart(wells, starts, roll_down(wells, calls), adaptive=True)
    assert calls == [[0] * FIRST + [1] * FIRST, [1] * (ALL - FIRST)]
    assert ends.value[0].isinf().sum() == ALL - FIRST
    assert ends.value[1].min() == -9


@pytest.mark.parametrize(
    ("depth", "n_deep", "goes_on"), [(9, 4, 1), (900, 4, 0), (900, 3, 1)]
)
def test_what_most_ends_are_far_better_than_does_not_count(depth, n_deep, goes_on):
    wells, calls = Wells([True], float(depth)), []
    starts = starts_of(1, [8.0] * n_deep + [0.0] * (ALL - n_deep))
    multistart(wells, starts, roll_down(wells, calls), adaptive=True)
    assert len(calls) == 1 + goes_on


def test_a_retry_is_for_what_is_not_explained():
    wells, calls, again = Wells([False, True, True]), [], []

    def retry(start, sample):
        again.append((start[:, 0].tolist(), sample.tolist()))
        return roll_down(wells, [])(start + 8, sample)

    starts = starts_of(3, [1.0, 2.0])
    starts[2, 1] = 9.0
    ends = multistart(wells, starts, roll_down(wells, calls), retry=retry)
    assert again == [([1.0], [1])]
    assert ends.value.tolist() == [[0, 0], [-9, 0], [0, -9]]
    assert ends.n_iter.tolist() == [6, 9, 6]


@pytest.mark.parametrize("adaptive", [True, False])
def test_ctrl_c_in_a_start_ends_the_search(adaptive):
    wells, calls = Wells([False, True]), []
    climb = roll_down(wells, calls)

    def interrupted(start, sample):
        end = climb(start, sample)
        end.status[-1] = InversionStatus.INTERRUPTED
        return end

    ends = multistart(wells, starts_of(2, [0.0] * ALL), interrupted, adaptive=adaptive)
    assert len(calls) == 1
    assert ends.are_interrupted
    assert ends.value[:, 0].isfinite().all()


def test_ctrl_c_in_a_retry_or_a_judgement_keeps_what_was_found():
    wells = Wells([True])

    def retry(start, sample):
        end = roll_down(wells, [])(start, sample)
        end.value[:] = 5.0
        end.status[:] = InversionStatus.INTERRUPTED
        return end

    ends = multistart(
        wells, starts_of(1, [1.0, 2.0]), roll_down(wells, []), retry=retry
    )
    assert ends.are_interrupted
    assert ends.value.tolist() == [[0, 0]]

    def interrupted(*_):
        raise KeyboardInterrupt

    wells.judge = interrupted
    starts = starts_of(1, [8.0] * ALL)
    ends = multistart(wells, starts, roll_down(wells, []), adaptive=True)
    assert ends.are_interrupted
    assert ends.value[0, 0] == -9


class Locks:
    """Four coordinates, each right at 1 and trapped at 0; who is right explains.

    The second sample has no place that explains its readings.
    """

    is_eager = False

    def judge(self, x, sample, hessian=None):
        worse = torch.where(sample == 1, 50.0, 0.0)
        return as_judged(1000.0 * (4 - x.sum(dim=1)) + worse)

    def climb(self, calls):
        def climb(start, sample):
            calls.append(sample.tolist())
            end = start.round()
            value = self.judge(end, sample).misfit
            code = torch.full_like(sample, InversionStatus.CONVERGED)
            hessian = 1e3 * torch.eye(4).double().repeat(len(start), 1, 1)
            return Optimum(end, value, torch.ones_like(sample), code, hessian)

        return climb


def test_a_few_coordinates_are_drawn_anew_where_nothing_is_explained():
    locks, calls = Locks(), []
    starts = torch.eye(4).double().repeat(2, ALL // 4, 1)  # one right in each
    draws = torch.ones(9 * VARIED, 4).double()
    plain = multistart(locks, starts, locks.climb(calls), adaptive=True)
    assert plain.value.min(dim=1).values.tolist() == [3000, 3050]
    calls.clear()
    ends = multistart(locks, starts, locks.climb(calls), adaptive=True, draws=draws)
    assert ends.value.min(dim=1).values.tolist() == [0, 50]
    assert calls[2][0] == 0  # who is explained goes on no more, who cannot be does
    assert calls[-1] == [1] * VARIED
    assert len(calls) <= 2 + 4 + PATIENCE  # of nine rounds
    torch.testing.assert_close(ends.x[:, :ALL], plain.x, rtol=0, atol=0)


def test_what_most_starts_find_is_not_doubted():
    locks, calls = Locks(), []
    starts = torch.zeros(2, ALL, 4).double()
    draws = torch.ones(VARIED, 4).double()
    multistart(locks, starts, locks.climb(calls), adaptive=True, draws=draws)
    # All starts, as nothing is explained, and no more.
    assert [len(rows) for rows in calls] == [2 * FIRST, 2 * (ALL - FIRST)]


def test_a_best_end_that_ran_out_of_iterations_goes_on():
    calls = []

    def climb(start, sample):
        """Halve the way; arrive when it is short."""
        calls.append(sample.tolist())
        x = start / 2
        there = x[:, 0] < 0.3
        code = torch.where(
            there, int(InversionStatus.CONVERGED), int(InversionStatus.MAX_ITER)
        )
        hessian = torch.eye(1).double().repeat(len(x), 1, 1)
        return Optimum(x, x[:, 0], torch.ones_like(sample), code, hessian)

    ends = multistart(Wells([False, False]), starts_of(2, [0.5, 8.0]), climb)
    ends.value[1, 0] = torch.inf
    calls.clear()
    ends = follow(ends, climb)
    assert calls == [[1], [1], [1]]
    assert ends.x[..., 0].tolist() == [[0.25, 4], [0.25, 0.5]]
    assert ends.n_iter.tolist() == [2, 5]
