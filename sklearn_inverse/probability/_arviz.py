"""Posteriors and what they foretell, as ArviZ takes them."""

import numpy as np
import torch

from sklearn_inverse.utils._torch import generator
from sklearn_inverse.utils._validation import one_sample

__all__ = ["arguments", "scatter", "to_arviz"]

N_CHAINS = 4  # into which draws are cut, so that they can be compared


def scatter(noise, params, names, trajectories, noise_scale, n_each=1, seed=0):
    """Return readings around trajectories, ``n_each`` of each one after the other.

    Parameters
    ----------
    noise : NoiseModel
        How readings scatter.

    params : ndarray of shape (n, n_params)
        Params behind the trajectories, with their ``names``.

    names : list of str
        Names of the params.

    trajectories : ndarray of shape (n, n_times, n_channels)
        What is read.

    noise_scale : ndarray of shape (1, n_channels)
        Noise levels that the model does not know.

    n_each : int, default=1
        Readings of each trajectory.

    seed : int, default=0
        Seed of the noise.

    Returns
    -------
    readings : ndarray of shape (n_each * n, n_times, n_channels)
        In units of the observables.
    """
    mean = torch.as_tensor(trajectories).repeat(n_each, 1, 1)
    args = arguments(noise, params, names, noise_scale, n_each)
    return noise.sample(mean, args, generator(seed)).numpy()


def arguments(noise, params, names, noise_scale, n_each=1):
    """Return what noise asks of params, where levels that it does not know are given."""
    log_scale = torch.as_tensor(noise_scale).clamp(min=1e-300).log()
    params = torch.as_tensor(params).repeat(n_each, 1)
    return noise.arguments(params, names, log_scale=log_scale.expand(len(params), -1))


def to_arviz(draws, answer, model=None, observations=None, noise_std=None, inputs=None):
    """Return draws of one sample and what they foretell; see ``Posterior.to_arviz``.

    Parameters
    ----------
    draws : ndarray of shape (n_draws, n_params)
        Draws from the posterior, in the order they were made.

    answer : Posterior
        The sample.

    model, observations, noise_std, inputs : object
        As there; noise and inputs of this sample alone.

    Returns
    -------
    tree : DataTree
        Its groups.
    """
    try:
        from arviz_base import from_dict
    except ImportError as error:
        raise ImportError(
            '`to_arviz` needs arviz-base: pip install "sklearn-inverse[arviz]"'
        ) from error

    def chained(values):
        return values.reshape(N_CHAINS, -1, *values.shape[1:])

    groups = {"posterior": dict(zip(answer.names, chained(draws).transpose(2, 0, 1)))}
    if model is None and observations is not None:
        raise ValueError(
            "Readings are compared with what the model foretells: give `model`, too, "
            "`inverter.model_`. Got observations alone."
        )
    if model is None:
        return from_dict(groups)
    noise = model.noise_ if noise_std is None else model.noise_.with_std(noise_std)
    told = None if inputs is None else np.repeat(inputs, len(draws), axis=0)
    trajectories, _ = model.attempt(draws, told)
    shape, about = trajectories.shape[1:], (noise, draws, answer.names)
    y = np.zeros(shape) if observations is None else one_sample(observations, shape)
    readings = scatter(*about, trajectories, answer.noise_scale)
    kinds = {"posterior_predictive": chained(readings)}
    if observations is not None:
        mean, args = (
            torch.as_tensor(trajectories),
            arguments(*about, answer.noise_scale),
        )
        log_prob = noise.log_prob(torch.as_tensor(y)[None], mean, args).numpy()
        kinds |= {"log_likelihood": chained(log_prob), "observed_data": y}
    coords, dims = {}, {}
    for channel, name in enumerate(model.observable_names_):
        read = ~np.isnan(y[:, channel])  # the others are no data
        coords[f"{name}_time"], dims[name] = model.times_[read], [f"{name}_time"]
        for kind, values in kinds.items():
            groups.setdefault(kind, {})[name] = values[..., read, channel]
    return from_dict(groups, coords=coords, dims=dims)
