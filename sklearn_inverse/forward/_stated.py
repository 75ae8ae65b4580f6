"""What is said of a model that is learned: by a system, or in its place."""

from sklearn_inverse.forward._base import even_times, unnamed
from sklearn_inverse.probability import JointPrior, as_noise
from sklearn_inverse.utils._validation import check_times

__all__ = ["stated_noise", "stated_prior", "stated_times"]

OWN = ("params", "n_channels", "times", "noise")  # what a system says itself


def stated_prior(model):
    """Return the prior that an unfitted model was given, None if none."""
    if model.system is not None:
        return model.system.prior
    return None if model.params is None else JointPrior(model.params)


def stated_times(model, n_times, n_channels):
    """Return times and names of observables; check that they fit the observations."""
    system = model.system
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
        return model.system.noise
    return as_noise(
        model.noise,
        model.observable_names_,
        n_times=model.n_times_,
        param_names=model.param_names_,
    )
