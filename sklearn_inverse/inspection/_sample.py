"""One sample for a picture: as its inverter sees it, and arrays of one shape."""

import numpy as np
from sklearn.pipeline import Pipeline

from sklearn_inverse.forward import ODESimulator, ODESurrogate
from sklearn_inverse.utils._validation import check_inputs, check_noise_std

__all__ = [
    "check_shape",
    "invert_one",
    "labels_of",
    "noise_of",
    "pick",
    "pick_inputs",
    "split_pipeline",
    "units_of",
]


def split_pipeline(inverter, observations):
    """Return the inverter at the end of a Pipeline, and observations as it sees them."""
    if not isinstance(inverter, Pipeline):
        return inverter, observations
    if np.ndim(observations) == 3:
        observations = np.reshape(observations, (len(observations), -1))
    if len(inverter.steps) > 1:
        observations = inverter[:-1].transform(observations)
    return inverter[-1], observations


def invert_one(inverter, observations, sample_index, noise_std, inputs):
    """Return the answer of a fitted inverter for one sample, and what it was told.

    Returns
    -------
    answer : Posterior or Estimate
        Of this sample alone.

    told : dict
        ``model``, ``observations``, ``noise_std`` and ``inputs``, as ``from_posterior``
        takes them.
    """
    one, n_samples = pick(observations, sample_index), len(observations)
    inverter, one = split_pipeline(inverter, one)
    shape = n_samples, inverter.n_times_, inverter.n_channels_
    told = {
        "noise_std": noise_of(noise_std, sample_index, shape),
        "inputs": pick_inputs(inverter.model_, inputs, sample_index, n_samples),
    }
    answer = inverter.invert(one, **told)
    return answer, told | {"model": inverter.model_, "observations": one}


def pick(rows, index):
    """Return one row of an array or data frame, which keeps its names."""
    if not 0 <= index < len(rows):
        raise ValueError(
            f"`sample_index` must lie between 0 and {len(rows) - 1}. Got {index} instead."
        )
    one = slice(index, index + 1)
    return rows.iloc[one] if hasattr(rows, "iloc") else np.asarray(rows)[one]


def pick_inputs(model, inputs, index, n_samples):
    """Return the inputs of one sample, of shape (1, n_inputs), None if there are none."""
    names = model.input_names_
    if not names:
        return None
    if inputs is not None and np.shape(inputs) == (1, len(names)):
        return inputs  # picked before
    return check_inputs(inputs, n_samples=n_samples, names=names)[index : index + 1]


def noise_of(noise_std, index, shape):
    """Return one sample's share of ``noise_std``: broadcastable, or for each reading."""
    if noise_std is None:
        return None
    given = np.asarray(noise_std, dtype=float)
    known = check_noise_std(np.where(np.isnan(given), 1.0, given), shape=shape)
    given = given.reshape(known.shape)
    return given[index : index + 1] if given.ndim == 3 else given


def labels_of(model):
    """Return names and units of the observables, and the label of the time axis."""
    names, time = model.observable_names_, units_of(model, ["time"], "time")[0]
    return {
        "observable_names": list(names),
        "units": units_of(model, names, "observables"),
        "time_label": f"time ({time})" if time else None,
    }


def units_of(model, names, kind):
    """Return the units of params or observables, empty text where unknown."""
    system = model.system if isinstance(model, (ODESimulator, ODESurrogate)) else None
    if not hasattr(system, "units"):  # nor has a PDE
        return [""] * len(names)
    units = system.units
    states = {name: units["states"] for name in system.state_names if "states" in units}
    by_name = (states if kind == "observables" else {}) | units
    return [by_name.get(name, units.get(kind, "")) for name in names]


def check_shape(values, shape, *, name):
    """Return values as a float array of this shape, or None for None."""
    if values is None:
        return None
    values = np.asarray(values, dtype=float)
    if values.shape != shape:
        raise ValueError(
            f"`{name}` must have shape {shape}. Got {values.shape} instead."
        )
    return values
