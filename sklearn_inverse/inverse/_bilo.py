"""BiLOInverter: params and a local solution operator, fitted to readings together.

A small network learns the equations' solution in the neighborhood of the params, and
how it changes with them, while the params move to where it meets the readings. Nothing
is simulated on the way.
"""

from functools import partial
from numbers import Integral, Real

import numpy as np
import torch

from sklearn_inverse.collocation._bilevel import fine_tune, pretrain
from sklearn_inverse.collocation._local_operator import LocalOperator, Solution
from sklearn_inverse.collocation._time_scale import TimeScale
from sklearn_inverse.forward import ODESimulator
from sklearn_inverse.inverse._objective import PRIOR_PRECISION
from sklearn_inverse.inverse._point import PointInverter
from sklearn_inverse.ode import solve_ivp
from sklearn_inverse.optim._status import InversionStatus
from sklearn_inverse.systems import ODESystem
from sklearn_inverse.utils._parallel import progress_bar
from sklearn_inverse.utils._sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    _fit_context,
)
from sklearn_inverse.utils._torch import as_tensor, resolve_device, spawn_seeds

__all__ = ["BiLOInverter"]

LR_PARAMS = {"gauss_newton": 0.1, "adam": 3e-3}


class BiLOInverter(PointInverter):
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

    ``fit`` trains one network at the params where every search starts; ``predict``
    copies it to each sample and fine-tunes all copies in one batch.

    Parameters
    ----------
    surrogate : ODESurrogate, ODESimulator or FrozenEstimator, default=None
        Forward model. Gives the solution that the network is first trained on, if the
        channels are the states, and judges the estimates. If None,
        ``ODESimulator(system)``.

    system : ODESystem
        The equations and the instrument.

    n_channels : int, default=None
        Channels of the observations. If None, those of a forward model that needs no
        fitting, else taken from 3-D observations, else 1.

    bounds : array-like of shape (n_params, 2), default=None
        Box in which params are sought, in their own units. If None, that of the forward
        model.

    scale : {"linear", "log10"} or list of them, default=None
        Scale on which params are sought. If None, that of the forward model.

    noise_std : float or array-like, default=None
        Noise of the readings, in units of the observations: one number, one per channel,
        or one per reading. None means noise-free.

    w_rgrad : float, default=0.1
        Weight of the residual's derivative by the params. Without it the network knows
        the solution at :math:`\theta` only, and the params go astray.

    w_error : float, default=1.0
        Weight of the errors that residuals add up to, in units of the states, beside the
        residuals themselves; 0 as in the paper. Residuals that are small but last make
        large errors: on oscillations the network follows the params better with them.

    width : int, default=32
        Neurons per layer.

    n_layers : int, default=2
        Layers of tanh neurons.

    n_collocation : int, default=51
        Times at which the residual is to vanish, evenly spread on the time scale.

    time_scale : {"linear", "log"}, default="linear"
        "log" spreads the start out, for systems with a fast transient.

    onset : float, default=None
        Time up to which a logarithmic scale is about linear. If None, a hundredth of the
        first interval between output times.

    train_embedding : bool, default=False
        Whether the first layer's weights for the params are trained too.

    upper : {"gauss_newton", "adam"}, default="gauss_newton"
        How the params move. "gauss_newton" knows which of them trade off, from the
        network's derivatives by all of them; it moves none by more than 0.01 of the box
        per step. "adam", by the gradient alone, is the paper's.

    optimizer : {"soap", "adam"}, default="soap"
        How the weights move. "adam" is the paper's, with AMSGrad; give it
        ``lr_net=1e-3``. "soap" is Adam in the eigenbasis of the gradients' mean squares
        [2]_: it reaches far lower residuals in as many steps.

    lr_net : float, default=1e-2
        Initial step size of the weights, which falls to zero along half a cosine.

    lr_params : float, default=None
        The same for the params: a share of the step to where the readings are met best
        ("gauss_newton"), or a step in the unit box ("adam"). If None, 0.1 or 3e-3. Params
        that outrun the network spoil it for good.

    tol_lower : float, default=0.01
        While a sample's lower loss is above, its params slow down in proportion. ``inf``
        lets them run.

    pretrain_iter : int, default=500
        Iterations of L-BFGS at the start.

    max_iter : int, default=2000
        Steps of fine-tuning.

    tol : float, default=3e-4
        A sample is done when no unit param moves further in a hundred steps of full
        size; while step sizes fall, so does ``tol``, to a fifth.

    start : array-like of shape (n_params,), default=None
        Where every search starts, in units of the params. If None, the middle of the box.

    chunk_size : int, default=64
        Samples that are fine-tuned together; bounds the memory.

    n_jobs : int, default=None
        Workers of the joblib backend that is set. The result does not depend on it.

    device : {"auto", "cpu", "cuda", …}, default="auto"
        Where to fine-tune. "auto" takes a GPU where there is one.

    random_state : int, RandomState instance or None, default=None
        Seeds the network.

    verbose : int, default=0
        Whether to show progress bars.

    Attributes
    ----------
    surrogate_ : forward model
        The fitted one.

    scaler_ : ParamScaler
        Map from params to the unit box.

    channel_scaler_ : ChannelScaler
        Spread of the channels.

    pretrain_loss_ : ndarray of shape (n_iterations,)
        Loss of the network at the start. What it ends at bounds the accuracy that can be
        hoped for: raise ``width`` or ``pretrain_iter``, or change ``time_scale``, if it
        stays above 1e-3.

    operator_error_ : ndarray of shape (n_channels,)
        Root-mean-square error of the network at the start, in units of the channels;
        counts as noise.

    n_iter_ : int
        Iterations of the trial on the first sample that ends ``fit``: one, or as few as
        the method takes. Those of predictions are told by :meth:`invert`.

    n_features_in_ : int
        ``n_times * n_channels``.

    See Also
    --------
    GradientInverter : Differentiates the simulator or the surrogate instead.

    Notes
    -----
    The search is local, from one start: where a simulator's least-squares fit would end
    in a local optimum, as do oscillations that are out of phase, so does this. It also
    fails where the network does not learn the solution, see ``pretrain_loss_``, or cannot
    follow the params as the solution changes its shape; the result's misfit tells.

    The upper loss carries the prior of all optimising inverters, normal with mean and
    variance of the box. ``n_forward`` of the result counts the runs of the forward model
    that judge the estimates; the search itself makes none.

    References
    ----------
    .. [1] Zhang, Liu and Lowengrub, "BiLO: bilevel local operator learning for PDE
       inverse problems", Algorithm 1.

    .. [2] Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", ICLR 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.inverse import BiLOInverter
    >>> from sklearn_inverse.systems import ODESystem
    >>> def growth(t, y, params):
    ...     return params * y
    >>> times = np.linspace(0, 1, 11)
    >>> system = ODESystem(growth, initial_state=[1.0], bounds=[[0.5, 3]], times=times)
    >>> rates = np.array([1.0, 2.0])
    >>> readings = np.exp(np.outer(rates, times))
    >>> inverter = BiLOInverter(system=system, noise_std=0.01, random_state=0)
    >>> inverter.fit(readings, rates).predict(readings).round(2)
    array([1., 2.])
    """

    _advice = "give another `start`"

    _parameter_constraints: dict = {
        "surrogate": [HasMethods(["forward", "simulate"]), None],
        "system": [ODESystem],
        "n_channels": [Interval(Integral, 1, None, closed="left"), None],
        "bounds": ["array-like", None],
        "scale": [StrOptions({"linear", "log10"}), list, np.ndarray, None],
        "noise_std": [Interval(Real, 0, None, closed="left"), "array-like", None],
        "w_rgrad": [Interval(Real, 0, None, closed="left")],
        "w_error": [Interval(Real, 0, None, closed="left")],
        "width": [Interval(Integral, 1, None, closed="left")],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "n_collocation": [Interval(Integral, 2, None, closed="left")],
        "time_scale": [StrOptions({"linear", "log"})],
        "onset": [Interval(Real, 0, None, closed="neither"), None],
        "train_embedding": ["boolean"],
        "upper": [StrOptions({"gauss_newton", "adam"})],
        "optimizer": [StrOptions({"soap", "adam"})],
        "lr_net": [Interval(Real, 0, None, closed="neither")],
        "lr_params": [Interval(Real, 0, None, closed="neither"), None],
        "tol_lower": [Interval(Real, 0, None, closed="neither")],
        "pretrain_iter": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "start": ["array-like", None],
        "chunk_size": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        surrogate=None,
        *,
        system,
        n_channels=None,
        bounds=None,
        scale=None,
        noise_std=None,
        w_rgrad=0.1,
        w_error=1.0,
        width=32,
        n_layers=2,
        n_collocation=51,
        time_scale="linear",
        onset=None,
        train_embedding=False,
        upper="gauss_newton",
        optimizer="soap",
        lr_net=1e-2,
        lr_params=None,
        tol_lower=0.01,
        pretrain_iter=500,
        max_iter=2000,
        tol=3e-4,
        start=None,
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.surrogate = surrogate
        self.system = system
        self.n_channels = n_channels
        self.bounds = bounds
        self.scale = scale
        self.noise_std = noise_std
        self.w_rgrad = w_rgrad
        self.w_error = w_error
        self.width = width
        self.n_layers = n_layers
        self.n_collocation = n_collocation
        self.time_scale = time_scale
        self.onset = onset
        self.train_embedding = train_embedding
        self.upper = upper
        self.optimizer = optimizer
        self.lr_net = lr_net
        self.lr_params = lr_params
        self.tol_lower = tol_lower
        self.pretrain_iter = pretrain_iter
        self.max_iter = max_iter
        self.tol = tol
        self.start = start
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params):
        """Train the network that every search starts from.

        1. Settle box and scales. 2. Solve the equations at the start. 3. Train one
        network on them and on that solution.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Simulated trajectories.

        params : array-like of shape (n_samples, n_params) or (n_samples,)
            Params that produced them, in their own units.

        Returns
        -------
        self : BiLOInverter
            The inverter, ready to predict.
        """
        trajectories, _ = self._start_fit(observations, params)
        (seed,) = spawn_seeds(self.random_state, 1)
        self._start_unit = self._check_start()
        solution = self._solve()
        make_operator = partial(
            LocalOperator,
            self._system,
            self.scaler_,
            solution,
            width=self.width,
            n_layers=self.n_layers,
            n_collocation=self.n_collocation,
            time_scale=self._time_scale(),
            w_error=self.w_error,
            train_embedding=self.train_embedding,
            seed=seed,
        )
        precise = make_operator(dtype=torch.float64)
        self._layers = self._pretrain(precise, solution)
        self.operator_error_ = self._compare(precise, solution)
        # Single precision is enough to follow params.
        self._operator = make_operator(device=resolve_device(self.device))
        return self._try_out(trajectories)

    def _default_surrogate(self):
        return ODESimulator(self._system, device=self.device)

    def _prefer(self):
        return None  # processes: threads would wait for each other's derivatives

    def _check_options(self):
        if self.n_times_ < 2:
            raise ValueError(
                "BiLOInverter needs two output times or more: the initial state says "
                f"nothing of rates. Got {self.n_times_ * self.n_channels_} feature(s) "
                f"of {self.n_channels_} channel(s)."
            )
        system = self._system = self.system
        expected = system.n_times, system.n_channels, system.n_params
        sizes = self.n_times_, self.n_channels_, self.n_params_
        if sizes != expected:
            raise ValueError(
                "`system` and the training pairs must agree in (n_times, n_channels, "
                f"n_params). The system has {expected}, the pairs have {sizes}. Check "
                "`n_channels`, or make the pairs with this system."
            )

    def _check_start(self):
        """Return the start in the unit box, (1, n_params)."""
        if self.start is None:
            return np.full((1, self.n_params_), 0.5)
        start = np.asarray(self.start, dtype=float)
        if start.shape != (self.n_params_,):
            raise ValueError(
                f"`start` must have shape (n_params,) = ({self.n_params_},). Got "
                f"{start.shape} instead."
            )
        self.scaler_.check_inside(start[None])
        return self.scaler_.to_unit(start[None])

    def _time_scale(self):
        return TimeScale(self._system.times, self.time_scale, self.onset)

    def _solve(self):
        """Return the solution at the start, exact unless the surrogate was learned."""
        system, params = self._system, self.scaler_.to_physical(self._start_unit)
        is_exact = isinstance(self.surrogate_, ODESimulator)
        if system.observe is None and not is_exact:
            states = self.surrogate_.simulate(params)[0]
            return Solution(params[0], system.times, states)
        tau = np.linspace(0, 1, self.n_collocation)[1:-1]
        times = np.union1d(system.times, self._time_scale().to_time(tau))
        solution = solve_ivp(
            system.rhs,
            times,
            system.initial_state,
            torch.as_tensor(params),
            rtol=1e-8,
            atol=1e-20,
            jac=system.jac,
        )
        return Solution(params[0], times, solution.y[0].numpy())

    def _pretrain(self, operator, solution):
        """Train one network at the start, in double precision on the CPU."""
        losses = []
        total = self.pretrain_iter
        with progress_bar(
            verbose=self.verbose, total=total, desc="Pre-training"
        ) as bar:

            def progress(loss):
                losses.append(loss)
                bar.set_postfix(loss=f"{loss:.3g}", refresh=False)
                bar.update()

            layers = pretrain(
                operator,
                torch.as_tensor(self._start_unit),
                solution,
                max_iter=total,
                w_rgrad=self.w_rgrad,
                progress=progress,
            )
        self.pretrain_loss_ = np.array(losses)
        return layers

    def _compare(self, operator, solution):
        """Return the network's root-mean-square error at the start, per channel."""
        start = torch.as_tensor(self._start_unit)
        known = np.isin(solution.times, self._system.times)
        states = torch.as_tensor(solution.states[known])[None]
        exact = self._system.channels(states, torch.as_tensor(solution.params)[None])
        error = (operator.channels(self._layers, start) - exact)[0].abs().numpy()
        worst = np.maximum(error.max(axis=0), np.finfo(float).tiny)
        # Divided before squaring: errors of 1e-18 have squares that underflow.
        return worst * np.sqrt(np.mean((error / worst) ** 2, axis=0))

    def _invert_chunk(self, readings, noise):
        device = resolve_device(self.device)
        # Readings are trusted no further than the network that explains them.
        weights = 1 / np.hypot(noise, self.operator_error_)
        weights = np.where(np.isnan(readings), 0.0, weights)
        start = as_tensor(self._start_unit, device)
        found = fine_tune(
            self._operator,
            as_tensor(np.nan_to_num(readings), device),
            as_tensor(weights, device),
            start,
            [layer.to(start) for layer in self._layers],
            max_iter=self.max_iter,
            lr_net=self.lr_net,
            lr_params=LR_PARAMS[self.upper]
            if self.lr_params is None
            else self.lr_params,
            w_rgrad=self.w_rgrad,
            prior_precision=PRIOR_PRECISION,
            max_loss=self.tol_lower,
            tol=self.tol,
            upper=self.upper,
            rotate=self.optimizer == "soap",
        )
        status = torch.full_like(found.n_iter, InversionStatus.MAX_ITER)
        status[found.n_iter < self.max_iter] = InversionStatus.INTERRUPTED
        status[found.settled] = InversionStatus.CONVERGED
        unit = found.theta.double()
        return self._summarize(
            self._objective(readings, noise),
            unit,
            start.to(unit).expand_as(unit),
            found.n_iter,
            status,
            torch.zeros_like(status),
        )
