"""How the inversion of one sample ended."""

from enum import IntEnum

__all__ = ["InversionStatus"]


class InversionStatus(IntEnum):
    """How the inversion of one sample ended; ``sentence`` says it in words.

    Examples
    --------
    >>> from sklearn_inverse.probability import InversionStatus
    >>> InversionStatus(0).name, InversionStatus(0).sentence
    ('CONVERGED', 'No step would improve the fit any further.')
    """

    CONVERGED = 0
    MAX_ITER = 1
    STALLED = 2
    FAILED = 3
    INTERRUPTED = 4

    @property
    def sentence(self) -> str:
        """What happened, and what to try."""
        return _SENTENCES[self]


_SENTENCES = {
    InversionStatus.CONVERGED: "No step would improve the fit any further.",
    InversionStatus.MAX_ITER: (
        "All iterations were used. If the method ends by converging, allow it more of "
        "them."
    ),
    InversionStatus.STALLED: (
        "No step along the slope improved the fit. The forward model may be noisy there: "
        "tighten the tolerances of the simulator, or start elsewhere."
    ),
    InversionStatus.FAILED: (
        "The forward model could not be run anywhere it was tried. Narrow `bounds`, or "
        "start elsewhere."
    ),
    InversionStatus.INTERRUPTED: "The inversion was interrupted before its end.",
}
