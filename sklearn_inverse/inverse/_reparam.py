"""ReparamJointInverter: many inverse problems at once, through one network."""

import copy
from numbers import Integral, Real

import torch

from sklearn_inverse.inverse._reparam_search import (
    Guess,
    as_it_is,
    best_drawn,
    place,
    refine_best,
    standard,
    teach,
    train_jointly,
)
from sklearn_inverse.inverse._taught import TaughtInverter
from sklearn_inverse.networks._batches import in_chunks
from sklearn_inverse.networks._reading_net import NETWORKS, ReadingNet
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._docs import SEARCHING, shared_docs
from sklearn_inverse.utils._sklearn import Interval, StrOptions, _fit_context
from sklearn_inverse.utils._torch import SeededInit, spawn_seeds

__all__ = ["ReparamJointInverter"]

EPOCHS, BATCHES, BATCH = 50, 1000, 64  # of training on pairs: both at least
ROUNDS, DRAWS = 3, 1024  # of searching on, and of the prior in each, at most


@shared_docs
class ReparamJointInverter(TaughtInverter):
    r"""Recover the params of many samples together, through one network.

    A network maps readings, and inputs where there are any, to quantiles of the params,
    and is trained on the very samples to be inverted, through the forward model:

    .. math:: \min_\theta \sum_i \Phi_i(N(y_i, x_i; \theta))

    with :math:`\Phi_i` minus the log posterior of sample i. Samples that have many local
    optima each, or no gradient, share what they learn. Each is then refined on its own.

    Parameters
    ----------
    %(model)s

    mode : {"joint", "supervised"}, default="joint"
        - "joint": train a copy of the network on all samples given to ``predict``, full
          batch; an estimate depends on its companions;
        - "supervised": what the network trained on the pairs says.

    refine : bool, default=True
        Whether to polish each estimate by L-BFGS on its own posterior. In "joint" mode
        the guess before joint training and the center of the prior are polished beside,
        and the best of all is kept, sample by sample. Where readings remain unexplained,
        so are the guess of a network that the answers to the others have taught and the
        best of up to 1,024 draws from the prior, in three rounds at most. Draws take no
        more runs than joint training may. False gives the bare estimates.

    refine_iter : int, default=100
        Most iterations of the refinement.

    refine_step : float, default=0.01
        Longest step of the refinement, in quantiles of the prior. Longer ones leap from a
        guess near the global optimum to other optima.

    network : {"conv1d", "conv2d", "mlp"} or nn.Module, default="conv1d"
        - "conv1d": five convolutions over time and two dense layers;
        - "conv2d": convolutions over times and observables, where these are in order,
          as values of a field are;
        - "mlp": three hidden layers with sigmoids, which see readings through waves;
        - or a module: ``module(readings, mask, inputs)`` of standardized readings, zero
          where there is none, 1 where there is one, both (n_samples, n_times,
          n_channels), and scaled inputs (n_samples, n_inputs) returns h of shape
          (n_samples, n_params), whose :math:`\tfrac12 (1 + \tanh h)` are quantiles.

    lr : float, default=3e-3
        First learning rate of joint training; when the loss rises or stops to fall, it is
        halved and training goes back to the best weights, five times at most.

    max_iter : int, default=300
        Most iterations of joint training, each one run of the forward model for all
        samples.

    %(design)s

    training : Training, default=None
        How the network is trained on the pairs: by default 50 epochs at ``lr=3e-3``, or
        as many as make 1,000 batches of 64. ``training__max_epochs=0`` leaves "joint" to
        begin with random weights, the plain method of the paper [1]_, without pairs.

    chunk_size : int, default=64
        Samples inverted together in "supervised" mode; "joint" takes all.

    %(learning)s

    Attributes
    ----------
    %(model_)s

    net_ : skorch net
        The network as the pairs have left it; ``predict`` trains copies.

    reading_scaler_, input_scaler_ : ReadingScaler, ParamScaler
        How the network sees observables and inputs.

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    GradientInverter : One sample at a time, with an uncertainty.
    ADMInverter : Amortized, without derivatives of the forward model.

    Notes
    -----
    No uncertainty is offered. In "joint" mode estimates depend on their companions, and
    all samples are held in memory together; the same batch gives the same answer. What is
    kept of joint training is, sample by sample, the best params passed on the way.

    References
    ----------
    .. [1] P. Holl, N. Thuerey, "The unreasonable effectiveness of solving inverse
       problems with neural networks", arXiv:2408.08119: reparameterized joint
       optimization.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_inverse import ForwardFunction, ReparamJointInverter, Training
    >>> t = torch.linspace(0, 2, 8)
    >>> model = ForwardFunction(
    ...     lambda rate: torch.exp(-rate * t), params={"rate": (0.5, 2.0)}, noise=0.01
    ... ).fit(None)
    >>> rate = np.random.default_rng(0).uniform(0.5, 2.0, (200, 1))
    >>> inverter = ReparamJointInverter(
    ...     model, max_iter=20, training=Training(max_epochs=5), random_state=0
    ... ).fit(model.simulate(rate), rate)
    >>> readings = model.simulate([[1.2]])
    >>> readings[0, [1, 4]] = np.nan
    >>> inverter.predict(readings).round(2)
    array([[1.2]])
    """

    _advice = "raise `training__max_epochs`"

    _parameter_constraints: dict = {
        **TaughtInverter._parameter_constraints,
        "chunk_size": SEARCHING["chunk_size"],
        "mode": [StrOptions({"joint", "supervised"})],
        "refine": ["boolean"],
        "refine_iter": [Interval(Integral, 1, None, closed="left")],
        "refine_step": [Interval(Real, 0, 1, closed="right")],
        "network": [StrOptions(set(NETWORKS)), torch.nn.Module],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }
    prior, n_jobs = "model", 1  # those of its samples

    def __init__(
        self,
        model=None,
        *,
        mode="joint",
        refine=True,
        refine_iter=100,
        refine_step=0.01,
        network="conv1d",
        lr=3e-3,
        max_iter=300,
        design=None,
        training=None,
        chunk_size=64,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.mode = mode
        self.refine = refine
        self.refine_iter = refine_iter
        self.refine_step = refine_step
        self.network = network
        self.lr = lr
        self.max_iter = max_iter
        self.design = design
        self.training = training
        self.chunk_size = chunk_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params=None, *, inputs=None):
        """Train the network on simulated pairs, and invert the first sample as a trial.

        A KeyboardInterrupt ends the training under way and keeps what was learned, with
        a ConvergenceWarning. Where the network is not trained, observations are readings
        of the kind to be inverted, and ``params`` may be None.

        Parameters
        ----------
        %(pairs)s

        %(inputs)s

        Returns
        -------
        self : ReparamJointInverter
            The inverter, ready to answer.
        """
        trajectories, params, inputs = self._start_fit(observations, params, inputs)
        n_epochs = max(EPOCHS, BATCHES // max(len(trajectories) // BATCH, 1))
        return self._learn(trajectories, params, inputs, lr=3e-3, max_epochs=n_epochs)

    def _module(self):
        n_inputs = len(self.model_.input_names_)
        sizes = self.n_times_, self.n_channels_, n_inputs, self.n_params_
        return ReadingNet(self.network, *sizes)

    @property
    def _needs_pairs(self):
        untrained = self.training is not None and self.training.max_epochs == 0
        return self.mode == "supervised" or not untrained

    @property
    def _ends_by_converging(self):
        return self.refine

    def _chunk_length(self, n_samples):
        """All samples at once where they share a network that they train."""
        return n_samples if self.mode == "joint" else self.chunk_size

    def _search(self, objective):
        device, readings = objective.readings.device, objective.readings.cpu().numpy()
        told = self.input_scaler_.to_scaled_tensor(objective.inputs).float()
        seen = *self.reading_scaler_.prepare(readings, device), told
        everyone = torch.arange(len(readings), device=device)
        is_joint, is_trained = self.mode == "joint", len(self.net_.history) > 0
        if is_joint:
            guess = self._train(objective, seen, self.net_.module_, is_trained)
        else:
            with torch.no_grad():
                z = standard(in_chunks(self.net_.module_.to(device), *seen))
            guess = Guess(z, z, 0, False)
        if guess.interrupted or not self.refine:
            end = as_it_is(objective, guess)
        else:
            starts = [guess.z, guess.first] if is_joint else [guess.z]
            end = self._refine(objective, everyone, starts, from_center=is_joint)
            if is_joint and not self._is_trial:
                end = self._go_on(objective, seen, end, everyone)
        first = place(objective, guess.first, everyone)
        n_iter = guess.n_iter + end.n_iter
        return self._estimate(objective, end.x, first, n_iter, end.status, end.n_failed)

    def _go_on(self, objective, seen, end, everyone):
        """Search on where readings are unexplained, taught by the answers to others."""
        draws = self._starts(ROUNDS * DRAWS, first="random").split(DRAWS)
        rest = everyone
        for seed, drawn in zip(spawn_seeds(self._start_seed, ROUNDS), draws):
            if (end.status == InversionStatus.INTERRUPTED).any():
                break
            try:
                explained = objective.judge(end.x, everyone).explained
                rest = everyone[~explained]
                if len(rest) == 0:
                    break
                with SeededInit(seed):
                    network = self._module().to(rest.device)
                known = torch.special.ndtr(end.z).where(explained[:, None], torch.nan)
                taught = teach(network, seen, known, lr=self.lr, max_iter=self.max_iter)
                n_drawn = self.max_iter * len(everyone) // (ROUNDS * len(rest)) + 1
                drawn = best_drawn(objective, drawn[:n_drawn], rest)
                more = self._refine(objective, rest, [taught[rest], drawn])
                end = end.bettered(rest, more)
            except KeyboardInterrupt:
                end.status[rest] = int(InversionStatus.INTERRUPTED)
        return end

    def _refine(self, objective, sample, starts, from_center=False):
        # A guess is trusted to be near: its refinement must not leap away.
        candidates = [(z, self.refine_step) for z in starts]
        if from_center:
            candidates.append((torch.zeros_like(starts[0]), torch.inf))
        off, n_iter = min(self.refine_step, 0.01), self.refine_iter
        return refine_best(objective, sample, candidates, max_iter=n_iter, off=off)

    def _train(self, objective, seen, network, is_trained):
        """Train a copy of a network on the posteriors of all samples."""
        network = copy.deepcopy(network).to(seen[0].device)
        # A network that was never trained has no statistics of its own to normalize
        # by; those of one sample alone would be of variance zero.
        network.train(not is_trained and len(seen[0]) > 1)
        options = {"lr": self.lr, "max_iter": self.max_iter, "verbose": self.verbose}
        return train_jointly(network, seen, objective, **options)
