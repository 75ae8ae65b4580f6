"""ODESimulator: the exact forward model, params to trajectories by solving the ODE."""

import copy
import operator
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import clone

from sklearn_inverse.exceptions import IntegrationWarning
from sklearn_inverse.forward._base import ForwardModel
from sklearn_inverse.ode import METHODS, Status, solve_ivp
from sklearn_inverse.ode._problem import why_not_compiled
from sklearn_inverse.ode._rhs import push_tangents, rowwise_jacobian
from sklearn_inverse.ode._steady import rest_slopes
from sklearn_inverse.ode.compiled import compared_once
from sklearn_inverse.systems import ODESystem
from sklearn_inverse.utils._parallel import iter_chunks
from sklearn_inverse.utils._sklearn import Interval, StrOptions
from sklearn_inverse.utils._torch import resolve_device
from sklearn_inverse.utils._validation import check_inputs, check_params
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["ODESimulator"]

SOLVED = 100  # times rtol: what trajectories are good for
CHEAP = 10  # params by which a few samples are differentiated at less than ten solves


class ODESimulator(ForwardModel):
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

    atol : float or array-like of shape (n_states,), default=None
        Absolute tolerance in units of the states. If None, 1e-20 of the largest of each
        sample's initial states: radicals of 1e-18 beside a species of one are resolved,
        in any units.

    max_steps : int, default=10000
        Steps after which a sample is given up; its trajectory is NaN from there on.

    max_step : float, default=None
        Largest step where steps follow the error, for inputs that are shorter than steps
        and that no trace tells; see :func:`~sklearn_inverse.ode.solve_ivp`.

    backend : {"auto", "torch", "compiled"}, default="auto"
        "compiled" is far faster; it needs a system whose ``backend_`` is "compiled", the
        CPU, and "tsit5", "rodas5p" or their choice by "auto", without ``step_size``.
        "auto" takes it where it can be had.

    chunk_size : int, default=256
        Samples solved together; bounds the memory.

    n_jobs : int, default=None
        Workers of the joblib backend that is set; without one, processes, or threads
        where the kernel is compiled. None means 1 unless in a
        :obj:`joblib.parallel_config` context; -1 means all cores. The result does not
        depend on it.

    device : {"auto", "cpu", "cuda", …}, default="auto"
        Where to solve. "auto" takes the CPU if the model is compiled, which no GPU is
        as fast as, and otherwise a GPU where there is one.

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
        "atol": [Interval(Real, 0, None, closed="left"), "array-like", None],
        "max_steps": [Interval(Integral, 1, None, closed="left")],
        "max_step": [Interval(Real, 0, None, closed="neither"), None],
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
        atol=None,
        max_steps=10_000,
        max_step=None,
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
        self.max_step = max_step
        self.backend = backend
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.verbose = verbose

    is_exact = True
    _valid: list | None = None  # parameters that have been validated

    @property
    def prior_(self):
        """JointPrior: the system's."""
        return self.system.prior

    def with_prior(self, prior):
        """Return the simulator of the system with another prior.

        Parameters
        ----------
        prior : JointPrior
            As ``prior_.at_scales`` gives.

        Returns
        -------
        simulator : ODESimulator
            A copy.
        """
        system = copy.copy(self.system)
        system.prior = prior
        return clone(self).set_params(system=system)

    @property
    def noise_(self):
        """NoiseModel: the system's."""
        return self.system.noise

    @property
    def observable_names_(self):
        """List of str: what the system's instrument reports."""
        return self.system.observable_names

    @property
    def times_(self):
        """Output times."""
        self.system.check_timed()
        return self.system.times

    @property
    def measured_(self):
        """Which observables the experiments measure, (n_times, n_channels)."""
        return self.system.protocol.measured(self.system.observable_names)

    @property
    def elapsed_(self):
        """Output times, shares of the experiments if there are several."""
        return self.system.protocol.elapsed()

    @property
    def input_names_(self):
        """List of str: what the system must be told of each sample."""
        return self.system.input_names

    @property
    def input_prior_(self):
        """JointPrior or None: what the system says of these."""
        return self.system.input_prior

    @property
    def error_(self):
        """Zeros: the model is exact."""
        return np.zeros(self.system.n_channels)

    @property
    def precision(self):
        """What the trajectories are good for, relative to their size."""
        return SOLVED * self.rtol

    @property
    def may_thread(self):
        """Whether it lets other threads run: the compiled kernel does."""
        return self._is_compiled()

    @property
    def linearizes_cheaply(self):
        """Whether derivatives cost little more: by few params, or "radau5" in torch."""
        if self._is_compiled():
            return self.n_params_ <= CHEAP
        return self.method in ("auto", "radau5")

    def simulate(self, params, inputs=None):
        """Solve the system for every row of params.

        Parameters
        ----------
        params : array-like of shape (n_samples, n_params)
            Params in their own units.

        inputs : array-like of shape (n_samples, n_inputs) or dict, default=None
            Inputs of each sample, in the order of ``system.input_names`` or by name. None
            will do if there are none.

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            What the instrument would report, free of noise. A sample that could not be
            integrated is NaN from its failure on, with one :class:`IntegrationWarning`.
        """
        return self._warned(*self._map(_simulate_chunk, params, inputs, "Simulating"))

    def attempt(self, params, inputs=None):
        """Solve the system for every row of params, without a word of failures.

        Parameters
        ----------
        params : array-like of shape (n_samples, n_params)
            Params in their own units.

        inputs : array-like of shape (n_samples, n_inputs) or dict, default=None
            Inputs of each sample.

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            As those of :meth:`simulate`.

        is_solved : ndarray of bool of shape (n_samples,)
            Which samples were integrated to the end.
        """
        trajectories, failed, _ = self._map(
            _simulate_chunk, params, inputs, "Simulating"
        )
        return trajectories, ~failed

    def sensitivities(self, params, inputs=None):
        """Differentiate the trajectories by the params.

        Parameters
        ----------
        params : array-like of shape (n_samples, n_params)
            Params in their own units.

        inputs : array-like of shape (n_samples, n_inputs) or dict, default=None
            Inputs of each sample.

        Returns
        -------
        sensitivities : ndarray of shape (n_samples, n_times, n_channels, n_params)
            Derivative of each reading by each param, in units of the channel per unit of
            the param: exact derivatives of the discrete solution, through initial states
            and instrument too. A sample that could not be integrated is NaN from its
            failure on, with one :class:`IntegrationWarning`.
        """
        return self._warned(
            *self._map(_sensitivities_chunk, params, inputs, "Differentiating")
        )

    def forward(self, scaled_params, inputs=None):
        """Simulate from scaled params, differentiably.

        Parameters
        ----------
        scaled_params : Tensor of shape (n_samples, n_params)
            Params as scaled by the system's prior.

        inputs : Tensor of shape (n_samples, n_inputs), default=None
            Inputs of each sample.

        Returns
        -------
        trajectories : Tensor of shape (n_samples, n_times, n_channels)
            In units of the observables and in double precision, on the device of
            ``scaled_params``, to which gradients flow back.
        """
        rows = self._rows(self._from_scaled(scaled_params), inputs)
        return self._observe(self._solve(rows), rows)

    def linearize(self, scaled_params, inputs=None):
        """Simulate from scaled params, with the derivatives by them.

        Parameters
        ----------
        scaled_params : Tensor of shape (n_samples, n_params)
            Params as scaled by the system's prior.

        inputs : Tensor of shape (n_samples, n_inputs), default=None
            Inputs of each sample.

        Returns
        -------
        trajectories : Tensor of shape (n_samples, n_times, n_channels)
            In units of the observables and in double precision.

        jacobian : Tensor of shape (n_samples, n_times, n_channels, n_params)
            Derivative of each reading by each scaled param. Both are NaN from the
            failure of a sample on.
        """
        params = self._from_scaled(scaled_params).detach()
        trajectories, by_params, _ = self._differentiate(params, inputs)
        slope = self.param_scaler_.slope_tensor(params)
        return trajectories, by_params * slope[:, None, None]

    def truncate(self, n_times):
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
        if n_times == self.system.n_times:
            return self
        return clone(self).set_params(system=self.system.truncate(n_times))

    def _from_scaled(self, scaled_params):
        """Return params in their own units, and double precision."""
        scaled = torch.as_tensor(scaled_params)
        if scaled.ndim != 2 or scaled.shape[1] != self.n_params_:
            raise ValueError(
                "`scaled_params` must have shape (n_samples, n_params) with n_params="
                f"{self.n_params_}. Got {tuple(scaled.shape)} instead."
            )
        return self.param_scaler_.from_scaled_tensor(scaled.double())

    def _rows(self, params, inputs):
        """Return the rows of the experiments of all samples."""
        self.system.check_timed()
        if inputs is not None:
            inputs = torch.as_tensor(inputs).to(params)
        return self.system.rows(params, inputs)

    def _observe(self, solution, rows):
        """Return observables (n_samples, n_times, n_channels)."""
        protocol = self.system.protocol
        observed = self.system.observables(solution.y, rows, protocol.times_of(rows))
        return protocol.outputs(observed)

    @torch.no_grad()
    def _differentiate(self, params, inputs):
        """Return observables, their derivatives by params in own units, the solution."""
        system, protocol = self.system, self.system.protocol
        rows = self._rows(params, inputs)
        solution = self._solve(rows, sensitivities=True)
        slopes, by_rows = protocol.row_slopes(params), solution.sensitivities
        if system.kinetics is not None:
            if system.rates(rows) is not rows:  # so far by rate constants
                rates = push_tangents(system.rates, (rows,), (slopes.movedim(-1, 0),))
                by_rows = torch.einsum("ntsr,nrp->ntsp", by_rows, rates.movedim(0, -1))
        elif not protocol.is_plain:
            by_rows = torch.einsum("ntsr,nrp->ntsp", by_rows, slopes)
        found = system.linearized_observables(
            solution.y, rows, by_rows, slopes, protocol.times_of(rows)
        )
        return *map(protocol.outputs, found), solution

    def _map(self, function, params, inputs, desc):
        """Run ``function`` over chunks of samples.

        Returns
        -------
        values : ndarray of shape (n_samples, …)
            Its results.

        failed : ndarray of bool of shape (n_samples,)
            Which samples could not be integrated to the end.

        cause : str
            What happened in the first chunk where that is so.
        """
        settings = [getattr(self, name) for name in self._parameter_constraints]
        if self._valid is None or not all(map(operator.is_, settings, self._valid)):
            self._validate_params()
            self._valid = settings
        system = self.system
        params = check_params(
            params, n_params=system.n_params, names=system.param_names
        )
        inputs = check_inputs(inputs, n_samples=len(params), names=system.input_names)
        chunks = iter_chunks(
            partial(function, self),
            params,
            inputs,
            chunk_size=self.chunk_size,
            n_jobs=self.n_jobs,
            # The kernel lets other threads run; processes would import torch first.
            prefer="threads" if self._is_compiled() else None,
            verbose=self.verbose,
            desc=f"{desc} {self.system.name}",
        )
        array, causes = None, {}
        failed = np.zeros(len(params), dtype=bool)
        for part, (values, success, cause) in chunks:
            if array is None:  # filled as chunks come: held twice, it might not fit
                array = np.empty((len(params), *values.shape[1:]))
            array[part], failed[part] = values, ~success
            if cause:
                causes[part.start] = cause
        return array, failed, causes[min(causes)] if causes else ""

    @staticmethod
    def _warned(array, failed, cause):
        """Return the array; warn if samples failed."""
        if failed.any():
            warn_user(
                f"{failed.sum()} of {len(failed)} samples have no complete trajectory; "
                f"they are NaN where it is missing. First chunk concerned: {cause}",
                IntegrationWarning,
            )
        return array

    def _is_compiled(self):
        """Whether the compiled kernel will be at work."""
        return self._compiles_on(self.device_for(self.device))

    def _compiles_on(self, device):
        reason = why_not_compiled(self.method, self.step_size, device)
        if self.backend == "torch" or reason is not None:
            return False
        return self.system.backend_ == "compiled"

    def unchanging(self):
        """Return a context in which the system's functions do not change.

        Returns
        -------
        context : context manager
            They are compared with the kernel once in it, not at each solve.
        """
        return compared_once()

    def device_for(self, device) -> torch.device:
        """Return where to compute with the model, given a parameter ``device``.

        Parameters
        ----------
        device : {"auto", "cpu", "cuda", …} or torch.device
            If "auto", the CPU if the model is compiled there.

        Returns
        -------
        device : torch.device
            A device of this machine.
        """
        on_cpu = device == "auto" and self._compiles_on("cpu")
        return resolve_device("cpu" if on_cpu else device)

    def _solve(self, rows, sensitivities=False):
        """Return the Solution for rows of params, by rate constants if kinetics."""
        system, protocol = self.system, self.system.protocol
        names = (
            "method",
            "step_size",
            "rtol",
            "atol",
            "max_steps",
            "max_step",
            "backend",
        )
        options = {name: getattr(self, name) for name in names}
        options |= {"sensitivities": sensitivities, "alike": system.alike}
        times = protocol.times_of(rows)
        if system.kinetics is not None:
            rates, start = system.rates(rows), system.rates_initial
            return solve_ivp(system.kinetics, times, start, rates, **options)
        options |= {"jac": system.jac}
        start, restless = system.start, None
        if protocol.equilibrates:
            start, restless = self._at_rest(rows, options)
        options |= {"events": [*system.schedule.events, *protocol.events(rows)]}
        solution = solve_ivp(system.solved, times, start, rows, **options)
        if restless is not None:
            solution.status[restless] = Status.NO_STEADY_STATE
        return solution

    def _at_rest(self, rows, options):
        """Return initial states as a function of the rows, and rows without any."""
        system, protocol = self.system, self.system.protocol
        known = rows.detach()
        which, resting, own = protocol.resting_rows(known)
        t, start = protocol.times_of(known)[which, 0], system.common_start(known)
        quiet = options | {"sensitivities": False, "jac": None}
        rest, settled, kept = system.at_rest(t, start[which], resting, **quiet)
        start[which] = rest
        if not (options["sensitivities"] or rows.requires_grad):
            return lambda rows: protocol.starts(start, rows), which[~settled]
        with torch.no_grad():
            slopes = rowwise_jacobian(system.common_start, known)
            at = t, rest.nan_to_num(), resting, slopes[which]
            slopes[which] = rest_slopes(system.resting, *at, kept, own)

        def begin(rows):
            moved = torch.einsum("nsc,nc->ns", slopes, rows - known)
            return protocol.starts(start + moved, rows)

        return begin, which[~settled]


def _simulate_chunk(simulator, params, inputs):
    """Return (observables, which samples were solved, what failed) for a chunk."""
    params = torch.tensor(params, device=simulator.device_for(simulator.device))
    rows = simulator._rows(params, inputs)
    solution = simulator._solve(rows)
    return _outcome(simulator, simulator._observe(solution, rows), solution)


def _sensitivities_chunk(simulator, params, inputs):
    """Return (derivatives of the observables by params, and as above) for a chunk."""
    params = torch.tensor(params, device=simulator.device_for(simulator.device))
    _, by_params, solution = simulator._differentiate(params, inputs)
    return _outcome(simulator, by_params, solution)


def _outcome(simulator, values, solution):
    n = simulator.system.protocol.n_experiments
    lost = ~solution.success.unflatten(0, (-1, n))
    failed, cause = lost.any(1), ""
    if failed.any():
        # A sample is told by the first of its experiments that failed.
        row = n * torch.arange(len(lost), device=lost.device) + lost.int().argmax(1)
        stats = {name: values[row] for name, values in solution.stats.items()}
        told = solution._replace(status=solution.status[row], stats=stats)
        cause = told.failure_summary()
    return values.cpu().numpy(), ~failed.cpu().numpy(), cause
