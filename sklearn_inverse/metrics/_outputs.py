"""What every metric shares: agreeing shapes, failed samples, averages over outputs."""

import numpy as np

MULTIOUTPUT = ("uniform_average", "raw_values")


def as_columns(values):
    """Return values as floats; one dimension is one param, so it becomes a column."""
    values = np.asarray(values, dtype=float)
    return values[:, None] if values.ndim == 1 else values


def check_like(value, true, *, name):
    """Return ``value`` as a finite float array with the shape of ``true``.

    A prediction that is NaN would otherwise drop out of an average and make a method
    that fails look better than one that answers.
    """
    value = np.asarray(value, dtype=float)
    if value.shape != true.shape:
        raise ValueError(
            f"`{name}` must have the shape of `true`, {true.shape}. Got {value.shape} "
            "instead."
        )
    failed = ~np.isfinite(value.reshape(len(value), -1)).all(axis=1)
    if failed.any():
        raise ValueError(
            f"`{name}` must be finite. Got NaN or infinity in {failed.sum()} of "
            f"{len(failed)} samples, the first at sample {int(np.argmax(failed))}. "
            "Leave failed samples out of both arrays, and report how many there were."
        )
    return value


def check_true(true, *, axes, allow_nan=False):
    """Return ``true`` as a non-empty float array with these named axes."""
    true = np.asarray(true, dtype=float)
    if true.ndim != len(axes) or true.size == 0:
        raise ValueError(
            f"`true` must have shape ({', '.join(axes)}), none of them zero. Got shape "
            f"{true.shape} instead."
        )
    bad = np.isinf(true) if allow_nan else ~np.isfinite(true)
    if bad.any():
        what = "infinite value(s)" if allow_nan else "NaN or infinite value(s)"
        raise ValueError(f"`true` must be finite. Got {bad.sum()} {what}.")
    return true


def average_outputs(per_output, multioutput):
    """Return one number per output, or the mean of those that are not NaN."""
    if multioutput not in MULTIOUTPUT:
        raise ValueError(
            f"`multioutput` must be one of {MULTIOUTPUT}. Got {multioutput!r} instead."
        )
    if multioutput == "raw_values":
        return per_output
    return float(np.nanmean(per_output))
