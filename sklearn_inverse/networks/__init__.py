"""Networks and their training through skorch."""

from sklearn_inverse.networks._operator import Operator
from sklearn_inverse.networks._options import Design, Training

__all__ = ["Design", "Operator", "Training"]
