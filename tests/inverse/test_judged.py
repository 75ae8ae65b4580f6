"""What is called noise is noise."""

import numpy as np
import torch

from sklearn_inverse.inverse._judged import judged
from sklearn_inverse.probability import as_noise

N = 20_000


def course_of(residual, seen=None, sd=1.0):
    """Return correlations of residuals (n_rows, n_times) of readings of sines."""
    noise = as_noise(1.0, ["y"], n_times=residual.shape[1], param_names=[])
    mean = 100 * torch.sin(torch.arange(residual.shape[1]).double())[None, :, None]
    y = mean + sd * torch.as_tensor(residual)[..., None]
    seen = torch.ones_like(y, dtype=torch.bool) if seen is None else seen[..., None]
    args = noise.arguments(torch.empty(len(y), 0).double(), [])
    found = judged(noise, args, y, mean.expand_as(y), seen, np.array([], dtype=int))
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
    assert abs(course.nanmean() - 0.7) < 0.05
    seen = torch.as_tensor(rng.uniform(size=steps.shape) < 0.7)
    assert course_of(steps, seen).isfinite().double().mean() > 0.9


def test_few_readings_and_residuals_too_small_to_count_have_no_course():
    residual = np.ones((1, 100))
    assert course_of(residual).isfinite().all()
    assert course_of(residual[:, :11]).isnan().all()
    assert course_of(residual, sd=1e-3).isnan().all()
    assert course_of(np.full((1, 100), np.nan)).isnan().all()
