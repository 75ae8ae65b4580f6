r"""FlowMatchingInverter: draws that a learned velocity carries from noise to params.

With :math:`x_\tau = (1 - \tau) x_0 + \tau k^*`, noise :math:`x_0` and true params
:math:`k^*`, a network v learns :math:`k^* - x_0` from :math:`x_\tau`, :math:`\tau` and
the readings, by mean squared error; :math:`dx / d\tau = v` turns noise into draws.
"""

from numbers import Integral

import torch
from torch import Tensor, nn

from sklearn_inverse.inverse._generative import GENERATIVE, GenerativeInverter
from sklearn_inverse.networks._layers import Linear, ResidualBlocks
from sklearn_inverse.networks._slots import (
    N_HARMONICS,
    SlotFeatures,
    Slots,
    harmonics,
)
from sklearn_inverse.utils._docs import shared_docs
from sklearn_inverse.utils._sklearn import Interval

__all__ = ["FlowMatchingInverter"]


@shared_docs
class FlowMatchingInverter(GenerativeInverter):
    """Draw params by conditional flow matching along straight paths [1]_, [2]_.

    The estimate is the mean over draws, as in [2]_, which leaves open what the network
    looks like and in which coordinate it works: here it reads as
    :class:`~sklearn_inverse.ADMInverter` does, without its residuals, in the prior's
    standard coordinate.

    Parameters
    ----------
    %(model)s

    %(design)s

    training : Training, default=None
        How the velocity is trained: by default 100 epochs at ``lr=1e-3``, in batches of
        256, a tenth of the pairs held out.

    n_steps : int, default=20
        Euler's steps from noise to a draw.

    n_draws : int, default=100
        Draws per sample.

    width, n_blocks : int, default=256, 4
        Width and number of residual blocks of the network.

    %(learning)s

    Attributes
    ----------
    %(model_)s

    net_, reading_scaler_, n_iter_ : object
        As of :class:`~sklearn_inverse.FlowInverter`.

    %(n_features_in_)s

    See Also
    --------
    sklearn_inverse.FlowInverter : Learns the density itself.

    References
    ----------
    .. [1] Y. Lipman, R. T. Q. Chen, H. Ben-Hamu, M. Nickel, M. Le, "Flow matching for
       generative modeling", ICLR 2023.
    .. [2] "INO: Inverse neural operator for stiff ODE parameter recovery": flow matching
       among its baselines.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import ForwardFunction, Training
    >>> from sklearn_inverse.baselines import FlowMatchingInverter
    >>> model = ForwardFunction(lambda k: k, params={"k": (0, 1)}, noise=0.2)
    >>> k = np.random.default_rng(0).uniform(size=(200, 1))
    >>> training = Training(max_epochs=5)
    >>> baseline = FlowMatchingInverter(model, training=training, random_state=0)
    >>> baseline.fit(k, k).posterior([[0.5]]).draws.shape
    (1, 100, 1)
    """

    _parameter_constraints: dict = GENERATIVE | {
        "n_steps": [Interval(Integral, 1, None, closed="left")],
    }
    _trained_by_default = {"lr": 1e-3, "max_epochs": 100, "batch_size": 256}
    _loss = nn.MSELoss

    def __init__(
        self,
        model=None,
        *,
        design=None,
        training=None,
        n_steps=20,
        n_draws=100,
        width=256,
        n_blocks=4,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.design = design
        self.training = training
        self.n_steps = n_steps
        self.n_draws = n_draws
        self.width = width
        self.n_blocks = n_blocks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _make_net(self, *sizes):
        options = {"width": self.width, "n_blocks": self.n_blocks}
        return FlowMatchingNet(*sizes, n_steps=self.n_steps, **options)

    def _task(self, z, rng):
        noise = torch.randn(z.shape, generator=rng, device=z.device)
        tau = torch.rand(len(z), 1, generator=rng, device=z.device)
        return {"x": (1 - tau) * noise + tau * z, "tau": tau[:, 0]}, z - noise


class FlowMatchingNet(nn.Module):
    """Velocity of draws on their way from noise to params, given readings.

    Parameters
    ----------
    n_slots, n_channels, n_params, n_inputs, width, n_blocks : int
        Sizes.

    times, mean, spread : Tensor
        As of :class:`SlotFeatures`.

    n_steps : int
        Steps from noise to a draw.
    """

    def __init__(
        self,
        n_slots,
        n_channels,
        n_params,
        n_inputs,
        times,
        mean,
        spread,
        *,
        n_steps,
        width,
        n_blocks,
    ):
        super().__init__()
        self.n_steps = n_steps
        self.see = SlotFeatures(times, mean, spread)
        self.read = Linear(n_slots * self.see.n_features + n_inputs, width)
        self.condition = Linear(n_params + 2 * N_HARMONICS, width, bias=False)
        self.blocks = ResidualBlocks(width, n_blocks)
        self.velocity = Linear(width, n_params)

    def forward(self, x: Tensor, tau: Tensor, **slots) -> Tensor:
        """Return velocities at x (n_samples, n_params) and times tau (n_samples,)."""
        return self._velocity(self._read(**slots), x, tau)

    def draw(self, noise: Tensor, **slots) -> Tensor:
        """Return standard params (n_samples, n_draws, n_params), one for each noise."""
        known = self._read(**slots)[:, None]
        x = noise.expand(len(known), -1, -1)
        for step in range(self.n_steps):
            tau = noise.new_full((1, 1), step / self.n_steps)
            x = x + self._velocity(known, x, tau) / self.n_steps
        return x

    def _read(self, **slots):
        readings = self.see(Slots(**slots)).flatten(1)
        return self.read(torch.cat([readings, 2 * slots["inputs"] - 1], dim=1))

    def _velocity(self, known, x, tau):
        at = harmonics(tau).expand(*x.shape[:-1], -1)
        h = known + self.condition(torch.cat([x, at], dim=-1))
        return self.velocity(self.blocks(h))
