"""What is known of NumPy's and torch's functions, and what is said of the others."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class OneSampleError(TypeError):
    """Something that cannot be done with a value that stands for many samples."""


def brief(names: Iterable[str]) -> str:
    """Return names as text, or the first of very many."""
    names = list(names)
    if len(names) <= 12:
        return str(names)
    return f"[{', '.join(map(repr, names[:3]))}, … ({len(names)} in all)]"


def meant(name: str, known: Iterable[str]) -> str:
    """Ask whether the closest of the known names is meant, if one is close."""
    close = get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]!r}?" if close else ""


def spell(key: Any) -> str:
    """Return an index as it was typed."""
    if isinstance(key, slice):
        return ":".join("" if x is None else str(x) for x in (key.start, key.stop))
    return "..." if key is Ellipsis else repr(key)


NUMBER = (
    "a plain number is asked for (by math.…, float(), int(), or by putting values into an "
    "array of numbers), but a model's values stand for many samples at once. Write np.… "
    "or torch.… in place of math.…, and return a list of the values, as in [a, b], "
    "rather than filling np.zeros(n)"
)
CHOICE = (
    "a choice by `if`, `and`, `or`, `min()` or `max()` is asked for, but a model's values "
    "stand for many samples at once, of which each may choose otherwise. Write "
    "np.where(condition, a, b), np.maximum(a, b) or np.minimum(a, b), and & for `and`"
)
IN_PLACE = (
    "values of a model cannot be changed in place (as by `y[0] = …`): build what you need "
    "as a new list, as in [a, b], or with np.concatenate, and return that"
)
CUT_OFF = (
    "`.{}` would cut the model off from differentiation. NumPy's and torch's functions "
    "take the model's values as they are: np.exp(y[0])"
)
UNKNOWN = (
    "{} does not take a model's values. Write it with arithmetic, with a function of "
    "torch, or with one of NumPy's that do: those that work element by element, and clip, "
    "concatenate, cumsum, diff, dot, einsum, flip, interp, max, mean, min, outer, prod, "
    "roll, select, stack, sum, where"
)

# The same argument under several names.
KEYWORDS = {"dim": "axis", "dims": "axis", "keepdim": "keepdims", "shifts": "shift"}
KEYWORDS |= {"min": "low", "max": "high", "a_min": "low", "a_max": "high"}
NUMPY = {"hstack": "cat", "max": "amax", "min": "amin", "inner": "dot"}
FILLED = {"zeros_like": 0.0, "ones_like": 1.0, "empty_like": 0.0, "full_like": 0.0}
SAME_IN_BOTH = {"outer", "einsum", "norm", "cross", "kron", "trapezoid", "ravel"}
UFUNCS = {"power": "pow", "fabs": "abs", "rint": "round", "invert": "bitwise_not"}
UFUNCS |= {"equal": "eq", "degrees": "rad2deg", "radians": "deg2rad"}
_NAMES = """
abs absolute acos acosh add arccos arcsin arctan arctan2 asin asinh atan atan2 atanh
ceil clamp_max clamp_min clone cos cosh digamma div divide double eq erf erfc erfinv
exp exp2 expit expm1 float_power floor floor_divide fmax fmin fmod frac gammaln ge
greater greater_equal gt heaviside hypot isfinite isinf isnan le lerp less less_equal
lgamma log log10 log1p log2 logaddexp logical_and logical_not logical_or logit lt
maximum minimum mul multiply nan_to_num ne neg negative not_equal positive pow
reciprocal relu remainder round rsqrt rsub sigmoid sign silu sin sinh softplus sqrt
square sub subtract tan tanh true_divide trunc xlogy __add__ __and__ __div__ __eq__
__ge__ __gt__ __le__ __lt__ __mul__ __ne__ __or__ __pow__ __radd__ __rdiv__ __rmul__
__rpow__ __rsub__ __rtruediv__ __sub__ __truediv__
"""
ELEMENTWISE = frozenset(_NAMES.split())
