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
from sklearn.frozen import FrozenEstimator

from sklearn_inverse.exceptions import ExtrapolationWarning
from sklearn_inverse.inverse._amortized import AmortizedInverter, StoredPairs
from sklearn_inverse.networks._batches import split_pairs
from sklearn_inverse.networks._drift import Drift
from sklearn_inverse.networks._drift_batches import DriftBatches, MoveParticles
from sklearn_inverse.networks._drift_net import DriftLoss, DriftNet
from sklearn_inverse.networks._options import Design, Training
from sklearn_inverse.networks._probit import EDGE, calibrate, probit_center
from sklearn_inverse.networks._readings import ReadingScaler, ReadingSimulator
from sklearn_inverse.networks._slots import pick_slots
from sklearn_inverse.networks._training import fit_net
from sklearn_inverse.utils._docs import LEARNING, SOLVES, shared_docs
from sklearn_inverse.utils._options import NestedOptions
from sklearn_inverse.utils._sklearn import Interval, StrOptions, _fit_context
from sklearn_inverse.utils._torch import (
    as_tensor,
    generator,
    resolve_device,
    spawn_seeds,
)
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["ADMInverter"]

BEYOND = 0.01  # of the range of training inputs
MIN_CALIBRATION = 20  # held-out pairs below which the spread is left as learned
N_STORED = 1000  # pairs among which searches look for a start


@shared_docs
class ADMInverter(NestedOptions, AmortizedInverter):
    r"""Recover params by drifting particles with a learned velocity (amortized).

    ``fit`` trains a network :math:`F_\varphi` on simulated pairs; ``predict`` integrates

    .. math:: \frac{dk}{d\tau} = \lambda F_\varphi(k, \hat U(k) - u_{obs}, u_{obs}, \tau)

    from a random start to :math:`\tau = 1`, for thousands of samples at once. At each
    step it compares what the forward model gives at the particle, :math:`\hat U(k)`, with
    the readings, by forward runs alone. A few Gauss–Newton steps from there, or from the
    most similar of the training pairs, end at a posterior of the model.

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

    %(device)s

    %(random_state)s

    %(verbose)s

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
    >>> surrogate = ODESurrogate(noise=0.01, training=Training(max_epochs=20))
    >>> inverter = ADMInverter(surrogate, design=Design(n_observed=2), random_state=0)
    >>> inverter = inverter.fit(np.exp(-k * t), k)
    >>> sparse = np.full((1, 8), np.nan)
    >>> sparse[0, [2, 5]] = np.exp(-1.2 * t[[2, 5]])
    >>> mean, std = inverter.predict(sparse, return_std=True)
    >>> bool(abs(mean[0, 0] - 1.2) < 3 * std[0, 0] < 0.5)
    True
    """

    _parameter_constraints: dict = LEARNING | {
        "model": "no_validation",
        "design": [Design, None],
        "training": [Training, None],
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
    _option_types = {"design": Design, "training": Training}
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

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params, *, inputs=None):
        """Train on simulated pairs.

        1. Fit the forward model, unless it is fitted or exact. 2. Train the velocity on
        the way to the truth, and the spread on its likelihood. 3. Calibrate the spread
        on pairs held out. A KeyboardInterrupt in the second step ends it early and keeps
        what was learned, with a ConvergenceWarning, one in the first ends all; training
        that diverges is a ValueError.

        Parameters
        ----------
        %(pairs)s

        %(inputs)s

        Returns
        -------
        self : ADMInverter
            The trained inverter.
        """
        device = resolve_device(self.device)
        vars(self).pop("net_", None)
        trajectories, params, inputs = self._start_fit(observations, params, inputs)
        if self.model_.was_interrupted and not isinstance(self.model, FrozenEstimator):
            raise KeyboardInterrupt("The forward model was not trained to its end.")
        prior = self.model_.prior_
        prior.check_inside(params)
        training = (self.training or Training())._filled(
            lr=1e-3, max_epochs=100, batch_size=512, validation_fraction=0.1
        )
        design = (self.design or Design())._settle(
            self.n_times_, self.model_.observable_names_
        )
        split_seed, weight_seed, pool_seed, held_out_seed, self._start_seed = (
            spawn_seeds(self.random_state, 5)
        )

        self.reading_scaler_ = ReadingScaler(self.model_.noise_, trajectories)
        self.input_scaler_ = self.model_.scale_inputs(inputs)
        train, valid = split_pairs(
            prior.to_quantile(params),
            self.reading_scaler_.standardize(trajectories),
            self.input_scaler_.to_scaled(inputs),
            fraction=training.validation_fraction,
            seed=split_seed,
            device=device,
        )
        scaler = self.reading_scaler_
        read = ReadingSimulator(self.model_, scaler, self._to_params, *design)
        rng = generator(held_out_seed, device)
        read.settle(*train.tensors[:2], rng)
        known = ~train.tensors[1].isnan().all(dim=0).cpu().numpy()
        self._pattern = design[0], known & design[1]
        self.net_ = self._fit_velocity(
            train, valid, read, training, (weight_seed, pool_seed), device
        )
        self.n_iter_ = len(self.net_.history)
        some = slice(None, None, math.ceil(len(train) / N_STORED))
        stored = (part[some] for part in train.tensors[:2])
        self._pairs = StoredPairs(*stored, scaler.noise_size)
        self._calibrate(valid, read, rng)
        return self

    # --- how it is trained

    def _coupling(self):
        """Return options of DriftBatches that say what particles are drawn to."""
        return {}

    def _fit_velocity(self, train, valid, read, training, seeds, device):
        """Train the network on pools of particles."""
        weight_seed, pool_seed = seeds
        n_slots = read.n_observed[1]
        batch_size = min(training.batch_size, len(train))
        n_batches = math.ceil(len(train) / batch_size)
        some = read.scaler.restore(train.tensors[1][:1000]).cpu().numpy()
        error = np.nan_to_num(read.scaler.size_of(self.model_.error_, some))
        # What a residual is at the truth: noise, and the forward model's error.
        off = np.hypot(read.scaler.noise_size, error)
        residual_scale = 5 * np.maximum(off, 1e-3)
        # The worse the forward model, the less its trajectories are worth as truths.
        trust = max(0.0, 1 - 5 * float(np.sqrt(np.mean(error**2))))

        def read_slots(quantiles, trajectories, inputs, rng):
            return pick_slots(*read.draw(quantiles, trajectories, rng), inputs, n_slots)

        pools = {
            is_training: DriftBatches(
                dataset,
                training=is_training,
                drift=self._drift(),
                read=read_slots,
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
                n_slots,
                self.n_channels_,
                self.n_params_,
                train.tensors[2].shape[1],
                torch.linspace(0, 1, self.n_times_),
                train.tensors[1].nanmean(dim=0).nan_to_num(),
                read.scaler.spread,
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

    def _to_scaled(self, quantiles):
        """Return scaled params at a tensor of quantiles, off the ends of open supports."""
        prior = self.model_.prior_
        if not prior.is_quantile_scaled:
            quantiles = quantiles.double().clamp(EDGE, 1 - EDGE)
        return prior.quantile_to_scaled_tensor(quantiles)

    def _to_params(self, quantiles):
        """Return params in their own units at a tensor of quantiles."""
        scaled = self._to_scaled(quantiles.double())
        return self.model_.param_scaler_.from_scaled_tensor(scaled)

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

    def _calibrate(self, held_out, read, rng):
        """Learn from pairs held out how wide the spread must be, and what is unusual."""
        quantiles, trajectories, inputs = held_out.tensors
        self.calibration_ = np.ones(self.n_params_)
        readings, mask = read.draw(quantiles, trajectories, rng)
        if len(quantiles) >= MIN_CALIBRATION:
            truths = quantiles.double().cpu().numpy()
            answer = self._arrive(readings, mask, inputs)
            self.calibration_ = calibrate(truths, *answer)
        readings = read.scaler.restore(readings).where(mask > 0, torch.nan)
        told = self.input_scaler_.from_scaled_tensor(inputs.double()).cpu().numpy()
        read_at_all = (mask > 0).flatten(1).any(dim=1).cpu().numpy()
        self._learn_what_is_usual(
            readings.cpu().numpy()[read_at_all], told[read_at_all]
        )

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

    def _check_readings(self, observations):
        """Return observations to invert; warn of what the network will not see."""
        readings = super()._check_readings(observations)
        self.reading_scaler_.warn_of_far(readings)
        self._check_pattern(~np.isnan(readings))
        return readings

    def _check_pattern(self, seen):
        """Warn of samples that are read at other times, or of other observables."""
        (fewest, most), known = self._pattern
        n_times = seen.any(axis=2).sum(axis=1)
        at_times = seen.any(axis=2, keepdims=True)
        lacking = (at_times & known & ~seen).any(axis=(1, 2))
        foreign = (seen & ~known).any(axis=(1, 2))
        for what, strange, does in (
            ("denser", (n_times > most) | foreign, f"the network sees {most} of them"),
            ("sparser", (n_times < fewest) | lacking, "the network knows of none such"),
        ):
            if strange.any():
                range_of = f"{fewest} to {most}" if fewest < most else f"{most}"
                warn_user(
                    f"{strange.sum()} of {len(seen)} samples, the first in row "
                    f"{np.argmax(strange)}, are read in a {what} pattern than this "
                    f"inverter was trained for, {known.any(axis=0).sum()} observables at "
                    f"{range_of} times: {does}. Let `design` say how it will be.",
                    ExtrapolationWarning,
                )

    def _check_inputs(self, inputs, readings):
        """Return inputs of samples; warn of what no training pair was like."""
        inputs = super()._check_inputs(inputs, readings)
        scaled = self.input_scaler_.to_scaled(inputs)
        outside = ~((scaled > -BEYOND) & (scaled < 1 + BEYOND)).all(axis=1)
        if outside.any():
            warn_user(
                f"{outside.sum()} of {len(inputs)} samples have inputs outside the range "
                f"{self.input_scaler_.bounds.tolist()} that this inverter was trained "
                f"for, the first in row {np.argmax(outside)}: their params mean little.",
                ExtrapolationWarning,
            )
        return inputs

    def _answer(self, readings, noise_std, inputs):
        answer = super()._answer(readings, noise_std, inputs)
        answer.n_forward += self.n_particles * self.n_steps
        if self.kind == "learned":
            answer.n_iter += self.n_steps
        return answer

    def _learned(self, readings, inputs):
        device = resolve_device(self.device)
        prepared = self.reading_scaler_.prepare(readings, device)
        scaled = as_tensor(self.input_scaler_.to_scaled(inputs), device)
        estimate, factor = self._arrive(*prepared, scaled)
        factor = self.calibration_[:, None] * factor
        spread = np.linalg.norm(factor, axis=2)
        # No posterior is wider than the prior, whose probit is standard normal.
        factor = factor / np.maximum(spread, 1)[..., None]
        return probit_center(estimate, np.minimum(spread, 1)), factor

    @property
    def _draw_seed(self):
        return self._start_seed

    def __sklearn_is_fitted__(self):
        return "net_" in vars(self)
