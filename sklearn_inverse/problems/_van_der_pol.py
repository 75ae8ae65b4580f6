"""Van der Pol's oscillator: long creeping phases and sudden jumps."""

import numpy as np

from sklearn_inverse.systems._system import ODESystem

__all__ = ["van_der_pol"]


def van_der_pol():
    r"""Return Van der Pol's oscillator: 2 states, 1 param.

    At :math:`\mu = 1000` the state creeps along :math:`|y_1| \in [1, 2]` for about
    :math:`(3 - 2 \ln 2)\,\mu / 2` and then jumps within :math:`1/\mu`.

    Returns
    -------
    system : ODESystem
        Amplitude ``y1`` and its velocity ``y2`` at 101 times up to 2000, dimensionless.
        The damping ``mu`` lies within half and one and a half times 1000.

    Notes
    -----
    .. math::

        y_1' &= y_2 \\
        y_2' &= \mu (1 - y_1^2)\, y_2 - y_1

    References
    ----------
    .. [1] van der Pol, "On relaxation-oscillations", Philosophical Magazine 2 (1926)
       978-992.
    """
    return ODESystem(
        rhs,
        jac=jac,
        states={"y1": 2.0, "y2": 0.0},
        params={"mu": (500.0, 1500.0)},
        times=np.linspace(0.0, 2000.0, 101),
        units={"time": "1", "states": "1", "params": "1"},
        name="van_der_pol",
        reference=(
            2000.0,
            [1.706167732170469, -0.8928097010248125e-3],
            "Test Set for IVP Solvers, University of Bari",
        ),
    )


def rhs(t, y, p):
    """Right-hand side."""
    return y.y2, p.mu * (1 - y.y1**2) * y.y2 - y.y1


def jac(t, y, p):
    """Jacobian by the states."""
    return [[0, 1], [-2 * p.mu * y.y1 * y.y2 - 1, p.mu * (1 - y.y1**2)]]
