"""What a posterior foretells: trajectories, and the readings that scatter around them."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import clone

from sklearn_inverse.exceptions import IntegrationError, IntegrationWarning
from sklearn_inverse.forward import ODESimulator
from sklearn_inverse.inspection._sample import check_shape
from sklearn_inverse.probability import Posterior
from sklearn_inverse.probability._arviz import scatter
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["Prediction", "predict", "quantile_band"]

N_TIMES = 200  # of a smooth line
N_READINGS = 8000  # per time, behind quantiles of readings
N_VALUES = 40_000_000  # at most in all: 320 MB


class Prediction(NamedTuple):
    """What one sample's posterior says of its observables: arrays (…, n_times, n_channels).

    Draws are missing for an estimate without an uncertainty, readings where the noise is
    unknown. Where each experiment stands in these times, and in those of the model, and
    when something happens in it, is known of a simulated system.
    """

    times: np.ndarray
    trajectory: np.ndarray
    draws: np.ndarray | None = None
    readings: np.ndarray | None = None
    experiments: dict | None = None
    events: dict | None = None


def predict(model, answer, *, n_draws, noise_std=None, inputs=None):
    """Push one sample's Estimate or Posterior through its forward model.

    ``noise_std``, broadcastable to (1, n_times, n_channels), replaces the model's noise.
    """
    noise = model.noise_ if noise_std is None else model.noise_.with_std(noise_std)
    # Noise that is known at the times of the model alone stays with these.
    by_time = noise_std is not None and noise_std.ndim > 1
    original = model
    if not by_time and model.noise_ == model.noise_.truncate(1):
        model = _with_times_between(model)
    about = _experiments(original, model, answer, inputs)
    if not np.isfinite(answer.params).all():
        raise ValueError(
            "There is nothing to draw: no params were found for this sample."
        )
    told = None if inputs is None else np.repeat(inputs, max(n_draws, 1), axis=0)
    trajectory = model.attempt(answer.params, inputs)[0][0]
    if not (n_draws and isinstance(answer, Posterior)):
        return Prediction(model.times_, trajectory, **about)
    params = answer.sample(n_draws)[0]
    draws, is_solved = model.attempt(params, told)
    draws[~is_solved] = np.nan
    unknown = noise.has_unknown_scale & np.isnan(answer.noise_scale[0])
    if unknown.any():
        return Prediction(model.times_, trajectory, draws, **about)
    # Quantiles need more readings than there are trajectories.
    n_each = max(1, min(math.ceil(N_READINGS / n_draws), N_VALUES // draws.size))
    about_draws = noise, params, model.param_names_, draws, answer.noise_scale
    readings = scatter(*about_draws, n_each)
    return Prediction(model.times_, trajectory, draws, readings, **about)


def quantile_band(draws, level, *, shape, warn=True):
    """Return the quantiles (2, n_times, n_channels) of draws at each time.

    Draws that lack what others have are left out. What none of them has, as the logarithm
    of a state that is zero, is NaN.
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1. Got {level!r} instead.")
    if draws is None:
        return None
    draws = check_shape(draws, (len(draws), *shape), name="draws")
    there = np.isfinite(draws)
    exists = there.any(axis=0)
    lost = (~there & exists).any(axis=(1, 2)) | ~there.any(axis=(1, 2))
    if lost.all():
        raise IntegrationError(
            f"None of the {len(draws)} draws has a complete trajectory, so there is no "
            "band to draw. Pass `n_draws=0` to draw without one."
        )
    if lost.any() and warn:
        warn_user(
            f"{lost.sum()} of {len(draws)} draws have no complete trajectory; the band "
            "leaves them out.",
            IntegrationWarning,
        )
    band = np.full((2, *shape), np.nan)
    ends = (1 - level) / 2, (1 + level) / 2
    band[:, exists] = np.quantile(draws[~lost][:, exists], ends, axis=0)
    return band


def _with_times_between(model):
    """Return a simulator that reports at further times, too; other models as they are."""
    if not isinstance(model, ODESimulator):
        return model
    system, finer = model.system, []
    for experiment in system.experiments:
        times = np.unique(np.append(experiment.start, experiment.times))
        n_times = len(times)
        n_steps = math.ceil(N_TIMES / max(n_times - 1, 1))
        place = np.arange(n_steps * (n_times - 1) + 1) / n_steps
        finer.append(np.interp(place, np.arange(n_times), times))
    return clone(model).set_params(system=system.at_times(finer, system.noise))


def _experiments(original, model, answer, inputs):
    """Return where experiments stand in the times of two models, and their events."""
    system = getattr(original, "system", None)
    if not getattr(system, "is_timed", False):  # nor is a PDE
        return {}
    names = [e.name for e in system.experiments]
    is_finer = isinstance(model, ODESimulator)
    ends = (model.system if is_finer else system).protocol.first, system.protocol.first
    slices = [itertools.starmap(slice, itertools.pairwise(e)) for e in ends]
    rows = torch.as_tensor(answer.params)
    rows = system.rows(rows, None if inputs is None else torch.as_tensor(inputs))
    marks = {name: system.events_of(rows[i]) for i, name in enumerate(names)}
    if len(names) == 1:
        return {"events": {"": marks[names[0]]}}
    return {"experiments": dict(zip(names, zip(*slices))), "events": marks}
