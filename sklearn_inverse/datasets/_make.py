"""Simulated inverse problems: params drawn in their box, and what would be measured."""

import warnings
from numbers import Integral

import numpy as np
from scipy.stats import qmc
from sklearn.utils import Bunch, check_random_state

from sklearn_inverse.datasets._measure import absolute_noise, add_noise, draw_mask
from sklearn_inverse.exceptions import IntegrationError, IntegrationWarning
from sklearn_inverse.forward import ODESimulator
from sklearn_inverse.systems import ODESystem
from sklearn_inverse.utils._scaling import ParamScaler
from sklearn_inverse.utils._validation import check_noise_std

SAMPLINGS = ("lhs", "uniform", "sobol")
MAX_FAILURES_IN_A_ROW = 100  # then the box, not bad luck, is to blame


def make_inverse_problem(
    system,
    n_samples,
    *,
    sampling="lhs",
    noise_std=0.0,
    relative_noise=False,
    n_observed=None,
    observed_channels=None,
    simulator=None,
    n_jobs=None,
    random_state=None,
    verbose=0,
):
    """Draw params, simulate them, and measure sparsely and noisily.

    Parameters
    ----------
    system : ODESystem
        The model: its bounds and scale say where params are drawn.

    n_samples : int
        Number of samples.

    sampling : {"lhs", "uniform", "sobol"}, default="lhs"
        How the unit box is filled: Latin hypercube, independent uniform draws, or the
        first points of a scrambled Sobol' sequence.

    noise_std : float or array-like of shape (n_channels,), default=0.0
        Standard deviation of the noise.

    relative_noise : bool, default=False
        If False, ``noise_std`` is in the units of the observations. If True, it is a
        fraction of each channel's standard deviation over samples and times.

    n_observed : int, (int, int) or None, default=None
        At how many random times each sample is measured: always so many, or a number
        drawn between two, both included. If None, at all of them.

    observed_channels : list of str or int, default=None
        Names or indices of the channels that are measured. If None, every channel.

    simulator : object with ``simulate(params)``, default=None
        Forward model that turns params into trajectories, NaN where it fails. If None,
        ``ODESimulator(system, n_jobs=n_jobs, verbose=verbose)``.

    n_jobs : int, default=None
        Number of processes that simulate. The result does not depend on it. Unused
        when ``simulator`` is given.

    random_state : int, RandomState instance or None, default=None
        Seed of params, noise and times. Params do not depend on noise and times.

    verbose : int, default=0
        If 1, simulation shows its progress. Unused when ``simulator`` is given.

    Returns
    -------
    problem : Bunch
        With the entries

        observations : ndarray of shape (n_samples, n_times * n_channels)
            Readings, time-major, NaN where nothing was measured.
        params : ndarray of shape (n_samples, n_params)
            Params that produced them.
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            The same without noise and gaps.
        times : ndarray of shape (n_times,)
            Times of the readings.
        noise_std : ndarray of shape (n_channels,)
            Noise of each channel, in the units of the observations.
        system : ODESystem
            The model.
        n_failed : int
            Number of draws that could not be integrated. They were drawn again.

    Raises
    ------
    TypeError
        If ``system`` is no ODESystem.
    ValueError
        If a parameter is out of range or does not fit the system.
    IntegrationError
        If 100 draws in a row cannot be integrated.

    Warns
    -----
    IntegrationWarning
        Once, with the number, if draws could not be integrated.

    See Also
    --------
    mask_observations : Other patterns of what is measured.
    add_noise : Noise alone.

    Examples
    --------
    >>> from sklearn_inverse.datasets import make_inverse_problem
    >>> from sklearn_inverse.systems import ODESystem
    >>> def decay(t, y, params):
    ...     return -params * y
    >>> system = ODESystem(
    ...     decay, initial_state=[1.0], bounds=[[0.5, 2.0]], times=[0.0, 1.0, 3.0]
    ... )
    >>> problem = make_inverse_problem(
    ...     system, 20, noise_std=0.01, n_observed=2, random_state=0
    ... )
    >>> problem.observations.shape, problem.params.shape, problem.n_failed
    ((20, 3), (20, 1), 0)
    """
    if not isinstance(system, ODESystem):
        raise TypeError(f"`system` must be an ODESystem. Got {system!r} instead.")
    if not isinstance(n_samples, Integral) or n_samples < 1:
        raise ValueError(f"`n_samples` must be an int >= 1. Got {n_samples!r} instead.")
    if sampling not in SAMPLINGS:
        raise ValueError(
            f"`sampling` must be one of {SAMPLINGS}. Got {sampling!r} instead."
        )
    if simulator is None:
        simulator = ODESimulator(system, n_jobs=n_jobs, verbose=verbose)
    # One seed each, so that the params stay the same when noise or times change.
    seeds = check_random_state(random_state).randint(2**31 - 1, size=3)
    shape = (n_samples, system.n_times, system.n_channels)

    # Whatever can be wrong is checked before the simulation, which takes the time.
    check_noise_std(noise_std, shape=shape)
    mask = draw_mask(
        np.ones(shape, dtype=bool),
        n_observed=n_observed,
        observed_channels=_channel_indices(observed_channels, system.channel_names),
        random_state=seeds[0],
    )
    params, trajectories, n_failed = _simulate_draws(
        system, n_samples, sampling, simulator, random_state=seeds[1]
    )
    noise_std = absolute_noise(trajectories, noise_std, relative=relative_noise)
    noise_std = noise_std + np.zeros(system.n_channels)
    noisy = add_noise(trajectories, noise_std, random_state=seeds[2])
    return Bunch(
        observations=np.where(mask, noisy, np.nan).reshape(n_samples, -1),
        params=params,
        trajectories=trajectories,
        times=system.times,
        noise_std=noise_std,
        system=system,
        n_failed=n_failed,
    )


def _simulate_draws(system, n_samples, sampling, simulator, *, random_state):
    """Draw and simulate until every sample is integrated; count the failures."""
    rng = np.random.RandomState(random_state)
    scaler = ParamScaler(system.bounds, scale=system.scale)
    params = np.empty((n_samples, system.n_params))
    trajectories = np.empty((n_samples, system.n_times, system.n_channels))
    missing = np.arange(n_samples)
    n_failed = failures_in_a_row = 0
    while len(missing):
        unit = _draw_unit(len(missing), system.n_params, sampling, rng)
        params[missing] = scaler.to_physical(unit)
        with warnings.catch_warnings():  # one warning at the end tells them all
            warnings.simplefilter("ignore", IntegrationWarning)
            trajectories[missing] = simulator.simulate(params[missing])
        failed = ~np.isfinite(trajectories[missing]).all(axis=(1, 2))
        n_failed += int(failed.sum())
        failures_in_a_row = len(failed) + failures_in_a_row if failed.all() else 0
        if failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise IntegrationError(
                f"The last {failures_in_a_row} draws of {system.name!r} could not be "
                f"integrated, {n_failed} in all. Narrow the system's bounds, check its "
                "rhs there, or pass a `simulator` with larger `max_steps` or looser "
                "tolerances."
            )
        missing = missing[failed]
    if n_failed:
        warnings.warn(
            f"{n_failed} of {n_samples + n_failed} draws could not be integrated and "
            "were drawn again: the data lack the part of the box where that happens.",
            IntegrationWarning,
            stacklevel=3,
        )
    return params, trajectories, n_failed


def _draw_unit(n_draws, n_params, sampling, rng):
    """Draw from the unit box, of shape (n_draws, n_params)."""
    if sampling == "uniform":
        return rng.random_sample((n_draws, n_params))
    seed = rng.randint(2**31 - 1)
    if sampling == "lhs":
        return qmc.LatinHypercube(n_params, seed=seed).random(n_draws)
    # Sobol' sequences come in powers of two; SciPy warns of any other length.
    n_bits = int(n_draws - 1).bit_length()
    return qmc.Sobol(n_params, seed=seed).random_base2(n_bits)[:n_draws]


def _channel_indices(observed_channels, channel_names):
    """Replace names of channels by their indices."""
    if observed_channels is None:
        return None
    unknown = [
        c for c in observed_channels if isinstance(c, str) and c not in channel_names
    ]
    if unknown:
        raise ValueError(
            f"`observed_channels` must name channels of the system, {channel_names}. "
            f"Got {unknown} instead."
        )
    return [
        channel_names.index(c) if isinstance(c, str) else c for c in observed_channels
    ]
