"""What inverters share that solve equations by networks, at points of the domain."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_inverse.collocation._equations import N_BATCHES, Solution, as_equations
from sklearn_inverse.collocation._local_operator import HELD_OUT, LocalOperator
from sklearn_inverse.collocation._pretraining import pretrain
from sklearn_inverse.exceptions import ConvergenceWarning
from sklearn_inverse.forward import ODESimulator
from sklearn_inverse.forward._base import ForwardModel
from sklearn_inverse.inverse._objective import ROWS, Objective
from sklearn_inverse.inverse._search import SearchInverter
from sklearn_inverse.probability import Estimate, InversionStatus
from sklearn_inverse.systems import ODESystem, PDESystem
from sklearn_inverse.utils._docs import shared_docs
from sklearn_inverse.utils._options import NestedOptions
from sklearn_inverse.utils._parallel import progress_bar
from sklearn_inverse.utils._sklearn import _fit_context
from sklearn_inverse.utils._torch import spawn_seeds
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["CollocationInverter", "NetworkEstimate", "NetworkModel"]

MODELS = ODESystem, ODESimulator, PDESystem  # what may be given


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


@shared_docs
class CollocationInverter(NestedOptions, SearchInverter):
    """Fit a network to equations and params to readings.

    A subclass stores ``model``, ``start``, ``network`` and ``pretrain_iter`` beside what
    all searches have, and says what the network is told and how all is fitted.
    """

    _advice = "give another `start`"
    _takes_inputs = False
    functions: str | None = None
    error_weight = 0.0
    residual_gradient_weight = 0.0

    def _tune(self, upper, start, layers):
        """Return what was found for some samples, and the most steps allowed."""
        raise AssertionError("every inverter of this kind tunes")

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
        self : object
            The inverter, ready to predict.
        """
        trajectories, _, inputs = self._start_fit(observations, params)
        self._check_system()
        network = self._options("network")
        (self._start_seed,) = spawn_seeds(self.random_state, 1)
        start = self._starts(1, self._given_start())
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
        return self._try_out(trajectories, inputs)

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

    def _given_start(self):
        """Return where every search starts, as others take it."""
        if self.start is None:
            return "center"
        shape = (self.n_params_,)
        if np.shape(self.start) != shape or not _is_finite(self.start):
            raise ValueError(
                f"`start` of {type(self).__name__} must be finite params of shape "
                f"(n_params,) = {shape}, or None for the center of the prior. Got "
                f"{self.start!r}."
            )
        return self.start

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
        model = NetworkModel(self._operator, self.model_, self.operator_error_)
        readings, p = objective.readings, self.n_params_
        # The upper loss is what others minimize, with networks in place of the solver.
        upper = Objective(
            model,
            objective.noise,
            readings,
            weighs_prior=objective.weighs_prior,
            noise_std=objective.noise_std,
        )
        rows = torch.arange(len(readings), device=readings.device)
        start = self._start.to(readings).repeat(len(rows), 1)
        layers = [layer.to(self._operator.net.embedding) for layer in self._layers]
        model.layers = [layer.repeat(len(rows), 1, 1) for layer in layers]
        found, max_iter = self._tune(upper, upper.with_scales(start, rows), layers)
        status = torch.full_like(found.n_iter, int(InversionStatus.MAX_ITER))
        status[found.n_iter < max_iter] = int(InversionStatus.INTERRUPTED)
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
        is_off = objective.apart(x, rows, networks) > 1
        self._set(answer, is_off=is_off, n_forward=objective.n_forward)
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
        ended = answer.status == InversionStatus.CONVERGED  # else that was said
        rows = np.flatnonzero(answer.is_off & (ended | (not self._ends_by_converging)))
        if len(rows):
            worst = answer.network_error[rows].max()
            own = "max_iter" in self.get_params(deep=False)
            steps = "max_iter" if own else "descent__max_iter"
            warn_user(
                f"In {len(rows)} of {len(answer)} samples the network is further from the "
                "exact solution at the params found than the noise of the readings (by "
                f"{worst:.2g} of the solution's size, rows "
                f"{', '.join(map(str, rows[:5]))}): these params are as wrong as that "
                f"makes them. Raise {steps}, pretrain_iter or network__width.",
                ConvergenceWarning,
            )


def _is_finite(values):
    try:
        return bool(np.isfinite(np.asarray(values, dtype=float)).all())
    except (TypeError, ValueError):
        return False


class NetworkModel(ForwardModel):
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
