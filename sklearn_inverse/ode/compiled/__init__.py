"""Solvers in machine code on the CPU: Tsit5, Rodas5P and their tangents, in eight lanes.

A right-hand side is run once on tensors of expressions (``_trace``, ``_symbols``), which
leaves a graph of scalar ones (``_graph``). What the methods ask of it (``_model``) becomes
straight-line code (``_writer``, ``_arithmetic``), or for a large one loops over tables
(``_tables``, ``_shapes``), kept on disk (``_code``, ``_objects``). The loop over the steps
(``_loop``, ``_step``, ``_outputs``) depends on no model; numba compiles it once per
machine.

Both work on vectors (``_vectors``), one lane per sample. Each lane has its own time and
step, and takes the next sample as soon as it is done with one, so that no lane waits.
Nothing crosses lanes: a sample's result is the same to the last bit whichever its lane and
its companions. What is computed once per solve only, such as observables and initial
states, is traced too, and left to NumPy (``_rows``).

All samples of a pass take steps of one method. Those that Tsit5 finds to be stiff are set
aside with all that is known of them, and Rodas5P goes on from there in a second pass.

Numba is imported when there is something to compile.
"""

from sklearn_inverse.ode.compiled._compile import (
    Untraceable,
    compared_kernel,
    compared_once,
    compile_function,
    compile_mass_action,
    why_unavailable,
)
from sklearn_inverse.ode.compiled._graph import Graph
from sklearn_inverse.ode.compiled._rows import Lasting
from sklearn_inverse.ode.compiled._text import equations
from sklearn_inverse.ode.compiled._trace import trace

__all__ = [
    "Graph",
    "Lasting",
    "Untraceable",
    "compared_kernel",
    "compared_once",
    "compile_function",
    "compile_mass_action",
    "equations",
    "trace",
    "why_unavailable",
]
