"""Descriptions and constraints of parameters that many estimators share, once."""

from numbers import Integral

import torch

from sklearn_inverse.utils._sklearn import Interval, Options, StrOptions

__all__ = ["LEARNING", "SEARCHING", "SOLVES", "shared_docs"]

LEARNING: dict = {
    "device": [str, torch.device],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}
SEARCHING: dict = LEARNING | {
    "prior": [StrOptions({"model"}), None],
    "chunk_size": [Interval(Integral, 1, None, closed="left")],
    "n_jobs": [Integral, None],
}
SOLVES: list = [Options(Integral, {0}), Interval(Integral, 100, None, closed="left")]

_DOCS = {
    "max_solves": """\
max_solves : int, default=200
    Runs of the model per sample, beyond the search, that may be spent on the truth of its
    posterior. 0: none, normal distributions are taken on trust. 200: they are checked,
    and a warning says where they are wrong. 10,000: these posteriors are sampled
    instead, by adaptive importance sampling. 100,000: and where its rounds do not agree,
    by randomize-then-optimize if there is one optimum and normal noise, else by Markov
    chains. Without a prior nothing can be checked.""",
    "model": """\
model : system, forward model, FrozenEstimator or callable, default=None
    What is inverted: a system (its exact simulator), an :class:`ODESimulator`, an
    :class:`ODESurrogate` (fitted on the pairs, or shared as it is in a
    :class:`sklearn.frozen.FrozenEstimator`), or a differentiable torch function of the
    params. Its prior and its noise are the inverter's. If None, an
    :class:`ODESurrogate` with its defaults.""",
    "equations": """\
model : ODESystem, PDESystem, ODESimulator or FrozenEstimator
    The equations, with their prior and noise. The exact solver judges the estimates.

start : array-like of shape (n_params,), default=None
    Where every search starts, in units of the params. If None, the center of the
    prior.

network : LocalNetwork, default=None
    Sizes of the network and where it solves the equations; ``network__width`` and
    the like can be set. If None, :class:`~sklearn_inverse.collocation.LocalNetwork`
    with its defaults.""",
    "prior": """\
prior : {"model"} or None, default="model"
    Prior of the params: the model's, or none at all, which makes the estimate that of
    maximum likelihood inside the prior's bounds, and its variance what the readings
    alone tell.""",
    "chunk_size": """\
chunk_size : int, default=64
    Samples that are inverted together.""",
    "n_jobs": """\
n_jobs : int, default=None
    Workers over which chunks are spread. None means 1 unless in a
    :obj:`joblib.parallel_config` context; -1 means all cores.""",
    "design": """\
design : Design, default=None
    What will be measured, which training readings imitate: by default all observables
    at one random time or more; ``design__n_observed=3`` says at how many.""",
    "device": """\
device : {"auto", "cpu", "cuda", …}, default="auto"
    Where to compute. "auto" takes a GPU where there is one, and the CPU for a model
    that is compiled.""",
    "random_state": """\
random_state : int, RandomState instance or None, default=None
    Seeds everything random, of ``fit`` and of later predictions.""",
    "verbose": """\
verbose : int, default=0
    Whether to show progress bars.""",
    "observations": """\
observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
    Readings, NaN where nothing was measured.""",
    "pairs": """\
observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
    Simulated trajectories, free of noise; NaN where one is unknown.

params : array-like of shape (n_samples, n_params) or (n_samples,)
    Params that produced them, in their own units.""",
    "sample_index": """\
sample_index : int, default=0
    Which of the samples.""",
    "noise_std": """\
noise_std : float or array-like, default=None
    Noise of these readings: one number, one per observable, or one per reading, shaped
    like the observations. If None, the model's own noise.""",
    "inputs": """\
inputs : array-like of shape (n_samples, n_inputs), dict or DataFrame, default=None
    What the model must be told of each sample, in order or by name. None will do if
    that is nothing.""",
    "model_": """\
model_ : ForwardModel
    The fitted forward model.""",
    "pretrained_": """\
pretrain_loss_ : ndarray of shape (n_iterations,)
    Loss of the network at the start. What it ends at bounds the accuracy that can be
    hoped for: raise ``network__width`` or ``pretrain_iter``, or change
    ``network__time_scale``, if it stays above 1e-3.

held_out_loss_ : float
    In space, the lower loss at the start at points where nothing was trained.

operator_error_ : ndarray of shape (n_channels,)
    Root-mean-square error of the network at the start, in units of the observables;
    counts as noise.""",
    "n_iter_": """\
n_iter_ : int
    Iterations of the trial on the first sample that ends ``fit``, at least one.""",
    "n_features_in_": """\
n_features_in_ : int
    ``n_times * n_channels``.""",
}
for _name, _parts in (
    ("learning", ("device", "random_state", "verbose")),
    ("searching", ("prior", "chunk_size", "n_jobs", "learning")),
):
    _DOCS[_name] = "\n\n".join(_DOCS[part] for part in _parts)


def shared_docs(cls):
    """Replace lines such as ``%(device)s`` in docstrings of a class and its methods."""
    for thing in (cls, *vars(cls).values()):
        thing = getattr(thing, "__func__", thing)  # behind a classmethod
        doc = getattr(thing, "__doc__", None)
        if not doc or "%(" not in doc:
            continue
        lines = []
        for line in doc.split("\n"):
            name = line.strip()
            if name.startswith("%(") and name.endswith(")s"):
                pad = line[: len(line) - len(line.lstrip())]
                text = _DOCS[name[2:-2]].split("\n")
                lines += [(pad + row) if row else row for row in text]
            else:
                lines.append(line)
        thing.__doc__ = "\n".join(lines)
    return cls
