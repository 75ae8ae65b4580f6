"""Billiards: a cue ball is to bring another ball to rest at a target."""

import torch

from sklearn_inverse.forward import ForwardFunction

__all__ = ["aim", "billiards"]

CUE = 0.1, 0.5  # where the cue ball lies
RADIUS = 0.03
ELASTICITY = 0.8
FRICTION = 1.0  # deceleration per speed: a ball of speed v rolls v / FRICTION far


def billiards(*, noise=0.003):
    r"""Return the cue ball's collision with another one, which misses leave where it is.

    Parameters
    ----------
    noise : object, default=0.003
        How readings scatter, and so how near to its target a ball must come.

    Returns
    -------
    model : ForwardFunction
        Params ``vx`` and ``vy``, the velocity of the cue ball; inputs ``x`` and ``y``,
        where the other ball lies; observables ``x`` and ``y``, where it comes to rest.

    Notes
    -----
    Balls have mass one, radius 0.03 and elasticity e = 0.8; linear friction
    :math:`\gamma = 1` lets a ball of speed v roll :math:`v / \gamma` far. Where the cue
    ball, on its ray from (0.1, 0.5), touches the other one after a path d,

    .. math:: v_c = |v| - \gamma d, \qquad
              x_\text{rest} = x + \tfrac{1 + e}{2\gamma}\, v_c\, (\hat v \cdot n)\, n

    with n from the cue ball's center to the other's. If it passes by, or stops before,
    the other ball stays where it is, and there is no gradient. Of the prior's velocities
    about one in six hits. Values are those of [2]_, whose balls know no friction.

    References
    ----------
    .. [1] P. Holl, N. Thuerey, "The unreasonable effectiveness of solving inverse
       problems with neural networks", arXiv:2408.08119, 2024.

    .. [2] Billiards example of PhiFlow, https://github.com/tum-pbs/PhiFlow.
    """
    return ForwardFunction(
        rest,
        {"vx": (0, 2), "vy": (-1, 1)},
        inputs={"x": (0.4, 0.6), "y": (0.3, 0.7)},
        observables=["x", "y"],
        noise=noise,
        name="billiards",
    )


def rest(params, inputs):
    """Return where the other ball comes to rest, (n_samples, 1, 2).

    Parameters
    ----------
    params, inputs : Tensor of shape (n_samples, 2)
        Velocity of the cue ball, and where the other one lies.
    """
    between = inputs - inputs.new_tensor(CUE)
    speed = params.norm(dim=1, keepdim=True)
    heading = params / torch.where(speed > 0, speed, 1.0)
    ahead = (heading * between).sum(dim=1, keepdim=True)
    square = 4 * RADIUS**2 - (between.square().sum(dim=1, keepdim=True) - ahead**2)
    depth = torch.where(square > 0, square, 1.0).sqrt()
    at_contact = speed - FRICTION * (ahead - depth)
    hits = (square > 0) & (ahead > 0) & (at_contact > 0)
    normal = (between - (ahead - depth) * heading) / (2 * RADIUS)
    along = (heading * normal).sum(dim=1, keepdim=True)
    rolled = (1 + ELASTICITY) / 2 * at_contact * along * normal / FRICTION
    return (inputs + torch.where(hits, rolled, 0.0))[:, None]


def aim(inputs, targets):
    """Return the one velocity (n_samples, 2) that brings each ball to its target.

    Parameters
    ----------
    inputs, targets : Tensor of shape (n_samples, 2)
        Where it lies, and where it is to come to rest: beyond, as the cue ball sees it.
    """
    way = targets - inputs
    distance = way.norm(dim=1, keepdim=True)
    normal = way / distance
    path = inputs - 2 * RADIUS * normal - inputs.new_tensor(CUE)
    length = path.norm(dim=1, keepdim=True)
    heading = path / length
    along = (heading * normal).sum(dim=1, keepdim=True)
    at_contact = 2 * FRICTION * distance / ((1 + ELASTICITY) * along)
    return (at_contact + FRICTION * length) * heading
