"""ODESurrogate: the learned forward model, a C-FNO behind scikit-learn's interface."""

from functools import partial
from numbers import Integral

import numpy as np
import torch
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sklearn_inverse.exceptions import ExtrapolationWarning
from sklearn_inverse.forward._base import ForwardModel, differentiate, prior_of_pairs
from sklearn_inverse.forward._function import SteadySimulator
from sklearn_inverse.forward._judged import judge
from sklearn_inverse.forward._simulator import ODESimulator
from sklearn_inverse.forward._stated import (
    Steady,
    stated_noise,
    stated_prior,
    stated_system,
    stated_times,
)
from sklearn_inverse.networks._batches import in_chunks, split_pairs
from sklearn_inverse.networks._cfno import plain_attention
from sklearn_inverse.networks._operator import Operator, fit_operator
from sklearn_inverse.networks._options import Design, Training
from sklearn_inverse.networks._readings import ReadingScaler, ReadingSimulator
from sklearn_inverse.systems import ODESystem, PDESystem
from sklearn_inverse.utils._docs import LEARNING, shared_docs
from sklearn_inverse.utils._options import NestedOptions
from sklearn_inverse.utils._sklearn import Interval, StrOptions, _fit_context
from sklearn_inverse.utils._torch import (
    as_tensor,
    generator,
    resolve_device,
    spawn_seeds,
)
from sklearn_inverse.utils._validation import (
    check_inputs,
    check_observations,
    check_params,
    column_names,
)
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["ODESurrogate"]

CHUNK = 32  # samples at a time: larger are no faster on a CPU, and tangents are larger


@shared_docs
class ODESurrogate(NestedOptions, OneToOneFeatureMixin, TransformerMixin, ForwardModel):
    """Learn a forward model from simulated pairs: params and readings to trajectories.

    One conditional Fourier neural operator (C-FNO [1]_) serves three uses, because it is
    trained with readings dropped, with params dropped, and with random masks: it emulates
    the solver (:meth:`simulate`), emulates it given some measurements as well
    (``simulate(params, observations)``), and fills sparse observations in without
    knowing the params (:meth:`transform`).

    Parameters
    ----------
    system : ODESystem or PDESystem, default=None
        What is emulated: params, noise, observables and times are its own. Without, the
        next four parameters say what is known of them. A steady problem has one time;
        values of unknown functions at nodes are params like any other, what a DeepONet's
        branch takes.

    params : dict, default=None
        Priors as for :class:`ODESystem`. If None, uniform on the range of the training
        params.

    n_channels : int, default=None
        Number of observables. If None, taken from 3-D observations, else 1.

    times : array-like of shape (n_times,), default=None
        Times of the observations; the grid may be uneven. If None, 0, 1, 2, ….

    noise : object, default=None
        Noise of the readings, as for :class:`ODESystem`.

    %(design)s

    network : Operator, default=None
        Size and switches of the operator; ``network__width=32`` sets one of them.

    n_basis : int, default=64
        Principal components of the training trajectories that the params drive
        directly; the operator learns what they leave out. 0 is the paper's network,
        whose error as an emulator is several times larger for the same time.

    basis_epochs : int, default=300
        Passes over the training pairs for that direct part, each a fiftieth of the cost
        of an epoch of the operator.

    loss : {"absolute", "noise"}, default="absolute"
        What training lowers: the mean absolute error of standardized observables, or
        "noise", asinh² of the error in units of the noise, for a surrogate whose
        posteriors must hold. With ``training__max_epochs=0`` the direct part alone.

    training : Training, default=None
        How the operator is trained: by default 50 epochs at ``lr=2e-3``, in batches of
        64, a tenth of the pairs held out; ``training__lr=1e-3`` sets one of these.

    warm_start : bool, default=False
        Whether ``fit`` goes on from the weights, scaling and prior of the last fit.

    %(learning)s

    Attributes
    ----------
    error_ : ndarray of shape (n_channels,)
        Root-mean-square error of ``simulate(params)`` on the held-out pairs, in units of
        the observables; NaN where no pair at all has readings. With ``loss="noise"``
        zero where two in three errors are below three tenths of the noise.

    error_in_noise_ : ndarray of shape (2, n_channels)
        Median and 95 % quantile of the absolute error there, in units of the noise.

    prior_, noise_, observable_names_, times_ : object
        What is believed of the params, how readings scatter, of what, and when.

    net_, reading_scaler_ : object
        The trained skorch net, whose ``history`` holds the losses per epoch, and the
        standardization of the observables.

    n_iter_ : int
        Epochs trained.

    %(n_features_in_)s

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
    >>> surrogate = ODESurrogate(random_state=0).fit(np.exp(-k * t), k)
    >>> surrogate.simulate([[1.0]]).shape
    (1, 16, 1)
    >>> bool(np.abs(surrogate.simulate([[1.0]])[0, :, 0] - np.exp(-t)).max() < 0.05)
    True
    """

    _parameter_constraints: dict = LEARNING | {
        "system": [ODESystem, PDESystem, None],
        "params": [dict, None],
        "n_channels": [Interval(Integral, 1, None, closed="left"), None],
        "times": ["array-like", None],
        "noise": "no_validation",
        "design": [Design, None],
        "network": [Operator, None],
        "n_basis": [Interval(Integral, 0, None, closed="left")],
        "basis_epochs": [Interval(Integral, 1, None, closed="left")],
        "loss": [StrOptions({"absolute", "noise"})],
        "training": [Training, None],
        "warm_start": ["boolean"],
    }
    _option_types = {"design": Design, "network": Operator, "training": Training}

    def __init__(
        self,
        system=None,
        *,
        params=None,
        n_channels=None,
        times=None,
        noise=None,
        design=None,
        network=None,
        n_basis=64,
        basis_epochs=300,
        loss="absolute",
        training=None,
        warm_start=False,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.system = system
        self.params = params
        self.n_channels = n_channels
        self.times = times
        self.noise = noise
        self.design = design
        self.network = network
        self.n_basis = n_basis
        self.basis_epochs = basis_epochs
        self.loss = loss
        self.training = training
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @property
    def is_ready(self):
        """Whether it has been trained."""
        return "net_" in vars(self)

    @property
    def was_interrupted(self):
        """Whether Ctrl-C ended the last training."""
        return self.net_.interrupted_

    @property
    def exact_(self):
        """ForwardModel: the simulator of its system if that is compiled, or itself."""
        system = stated_system(self)
        if isinstance(system, Steady):
            return SteadySimulator(system.pde).fit(None)
        if system is None or system.backend_ != "compiled":
            return self
        return ODESimulator(system)

    @property
    def known_n_channels(self):
        """Number of observables, None if only the observations can tell."""
        if self.is_ready:
            return self.n_channels_
        system = stated_system(self)
        return self.n_channels if system is None else system.n_channels

    @property
    def known_param_names(self):
        """Names of the params, None if nobody has given any."""
        if self.is_ready:
            return self.param_names_
        prior = stated_prior(self)
        return None if prior is None else prior.names

    @property
    def input_names_(self):
        """List of str: what the system must be told of each sample."""
        return [] if self.system is None else stated_system(self).input_names

    @property
    def input_prior_(self):
        """JointPrior or None: what the system says of these."""
        return None if self.system is None else stated_system(self).input_prior

    @property
    def elapsed_(self):
        """Output times, shares of the experiments if there are several."""
        system = stated_system(self)
        is_told = system is None or isinstance(system, Steady)
        return self.times_ if is_told else system.protocol.elapsed()

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params, *, inputs=None):
        """Train on simulated pairs.

        Hold some pairs out, train the operator, and measure its error on those. A
        KeyboardInterrupt ends the training early and keeps what was learned, with a
        ConvergenceWarning; training that diverges is a ValueError.

        Parameters
        ----------
        %(pairs)s

        %(inputs)s

        Returns
        -------
        self : ODESurrogate
            The trained surrogate.

        Warns
        -----
        MisfitWarning
            If its error, or with ``loss="noise"`` its 95 % quantile, exceeds three tenths
            of the stated noise of some observable.
        """
        device = resolve_device(self.device)
        start = self.net_.module_ if self.warm_start and self.is_ready else None
        trajectories, params = self._take_in(observations, params, start is not None)
        training = (self.training or Training())._filled(
            lr=2e-3, max_epochs=50, batch_size=64, validation_fraction=0.1
        )
        design = (self.design or Design())._settle(
            self.n_times_, self.observable_names_
        )
        split_seed, noise_seed, *fit_seeds = spawn_seeds(self.random_state, 5)
        inputs = check_inputs(inputs, n_samples=len(params), names=self.input_names_)
        if start is None:
            self.input_scaler_ = self.scale_inputs(inputs)
        scaled = self._scaled(params, inputs)
        train, valid = split_pairs(
            scaled,
            partial(self.reading_scaler_.standardize_rows, trajectories),
            fraction=training.validation_fraction,
            seed=split_seed,
            device=device,
        )

        def to_params(scaled):
            return self.param_scaler_.from_scaled_tensor(scaled[:, : self.n_params_])

        read = ReadingSimulator(self, self.reading_scaler_, to_params, *design)
        read.settle(*train.tensors, generator(noise_seed, device))
        self.net_ = fit_operator(
            train,
            valid,
            read,
            start=self.times_ if start is None else start,
            options=self._options("network"),
            pod=(self.n_basis, self.basis_epochs),
            training=training,
            seeds=fit_seeds,
            for_noise=self.loss == "noise",
            verbose=self.verbose,
            device=device,
        )
        self.n_iter_ = len(self.net_.history)
        self._seen = np.stack([scaled.min(axis=0), scaled.max(axis=0)])
        known = self.reading_scaler_, self.noise_, self.observable_names_
        for_noise, read_at_all = self.loss == "noise", design[1].any(axis=0)
        errors = judge(self._predict, valid, train, read_at_all, *known, for_noise)
        self.error_, self.error_in_noise_ = errors
        return self

    def transform(self, observations):
        """Fill sparse observations in to whole trajectories, without knowing the params.

        Parameters
        ----------
        %(observations)s

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times * n_channels)
            The most plausible complete trajectories, time-major as the input.
        """
        check_is_fitted(self)
        readings = self._check_readings(observations)
        return self._predict(None, readings).reshape(len(readings), -1)

    def get_feature_names_out(self, input_features=None):
        """Return names of what :meth:`transform` fills in, time-major.

        Parameters
        ----------
        input_features : array-like of str of shape (n_features_in_,), default=None
            If None, those of the columns seen in ``fit``, and without such, observables
            and times, and experiments if there are several: ``"prey(0.5)"``.

        Returns
        -------
        names : ndarray of str of shape (n_features_in_,)
            The names.
        """
        names = super().get_feature_names_out(input_features)
        if input_features is not None or hasattr(self, "feature_names_in_"):
            return names
        when = [f"{t:.12g}" for t in self.times_]
        system = stated_system(self)
        if system is not None and len(system.experiments) > 1:
            names = [e.name for e in system.experiments]
            which = system.protocol.experiment_of
            when = [f"{t}, {names[e]}" for t, e in zip(when, which)]
        by_time = ((name, t) for t in when for name in self.observable_names_)
        return np.array([f"{name}({t})" for name, t in by_time], dtype=object)

    def simulate(self, params, observations=None, *, inputs=None):
        """Emulate the solver, optionally given some measurements as well.

        Parameters
        ----------
        params : array-like of shape (n_samples, n_params) or (n_samples,)
            Params in their own units. Outside what it was trained on an
            :class:`ExtrapolationWarning` is issued.

        observations : array-like as in :meth:`transform`, default=None
            Readings of the same samples. If None, params alone.

        inputs : array-like of shape (n_samples, n_inputs) or dict, default=None
            Inputs of each sample, if the system has any. Outside what it was trained on
            the same warning is issued.

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            In units of the observables.
        """
        check_is_fitted(self)
        params = check_params(params, n_params=self.n_params_, names=self.param_names_)
        readings = None
        if observations is not None:
            readings = self._check_readings(observations)
            check_params(params, n_samples=len(readings))
        told = check_inputs(inputs, n_samples=len(params), names=self.input_names_)
        scaled = self._scaled(params, told)
        low, high = np.minimum(self._seen[0], 0), np.maximum(self._seen[1], 1)
        outside = ~((scaled > low - 1e-6) & (scaled < high + 1e-6)).all(axis=1)
        if outside.any():
            p, ends = self.n_params_, np.stack([low, high])
            bounds = [self.param_scaler_.from_scaled(ends[:, :p])]
            bounds.append(self.input_scaler_.from_scaled(ends[:, p:]))
            what = "params or inputs" if self.input_names_ else "params"
            warn_user(
                f"{outside.sum()} of {len(params)} samples have {what} outside those "
                "that this surrogate was trained on; its error there is unknown. They "
                f"lie within {np.hstack(bounds).T.tolist()}.",
                ExtrapolationWarning,
            )
        return self._predict(scaled, readings)

    def _scaled(self, params, inputs):
        """Return what drives the network: scaled params, and scaled inputs behind them."""
        scaled = self.param_scaler_.to_scaled(params)
        return np.hstack([scaled, self.input_scaler_.to_scaled(inputs)])

    def forward(self, scaled_params, inputs=None):
        """Emulate differentiably, from scaled params.

        Parameters
        ----------
        scaled_params : Tensor of shape (n_samples, n_params)
            Params as scaled by the prior.

        inputs : Tensor of shape (n_samples, n_inputs), default=None
            Inputs of each sample, if the system has any.

        Returns
        -------
        trajectories : Tensor of shape (n_samples, n_times, n_channels)
            In units of the observables, on the device of ``scaled_params``. Computed in
            single precision, returned in double: the mean of an observable may be
            thousands of times its noise.
        """
        module = self.net_.module_.to(scaled_params.device)

        def emulate(scaled):
            return module(scaled, torch.ones_like(scaled[:, :1]))

        scaled = scaled_params.float()
        if inputs is not None:
            told = self.input_scaler_.to_scaled_tensor(torch.as_tensor(inputs).double())
            scaled = torch.cat([scaled, told.to(scaled)], dim=1)
        if torch.is_grad_enabled() or scaled.is_cuda:
            standardized = emulate(scaled)
        else:  # for searches that compare values: a row's must not hang on its company
            standardized = in_chunks(emulate, scaled, chunk_size=CHUNK)
        return self.reading_scaler_.restore(standardized)

    def linearize(self, scaled_params, inputs=None):
        """Emulate from scaled params, with the derivatives by them.

        Parameters
        ----------
        scaled_params : Tensor of shape (n_samples, n_params)
            Params as scaled by the prior.

        inputs : Tensor of shape (n_samples, n_inputs), default=None
            Inputs of each sample, if the system has any.

        Returns
        -------
        trajectories : Tensor of shape (n_samples, n_times, n_channels)
            As those of :meth:`forward`.

        jacobian : Tensor of shape (n_samples, n_times, n_channels, n_params)
            Their derivatives by the scaled params.
        """
        with plain_attention():
            some = scaled_params.detach().float().split(CHUNK)
            told = [None] * len(some) if inputs is None else inputs.split(CHUNK)
            forwards = (partial(self.forward, inputs=part) for part in told)
            parts = zip(*map(differentiate, forwards, some))
            trajectories, jacobian = map(torch.cat, parts)
        return trajectories, jacobian

    def _take_in(self, observations, params, is_going_on):
        """Check pairs; settle what they are of, unless that is known already."""
        if not is_going_on:
            vars(self).pop("net_", None)  # what is asked below is what was stated
        trajectories = check_observations(
            self,
            observations,
            n_channels=self.known_n_channels,
            reset=not is_going_on,
            ensure_min_samples=2,
        )
        columns = column_names(params)
        prior = self.prior_ if is_going_on else stated_prior(self)
        params = check_params(
            params,
            n_samples=len(trajectories),
            n_params=None if prior is None else prior.n_params,
            names=None if prior is None else prior.names,
        )
        if not is_going_on:
            self.prior_ = prior or prior_of_pairs(params, columns)
            shape = trajectories.shape[1:]
            self.times_, self.observable_names_ = stated_times(self, *shape)
            self.noise_ = stated_noise(self)
            self.reading_scaler_ = ReadingScaler(self.noise_, trajectories)
        self.prior_.check_inside(params)
        return trajectories, params

    def _check_readings(self, observations):
        readings = check_observations(self, observations, n_channels=self.n_channels_)
        self.reading_scaler_.warn_of_far(readings)
        return readings

    def _predict(self, scaled=None, readings=None):
        """Trajectories in units of the observables, from params, readings or both."""
        device = resolve_device(self.device)
        module = self.net_.module_.to(device)
        n_samples = len(readings if scaled is None else scaled)
        has_params = np.full((n_samples, 1), scaled is not None)
        if scaled is None:
            scaled = np.zeros((n_samples, self._seen.shape[1]))
        inputs = [as_tensor(a, device) for a in (scaled, has_params)]
        if readings is not None:
            inputs += self.reading_scaler_.prepare(readings, device)
        with torch.no_grad():
            standardized = in_chunks(module, *inputs)
        return self.reading_scaler_.restore(standardized).cpu().numpy()

    def __sklearn_is_fitted__(self):
        return self.is_ready

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags
