"""ForwardFunction: any differentiable torch function as a forward model."""

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.forward._base import (
    ForwardModel,
    even_times,
    prior_of_pairs,
    unnamed,
)
from sklearn_inverse.probability import JointPrior, as_noise
from sklearn_inverse.systems import PDESystem
from sklearn_inverse.utils._sklearn import _fit_context
from sklearn_inverse.utils._torch import resolve_device
from sklearn_inverse.utils._validation import check_inputs, check_params, column_names

__all__ = ["ForwardFunction", "SteadySimulator"]


class ForwardFunction(ForwardModel):
    """A torch function of params, differentiable as a rule, as a forward model.

    Parameters
    ----------
    function : callable
        ``function(params) -> trajectories``: a float64 tensor of shape (n_samples,
        n_params) in the params' own units to one of shape (n_samples, n_times,
        n_channels), or (n_samples, n_times) where there is one observable. A sample
        that cannot be simulated is NaN. ``function(params, inputs)`` where there are
        inputs, a tensor of shape (n_samples, n_inputs).

    params : dict, default=None
        Priors as for :class:`ODESystem`. If None, uniform on the range of the training
        params.

    inputs : dict, default=None
        Inputs that each sample brings, known numbers beside its params such as its
        initial state: their names, and distributions as of params.

    observables : list of str, default=None
        Names of what it reports. If None, c1, c2, ….

    times : array-like of shape (n_times,), default=None
        If None, 0, 1, 2, ….

    noise : object, default=None
        As for :class:`ODESystem`.

    differentiable : bool, default=True
        Whether gradients flow from the trajectories back to the params. Without, as of a
        simulator behind NumPy, which may return an ndarray, :class:`CMAESInverter` and
        :class:`FlowInverter` take it.

    name : str, default=None
        What reports call it.

    device : {"auto", "cpu", "cuda", …}, default="auto"
        Where it runs.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse import ForwardFunction
    >>> t = torch.linspace(0.0, 2.0, 5, dtype=torch.float64)
    >>> decay = ForwardFunction(lambda k: torch.exp(-k * t), params={"rate": (0.5, 2.0)})
    >>> decay.simulate([[1.0]]).shape
    (1, 5, 1)

    What is known of each sample is an input:

    >>> decay = ForwardFunction(
    ...     lambda k, start: start * torch.exp(-k * t),
    ...     params={"rate": (0.5, 2.0)},
    ...     inputs={"start": (1.0, 10.0)},
    ... )
    >>> decay.simulate([[1.0]], inputs={"start": 3.0})[0, 0]
    array([3.])
    """

    _parameter_constraints: dict = {
        "function": [callable],
        "params": [dict, None],
        "inputs": [dict, None],
        "observables": [list, None],
        "times": ["array-like", None],
        "noise": "no_validation",
        "differentiable": ["boolean"],
        "name": [str, None],
        "device": [str, torch.device],
    }
    is_exact = True

    def __init__(
        self,
        function,
        params=None,
        *,
        inputs=None,
        observables=None,
        times=None,
        noise=None,
        differentiable=True,
        name=None,
        device="auto",
    ):
        self.function = function
        self.params = params
        self.inputs = inputs
        self.observables = observables
        self.times = times
        self.noise = noise
        self.differentiable = differentiable
        self.name = name
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params=None):
        """Take the prior from the pairs if none was given, and try the function out.

        Parameters
        ----------
        observations : array-like
            Not used: their number and size are what the function says.

        params : array-like of shape (n_samples, n_params), default=None
            Training params.

        Returns
        -------
        self : ForwardFunction
            The model, ready to run.

        Raises
        ------
        TypeError, ValueError
            If the function does not return differentiable trajectories.
        """
        if self.params is None and params is None:
            raise ValueError(
                "A function as `model` needs a prior: give `params` to ForwardFunction, "
                "or fit with training params."
            )
        if self.params is None:
            self._range, self._names = check_params(params), column_names(params)
        self._settle()
        return self

    @property
    def is_ready(self):
        """Whether its prior is known: by the user, or from pairs."""
        return self.params is not None or hasattr(self, "prior_")

    def _settle(self):
        """Find out what the function returns, in the middle of its priors."""
        self.prior_ = (
            prior_of_pairs(self._range, self._names)
            if self.params is None
            else JointPrior(self.params)
        )
        middle = self.prior_.from_standard(np.zeros((2, self.prior_.n_params)))
        told = [] if not self.inputs else [2 * [self.input_prior_.median]]
        params, *told = (self._tensor(a) for a in (middle, *told))
        params.requires_grad_(self.differentiable)
        trajectories = self._trajectories(params, *told)
        if self.differentiable and not trajectories.requires_grad:
            raise ValueError(
                "The function must be differentiable: gradients must flow from the "
                "trajectories back to the params. Got a tensor without gradient instead. "
                "Use torch operations throughout, without detach() or NumPy, or set "
                "differentiable=False for methods that only evaluate it."
            )
        n_times, n_channels = trajectories.shape[1:]
        self.times_ = even_times(n_times) if self.times is None else self.times
        self.observable_names_ = self.observables or unnamed("c", n_channels)
        self.noise_ = as_noise(self.noise, self.observable_names_)
        self.error_ = np.zeros(n_channels)

    @property
    def input_names_(self) -> list:
        """Inputs that each sample brings."""
        return list(self.inputs or ())

    @property
    def input_prior_(self):
        """JointPrior or None: how these are distributed."""
        return JointPrior(self.inputs) if self.inputs else None

    def linearize(self, scaled_params, inputs=None):
        """Return trajectories and their Jacobian (…, n_params) by scaled params."""
        if not self.differentiable:
            raise ValueError(
                "This method needs derivatives of the function, which was declared to "
                "have none (differentiable=False): use CMAESInverter or FlowInverter."
            )
        return super().linearize(scaled_params, inputs)

    def forward(self, scaled_params: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return trajectories (n_samples, n_times, n_channels) at scaled params."""
        scaled = scaled_params.double()
        params = self.param_scaler_.from_scaled_tensor(scaled)
        return self._trajectories(params, *(() if inputs is None else (inputs,)))

    def simulate(self, params, inputs=None):
        """Return trajectories at params in their own units, as an ndarray.

        Parameters
        ----------
        params : array-like of shape (n_samples, n_params)
            Params in their own units.

        inputs : array-like of shape (n_samples, n_inputs) or dict, default=None
            Inputs of each sample, in order or by name. None will do if there are none.

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            What the function returns.
        """
        prior = getattr(self, "prior_", None)
        params = check_params(params, names=None if prior is None else prior.names)
        names = self.input_names_
        inputs = check_inputs(inputs, n_samples=len(params), names=names)
        told = [self._tensor(inputs)] if names else []
        with torch.no_grad():
            trajectories = self._trajectories(self._tensor(params), *told)
        return trajectories.double().cpu().numpy()

    def _tensor(self, array):
        device = resolve_device(self.device)
        return torch.tensor(np.array(array), dtype=torch.float64, device=device)

    def _trajectories(self, params, *inputs):
        """Call the function, and refuse what is no batch of trajectories."""
        trajectories = self.function(params, *inputs)
        if isinstance(trajectories, np.ndarray) and not self.differentiable:
            trajectories = torch.as_tensor(trajectories, device=params.device)
        if not isinstance(trajectories, Tensor):
            raise TypeError(
                "The function must return a torch.Tensor. Got "
                f"{type(trajectories).__name__} instead. Compute with torch operations "
                "throughout, so that gradients flow back to the params, or set "
                "differentiable=False and return an ndarray."
            )
        if trajectories.ndim == 2:
            trajectories = trajectories[..., None]
        if trajectories.ndim != 3 or len(trajectories) != len(params):
            raise ValueError(
                "The function must map params of shape (n_samples, n_params) = "
                f"{tuple(params.shape)} to trajectories of shape (n_samples, n_times, "
                f"n_channels). Got shape {tuple(trajectories.shape)} instead."
            )
        return trajectories


class SteadySimulator(ForwardFunction):
    """The exact forward model of a steady problem, on the CPU.

    Parameters
    ----------
    pde : PDESystem
        The problem.
    """

    _parameter_constraints: dict = {"pde": [PDESystem]}

    def __init__(self, pde):
        self.pde = pde
        super().__init__(
            pde.report,
            pde.priors,
            observables=pde.observable_names,
            noise=pde.noise,
            name=pde.name,
            device="cpu",
        )

    def device_for(self, device):
        """Return where to compute with it: the CPU."""
        return torch.device("cpu")

    def linearize(self, scaled_params, inputs=None):
        """Return trajectories and their Jacobian (…, n_params) by scaled params."""
        params = self.param_scaler_.from_scaled_tensor(scaled_params.double())
        read, by_params = self.pde.linearized_report(params)
        slope = self.param_scaler_.slope_tensor(params)
        return read, by_params * slope[:, None, None]
