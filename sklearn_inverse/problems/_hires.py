"""HIRES: the high irradiance response of plants, by eight states of phytochrome."""

import numpy as np
import torch

from sklearn_inverse.systems._system import ODESystem

__all__ = ["hires"]

NOMINAL = {
    "k1": 1.71,
    "k2": 0.43,
    "k3": 8.32,
    "k4": 0.69,
    "k5": 0.035,
    "k6": 8.32,
    "k_plus": 280.0,
    "k_minus": 0.69,
    "k_star": 0.69,
    "o_ks": 0.0007,
}

STATES_AT_END = {
    "Pr": 0.7371312573325668e-3,
    "Pfr": 0.1442485726316185e-3,
    "PrX": 0.5888729740967575e-4,
    "PfrX": 0.1175651343283149e-2,
    "PrX'": 0.2386356198831331e-2,
    "PfrX'": 0.6238968252742796e-2,
    "PfrX'E": 0.2849998395185769e-2,
    "E": 0.2850001604814231e-2,
}


def hires():
    r"""Return HIRES, light perception by phytochrome: 8 states, 10 params.

    Phytochrome is made in its red-absorbing form Pr; light turns it to and fro
    (``k1``, ``k2``) into the far-red-absorbing Pfr. Both bind to receptors X and X',
    and at last to the enzyme E, which frees itself again as PfrX'E breaks down.

    Returns
    -------
    system : ODESystem
        Dimensionless concentrations at 101 times up to 321.8122. Params within half and
        one and a half times their published values. One invariant: the enzyme, E and
        PfrX'E together.

    Notes
    -----
    With :math:`b = k_+ y_6 y_8`, the binding of the enzyme,

    .. math::

        y_1' &= -k_1 y_1 + k_2 y_2 + k_6 y_3 + o_{ks} \\
        y_2' &= k_1 y_1 - (k_2 + k_3)\, y_2 \\
        y_3' &= -(k_6 + k_1)\, y_3 + k_2 y_4 + k_5 y_5 \\
        y_4' &= k_3 y_2 + k_1 y_3 - (k_4 + k_2)\, y_4 \\
        y_5' &= -(k_1 + k_5)\, y_5 + k_2 (y_6 + y_7) \\
        y_6' &= -b + k_4 y_4 + k_1 y_5 - k_2 y_6 + k_- y_7 \\
        y_7' &= b - (k_2 + k_- + k_*)\, y_7 \\
        y_8' &= -y_7'

    References
    ----------
    .. [1] Schäfer, "A new approach to explain the 'high irradiance responses' of
       photomorphogenesis on the basis of phytochrome", J. Math. Biology 2 (1975) 41-56.

    .. [2] Hairer & Wanner, "Solving Ordinary Differential Equations II", 2nd ed. 1996,
       Sec. IV.10.

    Examples
    --------
    >>> from sklearn_inverse.problems import hires
    >>> system = hires()
    >>> system
    ODESystem('hires', n_states=8, n_params=10, n_channels=8, n_times=101)
    """
    nominal = list(NOMINAL.values())
    return ODESystem(
        rhs,
        jac=jac,
        initial_state=[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057],
        nominal=nominal,
        bounds=np.outer(nominal, [0.5, 1.5]),
        times=np.linspace(0.0, 321.8122, 101),
        state_names=list(STATES_AT_END),
        param_names=list(NOMINAL),
        units={"time": "1", "states": "1", "params": "1"},
        name="hires",
        reference=(
            321.8122,
            list(STATES_AT_END.values()),
            "Test Set for IVP Solvers, University of Bari",
        ),
        invariants=[[0, 0, 0, 0, 0, 0, 1, 1]],
    )


def rhs(t, y, params):
    """Right-hand side."""
    y1, y2, y3, y4, y5, y6, y7, y8 = y.unbind(-1)
    k1, k2, k3, k4, k5, k6, k_plus, k_minus, k_star, o_ks = params.unbind(-1)
    binding = k_plus * y6 * y8
    dy7 = binding - (k2 + k_minus + k_star) * y7
    dydt = [
        -k1 * y1 + k2 * y2 + k6 * y3 + o_ks,
        k1 * y1 - (k2 + k3) * y2,
        -(k6 + k1) * y3 + k2 * y4 + k5 * y5,
        k3 * y2 + k1 * y3 - (k4 + k2) * y4,
        -(k1 + k5) * y5 + k2 * (y6 + y7),
        -binding + k4 * y4 + k1 * y5 - k2 * y6 + k_minus * y7,
        dy7,
        -dy7,
    ]
    return torch.stack(dydt, dim=-1)


def jac(t, y, params):
    """Jacobian by the states."""
    k1, k2, k3, k4, k5, k6, k_plus, k_minus, k_star, _ = params.unbind(-1)
    o = torch.zeros_like(k1)
    by6, by8 = k_plus * y[..., 7], k_plus * y[..., 5]  # of the binding k₊ y₆ y₈
    decay = k2 + k_minus + k_star
    rows = [
        [-k1, k2, k6, o, o, o, o, o],
        [k1, -(k2 + k3), o, o, o, o, o, o],
        [o, o, -(k6 + k1), k2, k5, o, o, o],
        [o, k3, k1, -(k4 + k2), o, o, o, o],
        [o, o, o, o, -(k1 + k5), k2, k2, o],
        [o, o, o, k4, k1, -by6 - k2, k_minus, -by8],
        [o, o, o, o, o, by6, -decay, by8],
        [o, o, o, o, o, -by6, decay, -by8],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
