"""Pendulums to be swung up: the equations of Gymnasium's Pendulum-v1, many of them at once.

A rod of mass and length 1 hangs on a motor that is too weak to lift it: it must be swung. With the angle theta, 0 at
the top, the speed omega, the torque u in [-2, 2], gravity 10 and steps of 0.05 seconds,

    omega' = clip(omega + 0.05 (15 sin theta + 3 u), -8, 8),    theta' = theta + 0.05 omega'            (1)
    reward = -(theta^2 + 0.1 omega^2 + 0.001 u^2), of theta in [-pi, pi), before the step               (2)

A trajectory has `STEPS` steps, from theta in [-pi, pi) and omega in [-1, 1), both uniform. What is seen is
(cos theta, sin theta, omega). The return, the sum of rewards, is about -1,250 on average for a pendulum that is left
alone, and -180 for one that (3) swings up.

`torques` is a small policy that can do it, four weights w:

    u = 2 tanh(w . (sin theta, omega / 8, cos theta sin theta, cos theta omega / 8))                    (3)

Mirroring a pendulum mirrors the torque. Each pendulum may have weights of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

STEPS, WEIGHTS = 200, 4
TORQUE, SPEED, SECONDS = 2.0, 8.0, 0.05


class Trajectories(NamedTuple):
    """What n pendulums did."""

    observations: np.ndarray  # float64[n, steps, 3]: cos theta, sin theta, omega, each before its step
    torques: np.ndarray  # float64[n, steps], as applied
    rewards: np.ndarray  # float64[n, steps]

    @property
    def returns(self) -> np.ndarray:
        """The sum of rewards of each: float64[n]."""
        total: np.ndarray = self.rewards.sum(1)
        return total


def step(angle: np.ndarray, speed: np.ndarray, torque: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(1) and (2): angles and speeds after the step, and the rewards; all float64[n]."""
    torque = np.clip(torque, -TORQUE, TORQUE)
    away = (angle + np.pi) % (2 * np.pi) - np.pi
    reward = -(away**2 + 0.1 * speed**2 + 0.001 * torque**2)
    after = np.clip(speed + SECONDS * (15 * np.sin(angle) + 3 * torque), -SPEED, SPEED)
    return angle + SECONDS * after, after, reward


def starts(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Angles and speeds at which `n` trajectories begin."""
    return rng.uniform(-np.pi, np.pi, n), rng.uniform(-1, 1, n)


def rollout(
    act: Callable[[np.ndarray], np.ndarray], angle: np.ndarray, speed: np.ndarray, steps: int = STEPS
) -> Trajectories:
    """Trajectories of a policy.

    Args:
        act: observations [n, 3] -> torques [n]; they are clipped to [-2, 2].
        angle: at the start, float64[n].
        speed: at the start, float64[n].
        steps: of each.
    """
    if angle.ndim != 1 or speed.shape != angle.shape:
        raise ValueError(
            f"angle and speed must be [n], a number for each pendulum, not {angle.shape} and {speed.shape}"
        )
    n = len(angle)
    seen, torques, rewards = np.empty((n, steps, 3)), np.empty((n, steps)), np.empty((n, steps))
    for t in range(steps):
        seen[:, t, 0], seen[:, t, 1], seen[:, t, 2] = np.cos(angle), np.sin(angle), speed
        torques[:, t] = np.clip(act(seen[:, t]), -TORQUE, TORQUE)
        angle, speed, rewards[:, t] = step(angle, speed, torques[:, t])
    return Trajectories(seen, torques, rewards)


def torques(weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The policy (3); `weights` are [4], or [n, 4] for n pendulums, each with its own."""
    if weights.shape[-1] != WEIGHTS:
        raise ValueError(f"weights must be [{WEIGHTS}] or [n, {WEIGHTS}], not {list(weights.shape)}")

    def act(seen: np.ndarray) -> np.ndarray:
        cos, sin, speed = seen[:, 0], seen[:, 1], seen[:, 2] / SPEED
        features = np.stack([sin, speed, cos * sin, cos * speed], 1)
        out: np.ndarray = TORQUE * np.tanh((features * weights).sum(1))
        return out

    return act
