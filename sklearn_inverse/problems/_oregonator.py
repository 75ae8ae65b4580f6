"""Oregonator: the limit cycle of the Belousov-Zhabotinsky reaction."""

import numpy as np

from sklearn_inverse.systems._reactions import ReactionSystem

__all__ = ["oregonator"]


def oregonator():
    r"""Return the Oregonator, a chemical clock: 3 states, 3 params.

    Concentrations sweep over five orders of magnitude within a period of about 300.

    Returns
    -------
    system : ReactionSystem
        Scaled concentrations of bromous acid, bromide and cerium(IV) at 101 times up to
        360. Params ``s``, ``q`` and ``w`` within half and one and a half times their
        published values.

    Notes
    -----
    .. math::

        y_1' &= s\,\bigl(y_2 + y_1 (1 - q\,y_1 - y_2)\bigr) \\
        y_2' &= \bigl(y_3 - (1 + y_1)\,y_2\bigr) / s \\
        y_3' &= w\,(y_1 - y_3)

    Their terms stand as reactions, which have a compiled solver; as the concentrations
    are scaled each in its own way, these are not those of the chemistry.

    References
    ----------
    .. [1] Field & Noyes, "Oscillations in chemical systems. IV. Limit cycle behavior in
       a model of a real chemical reaction", J. Chem. Phys. 60 (1974) 1877-1884.
    """
    return ReactionSystem(
        {
            "Br -> Br + HBrO2": "s",
            "HBrO2 -> 2 HBrO2": "s",
            "2 HBrO2 -> HBrO2": "s*q",
            "Br + HBrO2 -> Br": "s",
            "Ce4 -> Ce4 + Br": "1/s",
            "Br ->": "1/s",
            "Br + HBrO2 -> HBrO2": "1/s",
            "HBrO2 -> HBrO2 + Ce4": "w",
            "Ce4 ->": "w",
        },
        initial={"HBrO2": 1.0, "Br": 2.0, "Ce4": 3.0},
        nominal={"s": 77.27, "q": 8.375e-6, "w": 0.161},
        times=np.linspace(0.0, 360.0, 101),
        species=["HBrO2", "Br", "Ce4"],
        units={"time": "1", "states": "1", "params": "1"},
        name="oregonator",
        reference=(
            360.0,
            [0.1000814870318523e1, 0.1228178521549917e4, 0.1320554942846706e3],
            "Test Set for IVP Solvers, University of Bari",
        ),
    )
