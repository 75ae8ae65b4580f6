"""Oregonator: the limit cycle of the Belousov-Zhabotinsky reaction."""

import numpy as np
import torch

from sklearn_inverse.systems._system import ODESystem

__all__ = ["oregonator"]


def oregonator():
    r"""Return the Oregonator, a chemical clock: 3 states, 3 params.

    Concentrations sweep over five orders of magnitude within a period of about 300.

    Returns
    -------
    system : ODESystem
        Scaled concentrations of bromous acid, bromide and cerium(IV) at 101 times up to
        360. Params ``s``, ``q`` and ``w`` within half and one and a half times their
        published values.

    Notes
    -----
    .. math::

        y_1' &= s\,\bigl(y_2 + y_1 (1 - q\,y_1 - y_2)\bigr) \\
        y_2' &= \bigl(y_3 - (1 + y_1)\,y_2\bigr) / s \\
        y_3' &= w\,(y_1 - y_3)

    References
    ----------
    .. [1] Field & Noyes, "Oscillations in chemical systems. IV. Limit cycle behavior in
       a model of a real chemical reaction", J. Chem. Phys. 60 (1974) 1877-1884.

    Examples
    --------
    >>> from sklearn_inverse.problems import oregonator
    >>> system = oregonator()
    >>> dict(zip(system.param_names, system.nominal.tolist()))
    {'s': 77.27, 'q': 8.375e-06, 'w': 0.161}
    """
    nominal = [77.27, 8.375e-6, 0.161]
    return ODESystem(
        rhs,
        jac=jac,
        initial_state=[1.0, 2.0, 3.0],
        nominal=nominal,
        bounds=np.outer(nominal, [0.5, 1.5]),
        times=np.linspace(0.0, 360.0, 101),
        state_names=["HBrO2", "Br", "Ce4"],
        param_names=["s", "q", "w"],
        units={"time": "1", "states": "1", "params": "1"},
        name="oregonator",
        reference=(
            360.0,
            [0.1000814870318523e1, 0.1228178521549917e4, 0.1320554942846706e3],
            "Test Set for IVP Solvers, University of Bari",
        ),
    )


def rhs(t, y, params):
    """Right-hand side."""
    y1, y2, y3 = y.unbind(-1)
    s, q, w = params.unbind(-1)
    dydt = [s * (y2 + y1 * (1 - q * y1 - y2)), (y3 - (1 + y1) * y2) / s, w * (y1 - y3)]
    return torch.stack(dydt, dim=-1)


def jac(t, y, params):
    """Jacobian by the states."""
    y1, y2, _ = y.unbind(-1)
    s, q, w = params.unbind(-1)
    zero = torch.zeros_like(y1)
    rows = [
        [s * (1 - 2 * q * y1 - y2), s * (1 - y1), zero],
        [-y2 / s, -(1 + y1) / s, 1 / s],
        [w, zero, -w],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
