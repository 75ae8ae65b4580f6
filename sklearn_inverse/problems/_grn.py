"""GRN: a ring of twenty genes that each regulate themselves and a neighbor."""

from functools import partial

import numpy as np
import torch

from sklearn_inverse.systems._system import ODESystem

__all__ = ["grn"]

N_GENES = 20
BASAL = 0.1  # c
DECAY = 1.0  # Γ

# Of the tanh network, at its nominal params.
STATES_AT_5 = """
1.083527080375 0.07185976495864 0.1829701544233 -0.008896330290107
0.08617006715243 0.002243367586386 0.1276773778966 1.758640900845
-0.3628668437656 0.8240479286033 1.306905434945 -0.01868865532053
0.6743147071622 1.214492384722 0.01544710637968 0.1823750981179
0.1922276602113 0.0244801377632 -0.03955509397937 -0.3640470920987
"""


def grn(*, activation="tanh"):
    r"""Return a gene regulatory network: 20 genes, 40 unknown interactions.

    Parameters
    ----------
    activation : {"tanh", "sigmoid", "hill2"}, default="tanh"
        How a gene's expression acts: :math:`\tanh x`, :math:`1 / (1 + e^{-x})`, or
        :math:`x_+^2 / (1 + x_+^2)` with :math:`x_+ = \max(x, 0)`. Expression is
        relative and may turn negative, which Hill's function reads as no action.

    Returns
    -------
    system : ODESystem
        Expressions ``x1`` to ``x20`` at 100 times up to 5. Params ``K1_1`` to
        ``K20_20``, how each gene acts on itself, then ``K1_2`` to ``K20_1``, how its
        neighbor acts on it; all within -3 and 3. Genes start at different levels, 0.1
        to 2: equal ones make the params far harder to tell apart.

    Notes
    -----
    With :math:`c = 0.1`, :math:`\Gamma = 1` and indices on a ring,

    .. math:: x_i' = c + K_{i,i}\, g(x_i) + K_{i,i+1}\, g(x_{i+1}) - \Gamma x_i.

    The nominal :math:`\sqrt 2 \sin j^2, j = 1, …, 40`, are scattered like random
    numbers of unit variance, and stand for no particular network.

    The paper gives the form :math:`x' = c + K g(x) - \Gamma x` and the count of 40.
    All else, the ring and its values, are choices made here.

    References
    ----------
    .. [1] Liu et al., "Inverse Neural Operator for ODE Parameter Optimization",
       arXiv:2603.11854, 2026.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"`activation` must be one of {list(ACTIVATIONS)}. Got {activation!r}."
        )
    genes = range(1, N_GENES + 1)
    names = [f"K{i}_{(i + k - 1) % N_GENES + 1}" for k in (0, 1) for i in genes]
    nominal = np.sqrt(2.0) * np.sin(np.arange(1, 2 * N_GENES + 1) ** 2)
    source = "computed with SciPy: DOP853 and Radau at rtol 1e-13 agree to 2e-13"
    return ODESystem(
        partial(rhs, activation),
        jac=partial(jac, activation),
        states={f"x{i}": i / 10 for i in genes},
        params=dict.fromkeys(names, (-3.0, 3.0)),
        nominal=dict(zip(names, nominal)),
        times=np.linspace(0.0, 5.0, 100),
        units={"time": "1", "states": "1", "params": "1"},
        name="grn",
        reference=(5.0, STATES_AT_5.split(), source) if activation == "tanh" else None,
    )


def rhs(activation, t, y, p):
    """Right-hand side."""
    own, neighbor = p[:N_GENES], p[N_GENES:]
    action = ACTIVATIONS[activation][0](y[:])
    return BASAL + own * action + neighbor * np.roll(action, -1) - DECAY * y[:]


def jac(activation, t, y, p):
    """Jacobian by the states."""
    own, neighbor = p[:N_GENES], p[N_GENES:]
    slope = ACTIVATIONS[activation][1](y[:])
    diagonal = np.eye(N_GENES)
    beside = np.roll(diagonal, 1, axis=1) * (np.roll(neighbor, 1) * slope)
    return diagonal * (own * slope - DECAY) + beside


def _hill(x):
    square = np.maximum(x, 0) ** 2
    return square / (1 + square)


ACTIVATIONS = {
    "tanh": (torch.tanh, lambda x: 1 - torch.tanh(x) ** 2),
    "sigmoid": (torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x)),
    "hill2": (_hill, lambda x: 2 * np.maximum(x, 0) / (1 + np.maximum(x, 0) ** 2) ** 2),
}
