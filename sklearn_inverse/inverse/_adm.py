"""ADMInverter: the amortized drifting model, params from readings in a few forward passes.

A velocity network drifts particles from random starts to the params behind the readings,
looking at each step at how far the forward model's output is off (INO, stage 2), without
differentiating through the forward model. A few Gauss–Newton steps make the answer exact.
"""

import math
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch

from sklearn_inverse.inverse._amortized import AMORTIZED, AmortizedInverter
from sklearn_inverse.networks._drift import Drift
from sklearn_inverse.networks._drift_batches import DriftBatches, MoveParticles
from sklearn_inverse.networks._drift_net import DriftLoss, DriftNet
from sklearn_inverse.networks._probit import calibrate, probit_center
from sklearn_inverse.networks._slots import pick_slots
from sklearn_inverse.networks._training import fit_net
from sklearn_inverse.utils._docs import SOLVES, shared_docs
from sklearn_inverse.utils._sklearn import Interval, StrOptions

__all__ = ["ADMInverter"]

MIN_CALIBRATION = 20  # held-out pairs below which the spread is left as learned


@shared_docs
class ADMInverter(AmortizedInverter):
    r"""Recover params by drifting particles with a learned velocity (amortized).

    ``fit`` trains a network :math:`F_\varphi` on simulated pairs; ``predict`` integrates

    .. math:: \frac{dk}{d\tau} = \lambda F_\varphi(k, \hat U(k) - u_{obs}, u_{obs}, \tau)

    from a random start to :math:`\tau = 1`, for thousands of samples at once. At each
    step it compares what the forward model gives at the particle, :math:`\hat U(k)`, with
    the readings, by forward runs alone. A few Gauss–Newton steps from there, or from the
    most similar of the training pairs, end at a posterior of the model. Where readings are
    fewer than two per param, or remain unexplained, both are tried; if they do not meet, an
    exact model is searched as by :class:`GradientInverter`.

    Parameters
    ----------
    %(model)s

    %(design)s

    training : Training, default=None
        How the velocity is trained: by default 100 epochs at ``lr=1e-3``, in batches of
        512 particles, a tenth of the pairs held out. An epoch is as many steps of
        particles as there are pairs; ``training__max_epochs=30`` sets one of these.

    kind : {"laplace", "learned"}, default="laplace"
        Posterior that is returned. "laplace" is a normal distribution (Laplace's
        approximation) around the optimum of the model: the exact one if ``model`` is a
        surrogate of a system that is compiled. "learned" is what a head of the network
        has learned: no Jacobians, and as good as the training was.

    n_steps : int, default=20
        Steps of the integration, in training and prediction.

    gain : float, default=7.0
        How far the drift goes, :math:`\lambda`: one step covers the share
        :math:`1 - e^{-\lambda / n_{steps}}` of the way it sees, the last all of it.

    n_particles : int, default=1
        Random starts per sample, averaged at the end. Particles of one sample end close
        to each other, so more of them hardly change the estimate.

    synthetic_fraction : float, default=0.5
        Share of the training truths that are shifted from those of a pair and run
        through the forward model. Without, long training learns the pairs by heart. The
        share falls with the forward model's own error, to none where that is a fifth
        of the observables' spread.

    rollout : bool, default=True
        Whether to train on the states that the integration itself reaches. False draws
        states on the straight line from a random start to the truth.

    width, n_blocks : int, default=256, 4
        Width and number of residual blocks of the network.

    max_solves : int, default=0
        Of ``kind="laplace"``, runs of the model per sample that may be spent on checking
        and sampling its posterior; see :class:`GradientInverter`.

    %(learning)s

    Attributes
    ----------
    %(model_)s

    calibration_ : ndarray of shape (n_params,)
        Factor on the learned spread that makes 90 % intervals cover 90 % of the held-out
        params; ones where fewer than 20 pairs are held out.

    net_, reading_scaler_, n_iter_ : object
        The trained skorch net, whose ``history`` holds the losses per epoch, the
        standardization of the observables, and the epochs trained.

    %(n_features_in_)s

    See Also
    --------
    ODESurrogate : The default forward model.
    GradientInverter : Needs no training, but seconds per sample.

    Notes
    -----
    Particles move in quantiles of the prior, in which it is uniform on a cube. Training
    readings are drawn from the model's noise, at each truth's own params. A head of the
    network returns the covariance of a normal distribution of the probit of the
    quantiles, trained by maximum likelihood; its center is where the mean of the
    quantiles is where the particles end. What the data say nothing of is as the prior.

    Readings unlike all that the model produces get a :class:`MisfitWarning`, and wider
    errors: what is usual is learned from pairs held out, unless the model is exact. So do
    patterns of readings get an :class:`ExtrapolationWarning` that ``design`` leaves out.

    References
    ----------
    .. [1] "INO: Inverse neural operator for stiff ODE parameter recovery": amortized
       drifting model, stage 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import ADMInverter, Design, ODESurrogate, Training
    >>> rng = np.random.default_rng(0)
    >>> k = rng.uniform(0.5, 2.0, size=(400, 1))
    >>> t = np.linspace(0.0, 2.0, 8)
    >>> training = Training(max_epochs=20)
    >>> surrogate = ODESurrogate(noise=0.02, training=training, random_state=0)
    >>> inverter = ADMInverter(
    ...     surrogate, design=Design(n_observed=2), training=Training(max_epochs=30),
    ...     random_state=0,
    ... )
    >>> inverter = inverter.fit(np.exp(-k * t), k)
    >>> sparse = np.full((1, 8), np.nan)
    >>> sparse[0, [2, 5]] = np.exp(-1.2 * t[[2, 5]])
    >>> mean, std = inverter.predict(sparse, return_std=True)
    >>> bool(abs(mean[0, 0] - 1.2) < 3 * std[0, 0] < 0.5)
    True
    """

    _parameter_constraints: dict = AMORTIZED | {
        "kind": [StrOptions({"laplace", "learned"})],
        "max_solves": SOLVES,
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "gain": [Interval(Real, 0, None, closed="neither")],
        "n_particles": [Interval(Integral, 1, None, closed="left")],
        "synthetic_fraction": [Interval(Real, 0, 1, closed="both")],
        "rollout": ["boolean"],
        "width": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 0, None, closed="left")],
    }
    _trained_by_default = {"lr": 1e-3, "max_epochs": 100, "batch_size": 512}
    # Whose minimum is the posterior mean.
    _velocity_loss: type[torch.nn.Module] = torch.nn.MSELoss

    def __init__(
        self,
        model=None,
        *,
        design=None,
        training=None,
        kind="laplace",
        n_steps=20,
        gain=7.0,
        n_particles=1,
        synthetic_fraction=0.5,
        rollout=True,
        width=256,
        n_blocks=4,
        max_solves=0,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.design = design
        self.training = training
        self.kind = kind
        self.n_steps = n_steps
        self.gain = gain
        self.n_particles = n_particles
        self.synthetic_fraction = synthetic_fraction
        self.rollout = rollout
        self.width = width
        self.n_blocks = n_blocks
        self.max_solves = max_solves
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # --- how it is trained

    def _coupling(self):
        """Return options of DriftBatches that say what particles are drawn to."""
        return {}

    def _fit_net(self, train, valid, read, training, seeds, device):
        """Train the velocity, and the spread, on pools of particles."""
        weight_seed, pool_seed = seeds
        batch_size = min(training.batch_size, len(train))
        n_batches = math.ceil(len(train) / batch_size)
        some = read.scaler.restore(train.tensors[1][:1000]).cpu().numpy()
        error = np.nan_to_num(read.scaler.size_of(self.model_.error_, some))
        # What a residual is at the truth: noise, and the forward model's error.
        off = np.hypot(read.scaler.noise_size, error)
        residual_scale = 5 * np.maximum(off, 1e-3)
        # The worse the forward model, the less its trajectories are worth as truths.
        trust = max(0.0, 1 - 5 * float(np.sqrt(np.mean(error**2))))

        pools = {
            is_training: DriftBatches(
                dataset,
                training=is_training,
                drift=self._drift(),
                read=read.slots,
                batch_size=batch_size,
                n_batches=n_batches,
                synthetic=trust * self.synthetic_fraction,
                error=torch.as_tensor(error, device=device).float(),
                rollout=self.rollout,
                seed=pool_seed,
                **self._coupling(),
            )
            for is_training, dataset in ((True, train), (False, valid))
        }
        if self.rollout:
            training.callbacks = [MoveParticles(pools), *(training.callbacks or [])]
        return fit_net(
            partial(
                DriftNet,
                *self._net_sizes(train, read),
                torch.as_tensor(residual_scale).float(),
                width=self.width,
                n_blocks=self.n_blocks,
            ),
            partial(DriftLoss, self._velocity_loss),
            lambda dataset, training: pools[training],
            train,
            valid,
            n_batches=n_batches,
            verbose=self.verbose,
            desc="Training drift",
            seed=weight_seed,
            device=device,
            **training._loop(),
        )

    def _simulate_drifting(self, quantiles, inputs):
        """Return standardized trajectories at quantiles, by forward passes only."""
        with torch.no_grad():
            return self._simulate_scaled(self._to_scaled(quantiles), inputs)

    def _simulate_scaled(self, scaled, inputs):
        """Return standardized trajectories at scaled params, differentiably."""
        told = ()
        if inputs.shape[1]:
            told = (self.input_scaler_.from_scaled_tensor(inputs.double()),)
        trajectories = self.model_.forward(scaled, *told)
        return self.reading_scaler_.standardize(trajectories).float()

    def _calibrate(self, quantiles, readings, mask, inputs):
        """Learn from pairs held out how wide the spread must be."""
        self.calibration_ = np.ones(self.n_params_)
        if len(quantiles) >= MIN_CALIBRATION:
            truths = quantiles.double().cpu().numpy()
            answer = self._arrive(readings, mask, inputs)
            self.calibration_ = calibrate(truths, *answer)

    # --- how it answers

    def _arrive(self, readings, mask, inputs):
        """Return where particles end, and factors of the covariance of the probit."""
        module = self.net_.module_.to(mask.device)
        rng = np.random.default_rng(self._start_seed)
        starts = rng.random((self.n_particles, self.n_params_))
        slots = pick_slots(readings, mask, inputs, module.n_slots)
        return self._drift().arrive(module, slots, starts, verbose=self.verbose)

    def _drift(self):
        return Drift(self._simulate_drifting, self.n_steps, self.gain)

    def _answer(self, readings, noise_std, inputs):
        answer = super()._answer(readings, noise_std, inputs)
        answer.n_forward += self.n_particles * self.n_steps
        if self.kind == "learned":
            answer.n_iter += self.n_steps
        return answer

    def _learned(self, readings, inputs):
        estimate, factor = self._arrive(*self._prepare(readings, inputs))
        factor = self.calibration_[:, None] * factor
        spread = np.linalg.norm(factor, axis=2)
        # No posterior is wider than the prior, whose probit is standard normal.
        factor = factor / np.maximum(spread, 1)[..., None]
        return probit_center(estimate, np.minimum(spread, 1)), factor
