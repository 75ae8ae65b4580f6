"""Networks and their training through skorch."""

from sklearn_inverse.networks._operator import Operator
from sklearn_inverse.networks._options import Design, Training
from sklearn_inverse.networks._reading_net import ReadingNetwork

__all__ = ["Design", "Operator", "ReadingNetwork", "Training"]
