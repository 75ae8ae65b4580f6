"""ODESimulator: the exact forward model, params to trajectories by solving the ODE."""

import warnings
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone

from sklearn_inverse.exceptions import IntegrationWarning
from sklearn_inverse.ode import METHODS, solve_ivp
from sklearn_inverse.ode._problem import why_not_compiled
from sklearn_inverse.systems import ODESystem
from sklearn_inverse.utils._parallel import iter_chunks
from sklearn_inverse.utils._scaling import ParamScaler
from sklearn_inverse.utils._sklearn import Interval, StrOptions
from sklearn_inverse.utils._torch import resolve_device
from sklearn_inverse.utils._validation import check_params

__all__ = ["ODESimulator"]


class ODESimulator(BaseEstimator):
    """Simulate an ODE system exactly, in batches, over cores or on a GPU.

    Needs no fitting: it stands wherever a forward model is asked for, as the learned
    :class:`ODESurrogate` does.

    Parameters
    ----------
    system : ODESystem
        What is solved.

    method : str, default="auto"
        Solver; see :func:`~sklearn_inverse.ode.solve_ivp`.

    step_size : float, default=None
        Largest step of given size; if None, steps follow the error where the method
        estimates it.

    rtol : float, default=1e-6
        Relative tolerance of every state.

    atol : float or array-like of shape (n_states,), default=1e-20
        Absolute tolerance in units of the states. The default resolves radicals of
        1e-18 beside species of order one.

    max_steps : int, default=10000
        Steps after which a sample is given up; its trajectory is NaN from there on.

    backend : {"auto", "torch", "compiled"}, default="auto"
        "compiled" is far faster; it needs the ``fast`` extra, a ReactionSystem, the CPU
        and "rodas5p" without ``step_size``. "auto" takes it where it can be had.

    chunk_size : int, default=256
        Samples solved together; bounds the memory.

    n_jobs : int, default=None
        Workers of the joblib backend that is set; without one, processes, or threads
        where the kernel is compiled. None means 1 unless in a
        :obj:`joblib.parallel_config` context; -1 means all cores. The result does not
        depend on it.

    device : {"auto", "cpu", "cuda", …}, default="auto"
        Where to solve. "auto" takes a GPU where there is one.

    verbose : int, default=0
        Whether to show a progress bar.

    See Also
    --------
    ODESurrogate : The learned forward model, tens of times faster.

    Examples
    --------
    >>> from sklearn_inverse import ODESimulator
    >>> from sklearn_inverse.problems import lotka_volterra
    >>> system = lotka_volterra()
    >>> trajectories = ODESimulator(system).simulate(system.nominal[None])
    >>> trajectories.shape == (1, system.n_times, system.n_channels)
    True
    """

    _parameter_constraints: dict = {
        "system": [ODESystem],
        "method": [StrOptions(set(METHODS))],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
        "rtol": [Interval(Real, 0, 1, closed="neither")],
        "atol": [Interval(Real, 0, None, closed="left"), "array-like"],
        "max_steps": [Interval(Integral, 1, None, closed="left")],
        "backend": [StrOptions({"auto", "torch", "compiled"})],
        "chunk_size": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "device": [str, torch.device],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        system,
        *,
        method="auto",
        step_size=None,
        rtol=1e-6,
        atol=1e-20,
        max_steps=10_000,
        backend="auto",
        chunk_size=256,
        n_jobs=None,
        device="auto",
        verbose=0,
    ):
        self.system = system
        self.method = method
        self.step_size = step_size
        self.rtol = rtol
        self.atol = atol
        self.max_steps = max_steps
        self.backend = backend
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.verbose = verbose

    @property
    def scaler_(self):
        """ParamScaler: the system's box and scale."""
        return ParamScaler(self.system.bounds, scale=self.system.scale)

    @property
    def n_times_(self):
        """Number of output times."""
        return self.system.n_times

    @property
    def n_channels_(self):
        """Number of channels."""
        return self.system.n_channels

    @property
    def n_params_(self):
        """Number of params."""
        return self.system.n_params

    def simulate(self, params):
        """Solve the system for every row of params.

        Parameters
        ----------
        params : array-like of shape (n_samples, n_params)
            Params in their own units.

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            What the instrument would report, free of noise. A sample that could not be
            integrated is NaN from its failure on, with one :class:`IntegrationWarning`.
        """
        return self._map(_simulate_chunk, params, "Simulating")

    def sensitivities(self, params):
        """Differentiate the trajectories by the params.

        Parameters
        ----------
        params : array-like of shape (n_samples, n_params)
            Params in their own units.

        Returns
        -------
        sensitivities : ndarray of shape (n_samples, n_times, n_channels, n_params)
            Derivative of each reading by each param, in units of the channel per unit of
            the param: exact derivatives of the discrete solution, through initial states
            and instrument too. A sample that could not be integrated is NaN from its
            failure on, with one :class:`IntegrationWarning`.
        """
        return self._map(_sensitivities_chunk, params, "Differentiating")

    def forward(self, unit_params):
        """Simulate from params scaled to the system's unit box.

        Parameters
        ----------
        unit_params : Tensor of shape (n_samples, n_params)
            Params in the unit box of ``system.bounds`` on ``system.scale``.

        Returns
        -------
        trajectories : Tensor of shape (n_samples, n_times, n_channels)
            In units of the channels and in double precision, on the device of
            ``unit_params``, to which gradients flow back.
        """
        params = self._to_physical(unit_params)
        solution = self._solve(params)
        return self.system.channels(solution.y, params)

    def linearize(self, unit_params):
        """Simulate from unit params, with the derivatives by them.

        Parameters
        ----------
        unit_params : Tensor of shape (n_samples, n_params)
            Params in the unit box of ``system.bounds`` on ``system.scale``.

        Returns
        -------
        trajectories : Tensor of shape (n_samples, n_times, n_channels)
            In units of the channels and in double precision.

        jacobian : Tensor of shape (n_samples, n_times, n_channels, n_params)
            Derivative of each reading by each unit param. Both are NaN from the failure
            of a sample on.
        """
        params = self._to_physical(unit_params).detach()
        solution = self._solve(params, sensitivities=True)
        by_params = self.system.channel_sensitivities(
            solution.y, params, solution.sensitivities
        )
        stretch = self.scaler_.stretch_tensor(params)
        trajectories = self.system.channels(solution.y, params)
        return trajectories, by_params * stretch[:, None, None]

    def until(self, n_times):
        """Return a simulator that stops at the ``n_times``-th output time.

        Parameters
        ----------
        n_times : int
            Output times to keep, at least one.

        Returns
        -------
        simulator : ODESimulator
            A copy with the shorter time span.
        """
        return clone(self).set_params(system=self.system.until(n_times))

    def _to_physical(self, unit_params):
        """Return params in their own units, and double precision."""
        unit_params = torch.as_tensor(unit_params)
        if unit_params.ndim != 2 or unit_params.shape[1] != self.n_params_:
            raise ValueError(
                "`unit_params` must have shape (n_samples, n_params) with n_params="
                f"{self.n_params_}. Got {tuple(unit_params.shape)} instead."
            )
        return self.scaler_.to_physical_tensor(unit_params.double())

    def _map(self, function, params, desc):
        """Run ``function`` over chunks of params; warn if samples failed."""
        self._validate_params()
        params = check_params(params, n_params=self.system.n_params)
        chunks = iter_chunks(
            partial(function, self),
            params,
            chunk_size=self.chunk_size,
            n_jobs=self.n_jobs,
            # The kernel lets other threads run; processes would import torch first.
            prefer="threads" if self._is_compiled() else None,
            verbose=self.verbose,
            desc=f"{desc} {self.system.name}",
        )
        array, failures, n_failed = None, {}, 0
        for part, (values, failure) in chunks:
            if array is None:  # filled as chunks come: held twice, it might not fit
                array = np.empty((len(params), *values.shape[1:]))
            array[part] = values
            if failure:
                failures[part.start] = failure
                n_failed += int(np.isnan(values).reshape(len(values), -1).any(1).sum())
        if n_failed:
            warnings.warn(
                f"{n_failed} of {len(params)} samples have no complete trajectory; they "
                "are NaN where it is missing. First chunk concerned: "
                f"{failures[min(failures)]}",
                IntegrationWarning,
                stacklevel=3,
            )
        return array

    def _is_compiled(self):
        """Whether the compiled kernel will be at work."""
        return self.backend != "torch" and not why_not_compiled(
            self.system.rhs, self.method, self.step_size, resolve_device(self.device)
        )

    def _solve(self, params, sensitivities=False):
        """Return the Solution for a tensor of physical params."""
        system = self.system
        return solve_ivp(
            system.rhs,
            system.times,
            system.initial_state,
            params,
            method=self.method,
            step_size=self.step_size,
            rtol=self.rtol,
            atol=self.atol,
            jac=system.jac,
            sensitivities=sensitivities,
            max_steps=self.max_steps,
            backend=self.backend,
        )


def _simulate_chunk(simulator, params):
    """Return (channels, what failed) for a chunk of params."""
    params = torch.tensor(params, device=resolve_device(simulator.device))
    solution = simulator._solve(params)
    channels = simulator.system.channels(solution.y, params)
    return channels.cpu().numpy(), solution.failure_summary()


def _sensitivities_chunk(simulator, params):
    """Return (derivatives of the channels by the params, what failed) for a chunk."""
    params = torch.tensor(params, device=resolve_device(simulator.device))
    solution = simulator._solve(params, sensitivities=True)
    by_params = simulator.system.channel_sensitivities(
        solution.y, params, solution.sensitivities
    )
    return by_params.cpu().numpy(), solution.failure_summary()
