"""BiLOInverter: params and a local solution operator, fitted to readings together.

A small network learns the equations' solution in the neighborhood of the params, and
how it changes with them, while the params move to where it meets the readings. Nothing
is simulated on the way.
"""

import copy
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_inverse.collocation._bilevel import Bilevel, fine_tune, pretrain
from sklearn_inverse.collocation._equations import N_BATCHES, Solution, as_equations
from sklearn_inverse.collocation._local_operator import (
    HELD_OUT,
    LocalNetwork,
    LocalOperator,
)
from sklearn_inverse.exceptions import ConvergenceWarning
from sklearn_inverse.forward import ODESimulator
from sklearn_inverse.forward._base import ForwardModel
from sklearn_inverse.inverse._objective import ROWS, Objective
from sklearn_inverse.inverse._search import SearchInverter
from sklearn_inverse.probability import Estimate, InversionStatus
from sklearn_inverse.systems import ODESystem, PDESystem
from sklearn_inverse.utils._docs import SEARCHING, shared_docs
from sklearn_inverse.utils._options import NestedOptions
from sklearn_inverse.utils._parallel import progress_bar
from sklearn_inverse.utils._sklearn import Interval, StrOptions, _fit_context
from sklearn_inverse.utils._torch import spawn_seeds
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["BiLOInverter", "NetworkEstimate"]


@shared_docs
class BiLOInverter(NestedOptions, SearchInverter):
    r"""Recover params by bilevel local operator learning (BiLO).

    A network :math:`u(t, \theta; W)` that starts from the system's initial state solves
    the equations at the params :math:`\theta` and around them:

    .. math::

        \min_\theta L_{dat}(\theta, W^*(\theta)), \qquad
        W^* = \arg\min_W \overline{|r|^2}
        + w \overline{\textstyle\sum_j |dr / d\theta_j|^2}

    with the residual :math:`r = u_t - f(t, u, \theta)`. As the derivative of the
    residual vanishes too, so that :math:`u` follows the solution when :math:`\theta`
    changes, the upper level's gradient goes through the input :math:`\theta` alone. Both
    levels move at once [1]_.

    What is really minimized is therefore no single function: each level takes steps of
    its own loss while the other stands still. The params come to rest where minus the
    log posterior, with the network in place of the solution, has no slope; that is
    where the exact one has none as far as the lower loss is zero.

    ``fit`` trains one network at the params where every search starts; ``predict``
    copies it to each sample and fine-tunes all copies in one batch.

    Parameters
    ----------
    model : ODESystem, ODESimulator or FrozenEstimator
        The equations, with their prior and noise. The exact simulator judges the
        estimates.

    start : array-like of shape (n_params,), default=None
        Where every search starts, in units of the params. If None, the center of the
        prior.

    network : LocalNetwork, default=None
        Sizes of the network and where it solves the equations; ``network__width`` and
        the like can be set. If None, :class:`~sklearn_inverse.collocation.LocalNetwork`
        with its defaults.

    residual_gradient_weight : float, default=0.1
        Weight :math:`w` of the residual's derivative by the params. Without it the
        network knows the solution at :math:`\theta` only, and the params go astray.

    error_weight : float, default=1.0
        Weight of the errors that residuals add up to, in units of the states, beside the
        residuals themselves; 0 as in the paper. Residuals that are small but last make
        large errors: on oscillations the network follows the params better with them.

    pretrain_iter : int, default=500
        Iterations of L-BFGS at the start.

    descent : Bilevel, default=None
        How params and networks move; ``descent__max_iter`` and the like can be set. If
        None, :class:`~sklearn_inverse.collocation.Bilevel` with its defaults.

    %(prior)s

    %(chunk_size)s

    %(n_jobs)s

    %(device)s

    %(random_state)s

    %(verbose)s

    Attributes
    ----------
    %(model_)s

    pretrain_loss_ : ndarray of shape (n_iterations,)
        Loss of the network at the start. What it ends at bounds the accuracy that can be
        hoped for: raise ``network__width`` or ``pretrain_iter``, or change
        ``network__time_scale``, if it stays above 1e-3.

    operator_error_ : ndarray of shape (n_channels,)
        Root-mean-square error of the network at the start, in units of the observables;
        counts as noise.

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    GradientInverter : Differentiates the simulator or the surrogate instead.

    Notes
    -----
    The search is local, from one start: where a simulator's least-squares fit would end
    in a local optimum, as do oscillations that are out of phase, so does this. It also
    fails where the network does not learn the solution, see ``pretrain_loss_``, or cannot
    follow the params as the solution changes its shape; the misfit tells.

    Prior and noise are those of all searching inverters; params that only the noise uses
    move with the others, without reaching the network. ``n_forward`` of the estimate
    counts the runs of the simulator that judge it; the search itself makes none.

    References
    ----------
    .. [1] Zhang, Liu and Lowengrub, "BiLO: bilevel local operator learning for PDE
       inverse problems", Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import ODESystem
    >>> from sklearn_inverse.inverse import BiLOInverter
    >>> def growth(t, y, p):
    ...     return p.rate * y.size
    >>> times = np.linspace(0, 1, 11)
    >>> system = ODESystem(
    ...     growth, states={"size": 1.0}, params={"rate": (0.5, 3)}, times=times, noise=0.01
    ... )
    >>> readings = np.exp(np.outer([1.0, 2.0], times))
    >>> inverter = BiLOInverter(system, pretrain_iter=150, random_state=0).set_params(
    ...     network__width=16, descent__max_iter=300, descent__tol=5e-3
    ... )  # enough for one growth rate
    >>> inverter.fit(readings).predict(readings).round(1)
    array([[1.],
           [2.]])
    """

    _advice = "give another `start`"
    _option_types = {"network": LocalNetwork, "descent": Bilevel}
    _takes_inputs = False
    _parameter_constraints: dict = SEARCHING | {
        "model": "no_validation",
        "start": ["array-like", None],
        "network": [LocalNetwork, None],
        "functions": [StrOptions({"basis", "local"})],
        "residual_gradient_weight": [Interval(Real, 0, None, closed="left")],
        "error_weight": [Interval(Real, 0, None, closed="left")],
        "pretrain_iter": [Interval(Integral, 1, None, closed="left")],
        "descent": [Bilevel, None],
    }

    def __init__(
        self,
        model=None,
        *,
        start=None,
        network=None,
        functions="basis",
        residual_gradient_weight=0.1,
        error_weight=1.0,
        pretrain_iter=500,
        descent=None,
        prior="model",
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.start = start
        self.network = network
        self.functions = functions
        self.residual_gradient_weight = residual_gradient_weight
        self.error_weight = error_weight
        self.pretrain_iter = pretrain_iter
        self.descent = descent
        self.prior = prior
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params=None):
        """Train the network that every search starts from.

        1. Solve the equations at the start. 2. Train one network on them and on that
        solution. 3. Try it on the first sample.

        Parameters
        ----------
        %(observations)s

        params : array-like of shape (n_samples, n_params), default=None
            Params that produced the observations; not needed.

        Returns
        -------
        self : BiLOInverter
            The inverter, ready to predict.
        """
        trajectories, _, inputs = self._start_fit(observations, params)
        self._check_system()
        network = self._options("network")
        descent = self._options("descent", max_iter=1)
        (self._start_seed,) = spawn_seeds(self.random_state, 1)
        start = self._starts(1, "center" if self.start is None else self.start)
        solution = self._solution_at(start, network)
        make_operator = partial(
            LocalOperator,
            self._system,
            solution,
            network,
            functions=self.functions,
            error_weight=self.error_weight,
            seed=self._start_seed,
        )
        precise = make_operator(dtype=torch.float64)
        self._layers = self._pretrain(precise, start.cpu(), solution)
        self._start, self.operator_error_ = start, self._compare(precise, solution)
        self._check_points(precise, start.cpu())
        # Single precision is enough to follow params.
        self._operator = make_operator(device=self._device)
        trial = copy.copy(self)
        trial.descent = descent
        self.n_iter_ = trial._try_out(trajectories, inputs).n_iter_
        return self

    def _given_model(self):
        model, is_frozen = self.model, isinstance(self.model, FrozenEstimator)
        if not isinstance(model.estimator if is_frozen else model, MODELS):
            raise TypeError(
                f"`model` of {type(self).__name__} must be a system (ODESystem, "
                "ReactionSystem, PDESystem) or an ODESimulator: it solves the equations "
                f"itself. Got {self.model!r} instead."
            )
        return model

    @property
    def _system(self):
        """Return the equations, of which the model is the exact solver."""
        given = self._given_model()
        return given if isinstance(given, PDESystem) else self.model_.system

    def _check_system(self):
        system, name = self._system, type(self).__name__
        if isinstance(system, PDESystem):
            return
        if (
            system.schedule.events
            or not system.protocol.is_plain
            or system.protocol.schedules[0].events
        ):
            raise ValueError(
                f"{name} represents states by one smooth function of the time, which "
                "does not jump: it takes no system with events, inputs or several "
                "experiments. GradientInverter does."
            )
        if self.n_times_ < 2:
            raise ValueError(
                f"{name} needs two output times or more: the initial state says "
                f"nothing of rates. Got {self.n_times_ * self.n_channels_} feature(s)."
            )

    def _may_thread(self):
        return False  # threads would wait for each other's derivatives

    def _chunk_length(self, n_samples):
        return min(self.chunk_size, ROWS)  # the objective takes all networks at once

    def _solution_at(self, start, network):
        """Return the exact solution at the start."""
        params = self.model_.param_scaler_.from_scaled(start.cpu().numpy())
        equations = as_equations(self._system, network)
        unit, values = equations.solve(params, equations.also_solved)
        if not np.isfinite(values).all():
            raise ValueError(
                "The equations must have a solution where the search starts. At params "
                f"{params[0].tolist()} the solver finds none. Give another `start`."
            )
        return Solution(params[0], unit, values[0])

    def _pretrain(self, operator, start, solution):
        """Train one network at the start, in double precision on the CPU."""
        losses, total = [], self.pretrain_iter
        with progress_bar(
            verbose=self.verbose, total=total, desc="Pre-training"
        ) as bar:

            def progress(loss):
                losses.append(loss)
                bar.set_postfix(loss=f"{loss:.3g}", refresh=False)
                bar.update()

            layers = pretrain(
                operator,
                start,
                solution,
                max_iter=total,
                gradient_weight=self.residual_gradient_weight,
                progress=progress,
            )
        self.pretrain_loss_ = np.array(losses)
        return layers

    def _compare(self, operator, solution):
        """Return the network's root-mean-square error at the start, per observable."""
        theta = operator.scaler.to_scaled(solution.params[None])
        found = operator.observables(self._layers, torch.as_tensor(theta))
        exact = self.model_.simulate(solution.params[None])
        error = np.abs(found[0].detach().numpy() - exact[0])
        worst = np.maximum(error.max(axis=0), np.finfo(float).tiny)
        # Divided before squaring: errors of 1e-18 have squares that underflow.
        return worst * np.sqrt(np.mean((error / worst) ** 2, axis=0))

    def _check_points(self, operator, start):
        """Say so where the equations hold at the points of training only."""
        if not operator.equations.is_resampled:
            return
        loss = partial(
            operator.operator_loss,
            self._layers,
            start,
            self.residual_gradient_weight,
        )
        trained, self.held_out_loss_ = loss(0).item(), loss(HELD_OUT).item()
        n_points = N_BATCHES * operator.equations.n_points
        if self.held_out_loss_ > 10 * trained or n_points < operator.net.n_weights:
            warn_user(
                "The equations must hold between the points of training, too: the lower "
                f"loss is {trained:.2g} at some of these and {self.held_out_loss_:.2g} at "
                f"others, with {operator.net.n_weights} weights for {n_points} points. "
                "Raise network__n_collocation.",
                ConvergenceWarning,
            )

    def _search(self, objective):
        model = _Network(self._operator, self.model_, self.operator_error_)
        readings, p = objective.readings, self.n_params_
        # The upper loss is what others minimize, with networks in place of the solver.
        upper = Objective(
            model,
            objective.noise,
            readings,
            weighs_prior=objective.weighs_prior,
            noise_std=objective.noise_std,
        )
        descent = self._options("descent")
        rows = torch.arange(len(readings), device=readings.device)
        start = self._start.to(readings).repeat(len(rows), 1)
        layers = [layer.to(self._operator.net.embedding) for layer in self._layers]
        model.layers = [layer.repeat(len(rows), 1, 1) for layer in layers]
        found = fine_tune(
            self._operator,
            upper,
            upper.with_scales(start, rows),
            layers,
            descent,
            gradient_weight=self.residual_gradient_weight,
        )
        status = torch.full_like(found.n_iter, int(InversionStatus.MAX_ITER))
        status[found.n_iter < descent.max_iter] = int(InversionStatus.INTERRUPTED)
        diverged = ~found.loss.isfinite() & (found.n_iter > 0)
        status[diverged] = int(InversionStatus.STALLED)
        status[found.settled] = int(InversionStatus.CONVERGED)
        x, start = (objective.with_scales(s, rows) for s in (found.x[:, :p], start))
        no_failures = torch.zeros_like(status)
        answer = self._estimate(objective, x, start, found.n_iter, status, no_failures)
        self._set(answer, network_error=self._final_error(found))
        model.layers = found.layers
        with torch.no_grad():
            networks = model.forward(x[:, : self.n_params_])
        answer.is_off[:] = (objective.apart(x, rows, networks) > 1).cpu().numpy()
        return answer

    def _final_error(self, found):
        """Return how far networks are from exact solutions at what was found.

        Root-mean-square, relative to the solution's size; NaN where there is none.
        """
        operator, theta = self._operator, found.x[:, : self.n_params_]
        params = self.model_.param_scaler_.from_scaled(theta.cpu().numpy())
        equations = operator.equations
        unit, exact = equations.solve(params, equations.also_solved)
        with torch.no_grad():
            u = operator.solution(found.layers, unit, theta)
        off = (u - torch.as_tensor(exact).to(u)) / operator.scale.to(u)
        return off.square().mean(dim=(1, 2)).sqrt()

    def _blank(self, readings):
        answer = super()._blank(readings)
        return NetworkEstimate(
            **vars(answer),
            network_error=np.full(len(readings), np.nan),
            is_off=np.zeros(len(readings), dtype=bool),
        )

    def _warn_of(self, answer):
        super()._warn_of(answer)
        rows = np.flatnonzero(answer.is_off)
        if len(rows):
            worst = answer.network_error[rows].max()
            warn_user(
                f"In {len(rows)} of {len(answer)} samples the network is further from the "
                "exact solution at the params found than the noise of the readings (by "
                f"{worst:.2g} of the solution's size, rows "
                f"{', '.join(map(str, rows[:5]))}): these params are as wrong as that "
                "makes them. Raise descent__max_iter, pretrain_iter or network__width.",
                ConvergenceWarning,
            )


@dataclass(repr=False)
class NetworkEstimate(Estimate):
    """An :class:`Estimate` by networks, compared with the exact solution there.

    Attributes
    ----------
    network_error : ndarray of shape (n_samples,)
        Root-mean-square difference of the network and the exact solution at the params
        found, all over the domain, relative to the solution's size.

    is_off : ndarray of bool of shape (n_samples,)
        Whether at the readings it is larger than their noise.
    """

    network_error: np.ndarray = field(default_factory=lambda: np.empty(0))
    is_off: np.ndarray = field(default_factory=lambda: np.empty(0))


MODELS = (ODESystem, ODESimulator, PDESystem)


class _Network(ForwardModel):
    """Local operators with their present weights, as the upper level sees them."""

    def __init__(self, operator, model, error):
        self.operator = operator
        self.prior_, self.times_ = model.prior_, model.times_
        self.observable_names_ = model.observable_names_
        # Readings are trusted no further than the network that explains them.
        self.error_ = error
        self.layers = []

    def forward(self, scaled_params):
        return self.operator.observables(self.layers, scaled_params)

    def linearize(self, scaled_params):
        return self.operator.linearize(self.layers, scaled_params)
