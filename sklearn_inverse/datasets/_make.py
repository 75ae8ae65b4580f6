"""Simulated inverse problems: params drawn from their prior, and what is measured."""

from numbers import Integral

import numpy as np
from sklearn.utils import Bunch, check_random_state

from sklearn_inverse.datasets._measure import absolute_noise, draw_mask, draw_readings
from sklearn_inverse.exceptions import IntegrationError, IntegrationWarning
from sklearn_inverse.forward import ForwardModel
from sklearn_inverse.forward._base import as_forward_model
from sklearn_inverse.systems import ODESystem, PDESystem
from sklearn_inverse.utils._torch import spawn_seeds
from sklearn_inverse.utils._validation import (
    check_inputs,
    check_noise_std,
    check_observables,
)
from sklearn_inverse.utils._warnings import warn_user

SAMPLINGS = ("lhs", "random", "sobol")
MAX_FAILURES_IN_A_ROW = 100  # then the prior, not bad luck, is to blame


def make_inverse_problem(
    system,
    n_samples,
    *,
    sampling="lhs",
    noisy=False,
    noise_std=None,
    relative_noise=False,
    n_observed=None,
    observables=None,
    inputs=None,
    simulator=None,
    n_jobs=None,
    random_state=None,
    verbose=0,
):
    """Draw params from a system's prior, simulate them, and measure.

    By default, observations are the trajectories themselves, complete and free of noise:
    what inverters that learn are fitted on, as they add noise and leave times out by
    themselves. Data to be inverted are made with ``noisy=True`` and ``n_observed``.

    Parameters
    ----------
    system : ODESystem or PDESystem
        The model, with its prior and its noise.

    n_samples : int
        Number of samples.

    sampling : {"lhs", "random", "sobol"}, default="lhs"
        How the prior is filled: Latin hypercube, independent draws, or the first points
        of a scrambled Sobol' sequence.

    noisy : bool, default=False
        Whether readings scatter as ``system.noise`` says, at each sample's own params.

    noise_std : float or array-like, default=None
        Scale of the noise in place of the system's, as ``noise_std`` of an inverter's
        ``predict``: one number, one per observable, or one per reading. If given,
        observations are noisy.

    relative_noise : bool, default=False
        If False, ``noise_std`` is in the units of the observations. If True, it is a
        fraction of each observable's standard deviation over samples and times.

    n_observed : int, (int, int) or None, default=None
        At how many random times each sample is measured: always so many, or a number
        drawn between two, both included. If None, at all of them.

    observables : list of str or int, default=None
        Names or indices of the observables that are measured. If None, all of them. Each
        experiment's own ``observables`` hold in any case.

    inputs : array-like of shape (n_samples, n_inputs), dict or DataFrame, default=None
        What each sample brings itself, if the system has such inputs. If None, they are
        drawn as the system says.

    simulator : ForwardModel, default=None
        Turns params into trajectories, NaN where it fails. If None,
        ``ODESimulator(system, n_jobs=n_jobs, verbose=verbose)``.

    n_jobs : int, default=None
        Number of processes that simulate. The result does not depend on it. Unused
        when ``simulator`` is given.

    random_state : int, RandomState instance or None, default=None
        Seed of params, noise and times. Params do not depend on noise; nor on times, as
        long as all can be integrated.

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
        inputs : ndarray of shape (n_samples, n_inputs)
            Inputs of each sample.
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            The same without noise and gaps; NaN where an observable is not finite.
        times : ndarray of shape (n_times,)
            Times of the readings.
        noise_std : ndarray or None
            What ``noise_std`` amounts to in the units of the observations, one per
            observable or reading. None where it was not given: the system knows.
        system : ODESystem or PDESystem
            The model; one with space and time as ordinary equations.
        n_failed : int
            Number of draws that could not be integrated as far as they are read, or of
            which nothing can be read. They were drawn again.

    Raises
    ------
    TypeError
        If ``system`` is no system, or ``simulator`` no ForwardModel.
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
    add_noise : Normal noise alone.

    Examples
    --------
    >>> from sklearn_inverse.datasets import make_inverse_problem
    >>> from sklearn_inverse.systems import ODESystem
    >>> def decay(t, y, p):
    ...     return -p.rate * y.amount
    >>> system = ODESystem(
    ...     decay, states={"amount": 1.0}, params={"rate": (0.5, 2.0)},
    ...     times=[0.0, 1.0, 3.0], noise=0.01,
    ... )
    >>> pairs = make_inverse_problem(system, 20, random_state=0)
    >>> pairs.observations.shape, pairs.params.shape, pairs.n_failed
    ((20, 3), (20, 1), 0)
    >>> measured = make_inverse_problem(
    ...     system, 5, noisy=True, n_observed=2, random_state=1
    ... ).observations
    """
    if isinstance(system, PDESystem) and not system.is_steady:
        system = system.semidiscretize()
    if not isinstance(system, (ODESystem, PDESystem)):
        raise TypeError(
            f"`system` must be an ODESystem or a PDESystem. Got {system!r} instead."
        )
    if not isinstance(n_samples, Integral) or n_samples < 1:
        raise ValueError(f"`n_samples` must be an int >= 1. Got {n_samples!r} instead.")
    if sampling not in SAMPLINGS:
        raise ValueError(
            f"`sampling` must be one of {SAMPLINGS}. Got {sampling!r} instead."
        )
    exact = as_forward_model(system)
    if isinstance(system, ODESystem):
        exact.set_params(n_jobs=n_jobs, verbose=verbose)
    exact = exact.fit(None)
    if simulator is None:
        simulator = exact
    if not isinstance(simulator, ForwardModel):
        raise TypeError(
            "`simulator` must be a forward model, such as ODESimulator(system, "
            f"rtol=1e-8). Got {simulator!r} instead."
        )
    # One seed each, so that the params stay the same when noise or times change.
    mask_seed, params_seed, noise_seed, inputs_seed = spawn_seeds(random_state, 4)
    if inputs is None and exact.input_names_:
        rng = check_random_state(inputs_seed)
        inputs = system.draw_inputs(n_samples, rng, sampling)
    inputs = check_inputs(inputs, n_samples=n_samples, names=exact.input_names_)
    shape = (n_samples, exact.n_times_, exact.n_channels_)

    # Whatever can be wrong is checked before the simulation, which takes the time.
    _check_noise(exact, system.name, noisy, noise_std, relative_noise, shape)
    measured = True if exact.measured_ is None else exact.measured_
    mask = draw_mask(
        np.broadcast_to(measured, shape),
        n_observed=n_observed,
        observed=check_observables(observables, exact.observable_names_),
        seed=mask_seed,
    )
    params, trajectories, n_failed = _simulate_draws(
        exact.prior_, mask, inputs, sampling, simulator, system.name, seed=params_seed
    )
    noise, readings = exact.noise_, trajectories
    if noise_std is not None:
        noise_std = absolute_noise(trajectories, noise_std, relative=relative_noise)
        noise_std = noise_std + np.zeros(exact.n_channels_)
        noise = noise.with_std(noise_std)
    if noisy or noise_std is not None:
        names = exact.param_names_
        readings = draw_readings(noise, trajectories, params, names, seed=noise_seed)
    return Bunch(
        observations=np.where(mask, readings, np.nan).reshape(n_samples, -1),
        params=params,
        inputs=inputs,
        trajectories=trajectories,
        times=exact.times_,
        noise_std=noise_std,
        system=system,
        n_failed=n_failed,
    )


def _check_noise(exact, name, noisy, noise_std, relative_noise, shape):
    """Refuse noise that cannot be drawn."""
    if noise_std is not None:
        exact.noise_.with_std(check_noise_std(noise_std, shape=shape))
        if relative_noise and not exact.noise_.is_normal.all():
            raise ValueError(
                "`relative_noise` must be False where noise is not normal: "
                f"{exact.noise_!r} has a scale of its own kind."
            )
        return
    unknown = exact.noise_.has_unknown_scale
    if noisy and unknown.any():
        raise ValueError(
            f"The noise of {name!r} must be known to be drawn. Its scale is not "
            f"stated for {np.array(exact.observable_names_)[unknown].tolist()}: give the "
            "system a `noise`, or `noise_std` here."
        )


def _simulate_draws(prior, mask, inputs, sampling, simulator, name, *, seed):
    """Draw and simulate until every sample can be read; count the failures."""
    n_samples = len(mask)
    rng = check_random_state(seed)
    params = np.empty((n_samples, prior.n_params))
    trajectories = np.empty(mask.shape)
    missing = np.arange(n_samples)
    n_failed = failures_in_a_row = 0
    while len(missing):
        params[missing] = prior.draw(len(missing), rng, method=sampling)
        told = {"inputs": inputs[missing]} if inputs.shape[1] else {}
        drawn, is_solved = simulator.attempt(params[missing], **told)
        # What is not finite although it was integrated, as the logarithm of a zero,
        # cannot be measured; the others can.
        is_there = np.isfinite(drawn)
        trajectories[missing] = np.where(is_there, drawn, np.nan)
        needed = mask[missing]
        lost = ~is_solved & (needed & ~is_there).any(axis=(1, 2))
        failed = lost | ~(needed & is_there).any(axis=(1, 2))
        n_failed += int(failed.sum())
        failures_in_a_row = len(failed) + failures_in_a_row if failed.all() else 0
        if failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise IntegrationError(
                f"The last {failures_in_a_row} draws of {name!r} could not be "
                f"integrated, {n_failed} in all. Narrow the system's priors, check its "
                "rhs there, or pass a `simulator` with larger `max_steps` or looser "
                "tolerances."
            )
        missing = missing[failed]
    if n_failed:
        warn_user(
            f"{n_failed} of {n_samples + n_failed} draws could not be integrated and "
            "were drawn again: the data lack the part of the prior where that happens.",
            IntegrationWarning,
        )
    return params, trajectories, n_failed
