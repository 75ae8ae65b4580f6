"""Alike expressions of a graph: one loop computes all that have the same shape."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from sklearn_inverse.ode.compiled._graph import Graph

__all__ = ["Shape", "find_shapes"]

SIZES = (32, 8, 3, 1)  # operations of a tree at most: tried until there is little code
SHARED = 3  # operations that are rather done again than kept ...
CHEAP = {"add", "sub", "mul", "neg"}  # ... of these; any other counts as more than that
MAX_CODE = 3000  # operations of all shapes


class Shape(NamedTuple):
    """Expressions that differ only in what they are of.

    Attributes
    ----------
    steps : tuple of tuple
        Operations, each with the places of its arguments: of earlier steps, or ~k for
        leaf k. The last one has the result; if there is none, that is the only leaf.

    leaves : tuple of str
        Kinds of the leaves: of variables, "const", or "kept".

    is_kept : bool
        Whether the results are kept for other expressions.

    table : ndarray of int of shape (n_expressions, n_leaves + 1)
        Index of each leaf, and of the result, among the kept ones or the outputs. That
        of a constant is its number in the graph.
    """

    steps: tuple
    leaves: tuple[str, ...]
    is_kept: bool
    table: np.ndarray


def find_shapes(
    graph: Graph, outputs: Mapping[int, int]
) -> tuple[list[Shape], list[tuple[int, int, int]]]:
    """Cut expressions into trees, and sort these by their shapes.

    Parameters
    ----------
    graph : Graph
        Where they stand.

    outputs : mapping of int to int
        Expressions by the indices of their results.

    Returns
    -------
    shapes : list of Shape
        What is to be computed.

    runs : list of (int, int, int)
        In which order: a shape, and which of its expressions, from the first to before
        the last. Those of a run do not need each other.
    """
    cone = graph.cone(outputs.values())
    found: dict[tuple, list] = {}
    for size in SIZES:
        found = _sort(graph, _cut(graph, cone, size), outputs)
        kinds = {shape for _, shape in found}
        if sum(1 + len(steps) for steps, *_ in kinds) <= MAX_CODE:
            break
    order = sorted(found, key=lambda key: key[0])
    tables: dict[tuple[tuple, tuple, bool], list]
    tables = {shape: [] for _, shape in order}
    number = {shape: i for i, shape in enumerate(tables)}
    runs = []
    for level, shape in order:
        table = tables[shape]
        first = len(table)
        table += found[level, shape]
        runs.append((number[shape], first, len(table)))
    return [Shape(*shape, np.array(table)) for shape, table in tables.items()], runs


def _cut(graph: Graph, cone: Iterable[int], size: int) -> list[int]:
    """Return the expressions to keep, so that all are trees of at most ``size``."""
    cone = list(cone)
    n_uses = Counter(x for node in cone for x in graph.arguments(node))
    sizes: dict[int, int] = {}  # of those that may grow
    kept = set()
    for node in cone:
        args = sorted(
            {x for x in graph.arguments(node) if x in sizes}, key=sizes.__getitem__
        )
        own = 1 if graph.nodes[node][0] in CHEAP else SHARED + 1
        total = own + sum(sizes[x] for x in args)
        while total > size and args:
            largest = args.pop()
            total -= sizes.pop(largest)
            kept.add(largest)
        if graph.arguments(node):
            if n_uses[node] > 1 and total > SHARED:
                kept.add(node)
            else:
                sizes[node] = total
    return sorted(kept)


def _sort(graph: Graph, kept: list[int], outputs: Mapping[int, int]) -> dict:
    """Return rows of tables by the level of what they need, and by shape."""
    found: dict[tuple, list] = {}
    levels = dict.fromkeys(kept, 0)
    last_use = dict.fromkeys(kept, 0)
    roots = [(x, x, True) for x in kept]
    roots += [(x, index, False) for index, x in outputs.items()]
    for root, index, is_kept in roots:
        steps, leaves = _read(graph, root, levels, is_kept)
        needed = [x for kind, x in leaves if kind == "kept"]
        level = 1 + max((levels[x] for x in needed), default=-1)
        for x in needed:
            last_use[x] = max(last_use[x], level)
        if is_kept:
            levels[root] = level
        shape = steps, tuple(kind for kind, _ in leaves), is_kept
        row = [*(x for _, x in leaves), index]
        found.setdefault((level, shape), []).append(row)
    slots = _share(levels, last_use)
    for (_, (_, kinds, is_kept)), rows in found.items():
        places = [k for k, kind in enumerate(kinds) if kind == "kept"]
        places += [len(kinds)] if is_kept else []
        for row in rows:
            for k in places:
                row[k] = slots[row[k]]
    return found


def _read(graph: Graph, root: int, kept, is_kept: bool) -> tuple[tuple, list]:
    """Return the steps of a tree, and the kinds and indices of its leaves."""
    steps: list[tuple] = []
    leaves: list[tuple[str, int]] = []
    places: dict[int, int] = {}

    def place(node):
        if node not in places:
            operation, *args = graph.nodes[node]
            if node in kept and not (node == root and is_kept):
                leaves.append(("kept", node))
            elif operation == "const":
                leaves.append(("const", node))
            elif operation == "var":
                leaves.append((args[0], args[1]))
            else:
                steps.append((operation, *map(place, args)))
                places[node] = len(steps) - 1
                return places[node]
            places[node] = ~(len(leaves) - 1)
        return places[node]

    place(root)
    return tuple(steps), leaves


def _share(levels: Mapping[int, int], last_use: Mapping[int, int]) -> dict[int, int]:
    """Return where expressions are kept: in one place after the other, where possible."""
    slots: dict[int, int] = {}
    free: list[int] = []
    ends: dict[int, list[int]] = {}  # slots by the last level that needs them
    level = n_slots = 0
    for x in sorted(levels, key=levels.__getitem__):
        while level < levels[x]:
            free += reversed(ends.pop(level, []))
            level += 1
        if free:
            slots[x] = free.pop()
        else:
            slots[x], n_slots = n_slots, n_slots + 1
        ends.setdefault(last_use[x], []).append(slots[x])
    return slots
