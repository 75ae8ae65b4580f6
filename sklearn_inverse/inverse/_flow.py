"""FlowInverter: amortized posteriors of any shape, by a conditional spline flow."""

from numbers import Integral

import numpy as np
import torch
from scipy.stats import chi2
from skorch.callbacks import GradientNormClipping

from sklearn_inverse.inverse._checked_search import N_CHECKS
from sklearn_inverse.inverse._generative import GENERATIVE, GenerativeInverter
from sklearn_inverse.networks._flow_net import FlowNet, MinusLogDensity
from sklearn_inverse.networks._probit import probit
from sklearn_inverse.networks._slots import Slots
from sklearn_inverse.optim._importance import N_ROUNDS, ROUND
from sklearn_inverse.utils._docs import shared_docs
from sklearn_inverse.utils._sklearn import Interval, Options

__all__ = ["FlowInverter"]

LEAST_SOLVES = N_CHECKS + N_ROUNDS * ROUND
MIN_CALIBRATION = 20  # held-out pairs below which the noise is left as it is
COMPARED = 200_000  # entries of stored trajectories that a sample is compared with


@shared_docs
class FlowInverter(GenerativeInverter):
    r"""Draw from posteriors of any shape at once, as learned from pairs (amortized).

    ``fit`` learns the density of the params given readings, as a conditional neural
    spline flow [1]_, by maximum likelihood on simulated pairs whose readings are drawn
    anew for every batch; ``posterior`` returns draws, of thousands of samples in seconds.
    It needs the forward model for a run per sample, which judges the answer, and none of
    its derivatives.

    Parameters
    ----------
    %(model)s

    %(design)s

    training : Training, default=None
        How the flow is trained: by default up to 100 epochs at ``lr=1e-3``, in batches of
        256, a tenth of the pairs held out, until 20 epochs have not bettered their
        likelihood.

    n_transforms, n_bins : int, default=2, 8
        Layers of monotone splines, and pieces of each.

    width, n_blocks : int, default=256, 3
        Width and number of residual blocks of the network that reads.

    n_draws : int, default=1000
        Draws per sample.

    max_solves : int, default=0
        Runs of the model per sample that may be spent on correcting the draws: they then
        propose to adaptive importance sampling, 10,000 are usual, and from 100,000 on
        Markov chains follow where its rounds do not agree.

    %(learning)s

    Attributes
    ----------
    %(model_)s

    calibration_ : float
        Factor on the noise that is drawn from which makes nine in ten of the held-out
        params as likely as nine in ten should be; one where fewer than 20 are held out.

    net_, reading_scaler_, n_iter_ : object
        The trained skorch net, whose ``history`` holds the losses per epoch, the
        standardization of the observables, and the epochs trained.

    %(n_features_in_)s

    See Also
    --------
    ADMInverter : Normal posteriors, exact where the model has derivatives.
    MCMCInverter : Draws without training, at thousands of runs per sample.

    Notes
    -----
    The flow lives in the prior's standard coordinate, so that draws keep to its support.
    It sees the readings beside those of the most similar stored training pair, and the
    way from there is what it learns.

    Readings unlike all that the model produces get a :class:`MisfitWarning`, and wide
    normal distributions instead of draws, as from :class:`ADMInverter`.

    References
    ----------
    .. [1] C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, "Neural spline flows",
       NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import FlowInverter, ForwardFunction, Training
    >>> model = ForwardFunction(lambda k: k**2, params={"k": (-1, 1)}, noise=0.05)
    >>> k = np.random.default_rng(0).uniform(-1, 1, (500, 1))
    >>> training = Training(lr=3e-3, batch_size=64, max_epochs=20)
    >>> inverter = FlowInverter(model, training=training, random_state=0).fit(k**2, k)
    >>> draws = inverter.posterior([[0.25]]).draws  # the sign is not known
    >>> np.quantile(draws, [0.1, 0.9]).round(1)
    array([-0.5,  0.5])
    """

    _parameter_constraints: dict = GENERATIVE | {
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
        "n_bins": [Interval(Integral, 2, None, closed="left")],
        "max_solves": [
            Options(Integral, {0}),
            Interval(Integral, LEAST_SOLVES, None, closed="left"),
        ],
    }
    _trained_by_default = {
        "lr": 1e-3,
        "max_epochs": 100,
        "batch_size": 256,
        "patience": 20,
    }
    _loss = MinusLogDensity
    _callbacks = (GradientNormClipping(5.0),)

    def __init__(
        self,
        model=None,
        *,
        design=None,
        training=None,
        n_transforms=2,
        n_bins=8,
        width=256,
        n_blocks=3,
        n_draws=1000,
        max_solves=0,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.design = design
        self.training = training
        self.n_transforms = n_transforms
        self.n_bins = n_bins
        self.width = width
        self.n_blocks = n_blocks
        self.n_draws = n_draws
        self.max_solves = max_solves
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _n_stored(self):
        return max(1000, COMPARED // (self.n_times_ * self.n_channels_))

    def _make_net(self, *sizes):
        noise = self.reading_scaler_.noise_size
        return FlowNet(
            *sizes,
            5 * torch.as_tensor(np.maximum(noise, 1e-3)).float(),
            width=self.width,
            n_blocks=self.n_blocks,
            n_transforms=self.n_transforms,
            n_bins=self.n_bins,
        )

    def _see(self, readings, mask, inputs, besides=None):
        seen = super()._see(readings, mask, inputs)
        pairs = self._pairs.to(mask.device)
        nearest = pairs.nearest(readings, mask, besides)
        residuals = Slots(**seen).residuals(pairs.trajectories[nearest])
        return {"particles": pairs.quantiles[nearest], "residuals": residuals} | seen

    def _task(self, z, rng):
        return {"z": z}, z

    def _calibrate(self, quantiles, readings, mask, inputs):
        self.calibration_ = 1.0
        if len(quantiles) >= MIN_CALIBRATION:
            module = self.net_.module_.to(mask.device)
            with torch.no_grad():
                seen = self._see(readings, mask, inputs)
                noise = module.noise_behind(probit(quantiles), **seen).double()
            length = np.quantile(noise.square().sum(dim=1).cpu().numpy(), 0.9)
            self.calibration_ = float(np.sqrt(length / chi2.ppf(0.9, noise.shape[1])))
