"""The code of a model, compiled now or before."""

from typing import NamedTuple

from sklearn_inverse.ode.compiled._arithmetic import load_vector_functions
from sklearn_inverse.ode.compiled._objects import load_code
from sklearn_inverse.ode.compiled._tables import TableWriter
from sklearn_inverse.ode.compiled._workspace import N_EXPLICIT, N_STAGES
from sklearn_inverse.ode.compiled._writer import Writer

__all__ = ["Code", "compile_model"]

TANGENT_CODE = ("curves", "sources", "tangent_solve", "effects", "push")


class Code(NamedTuple):
    """Addresses of the functions that a writer writes."""

    combine: tuple[int, ...]  # stage by stage, of one method
    rhs: int
    time_slopes: int
    slopes: int
    factorize: int
    solve: int
    choose_factor: int
    guards: int
    curves: int
    sources: int
    tangent_solve: int
    effects: int
    push: int


def compile_model(model, rows, with_tangents):
    """Compile the code of a model.

    Parameters
    ----------
    model : Model
        What is solved.

    rows : Rows
        Where everything lies.

    with_tangents : bool
        Whether derivatives by the params are needed too.

    Returns
    -------
    engine : ExecutionEngine
        Owner of the code.

    codes : tuple of Code
        Its addresses for Tsit5 and for Rodas5P, zero where there is none.
    """
    unused = [] if with_tangents else list(TANGENT_CODE)
    unused += [] if model.guards else ["guards"]
    names = [x for x in Code._fields[1:] if x not in unused]

    def write_module():
        writer = (TableWriter if model.is_large else Writer)(model, rows)
        for i in range(N_STAGES):
            writer.write(f"combine{i}", writer.combine, i)
        for i in range(N_EXPLICIT):
            writer.write(f"explicit{i}", writer.explicit, i)
        for name in names:
            writer.write(name, getattr(writer, name))
        # Much code takes LLVM many seconds.
        n = writer.n_operations
        return writer.module, 2 if n < 4000 else 1

    key = model.key, model.is_large, with_tangents, load_vector_functions()
    engine = load_code(key, write_module)
    address = engine.get_function_address
    combine = tuple(address(f"combine{i}") for i in range(N_STAGES))
    explicit = tuple(address(f"explicit{i}") for i in range(N_EXPLICIT))
    explicit += (0,) * (N_STAGES - N_EXPLICIT)
    rest = {name: address(name) if name in names else 0 for name in Code._fields[1:]}
    return engine, (Code(explicit, **rest), Code(combine, **rest))
