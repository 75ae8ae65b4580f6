"""NeuralAdjointInverter: learn params to readings, and run that network backwards."""

import copy
from functools import partial
from itertools import pairwise
from numbers import Integral

import torch
from torch import Tensor, nn

from sklearn_inverse.inverse._search import SearchInverter
from sklearn_inverse.networks._batches import tensor_dataset
from sklearn_inverse.networks._options import Training
from sklearn_inverse.networks._reading_net import fit_even, waves
from sklearn_inverse.networks._readings import ReadingScaler
from sklearn_inverse.optim._lbfgs import lbfgs
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._docs import SEARCHING, shared_docs
from sklearn_inverse.utils._options import NestedOptions
from sklearn_inverse.utils._sklearn import Interval, _fit_context
from sklearn_inverse.utils._torch import spawn_seeds

__all__ = ["NeuralAdjointInverter"]

OCTAVES = 7  # of waves in each param that the network is shown
EDGE = 1e-6  # quantiles nearer to 0 or 1 count as this
TOL = 1e-6


@shared_docs
class NeuralAdjointInverter(NestedOptions, SearchInverter):
    """Recover params by gradients through a network learned from pairs [1]_.

    Learns params to readings, inverts that network from many starts by L-BFGS, with
    walls around the quantiles of the prior, and keeps the start that it reproduces the
    readings with best. The forward model only judges the estimates.

    Parameters
    ----------
    %(model)s

    width : int, default=64
        Width of the four hidden layers.

    training : Training, default=None
        How the network is trained: by default 50 epochs at ``lr=3e-3``, in batches of
        64.

    n_starts : int, default=64
        Starts per sample: the center of the prior and draws from it.

    max_iter : int, default=300
        Most iterations of a start.

    %(chunk_size)s

    %(n_jobs)s

    %(learning)s

    Attributes
    ----------
    %(model_)s

    net_ : skorch net
        The learned network.

    reading_scaler_ : ReadingScaler
        Standardization of the observables.

    input_scaler_ : ParamScaler
        Map of the inputs to scaled ones.

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    ReparamJointInverter : Learns the other way round.

    References
    ----------
    .. [1] S. Ren, W. Padilla, J. Malof, "Benchmarking deep inverse models over time, and
       the neural-adjoint method", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_inverse import ForwardFunction
    >>> from sklearn_inverse.baselines import NeuralAdjointInverter
    >>> t = torch.linspace(0, 2, 8)
    >>> model = ForwardFunction(
    ...     lambda rate: torch.exp(-rate * t), params={"rate": (0.5, 2.0)}, noise=0.02
    ... ).fit(None)
    >>> rate = np.random.default_rng(0).uniform(0.5, 2.0, (200, 1))
    >>> inverter = NeuralAdjointInverter(model, n_starts=4, random_state=0)
    >>> inverter.fit(model.simulate(rate), rate).predict(model.simulate([[1.2]])).round(1)
    array([[1.2]])
    """

    _parameter_constraints: dict = {
        **SEARCHING,
        "model": "no_validation",
        "width": [Interval(Integral, 1, None, closed="left")],
        "training": [Training, None],
        "n_starts": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }
    _parameter_constraints.pop("prior")
    _option_types = {"training": Training}
    _needs_pairs = True
    prior = None  # no more than where starts are drawn

    def __init__(
        self,
        model=None,
        *,
        width=64,
        training=None,
        n_starts=64,
        max_iter=300,
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.width = width
        self.training = training
        self.n_starts = n_starts
        self.max_iter = max_iter
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params, *, inputs=None):
        """Learn params to readings, and invert the first sample as a trial.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Simulated trajectories, NaN where one is unknown.

        params : array-like of shape (n_samples, n_params) or (n_samples,)
            Params that produced them, in their own units.

        %(inputs)s

        Returns
        -------
        self : NeuralAdjointInverter
            The trained inverter.
        """
        trajectories, params, inputs = self._start_fit(observations, params, inputs)
        device = self._device
        training = (self.training or Training())._filled(
            lr=3e-3, max_epochs=50, batch_size=64
        )
        self.reading_scaler_ = ReadingScaler(self.model_.noise_, trajectories)
        quantiles = self.model_.prior_.to_quantile(params)
        standardized = self.reading_scaler_.standardize(trajectories)
        self.input_scaler_ = self.model_.scale_inputs(inputs)
        told = self.input_scaler_.to_scaled(inputs)
        pairs = tensor_dataset(quantiles, standardized, told, device=device)

        def draw(index, rng):
            quantiles, target, told = (part[index] for part in pairs.tensors)
            return {"quantiles": quantiles, "inputs": told}, target

        shape = self.n_times_, self.n_channels_, self.n_params_ + told.shape[1]
        self.net_ = fit_even(
            partial(AdjointNet, *shape, width=self.width),
            pairs,
            draw,
            training=training,
            seeds=spawn_seeds(self.random_state, 4)[2:],
            device=device,
            verbose=self.verbose,
            desc="Training adjoint",
        )
        return self._try_out(trajectories, inputs)

    def _check_readings(self, observations):
        """Return observations to invert; warn of what the network will not see."""
        readings = super()._check_readings(observations)
        self.reading_scaler_.warn_of_far(readings)
        return readings

    def _search(self, objective):
        prior, readings = self.model_.prior_, objective.readings
        n_samples, n_starts, device = len(readings), self.n_starts, readings.device
        starts = prior.scaled_to_quantile(self._starts(n_starts).cpu().numpy())
        starts = torch.as_tensor(starts, device=device).repeat(n_samples, 1)
        everyone = torch.arange(n_samples, device=device)
        prepared = self.reading_scaler_.prepare(readings.cpu().numpy(), device)
        told = self.input_scaler_.to_scaled_tensor(objective.inputs)
        # In double precision: single rounds by how many rows there are, and which of
        # several starts ends best is a question of the last digits.
        misfit = AdjointMisfit(
            copy.deepcopy(self.net_.module_).to(starts),
            *(part.double() for part in (*prepared, told)),
            everyone.repeat_interleave(n_starts),
        )
        end = lbfgs(misfit, starts, max_iter=self.max_iter, tol=TOL)
        best = end.value.reshape(n_samples, -1).argmin(dim=1) + everyone * n_starts
        quantiles = end.x[best].clamp(EDGE, 1 - EDGE)
        x, first = (
            objective.with_scales(prior.quantile_to_scaled_tensor(u), everyone)
            for u in (quantiles, starts[::n_starts])
        )
        n_iter = end.n_iter.reshape(n_samples, -1).sum(dim=1)
        stopped = (end.status == InversionStatus.INTERRUPTED).reshape(n_samples, -1)
        status = torch.where(
            stopped.any(dim=1), int(InversionStatus.INTERRUPTED), end.status[best]
        )
        none = torch.zeros_like(everyone)
        return self._estimate(objective, x, first, n_iter, status, none)


class AdjointNet(nn.Module):
    """Quantiles of the params, and scaled inputs, to standardized readings.

    Dense layers with batch norm see these through waves of ever shorter length
    (positional encoding): without, trajectories that oscillate as a param varies are not
    learned at all.

    Parameters
    ----------
    n_times, n_channels, n_told : int
        Shape of a trajectory, and number of params and inputs.

    width : int
        Width of the four hidden layers.
    """

    def __init__(self, n_times, n_channels, n_told, *, width):
        super().__init__()
        widths = [n_told * (1 + 2 * OCTAVES)] + 4 * [width]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())
                for a, b in pairwise(widths)
            ),
            nn.Linear(width, n_times * n_channels),
            nn.Unflatten(1, (n_times, n_channels)),
        )

    def forward(self, quantiles: Tensor, inputs: Tensor) -> Tensor:
        """Return standardized readings (n_samples, n_times, n_channels)."""
        told = torch.cat([quantiles, inputs], dim=1)
        return self.layers(waves(2 * told - 1, OCTAVES))


class AdjointMisfit:
    r"""Misfit of a learned network S, with walls around the quantiles.

    .. math:: \operatorname{mean}\,(S(u) - y)^2
              + \textstyle\sum \mathrm{relu}(|u - \tfrac12| - \tfrac12)

    Parameters
    ----------
    module : nn.Module
        Quantiles to standardized readings.

    readings, mask : Tensor of shape (n_samples, n_times, n_channels)
        Standardized readings and 1 where they were made.

    inputs : Tensor of shape (n_samples, n_inputs)
        Scaled inputs.

    sample : Tensor of shape (n_rows,)
        Which sample each row belongs to.
    """

    def __init__(self, module, readings, mask, inputs, sample):
        self.module, self.sample = module, sample
        self.readings, self.inputs = readings, inputs
        self.weights = mask / mask.sum(dim=(1, 2), keepdim=True)

    def __call__(self, quantiles, rows):
        """Return value and gradient of the problems at ``rows``."""
        sample = self.sample[rows]
        with torch.enable_grad():
            quantiles = quantiles.detach().requires_grad_()
            off = self.module(quantiles, self.inputs[sample]) - self.readings[sample]
            misfit = (off.square() * self.weights[sample]).sum(dim=(1, 2))
            value = misfit + ((quantiles - 0.5).abs() - 0.5).relu().sum(dim=1)
            (gradient,) = torch.autograd.grad(value.sum(), quantiles)
        return value.detach(), gradient
