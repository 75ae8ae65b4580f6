"""Expressions as text, as one would write them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from sklearn_inverse.ode.compiled._graph import Graph

__all__ = ["WIDE", "equations"]

WIDE = 100  # characters: beyond, what stands twice gets a name
SHORT = 12  # characters that need none
INFIX = {"lt": "<", "le": "<=", "eq": "==", "ne": "!=", "and": "&", "or": "|"}
# How tightly operations bind: what binds less than it must is put into parentheses.
LOGIC, COMPARISON, SUM, PRODUCT, POWER, ATOM = range(6)
MINUS = -1  # among factors


def equations(
    graph: Graph, rhs: Sequence[int], states: Sequence[str], names: Mapping
) -> list[str]:
    """Write down the differential equation of each state.

    Parameters
    ----------
    graph : Graph
        Expressions.

    rhs : sequence of int
        Those of the rates of change.

    states : sequence of str
        Whose rates these are.

    names : mapping of tuple to str
        What to call the variables, by kind and index.

    Returns
    -------
    lines : list of str
        Equations; before them, where they would be long, those of what they share.
    """
    lines: list[str] = []
    for longest in (WIDE, SHORT):
        writer = Writer(graph, names)
        lines = writer.name_shared(rhs, longest, {*names.values(), *states})
        lines += [f"{name}' = {writer.text(x)}" for name, x in zip(states, rhs)]
        if max(map(len, lines)) <= WIDE:
            break
    return lines


class Writer:
    """Write expressions with as few parentheses as they need."""

    def __init__(self, graph: Graph, names: Mapping):
        self.graph, self.names = graph, names
        self.known: dict[int, tuple[str, int]] = {}
        self.named: set[int] = set()
        self.parts: dict[tuple[str, int], Counter] = {}

    def name_shared(
        self, outputs: Sequence[int], longest: int, taken: set
    ) -> list[str]:
        """Name what is used more than once and longer than this; return its equations."""
        lines: list[str] = []
        letter = next(x for x in "rxz_" if not any(n.startswith(x) for n in taken))
        cone = self.graph.cone(outputs)
        uses = Counter(x for node in cone for x in set(self.graph.arguments(node)))
        for node in cone:
            text = self.text(node)
            if uses[node] > 1 and len(text) > longest:
                self.known[node] = f"{letter}{len(lines) + 1}", ATOM
                self.named.add(node)
                lines.append(f"{self.text(node)} = {text}")
        return lines

    def text(self, node: int, least: int = LOGIC) -> str:
        """Return an expression, in parentheses if it binds less than ``least``."""
        if node not in self.known:
            self.known[node] = self._write(node)
        text, binds = self.known[node]
        return text if binds >= least else f"({text})"

    def _write(self, node: int) -> tuple[str, int]:
        operation, *args = self.graph.nodes[node]
        match operation:
            case "const":
                short = f"{args[0]:g}"
                text = short if float(short) == args[0] else repr(args[0])
                return text, SUM if text.startswith("-") else ATOM
            case "var":
                return self.names[tuple(args)], ATOM
            case "add" | "sub":
                return self._sum(node), SUM
            case "neg" if self.graph.nodes[args[0]][0] in ("add", "sub"):
                return self._sum(node), SUM
            case "mul" | "div" | "neg":
                return self._product(node)
            case "pow":
                base, exponent = (self.text(x, ATOM) for x in args)
                return f"{base}**{exponent}", POWER
        if operation in INFIX:
            binds = LOGIC if operation in ("and", "or") else COMPARISON
            left, right = (self.text(x, binds + 1) for x in args)
            return f"{left} {INFIX[operation]} {right}", binds
        return f"{operation}({', '.join(map(self.text, args))})", ATOM

    def _parts(self, node: int, do: str, undo: str) -> Counter:
        """Return of what an expression is the sum, or the product, and how often."""
        operation, *args = self.graph.nodes[node]
        value = self.graph.value(node)
        if do == "mul" and value in (1, -1):
            return Counter({MINUS: int(value == -1)})
        if operation not in (do, undo, "neg") or node in self.named:
            return Counter({node: 1})
        if (do, node) not in self.parts:
            first, *others = (self._parts(x, do, undo) for x in args)
            sign = -1 if (do, operation) == ("add", "neg") else 1
            found = Counter({x: sign * n for x, n in first.items()})
            for x, n in others[0].items() if others else ():
                found[x] += n if operation == do else -n
            if (do, operation) == ("mul", "neg"):
                found[MINUS] += 1
            self.parts[do, node] = found
        return self.parts[do, node]

    def _sum(self, node: int) -> str:
        signed = []
        for x, n in self._parts(node, "add", "sub").items():
            text = self.text(x, PRODUCT)
            if self.known[x][1] == SUM:  # -a*b
                n, text = -n, self.known[x][0][1:]
            if abs(n) != 1:
                text = f"{abs(n)}*{text}"
            if n:
                signed.append((n < 0, text))
        signed.sort(key=lambda term: term[0])
        text = "".join(f" {'-' if minus else '+'} {term}" for minus, term in signed)
        return text[3:] if text.startswith(" + ") else f"-{text[3:]}" if text else "0"

    def _product(self, node: int) -> tuple[str, int]:
        factors = self._parts(node, "mul", "div")
        above = [(x, n) for x, n in factors.items() if n > 0 and x != MINUS]
        below = [(x, -n) for x, n in factors.items() if n < 0 and x != MINUS]
        # Numbers first, then params.
        above.sort(key=lambda factor: self._rank(factor[0]))
        up, down = ([self._power(*f) for f in part] for part in (above, below))
        text = "*".join(up) or "1"
        if down:
            text += f"/{down[0]}" if len(down) == 1 else f"/({'*'.join(down)})"
        if factors[MINUS] % 2:
            return f"-{text}", SUM
        return text, PRODUCT if len(up) + len(down) > 1 or down else POWER

    def _rank(self, node: int) -> int:
        kind = self.graph.nodes[node][:2]
        return 0 if kind[0] == "const" else 1 if kind == ("var", "p") else 2

    def _power(self, x: int, n: int) -> str:
        return self.text(x, POWER) if n == 1 else f"{self.text(x, ATOM)}**{n}"
