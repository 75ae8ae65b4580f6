"""What is called noise is noise."""

import numpy as np
import pytest
import torch

from sklearn_inverse.inverse._judged import judged
from sklearn_inverse.probability import Poisson, as_noise

N = 20_000


def course_of(residual, seen=None, sd=1.0, experiment=None):
    """Return correlations of residuals (n_rows, n_times) of readings of sines."""
    noise = as_noise(1.0, ["y"], n_times=residual.shape[1], param_names=[])
    mean = 100 * torch.sin(torch.arange(residual.shape[1]).double())[None, :, None]
    y = mean + sd * torch.as_tensor(residual)[..., None]
    seen = torch.ones_like(y, dtype=torch.bool) if seen is None else seen[..., None]
    args = noise.arguments(torch.empty(len(y), 0).double(), [])
    one = np.zeros(y.shape[1]) if experiment is None else experiment
    none = np.array([], dtype=int)
    found = judged(noise, args, y, mean.expand_as(y), seen, none, one)
    return found.course[:, 0]


def test_independent_residuals_follow_no_course():
    rng = np.random.default_rng(0)
    for n_times in (12, 40, 200):
        course = course_of(rng.standard_normal((N, n_times)))
        assert (
            course.isfinite().double().mean() < 3e-3
        )  # three standard deviations: .0013


def test_residuals_that_follow_are_told_with_gaps_too():
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((500, 100))
    for i in range(1, 100):
        steps[:, i] = 0.7 * steps[:, i - 1] + 0.51**0.5 * steps[:, i]
    course = course_of(steps)
    assert course.isfinite().double().mean() > 0.99
    assert abs(course.nanmean() - 0.7) < 0.1
    seen = torch.as_tensor(rng.uniform(size=steps.shape) < 0.7)
    assert course_of(steps, seen).isfinite().double().mean() > 0.8


@pytest.mark.parametrize("mean", [0.01, 0.05, 0.3, 5.0])
def test_counts_of_little_follow_no_course(mean):
    noise = as_noise(Poisson(), ["n"], n_times=40, param_names=[])
    y = torch.as_tensor(np.random.default_rng(0).poisson(mean, (N, 40, 1))).double()
    args = noise.arguments(torch.empty(N, 0).double(), [])
    seen, known = torch.ones_like(y, dtype=torch.bool), np.array([], dtype=int)
    found = judged(noise, args, y, torch.full_like(y, mean), seen, known, np.zeros(40))
    assert found.course.isfinite().double().mean() < (4e-3 if mean > 0.02 else 1e-9)


def test_many_observables_are_many_chances():
    rng = np.random.default_rng(0)
    noise = as_noise(1.0, list(map(str, range(100))), n_times=40, param_names=[])
    y = 100 + torch.as_tensor(rng.standard_normal((1_000, 40, 100)))
    args = noise.arguments(torch.empty(1_000, 0).double(), [])
    seen = torch.ones_like(y, dtype=torch.bool)
    none = np.array([], dtype=int)
    found = judged(noise, args, y, torch.full_like(y, 100), seen, none, np.zeros(40))
    assert (~found.is_noise & found.explained).double().mean() < 5e-3


def test_few_readings_and_residuals_too_small_to_count_have_no_course():
    residual = np.ones((1, 100))
    assert course_of(residual).isfinite().all()
    assert course_of(residual[:, :11]).isnan().all()
    assert course_of(residual, sd=0.2).isnan().all()  # less than the noise
    assert course_of(np.full((1, 100), np.nan)).isnan().all()


def test_residuals_follow_those_of_the_same_experiment():
    residual = np.repeat([[3.0, -3.0, 3.0, -3.0]], 6, axis=1)
    whole = course_of(residual)
    parts = course_of(residual, experiment=np.arange(24) // 6)
    assert whole.item() == pytest.approx((20 - 3) / 24)
    assert parts.item() == pytest.approx(20 / 24)  # as no experiment turns round
    # One reading of each: whatever the order, there is no course.
    assert course_of(np.full((1, 24), 3.0), experiment=np.arange(24)).isnan().all()
