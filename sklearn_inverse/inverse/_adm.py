"""ADMInverter: the amortized drifting model, params from readings in a few forward passes.

A velocity network drifts particles from random starts to the params behind the readings,
looking at each step at how far the forward model's output is off (INO, stage 2). Nothing
differentiates through the forward model, in training or inference.
"""

import math
import warnings
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from sklearn_inverse.base import PosteriorInverter
from sklearn_inverse.exceptions import ExtrapolationWarning
from sklearn_inverse.forward import ODESurrogate
from sklearn_inverse.networks._batches import in_chunks, split_held_out, tensor_dataset
from sklearn_inverse.networks._drift_batches import (
    DriftBatches,
    MoveParticles,
    ReadingSimulator,
)
from sklearn_inverse.networks._drift_net import DriftLoss, DriftNet, precision_factor
from sklearn_inverse.networks._slots import Slots, pick_slots
from sklearn_inverse.networks._training import fit_net
from sklearn_inverse.utils._sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    _fit_context,
)
from sklearn_inverse.utils._torch import (
    as_tensor,
    generator,
    resolve_device,
    spawn_seeds,
)
from sklearn_inverse.utils._validation import check_n_observed, check_noise_std

__all__ = ["ADMInverter"]

MIN_CALIBRATION = 20  # held-out pairs below which the spread is left as learned


class ADMInverter(PosteriorInverter):
    r"""Recover params by drifting particles with a learned velocity (amortized).

    ``fit`` trains a network :math:`F_\varphi` on simulated pairs; ``predict`` integrates

    .. math:: \frac{dk}{d\tau} = \lambda F_\varphi(k, \hat U(k) - u_{obs}, u_{obs}, \tau)

    from a random start to :math:`\tau = 1`, for thousands of samples at once. At each
    step it compares what the forward model gives at the particle, :math:`\hat U(k)`, with
    the readings; the forward model is only ever evaluated, never differentiated.

    Parameters
    ----------
    surrogate : ODESurrogate, ODESimulator or FrozenEstimator, default=None
        Forward model. A copy of it is fitted on the same pairs; wrap a fitted one in
        :class:`sklearn.frozen.FrozenEstimator` to share it as it is. If None, an
        :class:`ODESurrogate` with its defaults.

    n_channels : int, default=None
        Channels of the observations. If None, those of a forward model that needs no
        fitting, else taken from 3-D observations, else 1.

    bounds : array-like of shape (n_params, 2), default=None
        Box in which params are sought, in their own units. If None, that of the forward
        model.

    scale : {"linear", "log10"} or list of them, default=None
        Scale on which params are estimated. If None, that of the forward model.

    noise_std : float or array-like of shape (n_channels,), default=None
        Noise of the readings to be inverted, in units of the observations; training
        readings are given the same. None means noise-free.

    n_observed : int or (int, int), default=None
        Number of times at which the readings to be inverted are made, or fewest and most;
        training readings are made at as many random times. If None, one to all. Any
        pattern of NaN is accepted at predict; patterns like those of training are
        answered best.

    observed_channels : list of int, default=None
        Channels that the readings to be inverted hold. If None, all.

    n_steps : int, default=20
        Steps of the integration, in training and prediction.

    rate : float, default=7.0
        How far the drift goes, :math:`\lambda`: one step covers the share
        :math:`1 - e^{-\lambda / n_{steps}}` of the way it sees, the last all of it.

    n_particles : int, default=1
        Random starts per sample, averaged at the end. Particles of one sample end close
        to each other, so more of them hardly change the estimate.

    coupling : {"instance", "batch"}, default="instance"
        Which particles the drift target couples: those that share a truth, or all in the
        batch as in Eq. (8) of the paper [1]_, which blurs the target towards the mean of
        unrelated truths and measures far worse.

    normalize : bool, default=True
        Whether the kernel weights of a particle are normalized to one. False is Eq. (8)
        as printed, with the field rescaled to a length that the integration can cover.

    n_coupled : int, default=1
        Particles per truth in training. Matters for ``coupling="instance"`` without
        ``normalize`` only; with it the target is the same for any number.

    synthetic : float, default=0.5
        Share of the training truths that are shifted from those of a pair and run
        through the forward model. Without, long training learns the pairs by heart. The
        share falls with the forward model's own error, to none where that is a fifth
        of the channels' spread.

    rollout : bool, default=True
        Whether to train on the states that the integration itself reaches. False draws
        states on the straight line from a random start to the truth.

    loss : {"l2", "l1"}, default="l2"
        Loss on the velocity. "l2" makes the estimate the posterior mean, "l1" (the
        paper's) the median of each param.

    width : int, default=256
        Width of the networks.

    n_blocks : int, default=4
        Residual blocks of the networks.

    lr : float, default=1e-3
        Peak learning rate of Adam; it warms up, then falls to zero along a cosine.

    max_epochs : int, default=100
        Epochs of the velocity network; one is as many particle steps as training pairs.

    batch_size : int, default=512
        Particles per batch.

    validation_fraction : float, default=0.1
        Share of the pairs held out for early stopping and for calibrating the spread.

    patience : int, default=None
        Epochs without a lower held-out loss after which training stops. If None, train
        for ``max_epochs``.

    callbacks : list of skorch callbacks, default=None
        Further callbacks for the training of the velocity.

    device : {"auto", "cpu", "cuda", …}, default="auto"
        Where to train and predict. "auto" takes a GPU where there is one.

    random_state : int, RandomState instance or None, default=None
        Seeds everything random, of ``fit`` and of later predictions.

    verbose : int, default=0
        Whether to show progress bars.

    Attributes
    ----------
    surrogate_ : forward model
        The fitted one.

    net_ : skorch net
        The trained network; ``net_.history`` holds the losses per epoch.

    calibration_ : ndarray of shape (n_params,)
        Factor on the learned spread that makes 90 % intervals cover 90 % of the held-out
        params; ones where fewer than 20 pairs are held out.

    scaler_ : ParamScaler
        Map from params to the unit box.

    n_iter_ : int
        Epochs trained.

    n_features_in_ : int
        ``n_times * n_channels``.

    See Also
    --------
    ODESurrogate : The default forward model.

    Notes
    -----
    Uncertainty: a head of the network returns the full covariance of a normal
    distribution of the probit :math:`\Phi^{-1}(u)` of the unit params, so that a param
    of which the data say nothing is uniform on its box. It is trained along the way, by
    maximum likelihood of the truths of simulated readings. The distribution is centerd
    so that the mean of its draws, on the params' own scale, is the estimate; its spread
    is scaled, param by param, so that 90 % intervals cover 90 % of the params held out.

    References
    ----------
    .. [1] "INO: Inverse neural operator for stiff ODE parameter recovery": amortized
       drifting model, stage 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import ADMInverter, ODESurrogate
    >>> rng = np.random.default_rng(0)
    >>> k = rng.uniform(0.5, 2.0, size=(400, 1))
    >>> t = np.linspace(0.0, 2.0, 8)
    >>> inverter = ADMInverter(
    ...     ODESurrogate(max_epochs=20), noise_std=0.01, max_epochs=100, random_state=0
    ... ).fit(np.exp(-k * t), k)
    >>> sparse = np.full((1, 8), np.nan)
    >>> sparse[0, [2, 5]] = np.exp(-1.2 * t[[2, 5]])
    >>> mean, std = inverter.predict(sparse, return_std=True)
    >>> bool(abs(mean[0, 0] - 1.2) < 3 * std[0, 0] < 0.5)
    True
    """

    _parameter_constraints: dict = {
        "surrogate": [HasMethods(["forward", "simulate"]), None],
        "n_channels": [Interval(Integral, 1, None, closed="left"), None],
        "bounds": ["array-like", None],
        "scale": [StrOptions({"linear", "log10"}), list, np.ndarray, None],
        "noise_std": [Interval(Real, 0, None, closed="left"), "array-like", None],
        "n_observed": [Integral, tuple, list, None],
        "observed_channels": ["array-like", None],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "rate": [Interval(Real, 0, None, closed="neither")],
        "n_particles": [Interval(Integral, 1, None, closed="left")],
        "coupling": [StrOptions({"instance", "batch"})],
        "normalize": ["boolean"],
        "n_coupled": [Interval(Integral, 1, None, closed="left")],
        "synthetic": [Interval(Real, 0, 1, closed="both")],
        "rollout": ["boolean"],
        "loss": [StrOptions({"l1", "l2"})],
        "width": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left"), None],
        "callbacks": [list, None],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        surrogate=None,
        *,
        n_channels=None,
        bounds=None,
        scale=None,
        noise_std=None,
        n_observed=None,
        observed_channels=None,
        n_steps=20,
        rate=7.0,
        n_particles=1,
        coupling="instance",
        normalize=True,
        n_coupled=1,
        synthetic=0.5,
        rollout=True,
        loss="l2",
        width=256,
        n_blocks=4,
        lr=1e-3,
        max_epochs=100,
        batch_size=512,
        validation_fraction=0.1,
        patience=None,
        callbacks=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.surrogate = surrogate
        self.n_channels = n_channels
        self.bounds = bounds
        self.scale = scale
        self.noise_std = noise_std
        self.n_observed = n_observed
        self.observed_channels = observed_channels
        self.n_steps = n_steps
        self.rate = rate
        self.n_particles = n_particles
        self.coupling = coupling
        self.normalize = normalize
        self.n_coupled = n_coupled
        self.synthetic = synthetic
        self.rollout = rollout
        self.loss = loss
        self.width = width
        self.n_blocks = n_blocks
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params):
        """Train on simulated pairs.

        1. Fit the forward model, unless it is fitted or exact. 2. Train the velocity on
        drift targets, and the spread on the likelihood of the truth. 3. Calibrate the
        spread on pairs held out. A KeyboardInterrupt ends the training under way, of
        the forward model or the drift, and keeps what was learned, with a
        ConvergenceWarning.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Simulated trajectories, free of noise; NaN where one is unknown.

        params : array-like of shape (n_samples, n_params) or (n_samples,)
            Params that produced them, in their own units.

        Returns
        -------
        self : ADMInverter
            The trained inverter.
        """
        device = resolve_device(self.device)
        trajectories, unit_params = self._start_fit(observations, params)
        split_seed, weight_seed, pool_seed, calibration_seed, self._start_seed = (
            spawn_seeds(self.random_state, 5)
        )

        standardized = self.channel_scaler_.standardize(trajectories)
        seen, held_out = split_held_out(
            len(unit_params), self.validation_fraction, split_seed
        )
        train, valid = (
            tensor_dataset(unit_params[i], standardized[i], device=device)
            for i in (seen, held_out)
        )
        read = self._reading_simulator(trajectories, device)
        self.net_ = self._fit_velocity(
            train, valid, read, weight_seed, pool_seed, device
        )
        self.n_iter_ = len(self.net_.history)
        self.calibration_ = np.ones(self.n_params_)
        if len(held_out) >= MIN_CALIBRATION:
            self.calibration_ = self._calibrate(valid, read, calibration_seed)
        return self

    def sample(self, observations, n_draws=100):
        """Draw params from the posterior of each sample, as the method sees it.

        Parameters
        ----------
        observations : array-like as in :meth:`predict`
            Readings, NaN where nothing was measured.

        n_draws : int, default=100
            Draws per sample. All samples share their random numbers, so that a sample's
            draws do not depend on its companions.

        Returns
        -------
        params : ndarray of shape (n_samples, n_draws, n_params) or (n_samples, n_draws)
            Draws, in the params' own units.
        """
        _, center, factor = self._posterior(self._check_readings(observations))
        noise = np.random.default_rng(self._start_seed).standard_normal(
            (n_draws, self.n_params_)
        )
        probit = center[:, None] + np.einsum("spq,dq->sdp", factor, noise)
        return self._shape_params(self.scaler_.to_physical(ndtr(probit)))

    def _default_surrogate(self):
        return ODESurrogate(
            bounds=self.bounds,
            scale="linear" if self.scale is None else self.scale,
            device=self.device,
            random_state=self.random_state,
            verbose=self.verbose,
        )

    def _check_options(self):
        self._n_observed()
        self._observed_channels()

    def _n_observed(self):
        """Return the fewest and most observed times."""
        n_observed = (1, self.n_times_) if self.n_observed is None else self.n_observed
        return check_n_observed(n_observed, n_times=self.n_times_)

    def _observed_channels(self):
        """Return the indices of the observed channels."""
        n = self.n_channels_
        if self.observed_channels is None:
            return list(range(n))
        channels = list(self.observed_channels)
        if not channels or not set(channels) <= set(range(-n, n)):
            raise ValueError(
                f"`observed_channels` must hold indices of the {n} channels, at least "
                f"one. Got {self.observed_channels!r} instead."
            )
        return channels

    def _reading_simulator(self, trajectories, device):
        """Return what draws training readings as those to be inverted will be made."""
        n_observed = self._n_observed()
        observed = np.zeros(self.n_channels_)
        observed[self._observed_channels()] = 1
        noise = check_noise_std(self.noise_std, shape=trajectories[:1].shape)
        return ReadingSimulator(
            n_observed,
            as_tensor(observed, device),
            as_tensor(noise / self.channel_scaler_.std, device),
            n_observed[1],
        )

    def _residual_scale(self, noise):
        """Take a few times what a residual is at the truth: noise, surrogate error."""
        error = self._surrogate_error(noise)
        off = (noise.square() + error.square()).sqrt().reshape(-1, len(error))
        return 5 * off.mean(dim=0).clamp(min=1e-3)

    def _surrogate_error(self, noise):
        """Return the forward model's error per channel, standardized; 0 if exact."""
        error = getattr(self.surrogate_, "error_", np.zeros(self.n_channels_))
        return noise.new_tensor(error / self.channel_scaler_.std)

    def _fit_velocity(self, train, valid, read, weight_seed, pool_seed, device):
        """Train the network on pools of particles."""
        batch_size = min(self.batch_size, len(train))
        make_pool = partial(
            DriftBatches,
            simulate=self._simulate,
            read=read,
            batch_size=batch_size,
            n_batches=math.ceil(len(train) / batch_size),
            coupling=self.coupling,
            normalize=self.normalize,
            n_coupled=min(self.n_coupled, batch_size),
            synthetic=self._synthetic_share(error := self._surrogate_error(read.noise)),
            error=error,
            rollout=self.rollout,
            n_steps=self.n_steps,
            step_fraction=self._step_fraction(),
            seed=pool_seed,
        )
        pools = {
            True: make_pool(train, training=True),
            False: make_pool(valid, training=False),
        }
        move = [MoveParticles(pools)] if self.rollout else []
        return fit_net(
            partial(
                DriftNet,
                read.n_slots,
                self.n_channels_,
                self.n_params_,
                torch.linspace(0, 1, self.n_times_),
                train.tensors[1].nanmean(dim=0).nan_to_num(),
                self._residual_scale(read.noise),
                width=self.width,
                n_blocks=self.n_blocks,
            ),
            partial(DriftLoss, self.loss),
            lambda dataset, training: pools[training],
            train,
            valid,
            lr=self.lr,
            max_epochs=self.max_epochs,
            n_batches=pools[True].n_batches,
            patience=self.patience,
            callbacks=[*move, *(self.callbacks or [])],
            verbose=self.verbose,
            desc="Training drift",
            seed=weight_seed,
            device=device,
        )

    def _synthetic_share(self, error):
        """Return the share of simulated truths that the forward model deserves."""
        return self.synthetic * max(0.0, 1 - 5 * float(error.square().mean().sqrt()))

    def _step_fraction(self):
        """Share of the velocity that one step goes: exact where the aim stands still."""
        return 1 - math.exp(-self.rate / self.n_steps)

    def _simulate(self, particles):
        """Standardized trajectories at unit params, by forward passes only."""
        with torch.no_grad():
            trajectories = self.surrogate_.forward(self._to_forward_box(particles))
        return self.channel_scaler_.standardize(trajectories).float()

    @torch.no_grad()
    def _drift(self, module, slots, start):
        """Integrate from one start: (n_samples, 2 n_params), estimate and end point."""
        n_samples = len(slots.mask)
        particles = start.expand(n_samples, -1)
        velocity = torch.zeros_like(particles)
        fraction = self._step_fraction()
        for step in range(self.n_steps):
            particles = (particles + fraction * velocity).clamp(0, 1)
            tau = particles.new_full((n_samples,), step / self.n_steps)
            residuals = slots.residuals(self._simulate(particles))
            velocity, spread = module(particles, residuals, *slots, tau)
        return (particles + velocity).clamp(0, 1), spread

    def _arrive(self, slots):
        """Drift every start of every sample, in chunks of one size.

        Returns
        -------
        estimate : ndarray of shape (n_samples, n_params)
            Mean of the particles that arrived.

        factor : ndarray of shape (n_samples, n_params, n_params)
            Factor of the covariance of the probit, before calibration.
        """
        module = self.net_.module_.to(slots.mask.device)
        p = self.n_params_
        starts = np.random.default_rng(self._start_seed).random((self.n_particles, p))
        starts = as_tensor(starts, slots.mask.device)

        def drift_chunk(*parts):
            ends = [self._drift(module, Slots(*parts), start) for start in starts]
            estimate = torch.stack([end for end, _ in ends]).mean(dim=0)
            spread = torch.stack([spread for _, spread in ends]).mean(dim=0)
            return torch.cat([estimate, spread], dim=1)

        out = in_chunks(drift_chunk, *slots, verbose=self.verbose, desc="Drifting")
        estimate, spread = out[:, :p], out[:, p:]
        _, precision = precision_factor(spread.double(), p)
        eye = torch.eye(p).to(precision).expand_as(precision)
        factor = torch.linalg.solve_triangular(precision.mT, eye, upper=True)
        return estimate.double().cpu().numpy(), factor.cpu().numpy()

    def _calibrate(self, held_out, read, seed):
        """Factor on the spread of each param that makes held-out intervals cover."""
        truths, trajectories = held_out.tensors
        slots = read.draw(trajectories, generator(seed, truths.device))
        estimate, factor = self._arrive(slots)
        spread = np.linalg.norm(factor, axis=2)
        truths = ndtri(np.clip(truths.double().cpu().numpy(), 1e-4, 1 - 1e-4))
        calibration = np.ones(self.n_params_)
        for _ in range(5):  # the center depends on the spread, but weakly
            center = probit_center(estimate, np.minimum(calibration * spread, 1))
            off = np.abs(truths - center)
            calibration = np.quantile(off / spread, 0.9, axis=0) / ndtri(0.95)
        return calibration

    def _posterior(self, readings):
        """Return the estimate, and center and factor of the probit's distribution."""
        device = resolve_device(self.device)
        standardized = self.channel_scaler_.standardize(readings)
        mask = ~np.isnan(readings)
        n_slots = self.net_.module_.n_slots
        crowded = (mask.any(axis=2).sum(axis=1) > n_slots).sum()
        if crowded:
            warnings.warn(
                f"{crowded} of {len(readings)} samples are observed at more than the "
                f"{n_slots} times that this inverter was trained for; {n_slots} evenly "
                "spread ones are used. Raise `n_observed` to use them all.",
                ExtrapolationWarning,
                stacklevel=4,
            )
        slots = pick_slots(
            as_tensor(np.nan_to_num(standardized), device),
            as_tensor(mask, device),
            n_slots,
        )
        estimate, factor = self._arrive(slots)
        factor = self.calibration_[:, None] * factor
        spread = np.linalg.norm(factor, axis=2)
        # No posterior is wider than the prior, whose probit is standard normal.
        factor = factor / np.maximum(spread, 1)[..., None]
        return estimate, probit_center(estimate, np.minimum(spread, 1)), factor

    def _posterior_mean_std(self, readings):
        """Mean and standard deviation in the params' own units."""
        estimate, center, factor = self._posterior(readings)
        spread = np.linalg.norm(factor, axis=2)
        # Moments of g(Φ(z)) for normal z, by Gauss–Hermite quadrature.
        nodes, weights = np.polynomial.hermite_e.hermegauss(32)
        weights = weights / weights.sum()
        points = ndtr(center[:, None] + spread[:, None] * nodes[:, None])
        values = self.scaler_.to_physical(points)
        average = np.einsum("q,sqp->sp", weights, values)
        variance = np.einsum("q,sqp->sp", weights, (values - average[:, None]) ** 2)
        return self.scaler_.to_physical(estimate), np.sqrt(variance)


def probit_center(estimate, spread):
    r"""Center m of a normal probit whose unit param has the mean ``estimate``.

    :math:`E[\Phi(m + s \varepsilon)] = \Phi(m / \sqrt{1 + s^2})` for a standard normal
    :math:`\varepsilon`. An estimate is kept half a per cent off the walls of the box,
    where a mean would leave all but a far tail of the distribution on the wall itself.
    """
    return ndtri(np.clip(estimate, 0.005, 0.995)) * np.sqrt(1 + spread**2)
