"""IFNOInverter: an invertible Fourier neural operator, learned in both directions."""

from numbers import Integral, Real

import torch
from torch import nn

from sklearn_inverse.baselines._single_pass import SinglePassInverter
from sklearn_inverse.networks._ifno import IFNO
from sklearn_inverse.utils._docs import shared_docs
from sklearn_inverse.utils._sklearn import Interval

__all__ = ["IFNOInverter"]


@shared_docs
class IFNOInverter(SinglePassInverter):
    r"""Recover params by an invertible Fourier neural operator [1]_, in one pass.

    The same blocks are trained as emulator (params to trajectory) and, backwards, as
    inverse (readings to params), with a :math:`\beta`-variational autoencoder behind.

    Parameters
    ----------
    %(model)s

    %(design)s

    training : Training, default=None
        How the network is trained: by default 100 epochs at ``lr=1e-3``, in batches of
        64.

    width, n_layers, n_modes : int, default=64, 3, 16
        Features per time, an even number; invertible blocks; Fourier modes kept.

    n_latent : int, default=None
        Latent variables of the autoencoder. If None, as many as params.

    beta : float, default=1e-3
        Weight of the divergence between its latent distribution and a standard normal
        one.

    %(learning)s

    Attributes
    ----------
    %(model_)s

    net_ : skorch net
        The learned network.

    reading_scaler_ : ReadingScaler
        Standardization of the observables.

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    NIOInverter : Learns the inverse alone.

    Notes
    -----
    As published: the blocks, with :math:`S(x) = \mathrm{GELU}(\mathrm{MLP}(F^{-1} R F x)
    + \mathrm{conv}(x))`, both lifts and both projections, relative L2 losses forward and
    backward, mean squares for the reconstructions by lift and projection alone. INO, which
    compares with it on ODEs, says nothing of sizes or of how params become functions
    [OPEN]. Decided here: params are constant functions of time, and what is recovered is
    the mean over time; the autoencoder is dense; L2 norms are those of a batch, since the
    params of one sample may be near zero; all losses are summed and learned at once,
    where the paper trains operator and autoencoder first apart.

    References
    ----------
    .. [1] D. Long, Z. Xu, Q. Yuan, Y. Yang, S. Zhe, "Invertible Fourier neural operators
       for tackling both forward and inverse problems", AISTATS 2025.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_inverse import ForwardFunction, Training
    >>> from sklearn_inverse.baselines import IFNOInverter
    >>> t = torch.linspace(0, 2, 8)
    >>> model = ForwardFunction(
    ...     lambda rate: torch.exp(-rate * t), params={"rate": (0.5, 2.0)}, noise=0.2
    ... ).fit(None)
    >>> rate = np.random.default_rng(0).uniform(0.5, 2.0, (200, 1))
    >>> inverter = IFNOInverter(model, training=Training(max_epochs=5), random_state=0)
    >>> inverter.fit(model.simulate(rate), rate).predict(model.simulate([[1.2]])).shape
    (1, 1)
    """

    _parameter_constraints: dict = SinglePassInverter._parameter_constraints | {
        "width": [Interval(Integral, 2, None, closed="left")],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "n_modes": [Interval(Integral, 1, None, closed="left")],
        "n_latent": [Interval(Integral, 1, None, closed="left"), None],
        "beta": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        model=None,
        *,
        design=None,
        training=None,
        width=64,
        n_layers=3,
        n_modes=16,
        n_latent=None,
        beta=1e-3,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.design = design
        self.training = training
        self.width = width
        self.n_layers = n_layers
        self.n_modes = n_modes
        self.n_latent = n_latent
        self.beta = beta
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _module(self):
        names = ("width", "n_layers", "n_modes", "beta")
        options = {name: getattr(self, name) for name in names}
        return IFNO(*self._sizes, n_latent=self.n_latent or self.n_params_, **options)

    def _lesson(self, quantiles, trajectories, seen, rng):
        size = len(quantiles), self.n_latent or self.n_params_
        return {
            "quantiles": quantiles,
            "trajectories": trajectories,
            "readings": seen["readings"],
            "mask": seen["mask"],
            "noise": torch.randn(size, generator=rng, device=quantiles.device),
        }

    @staticmethod
    def _loss():
        return Total()


class Total(nn.Module):
    """Sum of losses that the module has computed itself."""

    def forward(self, losses, target):
        """Return it; the target is among what the losses are of."""
        return losses.sum()
