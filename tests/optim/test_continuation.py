"""Horizons grow by what was observed, and never lead away from a better start."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from sklearn_inverse import ForwardFunction
from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.optim._continuation import (
    continuation,
    growing_horizons,
    led_by_prior,
)
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.probability import InversionStatus

TIMES = torch.linspace(0.0, 10.0, 41, dtype=torch.float64)
FREQUENCY = 4.3


def waves(params):
    return torch.sin(params * TIMES)


def make_objective(readings, noise=0.1):
    model = ForwardFunction(waves, params={"w": (0.5, 8.0)}, noise=noise).fit(None)
    return Objective(model, model.noise_, torch.as_tensor(readings))


def at(frequency):
    return torch.tensor([[(frequency - 0.5) / 7.5]], dtype=torch.float64)


READINGS = waves(torch.tensor([[FREQUENCY]], dtype=torch.float64))[..., None]
ROW = torch.zeros(1, dtype=torch.long)


def optimize(objective, start, sample):
    return levenberg_marquardt(objective, start, sample, max_iter=50, tol=1e-8)


def test_a_frequency_is_found_from_afar():
    objective = make_objective(READINGS)
    direct = optimize(objective, at(3.0), ROW)
    end = continuation(objective, optimize, at(3.0), ROW)
    assert direct.value[0] > end.value[0] + 10
    assert 0.5 + 7.5 * end.x.item() == pytest.approx(FREQUENCY, abs=1e-3)


def test_the_optimum_as_start_is_not_left():
    """Early readings, off by a tenth, lead to another period."""
    readings = READINGS.clone()
    readings[:, 1:11] = waves(torch.tensor([[1.0]]).double())[:, 1:11, None]
    objective = make_objective(readings)
    best = optimize(objective, at(FREQUENCY), ROW)
    led_away = optimize(growing_horizons(objective)[0][0], best.x, ROW)
    assert (led_away.x - best.x).abs() > 0.1
    end = continuation(objective, optimize, best.x, ROW)
    assert end.value <= best.value + 1e-9
    torch.testing.assert_close(end.x, best.x, rtol=0, atol=1e-6)


def test_horizons_double_to_all_observed_times_of_each_sample():
    readings = READINGS.repeat(2, 1, 1)
    readings[1, 12:] = torch.nan
    stages = growing_horizons(make_objective(readings))
    seen = [stage.n_readings.tolist() for stage, _ in stages]
    assert seen[0][0] < 12
    for (before, knew), (now, knows) in pairwise(
        zip(seen, [knows.tolist() for _, knows in stages])
    ):
        assert now == [min(2 * n, most) for n, most in zip(before, [41, 12])]
        assert knows == [n < most for n, most in zip(before, [41, 12])]
        assert knew[0]
    assert seen[-1] == [41, 12]


def test_a_first_stage_holds_twice_as_many_readings_as_params():
    readings = torch.full_like(READINGS, torch.nan)
    readings[:, [3, 20, 30]] = READINGS[:, [3, 20, 30]]
    (first, _), *_ = growing_horizons(make_objective(readings))
    assert first.n_readings.tolist() == [2]


def test_less_than_two_readings_per_param_are_led_to_by_the_prior():
    """One reading fits a wave per period; the likeliest is at the prior's center."""
    readings = torch.full_like(READINGS, torch.nan)
    readings[:, -1] = READINGS[:, -1]
    objective = make_objective(readings)
    direct = optimize(objective, at(7.0), ROW)
    start, n_iter = led_by_prior(objective, optimize, at(7.0), ROW)
    end = optimize(objective, start, ROW)
    assert direct.value[0] > end.value[0] + 0.3
    assert 0.5 + 7.5 * end.x.item() == pytest.approx(FREQUENCY, abs=0.1)
    assert n_iter > 0
    two = make_objective(READINGS.where(torch.arange(41)[:, None] > 38, torch.nan))
    start, n_iter = led_by_prior(two, optimize, at(7.0), ROW)
    assert start == at(7.0)
    assert n_iter == 0


def test_ctrl_c_in_an_early_stage_tells_the_value_of_all_readings():
    objective = make_objective(READINGS)

    def stopped(objective, start, sample):
        end = optimize(objective, start, sample)
        end.status[:] = InversionStatus.INTERRUPTED
        return end

    end = continuation(objective, stopped, at(3.0), ROW)
    np.testing.assert_allclose(end.value, objective.value(end.x, ROW))


def test_ctrl_c_in_the_last_search_of_all_is_told():
    objective, calls = make_objective(READINGS + 3.0), []  # which nothing explains

    stages = len(growing_horizons(objective))
    end = continuation(objective, optimize, at(3.0), ROW)
    assert end.status.tolist() != [InversionStatus.INTERRUPTED]

    def last(part, start, sample):
        calls.append(1)
        end = optimize(part, start, sample)
        if len(calls) > stages:
            end.status[:] = InversionStatus.INTERRUPTED
        return end

    calls.clear()
    end = continuation(objective, last, at(3.0), ROW)
    assert len(calls) == stages + 1
    assert end.status.tolist() == [InversionStatus.INTERRUPTED]


def test_ctrl_c_between_searches_keeps_the_end():
    objective = make_objective(READINGS)
    whole = continuation(objective, optimize, at(3.0), ROW)

    def interrupted(*_):
        raise KeyboardInterrupt

    objective.judge = interrupted
    end = continuation(objective, optimize, at(3.0), ROW)
    assert end.status.tolist() == [InversionStatus.INTERRUPTED]
    assert end.x.tolist() == whole.x.tolist()
