"""What a solve returns: states, one status per sample, and what it cost."""

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["STOPPED", "Solution", "Status"]

STOPPED = -2  # by an event, until it has happened


class Status(IntEnum):
    """How the integration of one sample ended; ``sentence`` says it in words.

    Examples
    --------
    >>> from sklearn_inverse.ode import Status
    >>> Status(0).name, Status(0).sentence
    ('SUCCESS', 'The solver reached the last output time.')
    """

    SUCCESS = 0
    MAX_STEPS = 1
    STEP_UNDERFLOW = 2
    NON_FINITE = 3
    NEWTON_FAILURE = 4
    NON_FINITE_JACOBIAN = 5
    NON_FINITE_SENSITIVITY = 6
    UNSTABLE = 7
    NO_PROGRESS = 8
    NO_STEADY_STATE = 9
    TERMINATED = 10

    @property
    def sentence(self) -> str:
        """What happened, and what to try."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.SUCCESS: "The solver reached the last output time.",
    Status.MAX_STEPS: (
        "The maximum number of solver steps was reached. Increase `max_steps`, loosen "
        "`rtol`, or take a larger `step_size`; by 'tsit5', which is not for stiff "
        "problems, take method='auto'."
    ),
    Status.STEP_UNDERFLOW: (
        "The step size fell below the spacing of floating-point numbers: the solution "
        "probably blows up, or `rtol` or `atol` ask for more than double precision holds: "
        "raise `atol` to the size below which states do not matter."
    ),
    Status.NON_FINITE: (
        "The right-hand side or the initial state is NaN or infinite. Check the params "
        "and the initial state of this sample, or take a smaller `step_size`."
    ),
    Status.NEWTON_FAILURE: (
        "Newton's method did not converge, however small the step. With steps of given "
        "size, make `step_size` smaller; else check that the right-hand side is "
        "continuous, and `jac` its derivative."
    ),
    Status.NON_FINITE_JACOBIAN: (
        "The Jacobian of the right-hand side is NaN or infinite, though the right-hand "
        "side itself is not. Check `jac`, and roots and powers of states that are zero."
    ),
    Status.NON_FINITE_SENSITIVITY: (
        "The states are known, but derivatives of them are NaN or infinite. Check the "
        "derivatives of the right-hand side, and roots and powers of what is zero."
    ),
    Status.UNSTABLE: (
        "Steps of given size multiply the state: the solution blows up, or `step_size` "
        "is too large for an explicit method. Make it smaller, or leave it out and take "
        "a method that controls its error."
    ),
    Status.NO_PROGRESS: (
        "Steps stay so small, and so many of them fail, that the solver would not arrive "
        "within `max_steps`: the right-hand side probably jumps with the state, or is "
        "random. Make it smooth, or loosen `rtol`. Or events follow each other ever "
        "faster: let a `terminal` one happen before."
    ),
    Status.NO_STEADY_STATE: (
        "The system does not come to rest before its experiment: it oscillates, grows, or "
        "moves on too slowly. Leave `preequilibrate` out, or give it a start nearby."
    ),
    Status.TERMINATED: "A terminal event happened; outputs after it are NaN.",
}


class Solution(NamedTuple):
    """Result of :func:`~sklearn_inverse.ode.solve_ivp`.

    Parameters
    ----------
    y : Tensor of shape (n_samples, n_times, n_states)
        States at the output times, NaN from the time of failure on, and after a terminal
        event.

    status : Tensor of shape (n_samples,)
        :class:`Status` of each sample, as an integer.

    stats : dict of str to Tensor of shape (n_samples,)
        ``n_steps`` attempted, ``n_accepted``, ``n_jac`` Jacobians and ``n_lu``
        factorizations, ``t_reached`` and ``fastest_state``, the number of the state that
        changes most there relative to its tolerance.

    sensitivities : Tensor of shape (n_samples, n_times, n_states, n_params) or None
        Derivatives of the states by the params, where they were asked for.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse.ode import solve_ivp
    >>> def explode(t, y, params):
    ...     return y**2
    >>> solution = solve_ivp(explode, [0.0, 1.0], torch.tensor([[0.5], [2.0]]))
    >>> solution.success
    tensor([ True, False])
    >>> solution.failure_summary()
    '1 of 2 samples could not be integrated to the end (the first is sample 1, ...
    """

    y: Tensor
    status: Tensor
    stats: dict[str, Tensor]
    sensitivities: Tensor | None = None

    @property
    def success(self) -> Tensor:
        """Boolean tensor of shape (n_samples,): which samples reached their end."""
        return (self.status == Status.SUCCESS) | (self.status == Status.TERMINATED)

    def failure_summary(self) -> str:
        """Say how many samples failed, and why.

        Returns
        -------
        summary : str
            A sentence or two; empty if none failed.
        """
        if self.success.all():
            return ""
        causes = [s for s in Status if s not in (Status.SUCCESS, Status.TERMINATED)]
        counts = {s: int((self.status == s).sum()) for s in causes}
        n_failed = sum(counts.values())
        first = int(torch.nonzero(~self.success)[0])
        where = ""
        if "t_reached" in self.stats:
            t, state = (
                self.stats["t_reached"][first],
                self.stats["fastest_state"][first],
            )
            where = f", at t = {t:.6g}, where state {state} changes most"
        reasons = " ".join(f"{n} × {s.sentence}" for s, n in counts.items() if n)
        return (
            f"{n_failed} of {len(self.status)} samples could not be integrated to the "
            f"end (the first is sample {first}{where}); they are NaN from there on. "
            f"{reasons}"
        )
