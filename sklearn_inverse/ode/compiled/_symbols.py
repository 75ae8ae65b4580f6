"""A tensor of expressions, by which torch's own functions write down what they compute."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from sklearn_inverse.ode.compiled._algebra import (
    MAX_NODES,
    SAME,
    Algebra,
    Untraceable,
    elementwise,
)
from sklearn_inverse.ode.compiled._arrays import MOVES
from sklearn_inverse.ode.compiled._dtypes import LOGICAL, leaves, result_dtype
from sklearn_inverse.ode.compiled._graph import Graph
from sklearn_inverse.ode.compiled._reductions import REDUCTIONS

__all__ = ["Symbols", "Tracer"]

BY_VALUE = "it decides by a value in the middle of the computation"
AS_NUMBER = "it takes a value out of torch in the middle of the computation"
CUT = "it cuts the computation off from differentiation"
REFUSED = {
    "_local_scalar_dense": BY_VALUE,
    "is_nonzero": BY_VALUE,
    "equal": BY_VALUE,
    "nonzero": BY_VALUE,
    "masked_select": BY_VALUE,
    "sort": "it sorts",
    "argsort": "it sorts",
    "topk": "it sorts",
    **dict.fromkeys(
        ("rand_like", "randn_like", "bernoulli", "normal", "uniform", "native_dropout"),
        "it is random",
    ),
}
RENAMED = {"__and__": "bitwise_and", "__or__": "bitwise_or", "special_erfc": "erfc"}
DETAILS = {"layout", "device", "pin_memory", "memory_format", "non_blocking"}


class Symbols(Tensor):
    """A tensor of expressions: ``nodes`` holds their numbers in the tracer's graph."""

    nodes: np.ndarray
    tracer: "Tracer"
    is_cut: bool  # from differentiation

    @staticmethod
    def __new__(cls, tracer, nodes, dtype, is_cut=False):
        strides = [s // nodes.itemsize for s in nodes.strides]
        self = torch.Tensor._make_wrapper_subclass(
            cls, nodes.shape, strides, dtype=dtype, device=tracer.device
        )
        self.tracer, self.nodes, self.is_cut = tracer, nodes, is_cut
        return self

    # What is asked of torch goes straight to its operations.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore
        tracer = next(x.tracer for x in leaves(args) if isinstance(x, Symbols))
        return tracer.run(func, args, dict(kwargs or {}))

    def __repr__(self, *, tensor_contents=None):
        return f"Symbols{tuple(self.shape)}"

    def __format__(self, _):
        return repr(self)

    def numpy(self, *args, **kwargs):
        """Refuse: a value would be wanted."""
        raise self.tracer.refuse(AS_NUMBER)

    tolist = __array__ = __reduce_ex__ = __deepcopy__ = numpy


class Tracer:
    """Writes down in a graph what is done to tensors of expressions.

    Attributes
    ----------
    reason : str or None
        Why this cannot be done, if it cannot.
    """

    def __init__(self, device: torch.device):
        self.graph, self.device = Graph(), device
        self.algebra = Algebra(self.graph)
        self.reason: str | None = None
        self._filled: dict[int, tuple[Any, np.ndarray]] = {}

    def variables(self, kind: str, shape: tuple[int, ...]) -> Symbols:
        """Return a tensor of all variables of a kind."""
        numbers = [self.graph.variable(kind, i) for i in range(int(np.prod(shape)))]
        return Symbols(self, np.reshape(numbers, shape), torch.float64)

    def nodes(self, x: Any) -> np.ndarray:
        """Return the expressions that a tensor, or a number, holds."""
        if isinstance(x, Symbols):
            return x.nodes
        if not isinstance(x, Tensor):
            return np.asarray(self.graph.constant(x))
        if x.is_complex():
            raise self.refuse("it computes with complex numbers")
        if (filled := self._filled.get(_address(x))) is not None:
            return _part(filled[1], x)
        if x.numel() > MAX_NODES:
            raise self.refuse(f"it takes more than {MAX_NODES} numbers")
        return elementwise(self.graph.constant, x.detach().cpu().numpy())

    def refuse(self, reason: str) -> Untraceable:
        """Return an error to raise; the reason stays, should the function catch it."""
        self.reason = self.reason or reason
        return Untraceable(reason)

    def run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Do to tensors of expressions what ``func`` does to tensors of numbers."""
        name = func._schema.name.removeprefix("aten::")
        try:
            if self.reason:
                raise Untraceable(self.reason)
            if torch.Tag.inplace_view in func.tags:
                return self._reshape(name, func, args, kwargs)
            return self._run(name, args, dict(kwargs))
        except Untraceable as error:
            raise self.refuse(str(error)) from error
        except Exception as error:
            _run_on_zeros(func, args, kwargs)  # it may be torch that refuses
            raise self.refuse(f"it uses torch's `{name}` in a way not known") from error

    def _reshape(self, name: str, func: Any, args: tuple, kwargs: dict) -> Any:
        """Make a tensor another view, itself."""
        view = self._compute(name.removesuffix("_"), args, kwargs, args[0].dtype)
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
        args[0].nodes = view
        return args[0]

    def _run(self, name: str, args: tuple, kwargs: dict) -> Any:
        target = kwargs.pop("out", None)
        if name.endswith("_") and not name.endswith("__"):
            name, target = name[:-1], args[0]
        name = RENAMED.get(name, name)
        if name in REFUSED:
            raise Untraceable(REFUSED[name])
        tensors = [x for x in leaves([args, *kwargs.values()]) if isinstance(x, Tensor)]
        dtype = result_dtype(name, args, kwargs.pop("dtype", None))
        kwargs = {key: x for key, x in kwargs.items() if key not in DETAILS}
        if dtype is torch.bool:
            name = LOGICAL.get(name, name)
        result = self._compute(name, args, kwargs, dtype)
        is_cut = dtype.is_floating_point and (
            name == "detach"
            or not torch.is_grad_enabled()
            or any(isinstance(x, Symbols) and x.is_cut for x in tensors)
        )
        if target is not None:
            return self._write(target, result, dtype, is_cut)
        if isinstance(result, list):
            dtypes = [dtype] * len(result)
            if name in ("max", "min"):
                dtypes[1] = torch.int64
            return [self._wrap(x, d, is_cut) for x, d in zip(result, dtypes)]
        return self._wrap(result, dtype, is_cut)

    def _compute(self, name: str, args: tuple, kwargs: dict, dtype: Any) -> Any:
        if name == "_to_copy":
            return self._cast(self.nodes(args[0]).copy(), args[0].dtype, dtype)
        function = MOVES.get(name) or REDUCTIONS.get(name)
        if function is not None:
            if name in ("index", "index_put"):
                args = args[0], _without_masks(args[1]), *args[2:]
            args, kwargs = (
                self._lift(args),
                {k: self._lift(x) for k, x in kwargs.items()},
            )
            return function(self.algebra, *args, **kwargs)
        if name.startswith("_") or not hasattr(self.algebra, name):
            raise Untraceable(f"it uses torch's `{name}`")
        return self._elementwise(getattr(self.algebra, name), args, kwargs)

    def _lift(self, x: Any) -> Any:
        """Turn tensors into arrays of expressions, and leave all else."""
        if isinstance(x, Tensor):
            return self.nodes(x)
        if isinstance(x, (list, tuple)):
            return type(x)(self._lift(part) for part in x)
        return x

    def _elementwise(self, function: Any, args: tuple, kwargs: dict) -> np.ndarray:
        """Apply a function to tensors and numbers, which become expressions."""
        given = dict(enumerate(args)) | kwargs
        words = {k: x for k, x in given.items() if x is None or isinstance(x, str)}
        arrays = {k: self.nodes(x) for k, x in given.items() if k not in words}

        def apply(*nodes):
            filled = words | dict(zip(arrays, nodes))
            positional = [filled.pop(i) for i in range(len(args))]
            return function(*positional, **filled)

        return elementwise(apply, *arrays.values())

    def _cast(self, nodes: np.ndarray, old: Any, new: Any) -> np.ndarray:
        """Return expressions as those of another type."""
        if new is torch.bool and old is not torch.bool:
            return elementwise(self.algebra.as_condition, nodes)
        if new is torch.int64 and old.is_floating_point:
            return elementwise(self.algebra.trunc, nodes)
        return nodes

    def _wrap(self, nodes: np.ndarray, dtype: Any, is_cut: bool) -> Symbols:
        return Symbols(self, nodes, dtype, is_cut and self._depends(nodes))

    def _depends(self, nodes: np.ndarray) -> bool:
        """Whether not all expressions are constants."""
        return any(self.graph.value(i) is None for i in nodes.ravel().tolist())

    def _write(self, target: Tensor, result: Any, dtype: Any, is_cut: bool) -> Tensor:
        """Write into a tensor, and all that share its memory."""
        if is_cut and self._depends(result):
            raise Untraceable(CUT)
        if target.dtype not in (torch.float64, torch.int64, torch.bool):
            raise Untraceable(f"it writes to a tensor of {target.dtype}")
        nodes = self._cast(result, dtype, target.dtype)
        if isinstance(target, Symbols):
            target.nodes[...] = nodes
        else:  # a tensor that it has made to be filled
            storage = target.untyped_storage()
            if (address := _address(target)) not in self._filled:
                whole = torch.empty(0, dtype=target.dtype).set_(storage)
                self._filled[address] = storage, self.nodes(whole)
            _part(self._filled[address][1], target)[...] = nodes
        return target


def _register() -> None:
    """Have torch ask the tracer itself, not the class, for all that it knows.

    From version 2.10 on, torch imports all of ``torch.distributed.tensor`` before it asks
    a class, which takes more than a second. Rules come first.
    """
    known = {name for name in vars(Algebra) if not name.startswith("_")} | SAME
    known.update(MOVES, REDUCTIONS, REFUSED, RENAMED, LOGICAL, ["_to_copy"])
    for name in sorted(known | {f"{name}_" for name in known}):
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet else ():
            torch.library.register_torch_dispatch(
                getattr(packet, overload).name(), Symbols, _dispatch
            )


def _dispatch(cls: type, *call: Any) -> Any:
    return Symbols.__torch_dispatch__(*call)


def _run_on_zeros(func: Any, args: tuple, kwargs: dict) -> None:
    """Let torch raise its own error, which the function may be prepared for."""

    def zeros(x: Any) -> Any:
        if isinstance(x, Symbols):
            return torch.zeros(x.shape, dtype=x.dtype, device=x.device)
        return x.clone() if isinstance(x, Tensor) else x

    func(*tree_map(zeros, args), **tree_map(zeros, kwargs))


def _without_masks(indices: list) -> list:
    """Return indices as numbers where some are true or false."""
    plain: list = []
    for index in indices:
        if index is None or index.dtype is not torch.bool:
            plain.append(index)
        elif isinstance(index, Symbols):
            raise Untraceable(BY_VALUE)
        else:
            plain += index.nonzero(as_tuple=True)
    return plain


def _address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _part(whole: np.ndarray, x: Tensor) -> np.ndarray:
    """Return what of its memory a tensor shows."""
    strides = [whole.itemsize * s for s in x.stride()]
    return np.lib.stride_tricks.as_strided(
        whole[x.storage_offset() :], x.shape, strides
    )


_register()
