"""ODESurrogate: the learned forward model, a C-FNO behind scikit-learn's interface."""

import copy
import math
import warnings
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from sklearn_inverse.exceptions import ExtrapolationWarning
from sklearn_inverse.forward._linearize import differentiate
from sklearn_inverse.networks._batches import (
    ReadingBatches,
    ShuffledBatches,
    in_chunks,
    split_held_out,
    tensor_dataset,
)
from sklearn_inverse.networks._cfno import CFNO, ParamSkip, plain_attention
from sklearn_inverse.networks._training import fit_net
from sklearn_inverse.utils._scaling import ChannelScaler, ParamScaler
from sklearn_inverse.utils._sklearn import Interval, StrOptions, _fit_context
from sklearn_inverse.utils._torch import as_tensor, resolve_device, spawn_seeds
from sklearn_inverse.utils._validation import (
    check_n_observed,
    check_noise_std,
    check_observations,
    check_params,
    check_times,
)

__all__ = ["ODESurrogate"]


class ODESurrogate(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Learn a forward model from simulated pairs: params and readings to trajectories.

    One conditional Fourier neural operator (C-FNO [1]_) serves three uses, because it is
    trained with readings dropped, with params dropped, and with random masks: it emulates
    the solver (:meth:`simulate`), emulates it given some measurements as well
    (``simulate(params, observations)``), and fills sparse observations in without
    knowing the params (:meth:`transform`).

    Parameters
    ----------
    n_channels : int, default=None
        Channels of the observations. If None, taken from 3-D observations, else 1.

    bounds : array-like of shape (n_params, 2), default=None
        Box of the params, in their own units. If None, the range of the training params.

    scale : {"linear", "log10"} or list of them, default="linear"
        Scale on which the params enter. Take "log10" for those that span decades.

    times : array-like of shape (n_times,), default=None
        Times of the observations; the grid may be uneven. If None, evenly spaced.

    noise_std : float or array-like of shape (n_channels,), default=None
        Noise of the readings that :meth:`transform` will see, in units of the channels.
        None means noise-free.

    n_observed : int or (int, int), default=None
        Times at which the readings are made, or fewest and most. If None, one to all.

    width : int, default=16
        Features of the operator per time.

    n_layers : int, default=2
        Operator blocks.

    n_modes : int, default=16
        Fourier modes kept; more resolve faster changes.

    embedding : int, default=64
        Width of the embedding of the params.

    n_basis : int, default=64
        Principal components of the training trajectories that the params drive
        directly; the operator learns what they leave out. 0 is the paper's network,
        whose error as an emulator is several times larger for the same time.

    basis_epochs : int, default=300
        Passes over the training pairs for that direct part, each a fiftieth of the cost
        of an epoch of the operator.

    film : bool, default=True
        Whether the params modulate every block. Without it and without attention this
        is a plain FNO.

    attention : bool, default=True
        Whether a cross-attention over time follows the blocks.

    norm : {"batch"} or None, default=None
        Normalization inside the blocks. "batch" is the paper's; it raises the error.

    observation_dropout : float, default=0.3
        Share of the training batches without readings: the emulator's share.

    params_dropout : float, default=0.4
        Share of the training batches without params: the imputer's share.

    lr : float, default=2e-3
        Peak learning rate of Adam; it warms up, then falls to zero along a cosine.

    max_epochs : int, default=50
        Passes over the training pairs.

    batch_size : int, default=64
        Pairs per step.

    validation_fraction : float, default=0.1
        Share of the pairs held out for early stopping and ``error_``.

    patience : int, default=None
        Epochs without a lower held-out loss after which training stops, at the best
        weights. If None, train for ``max_epochs``.

    warm_start : bool, default=False
        Whether ``fit`` goes on from the weights, scaling and box of the last fit.

    callbacks : list of skorch callbacks, default=None
        Further callbacks for the training.

    device : {"auto", "cpu", "cuda", …}, default="auto"
        Where to train and predict. "auto" takes a GPU where there is one.

    random_state : int, RandomState instance or None, default=None
        Seeds weights, split, order, masks and noise.

    verbose : int, default=0
        Whether to show a progress bar over epochs.

    Attributes
    ----------
    error_ : ndarray of shape (n_channels,)
        Root mean square error of ``simulate(params)`` on the held-out pairs, in units of
        the channels.

    scaler_ : ParamScaler
        Map from params to the unit box.

    channel_scaler_ : ChannelScaler
        Standardization of the channels.

    net_ : skorch net
        The trained net; ``net_.history`` holds the losses per epoch.

    n_iter_ : int
        Epochs trained.

    n_times_, n_channels_, n_params_ : int
        Sizes.

    n_features_in_ : int
        ``n_times_ * n_channels_``.

    See Also
    --------
    ODESimulator : The exact forward model.
    ADMInverter : Inverts either of them.

    References
    ----------
    .. [1] "INO: Inverse neural operator for stiff ODE parameter recovery": the C-FNO,
       stage 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import ODESurrogate
    >>> k = np.linspace(0.5, 2.0, 64)[:, None]
    >>> t = np.linspace(0.0, 2.0, 16)
    >>> surrogate = ODESurrogate(max_epochs=40, random_state=0).fit(np.exp(-k * t), k)
    >>> surrogate.simulate([[1.0]]).shape
    (1, 16, 1)
    >>> bool(np.abs(surrogate.simulate([[1.0]])[0, :, 0] - np.exp(-t)).max() < 0.05)
    True
    """

    _parameter_constraints: dict = {
        "n_channels": [Interval(Integral, 1, None, closed="left"), None],
        "bounds": ["array-like", None],
        "scale": [StrOptions({"linear", "log10"}), list, np.ndarray],
        "times": ["array-like", None],
        "noise_std": [Interval(Real, 0, None, closed="left"), "array-like", None],
        "n_observed": [Integral, tuple, list, None],
        "width": [Interval(Integral, 1, None, closed="left")],
        "n_layers": [Interval(Integral, 0, None, closed="left")],
        "n_modes": [Interval(Integral, 1, None, closed="left")],
        "embedding": [Interval(Integral, 1, None, closed="left")],
        "n_basis": [Interval(Integral, 0, None, closed="left")],
        "basis_epochs": [Interval(Integral, 1, None, closed="left")],
        "film": ["boolean"],
        "attention": ["boolean"],
        "norm": [StrOptions({"batch"}), None],
        "observation_dropout": [Interval(Real, 0, 1, closed="both")],
        "params_dropout": [Interval(Real, 0, 1, closed="both")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left"), None],
        "warm_start": ["boolean"],
        "callbacks": [list, None],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        n_channels=None,
        bounds=None,
        scale="linear",
        times=None,
        noise_std=None,
        n_observed=None,
        width=16,
        n_layers=2,
        n_modes=16,
        embedding=64,
        n_basis=64,
        basis_epochs=300,
        film=True,
        attention=True,
        norm=None,
        observation_dropout=0.3,
        params_dropout=0.4,
        lr=2e-3,
        max_epochs=50,
        batch_size=64,
        validation_fraction=0.1,
        patience=None,
        warm_start=False,
        callbacks=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.n_channels = n_channels
        self.bounds = bounds
        self.scale = scale
        self.times = times
        self.noise_std = noise_std
        self.n_observed = n_observed
        self.width = width
        self.n_layers = n_layers
        self.n_modes = n_modes
        self.embedding = embedding
        self.n_basis = n_basis
        self.basis_epochs = basis_epochs
        self.film = film
        self.attention = attention
        self.norm = norm
        self.observation_dropout = observation_dropout
        self.params_dropout = params_dropout
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params):
        """Train on simulated pairs.

        Standardize the channels and scale the params, hold some pairs out, train the
        operator, and measure its error on the pairs held out. A KeyboardInterrupt ends
        the training early and keeps what was learned, with a ConvergenceWarning.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Simulated trajectories, free of noise; NaN where one is unknown.

        params : array-like of shape (n_samples, n_params) or (n_samples,)
            Params that produced them, in their own units.

        Returns
        -------
        self : ODESurrogate
            The trained surrogate.
        """
        device = resolve_device(self.device)
        going_on = self.warm_start and hasattr(self, "net_")
        trajectories = check_observations(
            self,
            observations,
            n_channels=self.n_channels_ if going_on else self.n_channels,
            reset=not going_on,
            ensure_min_samples=2,
        )
        params = check_params(
            params,
            n_samples=len(trajectories),
            n_params=self.n_params_ if going_on else None,
        )
        if going_on:
            self.scaler_.check_inside(params)
        else:
            self.scaler_ = ParamScaler.from_data(
                params, bounds=self.bounds, scale=self.scale
            )
            self.channel_scaler_ = ChannelScaler(trajectories)
        _, self.n_times_, self.n_channels_ = trajectories.shape
        self.n_params_ = params.shape[1]

        standardized = self.channel_scaler_.standardize(trajectories)
        unit_params = self.scaler_.to_unit(params)
        split_seed, *fit_seeds = spawn_seeds(self.random_state, 4)
        seen, held_out = split_held_out(
            len(params), self.validation_fraction, split_seed
        )
        self.net_ = self._fit_operator(
            [(unit_params[i], standardized[i]) for i in (seen, held_out)],
            going_on,
            device,
            fit_seeds,
        )
        self.n_iter_ = len(self.net_.history)
        residual = self._predict(unit_params[held_out]) - trajectories[held_out]
        self.error_ = np.sqrt(np.nanmean(residual**2, axis=(0, 1)))
        return self

    def transform(self, observations):
        """Fill sparse observations in to whole trajectories, without knowing the params.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Readings, NaN where nothing was measured.

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times * n_channels)
            The most plausible complete trajectories, time-major as the input.
        """
        check_is_fitted(self)
        readings = self._check_readings(observations)
        return self._predict(None, readings).reshape(len(readings), -1)

    def simulate(self, params, observations=None):
        """Emulate the solver, optionally given some measurements as well.

        Parameters
        ----------
        params : array-like of shape (n_samples, n_params) or (n_samples,)
            Params in their own units. Outside the training box an
            :class:`ExtrapolationWarning` is issued.

        observations : array-like as in :meth:`transform`, default=None
            Readings of the same samples. If None, params alone.

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            In units of the channels.
        """
        check_is_fitted(self)
        params = check_params(params, n_params=self.n_params_)
        readings = None
        if observations is not None:
            readings = self._check_readings(observations)
            check_params(params, n_samples=len(readings))
        unit_params = self.scaler_.to_unit(params)
        outside = ~((unit_params > -1e-6) & (unit_params < 1 + 1e-6)).all(axis=1)
        if outside.any():
            warnings.warn(
                f"{outside.sum()} of {len(params)} samples have params outside the box "
                "that this surrogate was trained on; its error there is unknown. The "
                f"box is {self.scaler_.bounds.tolist()}.",
                ExtrapolationWarning,
                stacklevel=2,
            )
        return self._predict(unit_params, readings)

    def forward(self, unit_params):
        """Emulate differentiably, from params scaled to the unit box.

        Parameters
        ----------
        unit_params : Tensor of shape (n_samples, n_params)
            Params mapped by ``scaler_``.

        Returns
        -------
        trajectories : Tensor of shape (n_samples, n_times, n_channels)
            In units of the channels, on the device of ``unit_params``. Computed in
            single precision, returned in double: a channel's mean may be thousands of
            times the noise.
        """
        module = self.net_.module_.to(unit_params.device)
        unit_params = unit_params.float()
        standardized = module(unit_params, torch.ones_like(unit_params[:, :1]))
        return self.channel_scaler_.restore(standardized.double())

    def linearize(self, unit_params):
        """Emulate from unit params, with the derivatives by them.

        Parameters
        ----------
        unit_params : Tensor of shape (n_samples, n_params)
            Params mapped by ``scaler_``.

        Returns
        -------
        trajectories : Tensor of shape (n_samples, n_times, n_channels)
            As those of :meth:`forward`.

        jacobian : Tensor of shape (n_samples, n_times, n_channels, n_params)
            Derivative of each reading by each unit param.
        """
        # Few samples at a time: the tangents are n_params times as large as the
        # trajectories.
        some = unit_params.detach().float().split(32)
        with plain_attention:
            trajectories, jacobian = zip(
                *(differentiate(self.forward, u) for u in some)
            )
        return torch.cat(trajectories), torch.cat(jacobian)

    def _check_readings(self, observations):
        return check_observations(self, observations, n_channels=self.n_channels_)

    def _fit_operator(self, pairs, going_on, device, seeds):
        """Train the operator around its trained skip, or go on with the last one."""
        skip_seed, weight_seed, batch_seed = seeds
        shape = (1, self.n_times_, self.n_channels_)
        noise = check_noise_std(self.noise_std, shape=shape)
        n_observed = (1, self.n_times_) if self.n_observed is None else self.n_observed
        n_observed = check_n_observed(n_observed, n_times=self.n_times_)
        train, valid = (tensor_dataset(*part, device=device) for part in pairs)
        max_epochs = self.max_epochs
        if going_on:
            make_module = partial(copy.deepcopy, self.net_.module_)
        else:
            skip_net = self._fit_skip(*pairs[0], device, skip_seed)
            skip = None if skip_net is None else skip_net.module_
            make_module = partial(self._make_module, skip)
            if skip_net is not None and skip_net.interrupted_:
                max_epochs = 0  # who stopped the one does not want the other
        return fit_net(
            make_module,
            AbsoluteError,
            partial(
                ReadingBatches,
                batch_size=self.batch_size,
                n_observed=n_observed,
                noise=as_tensor(noise / self.channel_scaler_.std, device),
                observation_dropout=self.observation_dropout,
                params_dropout=self.params_dropout,
                seed=batch_seed,
            ),
            train,
            valid,
            lr=self.lr,
            max_epochs=max_epochs,
            n_batches=math.ceil(len(train) / self.batch_size),
            patience=self.patience,
            callbacks=self.callbacks,
            verbose=self.verbose,
            desc="Training operator",
            seed=weight_seed,
            device=device,
        )

    def _fit_skip(self, unit_params, standardized, device, seed):
        """Train the direct part, params to components; its net, or None without."""
        flat = np.nan_to_num(standardized.reshape(len(standardized), -1))
        n_basis = min(self.n_basis, *flat.shape)
        if n_basis == 0:
            return None
        pca = PCA(n_basis, random_state=seed).fit(flat)
        batch_size = min(512, len(flat))
        mean = pca.mean_.reshape(self.n_times_, self.n_channels_)
        spread = np.sqrt(pca.explained_variance_)
        tensors = (as_tensor(a, device) for a in (mean, pca.components_, spread))
        return fit_net(
            partial(ParamSkip, *tensors, self.n_params_),
            torch.nn.MSELoss,
            partial(ShuffledBatches, batch_size=batch_size, seed=seed),
            tensor_dataset(unit_params, pca.transform(flat), device=device),
            None,
            lr=2e-3,
            max_epochs=self.basis_epochs,
            n_batches=math.ceil(len(flat) / batch_size),
            patience=None,
            callbacks=None,
            verbose=self.verbose,
            desc="Training skip",
            seed=seed,
            device=device,
        )

    def _make_module(self, skip):
        """Build the operator around the trained skip."""
        times = np.arange(self.n_times_, dtype=float)
        if self.times is not None:
            times = check_times(self.times, n_times=self.n_times_)
        span = times[-1] - times[0]
        return CFNO(
            torch.as_tensor((times - times[0]) / (span or 1.0)).float(),
            self.n_channels_,
            self.n_params_,
            skip=skip,
            width=self.width,
            n_layers=self.n_layers,
            n_modes=self.n_modes,
            embedding=self.embedding,
            film=self.film,
            attention=self.attention,
            norm=self.norm,
        )

    def _predict(self, unit_params=None, readings=None):
        """Trajectories in units of the channels, from params, readings or both."""
        device = resolve_device(self.device)
        module = self.net_.module_.to(device)
        n_samples = len(readings if unit_params is None else unit_params)
        has_params = np.full((n_samples, 1), unit_params is not None)
        if unit_params is None:
            unit_params = np.zeros((n_samples, self.n_params_))
        inputs = [unit_params, has_params]
        if readings is not None:
            standardized = self.channel_scaler_.standardize(readings)
            inputs += [np.nan_to_num(standardized), ~np.isnan(readings)]
        tensors = (as_tensor(a, device) for a in inputs)
        with torch.no_grad():
            standardized = in_chunks(module, *tensors)
        return self.channel_scaler_.restore(standardized.double().cpu().numpy())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


class AbsoluteError(torch.nn.Module):
    """Mean absolute error; entries that are not known (NaN) count as met."""

    def forward(self, prediction, target):
        """Return the mean; unknown targets have no error and no gradient."""
        return (
            (prediction - torch.where(target.isnan(), prediction, target)).abs().mean()
        )
