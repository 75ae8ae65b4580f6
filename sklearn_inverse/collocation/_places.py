"""Where equations are asked to hold, what networks are told there, and derivatives."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

__all__ = ["Places", "Points", "Told", "gradient"]


class Points(NamedTuple):
    """Points of the domain, with what is known of them beforehand.

    Attributes
    ----------
    unit, rate : dict of str to Tensor of shape (n_points,)
        By axis, the coordinate s on [0, 1] and its rate ds/dx.

    splines : dict of str to dict of str to Tensor of shape (4, n_points, n_nodes)
        By unknown function and axis, what makes its value and derivatives there of its
        values at nodes: cubic, so that second derivatives are continuous.
    """

    unit: dict[str, Tensor]
    rate: dict[str, Tensor]
    splines: dict[str, dict[str, Tensor]]

    @classmethod
    def at(cls, scales, unit, functions, **options) -> "Points":
        """Return points at unit coordinates (n_points, n_axes), NumPy's."""
        unit = dict(zip(scales, np.asarray(unit, dtype=float).T))
        value = {axis: scale.to_value(unit[axis]) for axis, scale in scales.items()}
        rate = {axis: scale.rate(value[axis]) for axis, scale in scales.items()}
        unit, rate = (
            {axis: torch.as_tensor(a).to(**options) for axis, a in part.items()}
            for part in (unit, rate)
        )
        splines: dict[str, dict[str, Tensor]] = {}
        for name, function in functions.items():
            splines[name] = {}
            for axis, nodes in function.nodes.items():
                spline = CubicSpline(nodes, np.eye(len(nodes)))
                orders = np.stack([spline(value[axis], k) for k in range(4)])
                splines[name][axis] = torch.as_tensor(orders).to(**options)
        return cls(unit, rate, splines)

    def __len__(self) -> int:
        return len(next(iter(self.unit.values())))


class Told:
    r"""What networks are told of the params, and the directions that they must know.

    ======== =========================================== ==============================
    mode     told                                        directions
    ======== =========================================== ==============================
    "basis"  scaled params; of a function the whitened   the same
             coefficients, those of large waves first,
             by how much they vary
    "local"  scaled params; f where the point lies       params; the function all over
    None     nothing                                     none
    ======== =========================================== ==============================

    Parameters
    ----------
    prior : JointPrior
        Of the params.

    functions : dict of str to FunctionOnGrid
        Unknown functions by name.

    mode : {"basis", "local", None}
        See above.

    idle : Tensor of bool of shape (n_params,)
        Params of which networks are not told.
    """

    def __init__(self, prior, functions, mode, idle, **options):
        self.scaler, self.mode = prior.scaler, mode
        self.slices = {name: prior.groups[name] for name in functions}
        middle = prior.scaler.to_scaled(prior.median)
        of_function = np.zeros(prior.n_params, dtype=bool)
        for part in self.slices.values():
            of_function[part] = True
        to, back = np.eye(prior.n_params), np.eye(prior.n_params)
        gain, bias = np.where(idle.cpu(), 0.0, 2.0), np.where(idle.cpu(), 0.0, -1.0)
        center = np.where(of_function, middle, 0.0)
        self.spread: dict[str, Tensor] = {}
        by_standard = np.linalg.inv(prior.standard_slope(middle))
        for name, part in self.slices.items():
            values, vectors = np.linalg.eigh((by_standard @ by_standard.T)[part, part])
            size, vectors = np.sqrt(values[::-1]), vectors[:, ::-1]
            to[part, part] = vectors.T / size[:, None]
            back[part, part] = vectors * size
            gain[part], bias[part] = size / size[0], 0.0
            slope = prior.scaler.slope_tensor(torch.as_tensor(prior.median)).numpy()
            spread = by_standard[part] * slope[part, None]
            largest = np.linalg.norm(spread, axis=1).max()
            middle_value = np.median(prior.median[part])
            self.spread[name] = torch.tensor([middle_value, largest]).to(**options)
        kept = np.flatnonzero(~of_function)
        self.fan_in = 0.25 * (gain[kept] ** 2).sum()
        if mode == "local":
            # Behind the scalars, one for each function.
            to, back = to[kept], back[:, kept]
            gain, bias, center = gain[kept], bias[kept], 0 * center
            self.fan_in += len(functions)
        else:
            self.fan_in += (gain[of_function] ** 2).sum()
        self.to, self.back, self.gain, self.bias, self.center = (
            torch.as_tensor(a).to(**options) for a in (to, back, gain, bias, center)
        )
        n_local = len(functions) * (mode == "local")
        self.n_directions = 0 if mode is None else len(to) + n_local
        # Values at all nodes, NaN where they are params.
        self._known: dict[str, Tensor] = {}
        for name, function in functions.items():
            whole = function.prior.whole(np.full(function.prior.size, np.nan))
            self._known[name] = torch.as_tensor(whole).to(**options)

    def by_params(self, by_direction: Tensor, theta: Tensor, points: Points) -> Tensor:
        """Turn derivatives (n_samples, n_points, …, n_directions) into those by θ."""
        to = self.to.to(by_direction)
        n = len(to)
        found = by_direction[..., :n] @ to
        if self.mode != "local" or not self.slices:
            return found
        slope = self.scaler.slope_tensor(self.scaler.from_scaled_tensor(theta))
        for i, (name, part) in enumerate(self.slices.items()):
            read = torch.ones(len(points), 1).to(found)
            for spline in points.splines[name].values():
                read = (read[:, :, None] * spline[0].to(found)[:, None]).flatten(1)
            read = read[:, self._known[name].flatten().isnan()]
            size = self.spread[name][1].to(found)
            shift = by_direction[..., n + i] / size
            middle = [1] * (found.ndim - 3)
            read = read.reshape(1, len(read), *middle, -1)
            own = slope[:, part].to(found).reshape(len(slope), 1, *middle, -1)
            found[..., part] = shift[..., None] * read * own
        return found

    def whole(self, name: str, params: Tensor) -> Tensor:
        """Return a function at all its nodes, (n_rows, n_nodes, …), of params at rows."""
        values, known = params[:, self.slices[name]], self._known[name].to(params)
        place = known.flatten().isnan().nonzero()[:, 0]
        if len(place) < known.numel():
            flat = known.flatten().expand(len(values), -1)
            values = flat.index_copy(1, place, values)
        return values.unflatten(1, known.shape)


class Places:
    """Points for each sample, as rows, with the params there.

    Derivatives by coordinates, and along the directions that networks must know, go
    through leaves of their own: row i of whatever is computed depends on row i only, so
    that one backward pass gives a derivative at all rows.

    Parameters
    ----------
    points : Points
        The same for all samples.

    told : Told
        What networks are told.

    theta : Tensor of shape (n_samples, n_params)
        Scaled params.

    sources : list of (str, float), default=()
        Axis and place of sources in a point, where the solution has a cusp: networks are
        told of the distance, of which they can be smooth functions.

    source : (str, float), default=None
        The one in which all points lie, or their border. The second derivative of the
        distance there is twice ``strength``, of which the source has one: what multiplies
        it in the equation is the jump of a first derivative, and what balances it.
    """

    def __init__(
        self, points: Points, told: Told, scales, theta: Tensor, sources=(), source=None
    ):
        self.sources, self.source, self._scales = sources, source, scales
        n_samples, n_points = len(theta), len(points)
        self.shape = n_samples, n_points
        self.points = points
        self.unit = {
            axis: s.to(theta).repeat(n_samples).requires_grad_()
            for axis, s in points.unit.items()
        }
        self.value = {
            axis: scale.to_value(self.unit[axis]) for axis, scale in scales.items()
        }
        n = n_samples * n_points
        self.strength = theta.new_zeros(n).requires_grad_()
        self.shift = theta.new_zeros(n, told.n_directions).requires_grad_()
        n_kept = len(told.to) if told.n_directions else 0
        rows = theta.repeat_interleave(n_points, dim=0)
        if n_kept:
            rows = rows + self.shift[:, :n_kept] @ told.back.to(theta).mT
        self.params = told.scaler.from_scaled_tensor(rows)
        self.functions = {}
        parts = []
        if told.n_directions:
            whitened = (rows - told.center.to(rows)) @ told.to.to(rows).mT
            parts = [told.gain.to(rows) * whitened + told.bias.to(rows)]
        for i, name in enumerate(told.slices):
            f = self._function(name, told)
            if told.mode == "local":
                middle, size = told.spread[name].to(f)
                f = f + size * self.shift[:, n_kept + i]
                parts.append(((f - middle) / size)[:, None])
            self.functions[name] = f
        empty = theta.new_zeros(n, 0)
        self.told = torch.cat(parts or [empty], dim=1)

    def _function(self, name: str, told: Told) -> Tensor:
        """Return an unknown function at all rows."""
        f = told.whole(name, self.params)
        for axis, spline in self.points.splines[name].items():
            away = (self.value[axis] - self.value[axis].detach())[:, None]
            # A cubic around each point: its derivatives there are those of the spline.
            at, slope, bend, twist = map(self.rows, spline)
            read = at + away * (slope + away * (bend / 2 + away * twist / 6))
            f = torch.einsum("rn,rn...->r...", read, f)
        return f

    def network(self, net, layers) -> Tensor:
        """Return the networks' outputs at all rows, in the precision of the params."""
        inputs = [*self.unit.values(), *map(self._distance, self.sources)]
        unit = torch.stack(inputs, dim=1)
        unit, told = (
            x.to(net.embedding.dtype).unflatten(0, self.shape)
            for x in (unit, self.told)
        )
        return net.value(layers, unit, told).to(self.params).flatten(0, 1)

    def _distance(self, source) -> Tensor:
        axis, place = source
        away = self.value[axis] - place
        far = away.abs()
        if source == self.source:
            far = far + self.strength * away.square()
        return far / self._scales[axis].length

    def impulse(self, source) -> Tensor:
        """Return a source at all rows: nothing outside its point."""
        return self.strength if source == self.source else 0 * self.strength

    def rows(self, array: Tensor) -> Tensor:
        """Repeat what is known at points (n_points, …) for all samples."""
        return array.to(self.params).repeat(self.shape[0], *[1] * (array.ndim - 1))

    def by(self, axis: str, value: Tensor) -> Tensor:
        """Return the derivative by a coordinate of rows (n_rows,) or (n_rows, n)."""
        rate = self.rows(self.points.rate[axis])
        return along(value, self.unit[axis]) * (
            rate if value.ndim == 1 else rate[:, None]
        )


def along(value: Tensor, leaf: Tensor) -> Tensor:
    """Differentiate rows (n_rows, …) by a leaf of one number each."""
    if not value.requires_grad:
        return torch.zeros_like(value)
    if value.ndim == 1:
        (found,) = torch.autograd.grad(
            value.sum(), leaf, create_graph=True, allow_unused=True
        )
        return torch.zeros_like(value) if found is None else found
    # What is pulled back is linear in v; its derivative by v is what we look for.
    v = torch.zeros_like(value, requires_grad=True)
    (pulled,) = torch.autograd.grad(
        value, leaf, v, create_graph=True, allow_unused=True
    )
    if pulled is None:
        return torch.zeros_like(value)
    return torch.autograd.grad(pulled.sum(), v, create_graph=True)[0]


def gradient(value: Tensor, leaf: Tensor, keep_graph: bool) -> Tensor:
    """Differentiate rows (n_rows, n) by a leaf (n_rows, q): (n_rows, n, q)."""
    found = []
    for i in range(value.shape[1]):
        (part,) = torch.autograd.grad(
            value[:, i].sum(),
            leaf,
            create_graph=keep_graph,
            retain_graph=True,
            allow_unused=True,
        )
        found.append(torch.zeros_like(leaf) if part is None else part)
    return torch.stack(found, dim=1)
