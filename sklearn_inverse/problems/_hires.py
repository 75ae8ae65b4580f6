"""HIRES: the high irradiance response of plants, by eight states of phytochrome."""

import numpy as np

from sklearn_inverse.systems._reactions import ReactionSystem

__all__ = ["hires"]

NOMINAL = [1.71, 0.43, 8.32, 0.69, 0.035, 8.32, 280.0, 0.69, 0.69, 0.0007]
PARAMS = ["k1", "k2", "k3", "k4", "k5", "k6", "k_plus", "k_minus", "k_star", "o_ks"]
SPECIES = ["Pr", "Pfr", "PrX", "PfrX", "PrX'", "PfrX'", "PfrX'E", "E"]
STATES_AT_END = """
0.7371312573325668e-3 0.1442485726316185e-3 0.5888729740967575e-4
0.1175651343283149e-2 0.2386356198831331e-2 0.6238968252742796e-2
0.2849998395185769e-2 0.2850001604814231e-2
"""


def hires():
    r"""Return HIRES, light perception by phytochrome: 8 states, 10 params.

    Phytochrome is made in its red-absorbing form Pr; light turns it to and fro
    (``k1``, ``k2``) into the far-red-absorbing Pfr. Both bind to receptors X and X',
    and at last to the enzyme E, which frees itself again as PfrX'E breaks down.

    Returns
    -------
    system : ReactionSystem
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
    """
    return ReactionSystem(
        {
            "-> Pr": "o_ks",
            "Pr <-> Pfr": ("k1", "k2"),
            "PrX <-> PfrX": ("k1", "k2"),
            "PrX' <-> PfrX'": ("k1", "k2"),
            "PrX -> Pr": "k6",
            "Pfr -> PfrX": "k3",
            "PrX' -> PrX": "k5",
            "PfrX -> PfrX'": "k4",
            "PfrX' + E <-> PfrX'E": ("k_plus", "k_minus"),
            "PfrX'E -> PrX' + E": "k2",
            "PfrX'E -> E": "k_star",
        },
        initial={"Pr": 1.0, "E": 0.0057},
        nominal=dict(zip(PARAMS, NOMINAL)),
        times=np.linspace(0.0, 321.8122, 101),
        species=SPECIES,
        units={"time": "1", "states": "1", "params": "1"},
        name="hires",
        reference=(
            321.8122,
            STATES_AT_END.split(),
            "Test Set for IVP Solvers, University of Bari",
        ),
        invariants=["PfrX'E + E"],
    )
