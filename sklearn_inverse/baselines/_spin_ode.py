"""SpinODEInverter: a neural ODE first, rates from its derivatives, then fine-tuning."""

from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.forward import ODESimulator
from sklearn_inverse.inverse._search import FARTHEST, SearchInverter
from sklearn_inverse.networks._neural_ode import ShootingMisfit
from sklearn_inverse.optim._descent import descend
from sklearn_inverse.optim._lbfgs import lbfgs
from sklearn_inverse.optim._standard import InStandard
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._docs import SEARCHING, shared_docs
from sklearn_inverse.utils._sklearn import Interval

__all__ = ["SpinODEInverter"]

WIDTH, N_LAYERS = 10, 4  # of the neural ODE, as printed
N_DRAWS = 8  # of the prior, by which derivatives are scaled
TOL = 1e-12


@shared_docs
class SpinODEInverter(SearchInverter):
    """Recover rate constants from the derivatives of a neural ODE [1]_.

    For each sample, (1) a small neural ODE dy/dt = net(y) is fitted to its readings; (2)
    params are fitted to states and derivatives along its trajectory, without solving the
    system; (3) they are fine-tuned through the solver. From a few snapshots the first
    step is badly determined, and so is all that follows: a method to compare with, made
    for trajectories that are read densely.

    Parameters
    ----------
    model : ODESystem or ODESimulator, default=None
        What is inverted. All states are observed, in one experiment without events, and
        initial states are known.

    max_iter : int, default=200
        Most iterations of each of the first two steps, by L-BFGS.

    tune_iter : int, default=200
        Iterations of the third, by Adam. Zero leaves it out.

    lr : float, default=0.01
        Adam's learning rate, in the prior's standard coordinate.

    %(chunk_size)s

    %(n_jobs)s

    %(learning)s

    Attributes
    ----------
    %(model_)s

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    GradientInverter : Goes through the solver at once, with an uncertainty.

    Notes
    -----
    Other than in [1]_: the neural ODE is fitted by multiple shooting, all intervals
    between readings at once, whose ends may differ from the readings and from each other,
    by Runge and Kutta's method instead of a stiff solver; it does not cut negative states
    off, which other systems have. L-BFGS stands for thousands of steps of Adam.
    Derivatives are compared in units of how far the prior lets each state's vary, since
    those of radicals are far larger than their slopes. Params move in the standard
    coordinate of the prior, for a log-normal one the logarithm of [1]_, and start at its
    center. Fine-tuning minimizes the misfit of the model's own noise, not that of
    logarithms of readings plus 1e-8, which hides radicals. The prior does not count. The
    activation, which is not printed, is tanh.

    References
    ----------
    .. [1] W. Peng, Z.-S. Liu, M. Boy, "SPIN-ODE: Stiff physics-informed neural ODE for
       chemical reaction rate estimation" (2025): three-stage training. Table 1 of the
       paper on the inverse neural operator (INO) has its row.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import ODESimulator, ODESystem
    >>> from sklearn_inverse.baselines import SpinODEInverter
    >>> def decay(t, y, p):
    ...     return -p.rate * y.amount
    >>> system = ODESystem(
    ...     decay, states={"amount": 1.0}, params={"rate": (0.1, 3.0)},
    ...     times=np.linspace(0, 3, 10), noise=0.02,
    ... )
    >>> readings = ODESimulator(system).simulate([[0.8]])
    >>> inverter = SpinODEInverter(system, max_iter=50, random_state=0).fit(readings)
    >>> inverter.predict(readings).round(2)
    array([[0.8]])
    """

    _parameter_constraints: dict = {
        name: SEARCHING[name] for name in SEARCHING if name != "prior"
    } | {
        "model": "no_validation",
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tune_iter": [Interval(Integral, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
    }
    _advice = "use GradientInverter"
    _ends_by_converging = False
    _takes_inputs = False
    _trial_options = ("max_iter", "tune_iter")
    prior = None  # no more than where the search begins, and its bounds

    def __init__(
        self,
        model=None,
        *,
        max_iter=200,
        tune_iter=200,
        lr=0.01,
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.max_iter = max_iter
        self.tune_iter = tune_iter
        self.lr = lr
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _start_fit(self, observations, params, inputs=None):
        found = super()._start_fit(observations, params, inputs)
        if not isinstance(self.model_, ODESimulator):
            raise TypeError(
                "`model` must be an ODESystem or an ODESimulator, whose right-hand side "
                f"can be evaluated. Got {self.model_!r}."
            )
        system, prior = self.model_.system, self.model_.prior_
        protocol, n_experiments = system.protocol, len(system.experiments)
        late = protocol.equilibrates or protocol.t_eval[0, 0] != system.times[0]
        if n_experiments > 1 or system.schedule.events or late:
            raise ValueError(
                "SpinODEInverter needs one experiment without events, whose initial states "
                f"are those of its first time. Got {n_experiments} experiments and "
                f"{len(system.schedule.events)} events"
                + (", and a beginning before the first time." if late else ".")
            )
        places = np.stack([np.zeros(self.n_params_), np.ones(self.n_params_)])
        rows = system.rows(torch.as_tensor(prior.from_standard(places)))
        start = system.initial_state(rows)
        seen = system.observables(start[:, None].expand(-1, system.n_times, -1), rows)
        if not torch.equal(start[0], start[1]):
            raise ValueError(
                "SpinODEInverter needs initial states that are known. Those of "
                f"{system.name!r} depend on the params."
            )
        if seen.shape[2] != start.shape[1] or not torch.equal(seen[:, 0], start):
            raise ValueError(
                "SpinODEInverter needs all states observed, as they are. Got observables "
                f"{system.observable_names} of states {system.state_names}."
            )
        self._initial = start[0].numpy()
        return found

    def _search(self, objective):
        readings = objective.readings
        everyone = torch.arange(len(readings), device=readings.device)
        first = self._starts(1).expand(len(readings), -1)
        times = torch.as_tensor(self.model_.times_).to(readings)
        initial = torch.as_tensor(self._initial).to(readings)
        neural = ShootingMisfit(
            readings, times, initial, width=WIDTH, n_layers=N_LAYERS
        )
        x = first
        ends = [lbfgs(neural, neural.start(self._start_seed), **self._lbfgs_options)]
        if not self._stopped(ends):
            along = neural.slopes(ends[-1].x)
            match = SlopeMisfit(self.model_, *along, draws=self._starts(N_DRAWS))
            free, z = InStandard(match, everyone), torch.zeros_like(first)
            ends.append(lbfgs(free, z, reach=reach, **self._lbfgs_options))
            x = free.to_scaled(ends[-1].x)
        x = objective.with_scales(x, everyone)
        if self.tune_iter and not self._stopped(ends):
            free = InStandard(objective, everyone)
            options = {"method": "adam", "lr": self.lr, "max_iter": self.tune_iter}
            ends.append(descend(free, free.from_scaled(x), **options))
            lost = ends[-1].status == InversionStatus.FAILED
            x = torch.where(lost[:, None], x, free.to_scaled(ends[-1].x))
        stopped = self._stopped(ends)
        status = InversionStatus.INTERRUPTED if stopped else InversionStatus.MAX_ITER
        return self._estimate(
            objective,
            x,
            objective.with_scales(first, everyone),
            sum(end.n_iter for end in ends),
            torch.full_like(everyone, status),
            torch.zeros_like(everyone),
        )

    @property
    def _lbfgs_options(self):
        return {"max_iter": self.max_iter, "tol": TOL}

    @staticmethod
    def _stopped(ends):
        """Whether Ctrl-C ended the last step."""
        return bool((ends[-1].status == InversionStatus.INTERRUPTED).any())


def reach(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far params may go in one iteration, and within the prior."""
    return (z - 1).clamp(min=-FARTHEST), (z + 1).clamp(max=FARTHEST)


class SlopeMisfit:
    """How far the system's derivatives along trajectories are from given ones.

    An objective for :class:`InStandard`, of scaled params.
    """

    def __init__(self, model, times, states, slopes, counts, *, draws):
        self.system, self.prior = model.system, model.prior_
        self.n_params = model.n_params_
        self.times, self.states, self.slopes = times[..., 0], states, slopes
        everyone = torch.arange(len(states), device=states.device)
        with torch.no_grad():
            drawn = torch.stack(
                [self._rhs(x.expand(len(states), -1), everyone) for x in draws]
            )
        spread = (
            torch.where(counts, drawn.std(dim=0), 0.0).square().mean(1, True).sqrt()
        )
        usable = counts & (spread > 0) & spread.isfinite()
        self.weight = torch.where(usable, 1 / spread, 0.0)
        self.n = usable.sum(dim=(1, 2)).clamp(min=1)

    def gradient(self, x: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (n_rows,) and gradients by scaled params."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            off = self.weight[sample] * (self._rhs(x, sample) - self.slopes[sample])
            value = off.square().sum(dim=(1, 2)) / self.n[sample]
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach().nan_to_num(nan=torch.inf), gradient.nan_to_num()

    def _rhs(self, x: Tensor, sample: Tensor) -> Tensor:
        """Return derivatives (n_rows, n_points, n_states) at scaled params."""
        times, y = self.times[sample], self.states[sample]
        rows = self.system.rows(self.prior.scaler.from_scaled_tensor(x))
        rows = rows.repeat_interleave(y.shape[1], dim=0)
        f = self.system.rhs(times.flatten(), y.flatten(0, 1), rows)
        return f.unflatten(0, y.shape[:2])
