"""Mass-action kinetics, solved by Rodas5P with its tangents: arrays in, arrays out."""

import numpy as np

from sklearn_inverse.ode._coefficients import RODAS5P
from sklearn_inverse.ode.compiled._loop import integrate
from sklearn_inverse.ode.compiled._network import Network
from sklearn_inverse.ode.compiled._vectors import ALIGNMENT, LANES
from sklearn_inverse.ode.compiled._workspace import (
    N_INT_ROWS,
    N_STAGES,
    NO_SAMPLE,
    ORDER,
    SAMPLE,
    Task,
)
from sklearn_inverse.ode.compiled._writer import compile_network

__all__ = ["MassActionKernel"]


class MassActionKernel:
    r"""Solve mass-action kinetics :math:`y' = S\,\mathrm{diag}(k)\,m(y)` on the CPU.

    Every sample has its own steps and status, and its result does not depend on its
    companions, to the last bit. The method is Rodas5P [1]_ in its order of 5, with an
    error estimate and a dense output of order 4. Sensitivities are the exact derivatives
    of the steps taken, their sizes held fixed.

    Threads run beside each other: give each of them some of the samples. The code of the
    reactions is compiled here, in every process; that of the steps once per machine, for
    some seconds, at the first solve.

    Parameters
    ----------
    stoichiometry : array-like of shape (n_states, n_reactions)
        :math:`S`: what each reaction makes of each state, less what it uses up.

    used : array-like of int of shape (n_states, n_reactions)
        Order of each reaction in each state.

    References
    ----------
    .. [1] Steinebach, "Construction of Rosenbrock-Wanner method Rodas5P and numerical
       benchmarks within the Julia Differential Equations package", BIT Numerical
       Mathematics 63 (2023) 27.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.ode.compiled import compile_mass_action
    >>> kernel = compile_mass_action([[-1.0], [1.0]], [[1], [0]])  # A -> B
    >>> solution = kernel.solve(
    ...     np.array([0.0, 0.5, 1.0]),
    ...     np.array([[1.0, 0.0]]),
    ...     np.array([[2.0]]),
    ...     rtol=1e-8,
    ...     atol=1e-20,
    ...     max_steps=1000,
    ... )
    >>> solution["y"][0, :, 0].round(6)
    array([1.      , 0.367879, 0.135335])
    """

    def __init__(self, stoichiometry, used):
        self.stoichiometry = np.array(stoichiometry, dtype=float)
        self.used = np.array(used, dtype=int)
        network = Network(self.stoichiometry, self.used)
        self._order, self._rows = network.order, network.lay_out()
        self._engine, self._code = compile_network(network, self._rows)

    def __reduce__(self):
        # Code is of this process: whoever unpickles writes it anew.
        return MassActionKernel, (self.stoichiometry, self.used)

    def solve(self, t_eval, y0, params, *, rtol, atol, max_steps, y0_tangents=None):
        """Integrate from the first to the last output time of each sample.

        Parameters
        ----------
        t_eval : array-like of shape (n_samples, n_times) or (n_times,)
            Output times in increasing order; the first is the time of ``y0``.

        y0 : array-like of shape (n_samples, n_states)
            Initial states.

        params : array-like of shape (n_samples, n_reactions)
            Rate constants.

        rtol : float
            Tolerated error of each state, relative to its size.

        atol : float or array-like of shape (n_states,)
            Tolerated error in units of the states, added to the relative one.

        max_steps : int
            Attempted steps after which a sample is given up.

        y0_tangents : array-like of shape (n_samples, n_states, n_reactions), default=None
            Derivatives of ``y0`` by the rate constants. If None, no sensitivities are
            computed.

        Returns
        -------
        solution : dict of str to ndarray
            ``y`` of shape (n_samples, n_times, n_states), NaN from the time of failure on;
            ``status``, ``n_steps`` attempted and ``n_accepted`` of shape (n_samples,);
            ``sensitivities`` dy/dk of shape (n_samples, n_times, n_states, n_reactions), or
            None.
        """
        n_samples, n_times = len(y0), np.shape(t_eval)[-1]
        n_states, n_reactions = self.stoichiometry.shape
        with_tangents = y0_tangents is not None
        n_tangents = n_reactions if with_tangents else 0
        work, lanes = self._workspace()
        y = np.empty((n_samples, n_times, n_states))
        sensitivities = np.empty((*y.shape, n_tangents))
        status, n_steps, n_accepted = np.empty((3, n_samples), dtype=np.int64)
        arrays = [
            work,
            lanes,
            self._order,
            _plain(t_eval, (n_samples, n_times)),
            _plain(y0, (n_samples, n_states)),
            _plain(params, (n_samples, n_reactions)),
            _plain(
                y0_tangents if with_tangents else 0.0, (n_samples, n_states, n_tangents)
            ),
            _plain(atol, n_states)[self._order],
            y,
            sensitivities,
            status,
            n_steps,
            n_accepted,
        ]
        task = Task(
            n_samples,
            n_times,
            int(max_steps),
            with_tangents,
            float(rtol),
            *[array.ctypes.data for array in arrays],
        )
        integrate(self._code, self._rows, task)
        return {
            "y": y,
            "sensitivities": sensitivities if with_tangents else None,
            "status": status,
            "n_steps": n_steps,
            "n_accepted": n_accepted,
        }

    def _workspace(self):
        """Return zeros for all rows, aligned as vectors are, and the lanes' integers."""
        flat = np.zeros((self._rows.n_rows + 1) * LANES)
        first = -flat.ctypes.data % ALIGNMENT // flat.itemsize
        work = flat[first : first + self._rows.n_rows * LANES].reshape(-1, LANES)
        work[self._rows.step] = 1.0  # lanes without a sample compute as well
        work[self._rows.dense : self._rows.dense + ORDER, :N_STAGES] = RODAS5P.dense
        lanes = np.zeros((N_INT_ROWS, LANES), dtype=np.int64)
        lanes[SAMPLE] = NO_SAMPLE
        return work, lanes


def _plain(array, shape):
    """Return an array of doubles, one after the other."""
    return np.ascontiguousarray(np.broadcast_to(array, shape), dtype=float)
