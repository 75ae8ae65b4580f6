r"""NIOInverter: the neural inverse operator, one pass from a set of readings to params.

Each reading :math:`(t_i, u(t_i))` is the input of a DeepONet, whose output is a function
:math:`f_i` of time; the L functions are mixed by weights that they share, and an FNO maps
what comes out to the params:

.. math:: h(t) = \tfrac1L \sum_{i=1}^L W f_i(t) + V t + b, \qquad
          k = \mathrm{head}(\mathrm{FNO}(h)).
"""

from numbers import Integral

import torch
from torch import Tensor, nn

from sklearn_inverse.baselines._single_pass import SinglePassInverter
from sklearn_inverse.networks._cfno import Block
from sklearn_inverse.networks._conditional import harmonics_of
from sklearn_inverse.networks._deeponet import DeepONet
from sklearn_inverse.networks._layers import Linear
from sklearn_inverse.networks._slots import pick_slots
from sklearn_inverse.utils._docs import shared_docs
from sklearn_inverse.utils._sklearn import Interval

__all__ = ["NIOInverter"]

BRANCH, TRUNK = 3 * (64,), 8 * (256,)  # hidden layers, those of the release
FEWEST = 2  # readings of a random batch


@shared_docs
class NIOInverter(SinglePassInverter):
    """Recover params by a neural inverse operator [1]_, in one pass.

    A DeepONet of each reading, a mean over readings that does not know their order, and
    an FNO. In training it is shown random subsets of each sample's readings, drawn with
    replacement ("randomized batching").

    Parameters
    ----------
    %(model)s

    %(design)s

    training : Training, default=None
        How the network is trained: by default 100 epochs at ``lr=1e-3``, in batches of
        64.

    n_basis : int, default=50
        Basis functions of the DeepONet, on which all that is told by readings passes.

    width, n_layers, n_modes : int, default=64, 1, 16
        Features per time, Fourier layers, and Fourier modes kept.

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
    IFNOInverter : Learns both directions at once.

    Notes
    -----
    As published: L1 loss, shared weights over L, subsets of 2 to L readings, default
    sizes. The paper recovers functions of space from boundary data; INO, which
    compares with it on ODEs, says nothing of how [OPEN]. Decided here: a reading is one
    time with all of its observables; functions live on the model's own time grid; the
    params are linear in the last features over all times; what is learned are quantiles
    of the prior; there is no batch norm, since readings are too few.

    References
    ----------
    .. [1] R. Molinaro, Y. Yang, B. Engquist, S. Mishra, "Neural inverse operators for
       solving PDE inverse problems", ICML 2023.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_inverse import ForwardFunction, Training
    >>> from sklearn_inverse.baselines import NIOInverter
    >>> t = torch.linspace(0, 2, 8)
    >>> model = ForwardFunction(
    ...     lambda rate: torch.exp(-rate * t), params={"rate": (0.5, 2.0)}, noise=0.2
    ... ).fit(None)
    >>> rate = np.random.default_rng(0).uniform(0.5, 2.0, (200, 1))
    >>> inverter = NIOInverter(model, training=Training(max_epochs=5), random_state=0)
    >>> inverter.fit(model.simulate(rate), rate).predict(model.simulate([[1.2]])).shape
    (1, 1)
    """

    _parameter_constraints: dict = SinglePassInverter._parameter_constraints | {
        name: [Interval(Integral, 1, None, closed="left")]
        for name in ("n_basis", "width", "n_layers", "n_modes")
    }

    def __init__(
        self,
        model=None,
        *,
        design=None,
        training=None,
        n_basis=50,
        width=64,
        n_layers=1,
        n_modes=16,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.design = design
        self.training = training
        self.n_basis = n_basis
        self.width = width
        self.n_layers = n_layers
        self.n_modes = n_modes
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _module(self):
        names = ("n_basis", "width", "n_layers", "n_modes")
        return NIO(*self._sizes, **{name: getattr(self, name) for name in names})

    def _lesson(self, quantiles, trajectories, seen, rng):
        slots = pick_slots(**seen, n_slots=self._n_slots)
        drawn = draw_subsets(slots.mask.amax(dim=2), rng)
        each = torch.arange(len(drawn), device=drawn.device)[:, None]
        names = ("time_index", "readings", "mask")
        return {name: getattr(slots, name)[each, drawn] for name in names}


def draw_subsets(seen: Tensor, rng: torch.Generator) -> Tensor:
    """Draw indices (n_samples, n_drawn) of readings, with replacement.

    ``seen`` (n_samples, n_slots) is 1 where there is a reading. How many are drawn, 2 to
    all, is drawn for the whole batch.
    """
    n_slots, device = seen.shape[1], seen.device
    fewest = min(FEWEST, n_slots)
    n_drawn = torch.randint(fewest, n_slots + 1, (), generator=rng, device=device)
    any_seen = seen.any(dim=1, keepdim=True)
    weight = torch.where(any_seen, seen, 1.0)
    return weight.multinomial(int(n_drawn), replacement=True, generator=rng)


class NIO(nn.Module):
    """A set of readings to quantiles of the params.

    Parameters
    ----------
    times : Tensor of shape (n_times,)
        Time grid scaled to [0, 1].

    n_channels, n_params : int
        Sizes.

    spread : Tensor of shape (n_channels,)
        Spread of standardized readings.

    n_basis, width, n_layers, n_modes : int
        As of :class:`NIOInverter`.
    """

    spread: Tensor
    harmonics: Tensor

    def __init__(
        self, times, n_channels, n_params, spread, *, n_basis, width, n_layers, n_modes
    ):
        super().__init__()
        n_times = len(times)
        self.register_buffer("spread", spread)
        self.register_buffer("harmonics", harmonics_of(times))
        n_features = self.harmonics.shape[1]
        self.of_reading = DeepONet(
            2 * n_channels + n_features,
            self.harmonics,
            1,
            n_basis,
            branch=BRANCH,
            trunk=TRUNK,
        )
        self.mix = Linear(1 + n_features, width)
        self.blocks = nn.ModuleList(
            Block(n_times, width, n_modes, 0, film=False, norm=None)
            for _ in range(n_layers)
        )
        self.head = nn.Sequential(nn.Flatten(), Linear(n_times * width, n_params))

    def forward(self, time_index: Tensor, readings: Tensor, mask: Tensor) -> Tensor:
        """Return quantiles (n_samples, n_params), not yet clipped to [0, 1].

        Parameters
        ----------
        time_index : Tensor of int of shape (n_samples, n_readings)
            When each reading was made.

        readings, mask : Tensor of shape (n_samples, n_readings, n_channels)
            Standardized readings, and 1 where there are any, else 0.
        """
        at = self.harmonics[time_index]
        branch = self.of_reading.branch(
            torch.cat([readings / self.spread * mask, mask, at], dim=2)
        )
        # The mean of the functions is the function of the mean coefficients.
        seen = mask.amax(dim=2, keepdim=True)
        mean = (branch * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)
        functions = self.of_reading.combine(mean)
        grid = self.harmonics.expand(len(functions), -1, -1)
        z = self.mix(torch.cat([functions, grid], dim=2)).transpose(0, 1)
        for block in self.blocks:
            z = block(z, None)
        return self.head(z.transpose(0, 1))

    def quantiles(self, readings: Tensor, mask: Tensor) -> Tensor:
        """Return those of readings (n_samples, n_times, n_channels) on the grid."""
        at = torch.arange(readings.shape[1], device=readings.device)
        return self(at.expand(len(readings), -1), readings, mask)
