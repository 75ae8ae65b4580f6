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
from sklearn_inverse.networks._pod import PODNet
from sklearn_inverse.networks._reading_net import EvenBatches
from sklearn_inverse.networks._training import fit_net
from sklearn_inverse.utils._sklearn import Interval, StrOptions
from sklearn_inverse.utils._torch import as_tensor

__all__ = ["AbsoluteError", "NoiseError", "Operator", "fit_operator", "fit_pod"]

POD_BATCH, POD_LR = 512, 2e-3
NOISE_BATCH, NOISE_BLOCKS = 256, 3  # of a direct part that is trained for the noise


class Operator(BaseEstimator):
    """The conditional Fourier neural operator of :class:`ODESurrogate`.

    Parameters
    ----------
    width : int, default=16
        Features per time.

    n_layers : int, default=2
        Operator blocks.

    n_modes : int, default=16
        Fourier modes kept; more resolve faster changes.

    embedding : int, default=64
        Width of the embedding of the params.

    film : bool, default=True
        Whether the params modulate every block. Without it and without attention this
        is a plain FNO.

    attention : bool, default=True
        Whether a cross-attention over time follows the blocks.

    norm : {"batch"} or None, default=None
        Normalization inside the blocks. "batch" is the paper's; it raises the error.

    observation_dropout : float, default=0.3
        Share of the training batches without readings: the emulator's share.

    params_dropout : float, default=0.4
        Share of the training batches without params: the imputer's share.

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
        "observation_dropout": [Interval(Real, 0, 1, closed="both")],
        "params_dropout": [Interval(Real, 0, 1, closed="both")],
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
        observation_dropout=0.3,
        params_dropout=0.4,
    ):
        self.width = width
        self.n_layers = n_layers
        self.n_modes = n_modes
        self.embedding = embedding
        self.film = film
        self.attention = attention
        self.norm = norm
        self.observation_dropout = observation_dropout
        self.params_dropout = params_dropout


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

    start : CFNO or ndarray of shape (n_times,)
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
    switches, loop = options.get_params(), training._loop()
    dropout = {n: switches.pop(n) for n in ("observation_dropout", "params_dropout")}
    was_interrupted = False
    if isinstance(start, CFNO):
        make_module = partial(copy.deepcopy, start)
    else:
        direct = fit_pod(train, *pod, seed=pod_seed, unit=size, **shown)
        switches["pod"] = None if direct is None else direct.module_
        was_interrupted = direct is not None and direct.interrupted_
        if was_interrupted:
            loop["max_epochs"] = 0  # who stopped the one does not want the other
        span = start[-1] - start[0]
        grid = torch.as_tensor((start - start[0]) / (span or 1.0)).float()
        sizes = train.tensors[1].shape[2], train.tensors[0].shape[1]
        make_module = partial(CFNO, grid, *sizes, spread=read.scaler.spread, **switches)
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


def fit_pod(train, n_basis, n_epochs, *, seed, verbose, device, unit=None):
    """Train the direct part of an operator, params to principal components, if any.

    With a ``unit`` (n_channels,) components and errors are of trajectories in it, and
    their loss is that of :class:`NoiseError`; without, mean squares of coefficients.
    """
    params, trajectories = train.tensors
    flat = np.nan_to_num(trajectories.flatten(1).double().cpu().numpy())
    scale = np.ones(flat.shape[1])
    if unit is not None:
        scale = unit.double().repeat(trajectories.shape[1]).cpu().numpy()
    flat = flat / scale
    n_basis = min(n_basis, *flat.shape)
    if n_basis == 0:
        return None
    pca = PCA(n_basis, random_state=seed).fit(flat)
    mean = (scale * pca.mean_).reshape(trajectories.shape[1:])
    spread, basis = np.sqrt(pca.explained_variance_), pca.components_
    mean, basis, components, spread, targets = (
        as_tensor(a, device)
        for a in (mean, basis * scale, basis, spread, pca.transform(flat))
    )
    criterion, batch_size, n_blocks = torch.nn.MSELoss, POD_BATCH, 0
    if unit is not None:
        criterion = partial(NoiseError, 1.0, components)
        batch_size, n_blocks = NOISE_BATCH, NOISE_BLOCKS

    def draw(index, rng):
        return {"params": params[index]}, targets[index]

    batches = EvenBatches(
        len(flat), draw, batch_size=batch_size, seed=seed, device=device
    )
    return fit_net(
        partial(PODNet, mean, basis, spread, params.shape[1], n_blocks=n_blocks),
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
