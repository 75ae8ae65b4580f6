"""The part of a right-hand side that is known, with its Jacobian."""

import numpy as np
import torch

from sklearn_inverse.ode._rhs import rowwise_jacobian
from sklearn_inverse.systems._functions import Names, OneSample

__all__ = ["KnownPart"]


class KnownPart:
    """``known(t, y)`` of one sample, by name, run on many."""

    def __init__(self, function, names):
        def of_three(t, y, p):
            return function(t, y)

        states, none = Names("state", names), Names("param", [])
        self._function = OneSample(of_three, "`known`", states, none, (len(names),))
        d = len(names)
        rows = (
            torch.zeros(2, dtype=torch.float64),
            torch.ones(2, d, dtype=torch.float64),
        )
        self._function.check(*rows, torch.empty(2, 0, dtype=torch.float64))

    def __call__(self, t, y):
        """Return values and Jacobians at times (n,) and states (n, n_states)."""
        t, y = (torch.from_numpy(np.ascontiguousarray(x)) for x in (t, y))
        nothing = y.new_empty(len(y), 0)
        with torch.no_grad():
            values = self._function(t, y, nothing)
            jac = rowwise_jacobian(lambda y: self._function(t, y, nothing), y)
        return values.numpy(), jac.detach().numpy()
