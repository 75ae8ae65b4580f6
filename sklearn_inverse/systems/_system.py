"""ODESystem: everything the package needs to know about one model of the world.

A system states its equations, what is unknown in them and within which bounds, when
and what an instrument reports, and, where one is known, a reference solution that any
integrator must reproduce.
"""

import copy
from typing import NamedTuple

import numpy as np
import torch

from sklearn_inverse.ode._rhs import push_tangents
from sklearn_inverse.utils._scaling import ParamScaler
from sklearn_inverse.utils._validation import check_bounds, check_times

__all__ = ["ODESystem", "Reference"]


class Reference(NamedTuple):
    """A known solution of a system at its nominal params.

    Parameters
    ----------
    time : float
        Time of the reference, starting from the system's first time.

    states : ndarray of shape (n_states,)
        All states at that time.

    source : str
        Where the numbers come from.

    Examples
    --------
    >>> from sklearn_inverse.problems import hires
    >>> hires().reference.time
    321.8122
    """

    time: float
    states: np.ndarray
    source: str


class ODESystem:
    r"""A parametrized initial value problem :math:`y' = f(t, y; k)` and its instrument.

    Parameters
    ----------
    rhs : callable
        ``rhs(t, y, params) -> dy/dt``, batched and written in torch: ``t`` has shape
        (n_samples,), ``y`` (n_samples, n_states), ``params`` (n_samples, n_params); the
        result has the shape of ``y``. Row ``i`` may depend on row ``i`` only. Index
        the last axis (``y[..., 0]``), so that the same code serves any batch. A
        module-level function makes the system picklable.

    initial_state : array-like of shape (n_states,) or callable
        State at ``times[0]``, or ``initial_state(params)`` returning a tensor of shape
        (n_samples, n_states), so that unknown initial values are simply params.

    bounds : array-like of shape (n_params, 2)
        Lower and upper bound of each param, in its own unit. Simulated params are drawn
        between them.

    times : array-like of shape (n_times,)
        Output times, increasing; the grid may be uneven. The first is the time at which
        ``initial_state`` holds.

    nominal : array-like of shape (n_params,), default=None
        Published or typical values. If None, the middle of the bounds on the given
        scale.

    scale : {"linear", "log10"} or list of them, default="linear"
        Scale on which each param is drawn and estimated.

    observe : callable, default=None
        ``observe(t, y, params) -> channels``: what the instrument reports, of shape
        (n_samples, n_times, n_channels). ``t`` has shape (n_times,), ``y`` (n_samples,
        n_times, n_states) and ``params`` (n_samples, 1, n_params), so that
        ``params[..., 0] * y[..., 2]`` broadcasts. A search may ask for the first of the
        times only, and so for fewer than n_times. If None, the states themselves.

    state_names, param_names, channel_names : list of str, default=None
        If None, ``y1, y2, …`` and ``k1, k2, …``; channels are called as the states
        when ``observe`` is None, and ``c1, c2, …`` otherwise.

    units : dict, default=None
        Units in words, under any of the keys ``"time"``, ``"states"``, ``"params"``,
        ``"channels"``: a string, or a list with one per entry. If None, dimensionless.

    jac : callable, default=None
        ``jac(t, y, params) -> df/dy`` of shape (n_samples, n_states, n_states), in
        closed form. If None, automatic differentiation.

    name : str, default=None
        Name of the system. If None, the name of ``rhs``.

    reference : Reference or tuple, default=None
        ``(time, states, source)`` of a known solution at ``nominal``.

    invariants : array-like of shape (n_invariants, n_states), default=None
        Each row ``c`` states that ``c @ y`` stays constant along every solution.

    Attributes
    ----------
    n_states, n_params, n_channels, n_times : int
        Sizes.

    Raises
    ------
    ValueError
        If sizes, bounds or times contradict each other, or if ``rhs``, ``observe`` or
        ``initial_state`` return a wrong shape at the nominal params.

    See Also
    --------
    ReactionSystem : The same from reaction strings, with closed-form derivatives.

    Examples
    --------
    >>> from sklearn_inverse.systems import ODESystem
    >>> def decay(t, y, params):
    ...     return -params * y
    >>> system = ODESystem(
    ...     decay, initial_state=[1.0], bounds=[[0.5, 2.0]], times=[0.0, 1.0, 3.0]
    ... )
    >>> system
    ODESystem('decay', n_states=1, n_params=1, n_channels=1, n_times=3)
    >>> system.nominal
    array([1.25])
    """

    def __init__(
        self,
        rhs,
        *,
        initial_state,
        bounds,
        times,
        nominal=None,
        scale="linear",
        observe=None,
        state_names=None,
        param_names=None,
        channel_names=None,
        units=None,
        jac=None,
        name=None,
        reference=None,
        invariants=None,
    ):
        self.rhs = rhs
        self.jac = jac
        self.observe = observe
        self.name = name or getattr(rhs, "__name__", type(rhs).__name__)
        self.units = dict(units or {})
        self.bounds = check_bounds(bounds, scale=scale)
        self.n_params = len(self.bounds)
        self.scale = scale
        self.times = check_times(times)
        self.n_times = len(self.times)
        self.nominal = self._check_nominal(nominal)

        params = torch.as_tensor(self.nominal)[None]
        self._initial_state = initial_state
        y0 = self.initial_state(params)
        self.n_states = y0.shape[1]
        self._check_shape("rhs", rhs(self._t(1), y0, params), (1, self.n_states))
        y = y0[:, None].expand(1, self.n_times, self.n_states)
        channels = self.channels(y, params)
        if channels.ndim != 3 or channels.shape[:2] != (1, self.n_times):
            raise ValueError(
                "`observe(t, y, params)` must return shape (n_samples, n_times, "
                f"n_channels) = (1, {self.n_times}, n_channels). Got "
                f"{tuple(channels.shape)} instead."
            )
        self.n_channels = channels.shape[2]

        self.state_names = self._check_names("state", state_names, "y", self.n_states)
        self.param_names = self._check_names("param", param_names, "k", self.n_params)
        if channel_names is None and observe is None:
            channel_names = self.state_names
        self.channel_names = self._check_names(
            "channel", channel_names, "c", self.n_channels
        )
        self.reference = None
        if reference is not None:
            time, states, source = reference
            states = np.asarray(states, dtype=float)
            self._check_shape("reference states", states, (self.n_states,))
            self.reference = Reference(float(time), states, source)
        self.invariants = np.zeros((0, self.n_states))
        if invariants is not None:
            self.invariants = np.atleast_2d(np.asarray(invariants, dtype=float))
            n_rows = len(self.invariants)
            self._check_shape("invariants", self.invariants, (n_rows, self.n_states))

    def initial_state(self, params):
        """Return the states at the first time.

        Parameters
        ----------
        params : Tensor of shape (n_samples, n_params)
            Params in their own units.

        Returns
        -------
        y0 : Tensor of shape (n_samples, n_states)
            Initial states, in double precision unless ``params`` say otherwise.
        """
        if callable(self._initial_state):
            y0 = self._initial_state(params)
            if y0.ndim != 2 or len(y0) != len(params):
                raise ValueError(
                    "`initial_state(params)` must return shape (n_samples, n_states) "
                    f"with n_samples = {len(params)}. Got {tuple(y0.shape)} instead."
                )
            return y0
        y0 = torch.as_tensor(
            np.asarray(self._initial_state, dtype=float),
            dtype=params.dtype,
            device=params.device,
        )
        if y0.ndim != 1:
            raise ValueError(
                "`initial_state` must have shape (n_states,) or be a function of the "
                f"params. Got shape {tuple(y0.shape)} instead."
            )
        return y0.expand(len(params), -1)

    def until(self, n_times):
        """Return the same system with its first output times only.

        Parameters
        ----------
        n_times : int
            Output times to keep, at least one.

        Returns
        -------
        system : ODESystem
            A copy with the shorter time span.
        """
        if not 1 <= n_times <= self.n_times:
            raise ValueError(
                f"`n_times` must be between 1 and {self.n_times}, the number of output "
                f"times. Got {n_times!r} instead."
            )
        shorter = copy.copy(self)
        shorter.times, shorter.n_times = self.times[:n_times], n_times
        return shorter

    def channels(self, y, params):
        """Turn states into what the instrument reports.

        Parameters
        ----------
        y : Tensor of shape (n_samples, n_times, n_states)
            States at ``times``.

        params : Tensor of shape (n_samples, n_params)
            Params in their own units.

        Returns
        -------
        channels : Tensor of shape (n_samples, n_times, n_channels)
            Noise-free readings.
        """
        if self.observe is None:
            return y
        t = torch.as_tensor(self.times, dtype=y.dtype, device=y.device)
        return self.observe(t, y, params[:, None, :])

    def channel_sensitivities(self, y, params, sensitivities):
        """Turn derivatives of the states into derivatives of what is measured.

        Parameters
        ----------
        y : Tensor of shape (n_samples, n_times, n_states)
            States at ``times``.

        params : Tensor of shape (n_samples, n_params)
            Params in their own units.

        sensitivities : Tensor of shape (n_samples, n_times, n_states, n_params)
            Derivatives of the states by the params.

        Returns
        -------
        sensitivities : Tensor of shape (n_samples, n_times, n_channels, n_params)
            Derivatives of the channels by the params, those of ``observe`` included.
        """
        if self.observe is None:
            return sensitivities
        n_params = params.shape[1]
        eye = torch.eye(n_params, dtype=params.dtype, device=params.device)
        directions = (
            sensitivities.movedim(-1, 0),
            eye[:, None].expand(-1, len(params), -1),
        )
        pushed = push_tangents(self.channels, (y, params), directions)
        return pushed.movedim(0, -1)

    def __repr__(self):
        return (
            f"{type(self).__name__}({self.name!r}, n_states={self.n_states}, "
            f"n_params={self.n_params}, n_channels={self.n_channels}, "
            f"n_times={self.n_times})"
        )

    def _t(self, n_samples):
        return torch.full((n_samples,), float(self.times[0]), dtype=torch.float64)

    def _check_nominal(self, nominal):
        if nominal is None:
            scaler = ParamScaler(self.bounds, scale=self.scale)
            return scaler.to_physical(np.full((1, self.n_params), 0.5))[0]
        nominal = np.asarray(nominal, dtype=float)
        self._check_shape("nominal", nominal, (self.n_params,))
        outside = (nominal < self.bounds[:, 0]) | (nominal > self.bounds[:, 1])
        if outside.any():
            j = int(np.argmax(outside))
            raise ValueError(
                f"Every nominal value must lie within its bounds. Got {nominal[j]:g} "
                f"for param {j}, whose bounds are {self.bounds[j]}."
            )
        return nominal

    @staticmethod
    def _check_shape(what, value, shape):
        if tuple(value.shape) != shape:
            raise ValueError(
                f"`{what}` must have shape {shape}, one entry per bound, state or row "
                f"as the others. Got {tuple(value.shape)} instead."
            )

    @staticmethod
    def _check_names(kind, names, letter, n_names):
        if names is None:
            return [f"{letter}{i}" for i in range(1, n_names + 1)]
        names = list(names)
        if len(names) != n_names or len(set(names)) != n_names:
            raise ValueError(
                f"`{kind}_names` must hold {n_names} different names, one per {kind}. "
                f"Got {names} instead."
            )
        return names
