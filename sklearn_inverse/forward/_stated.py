"""What is said of a model that is learned: by a system, or in its place."""

import numpy as np

from sklearn_inverse.forward._base import even_times, unnamed
from sklearn_inverse.probability import JointPrior, as_noise
from sklearn_inverse.systems import PDESystem
from sklearn_inverse.utils._validation import check_times

__all__ = ["Steady", "stated_noise", "stated_prior", "stated_system", "stated_times"]

OWN = ("params", "n_channels", "times", "noise")  # what a system says itself


class Steady:
    """A steady problem, as systems of one time are asked.

    Parameters
    ----------
    pde : PDESystem
        The problem.
    """

    n_times, times, experiments = 1, np.zeros(1), (None,)
    input_names: list = []
    input_prior = None

    def __init__(self, pde):
        self.pde, self.prior = pde, pde.prior
        self.observable_names, self.n_channels = (
            pde.observable_names,
            len(pde.observable_names),
        )
        self.noise = as_noise(
            pde.noise, self.observable_names, n_times=1, param_names=pde.prior.names
        )

    def check_timed(self):
        """Nothing is to be said of times."""


def stated_system(model):
    """Return the system of a model, or None; of a PDE that of its ordinary equations."""
    system = model.system
    if not isinstance(system, PDESystem):
        return system
    return Steady(system) if system.is_steady else system.semidiscretize()


def stated_prior(model):
    """Return the prior that an unfitted model was given, None if none."""
    if model.system is not None:
        return model.system.prior
    return None if model.params is None else JointPrior(model.params)


def stated_times(model, n_times, n_channels):
    """Return times and names of observables; check that they fit the observations."""
    system = stated_system(model)
    if system is None:
        times = even_times(n_times)
        if model.times is not None:
            times = check_times(model.times, n_times=n_times)
        return times, unnamed("c", n_channels)
    twice = [name for name in OWN if getattr(model, name) is not None]
    if twice:
        raise ValueError(f"A system has its own {twice}: leave them away beside it.")
    system.check_timed()
    if (n_times, n_channels) != (system.n_times, system.n_channels):
        raise ValueError(
            "Observations must have the system's (n_times, n_channels) = "
            f"{(system.n_times, system.n_channels)}. Got {(n_times, n_channels)} instead."
        )
    return system.times, system.observable_names


def stated_noise(model):
    """Return the noise of a model whose prior, times and observables are settled."""
    if model.system is not None:
        return stated_system(model).noise
    return as_noise(
        model.noise,
        model.observable_names_,
        n_times=model.n_times_,
        param_names=model.param_names_,
    )
