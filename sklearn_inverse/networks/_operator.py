"""Training of the operator behind ODESurrogate: its direct part first, then the rest."""

import copy
import math
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA

from sklearn_inverse.networks._batches import ReadingBatches
from sklearn_inverse.networks._cfno import CFNO
from sklearn_inverse.networks._deeponet import ConditionalDeepONet
from sklearn_inverse.networks._mgno import MgNO
from sklearn_inverse.networks._pod import PODNet
from sklearn_inverse.networks._reading_net import EvenBatches
from sklearn_inverse.networks._training import fit_net
from sklearn_inverse.utils._sklearn import Interval, StrOptions
from sklearn_inverse.utils._torch import as_tensor

__all__ = ["AbsoluteError", "NoiseError", "Operator", "fit_operator", "fit_pod"]

POD_BATCH, POD_LR = 512, 2e-3
POD_ROWS = 10_000  # trajectories that are enough to find their principal components
# Each with the options that it has.
MODULES = {
    "cfno": (
        CFNO,
        ("width", "n_layers", "n_modes", "embedding", "film", "attention", "norm"),
    ),
    "fno": (
        partial(CFNO, embedding=0, film=False, attention=False),
        ("width", "n_layers", "n_modes", "norm"),
    ),
    "deeponet": (ConditionalDeepONet, ("n_layers", "embedding")),
    "mgno": (MgNO, ("width", "n_layers")),
}
NOISE_BATCH, NOISE_LAYERS = 256, 4  # of a direct part that is trained for the noise


class Operator(BaseEstimator):
    """The neural operator of :class:`ODESurrogate`.

    Parameters
    ----------
    width : int, default=16
        Features per time; a DeepONet has none.

    n_layers : int, default=2
        Operator blocks, or hidden layers.

    n_modes : int, default=16
        Fourier modes kept, by the C-FNO and the FNO; more resolve faster changes.

    embedding : int, default=64
        Width of the C-FNO's embedding of the params; that of a DeepONet's layers, and
        its number of basis functions.

    film : bool, default=True
        Whether the params modulate every block of the C-FNO.

    attention : bool, default=True
        Whether a cross-attention over time follows the blocks of the C-FNO.

    norm : {"batch"} or None, default=None
        Normalization inside the Fourier blocks. "batch" is the paper's; it raises the
        error.

    direct_width, direct_layers : int, default=256, 2
        Width and hidden layers of the direct part. Dozens of params that act strongly
        take more: twice both.

    observation_dropout : float, default=0.3
        Share of the training batches without readings: the emulator's share.

    params_dropout : float, default=0.4
        Share of the training batches without params: the imputer's share.

    module : {"cfno", "fno", "deeponet", "mgno"}, default="cfno"
        Conditional Fourier neural operator; plain one, with the params as further
        features and nothing else; DeepONet, with a branch on params and readings and a
        trunk on times; multigrid neural operator.

    Examples
    --------
    >>> from sklearn_inverse import ODESurrogate, Operator
    >>> ODESurrogate(network=Operator(n_modes=32)).get_params()["network__width"]
    16
    """

    _parameter_constraints: dict = {
        "width": [Interval(Integral, 1, None, closed="left")],
        "n_layers": [Interval(Integral, 0, None, closed="left")],
        "n_modes": [Interval(Integral, 1, None, closed="left")],
        "embedding": [Interval(Integral, 1, None, closed="left")],
        "film": ["boolean"],
        "attention": ["boolean"],
        "norm": [StrOptions({"batch"}), None],
        "direct_width": [Interval(Integral, 1, None, closed="left")],
        "direct_layers": [Interval(Integral, 1, None, closed="left")],
        "observation_dropout": [Interval(Real, 0, 1, closed="both")],
        "params_dropout": [Interval(Real, 0, 1, closed="both")],
        "module": [StrOptions(set(MODULES))],
    }

    def __init__(
        self,
        width=16,
        n_layers=2,
        n_modes=16,
        embedding=64,
        film=True,
        attention=True,
        norm=None,
        direct_width=256,
        direct_layers=2,
        observation_dropout=0.3,
        params_dropout=0.4,
        module="cfno",
    ):
        self.width = width
        self.n_layers = n_layers
        self.n_modes = n_modes
        self.embedding = embedding
        self.film = film
        self.attention = attention
        self.norm = norm
        self.direct_width = direct_width
        self.direct_layers = direct_layers
        self.observation_dropout = observation_dropout
        self.params_dropout = params_dropout
        self.module = module


def fit_operator(
    train,
    valid,
    read,
    *,
    start,
    options,
    pod,
    training,
    seeds,
    verbose,
    device,
    for_noise=False,
):
    """Train an operator on params, trajectories and readings.

    Parameters
    ----------
    train, valid : TensorDataset of (scaled params, standardized trajectories)
        On the device.

    read : ReadingSimulator
        Draws readings.

    start : ConditionalOperator or ndarray of shape (n_times,)
        An operator to go on from, or the times of a new one.

    options, training : Operator, Training
        Its sizes and switches, and how to train it.

    pod : (int, int)
        Components of the direct part of a new one, and epochs of its training.

    seeds : (int, int, int)
        Of the direct part, of the weights and of the batches.

    verbose, device
        As the estimators' parameters of these names.

    for_noise : bool, default=False
        Whether errors count in units of the noise, by :class:`NoiseError`.
    """
    size = noise_unit(read.scaler, device) if for_noise else None
    pod_seed, weight_seed, batch_seed = seeds
    shown = {"verbose": verbose, "device": device}
    loop = training._loop()
    make, names = MODULES[options.module]
    switches = {name: getattr(options, name) for name in names}
    dropout = {
        n: getattr(options, n) for n in ("observation_dropout", "params_dropout")
    }
    sizes = options.direct_width, options.direct_layers
    was_interrupted = False
    if isinstance(start, torch.nn.Module):
        make_module = partial(copy.deepcopy, start)
    else:
        direct = fit_pod(train, *pod, *sizes, seed=pod_seed, unit=size, **shown)
        switches["pod"] = None if direct is None else direct.module_
        was_interrupted = direct is not None and direct.interrupted_
        if was_interrupted:
            loop["max_epochs"] = 0  # who stopped the one does not want the other
        span = start[-1] - start[0]
        grid = torch.as_tensor((start - start[0]) / (span or 1.0)).float()
        shape = train.tensors[1].shape[2], train.tensors[0].shape[1]
        make_module = partial(make, grid, *shape, spread=read.scaler.spread, **switches)
    net = fit_net(
        make_module,
        AbsoluteError if size is None else partial(NoiseError, size),
        partial(
            ReadingBatches,
            batch_size=training.batch_size,
            read=read,
            seed=batch_seed,
            **dropout,
        ),
        train,
        valid,
        n_batches=math.ceil(len(train) / training.batch_size),
        desc="Training operator",
        seed=weight_seed,
        **shown,
        **loop,
    )
    net.interrupted_ |= was_interrupted
    return net


def fit_pod(
    train, n_basis, n_epochs, width, n_layers, *, seed, verbose, device, unit=None
):
    """Train the direct part of an operator, params to principal components, if any.

    With a ``unit`` (n_channels,) components and errors are of trajectories in it, and
    their loss is that of :class:`NoiseError`; without, mean squares of coefficients.
    """
    params, trajectories = train.tensors
    scale = torch.ones_like(trajectories[0, 0]) if unit is None else unit
    scale = scale.repeat(trajectories.shape[1])
    step = math.ceil(len(trajectories) / POD_ROWS)
    some = trajectories[::step].flatten(1).nan_to_num() / scale
    some = some.double().cpu().numpy()
    n_basis = min(n_basis, *some.shape)
    if n_basis == 0:
        return None
    pca = PCA(n_basis, random_state=seed).fit(some)
    spread = np.sqrt(pca.explained_variance_)
    mean, basis, spread = (
        as_tensor(a, device) for a in (pca.mean_, pca.components_, spread)
    )
    targets = torch.cat(
        [
            (part.flatten(1).nan_to_num() / scale - mean) @ basis.T
            for part in trajectories.split(POD_ROWS)
        ]
    )
    mean = (scale * mean).reshape(trajectories.shape[1:])
    criterion, batch_size = torch.nn.MSELoss, POD_BATCH
    if unit is not None:
        criterion, batch_size = partial(NoiseError, 1.0, basis), NOISE_BATCH
        n_layers = max(n_layers, NOISE_LAYERS)

    def draw(index, rng):
        return {"params": params[index]}, targets[index]

    batches = EvenBatches(
        len(params), draw, batch_size=batch_size, seed=seed, device=device
    )
    return fit_net(
        partial(PODNet, mean, scale * basis, spread, params.shape[1], width, n_layers),
        criterion,
        lambda dataset, training: batches,
        train,
        None,
        lr=POD_LR,
        max_epochs=n_epochs,
        n_batches=batches.n_batches,
        patience=None,
        callbacks=None,
        verbose=verbose,
        desc="Training direct part",
        seed=seed,
        device=device,
    )


class AbsoluteError(torch.nn.Module):
    """Mean absolute error; entries that are not known (NaN) count as met."""

    def forward(self, prediction, target):
        """Return the mean; unknown targets have no error and no gradient."""
        known = torch.where(target.isnan(), prediction, target)
        return (prediction - known).abs().mean()


class NoiseError(torch.nn.Module):
    r"""Mean of :math:`\operatorname{asinh}^2` of errors in units of the noise.

    Squares where readings would hardly tell, and about logarithms where they would, so
    that neither the few worst errors nor those that no one notices are all that counts.

    Parameters
    ----------
    unit : Tensor of shape (n_channels,) or float
        The noise.

    components : Tensor of shape (n_basis, n_entries), default=None
        What errors are coefficients of, if they are.
    """

    def __init__(self, unit, components=None):
        super().__init__()
        self.unit, self.components = unit, components

    def forward(self, prediction, target):
        """Return the mean; targets that are not known (NaN) count as met."""
        off = prediction - torch.where(target.isnan(), prediction, target)
        if self.components is not None:
            off = off @ self.components
        return torch.asinh(off / self.unit).square().mean()


def noise_unit(scaler, device):
    """Return the size of the noise (n_channels,), but no more precision than there is."""
    least = np.finfo(np.float32).eps
    return as_tensor(np.maximum(scaler.noise_size, least), device)
