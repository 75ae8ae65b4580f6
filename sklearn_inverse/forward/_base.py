"""ForwardModel: what every inverter may ask of the model that it inverts."""

import copy
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from torch import Tensor

from sklearn_inverse.ode._rhs import push_tangents
from sklearn_inverse.probability import JointPrior
from sklearn_inverse.systems import ODESystem, PDESystem
from sklearn_inverse.utils._scaling import ParamScaler
from sklearn_inverse.utils._torch import resolve_device

__all__ = [
    "ForwardModel",
    "as_forward_model",
    "differentiate",
    "even_times",
    "prior_of_pairs",
    "unnamed",
]


class ForwardModel(BaseEstimator):
    """Params to what instruments report, with what is known of both.

    A subclass sets, in its constructor's properties or in ``fit``, the attributes below,
    and implements :meth:`simulate` and :meth:`forward`.

    Attributes
    ----------
    prior_ : JointPrior
        What is believed of the params; its ``scaler`` maps them to the scaled ones.

    noise_ : NoiseModel
        How readings scatter around what the model reports.

    observable_names_ : list of str
        What is reported.

    times_ : ndarray of shape (n_times,)
        When.

    input_names_ : list of str
        Inputs that each sample brings: known numbers beside its params.

    elapsed_ : ndarray of shape (n_times,)
        What comes first of a search that learns of ever later readings: times, or the
        shares of their experiments that are over.

    experiment_of_ : ndarray of int of shape (n_times,)
        Of which experiment each time is.

    error_ : ndarray of shape (n_channels,)
        Root-mean-square error of the model itself; zero if it is exact.

    name : str or None
        What reports call it, where that is not its class.

    precision : float
        Relative error that is always there, a solver's tolerance.

    is_exact : bool
        Whether it needs no training.

    may_thread : bool
        Whether it lets other threads run.

    was_interrupted : bool
        Whether Ctrl-C ended its training early.

    linearizes_cheaply : bool
        Whether a run with its Jacobian costs about as much as one without.

    is_ready, known_n_channels, known_param_names : object
        What can be told before ``fit``.
    """

    precision = 1e-6
    is_exact = False
    name: str | None = None
    may_thread = True
    linearizes_cheaply = False
    was_interrupted = False

    @property
    def is_ready(self) -> bool:
        """Whether it runs without learning from pairs first."""
        return self.is_exact

    @property
    def exact_(self) -> "ForwardModel":
        """ForwardModel: what it imitates, where that is at hand and quick; or itself."""
        return self

    def with_prior(self, prior) -> "ForwardModel":
        """Return the model with another prior, of the same scaled params.

        Parameters
        ----------
        prior : JointPrior
            As ``prior_.at_scales`` gives.

        Returns
        -------
        model : ForwardModel
            A copy.
        """
        model = copy.copy(self)
        model.prior_ = prior
        return model

    def device_for(self, device) -> torch.device:
        """Return where to compute with the model, given a parameter ``device``.

        Parameters
        ----------
        device : {"auto", "cpu", "cuda", …} or torch.device
            If "auto", where the model is fastest.

        Returns
        -------
        device : torch.device
            A device of this machine.
        """
        return resolve_device(device)

    def unchanging(self) -> AbstractContextManager:
        """Return a context in which nothing changes that the model is made of."""
        return nullcontext()

    @property
    def known_n_channels(self):
        """Number of observables, None if only the observations can tell."""
        return self.n_channels_

    @property
    def known_param_names(self):
        """Names of the params, None if nobody has given any."""
        return self.param_names_

    @property
    def n_times_(self) -> int:
        """Number of output times."""
        return len(self.times_)

    @property
    def n_channels_(self) -> int:
        """Number of observables."""
        return len(self.observable_names_)

    @property
    def n_params_(self) -> int:
        """Number of params."""
        return self.prior_.n_params

    @property
    def param_names_(self) -> list:
        """Names of the params."""
        return self.prior_.names

    @property
    def param_scaler_(self):
        """ParamScaler: map of the params to the scaled ones."""
        return self.prior_.scaler

    def fit(self, observations, params=None):
        """Return the model as it is: an exact one learns nothing from pairs.

        Parameters
        ----------
        observations : array-like
            Not used.

        params : array-like, default=None
            Not used.

        Returns
        -------
        self : ForwardModel
            The model.
        """
        return self

    @property
    def input_names_(self) -> list:
        """Inputs that each sample brings."""
        return []

    @property
    def input_prior_(self):
        """JointPrior or None: from which these are drawn, where that is known."""
        return None

    def scale_inputs(self, inputs):
        """Return the map of the inputs that samples bring to scaled ones.

        Parameters
        ----------
        inputs : ndarray of shape (n_samples, n_inputs)
            Those of training, whose range it is where no prior is known.

        Returns
        -------
        scaler : ParamScaler
            The map.
        """
        prior = self.input_prior_
        return ParamScaler.from_data(inputs) if prior is None else prior.scaler

    @property
    def measured_(self):
        """Which observables are measured when, (n_times, n_channels); None if all are."""
        return None

    @property
    def elapsed_(self) -> np.ndarray:
        """What comes first of ever later readings."""
        return self.times_

    @property
    def experiment_of_(self) -> np.ndarray:
        """Of which experiment each time is."""
        system = getattr(self, "system", None)
        if isinstance(system, ODESystem):
            return system.protocol.experiment_of
        return np.zeros(self.n_times_, dtype=int)

    def simulate(self, params, inputs=None):
        """Return trajectories at params in their own units.

        Parameters
        ----------
        params : array-like of shape (n_samples, n_params)
            Params in their own units.

        inputs : array-like of shape (n_samples, n_inputs), default=None
            Inputs of each sample, if the model has any.

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            What the model reports, free of noise.
        """
        raise AssertionError("every forward model simulates")

    def attempt(self, params, inputs=None):
        """Return trajectories, and which of the samples have one (n_samples,).

        Unlike :meth:`simulate`, says nothing of those that have none.
        """
        told = {} if inputs is None else {"inputs": inputs}
        trajectories = self.simulate(params, **told)
        return trajectories, ~np.isnan(trajectories).any(axis=(1, 2))

    def forward(self, scaled_params: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return trajectories at scaled params, differentiably."""
        raise AssertionError("every forward model runs forward")

    def linearize(
        self, scaled_params: Tensor, inputs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return trajectories and their Jacobian (…, n_params) by scaled params."""
        forward = (
            self.forward if inputs is None else partial(self.forward, inputs=inputs)
        )
        return differentiate(forward, scaled_params)

    def truncate(self, n_times):
        """Return a model that reports the first times at least; cheaper if it can be.

        Parameters
        ----------
        n_times : int
            Times that are needed.

        Returns
        -------
        model : ForwardModel
            Reports ``n_times`` times or more.
        """
        return self


def differentiate(forward, scaled: Tensor) -> tuple[Tensor, Tensor]:
    """Push the axes of the scaled params through a function, all of them at once."""
    scaled = scaled.detach()
    eye = torch.eye(scaled.shape[1], dtype=scaled.dtype, device=scaled.device)
    axes = eye[:, None].expand(-1, len(scaled), -1)
    pushed = push_tangents(forward, (scaled,), (axes,))
    with torch.no_grad():
        return forward(scaled), pushed.movedim(0, -1)


def as_forward_model(model, **options) -> ForwardModel:
    """Return an unfitted forward model from whatever stands as ``model``.

    Parameters
    ----------
    model : None, ODESystem, PDESystem, ForwardModel, FrozenEstimator or callable
        None is a surrogate with its defaults, a system its exact simulator, a function
        of params a :class:`ForwardFunction` whose prior is the range of the pairs.

    **options : dict
        ``device``, ``random_state`` and ``verbose`` for a model that is made here.

    Returns
    -------
    model : ForwardModel
        A clone, or the frozen model itself.

    Raises
    ------
    TypeError
        If ``model`` is none of these.
    """
    from sklearn_inverse.forward._function import ForwardFunction, SteadySimulator
    from sklearn_inverse.forward._simulator import ODESimulator

    if model is None:
        from sklearn_inverse.forward._surrogate import ODESurrogate

        return ODESurrogate(**options)
    if isinstance(model, PDESystem) and model.is_steady:
        return SteadySimulator(model)
    if isinstance(model, PDESystem):
        model = model.semidiscretize()
    if isinstance(model, ODESystem):
        return ODESimulator(model, device=options.get("device", "auto"))
    if isinstance(model, FrozenEstimator) and isinstance(model.estimator, ForwardModel):
        return model.estimator
    if isinstance(model, ForwardModel):
        return clone(model)
    if callable(model) and not isinstance(model, type):
        return ForwardFunction(model, device=options.get("device", "auto"))
    raise TypeError(
        "`model` must be a system (ODESystem, ReactionSystem, PDESystem), a forward model "
        "(ODESimulator, ODESurrogate, ForwardFunction), one of these in a "
        f"FrozenEstimator, or a torch function of the params. Got {model!r} instead."
    )


def unnamed(kind, n_names) -> list:
    """Return names for what has none: k1, k2, … or c1, c2, …."""
    return [f"{kind}{i}" for i in range(1, n_names + 1)]


def prior_of_pairs(params, names=None) -> JointPrior:
    """Return uniform priors over the range of training params."""
    return JointPrior.from_range(params, names or unnamed("k", params.shape[1]))


def even_times(n_times) -> np.ndarray:
    """Return 0, 1, 2, … where times are not told."""
    return np.arange(n_times, dtype=float)
