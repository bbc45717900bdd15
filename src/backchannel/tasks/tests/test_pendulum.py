"""Pendulums: physics, rewards by hand, and a swing-up.

The dynamics were compared with those of gymnasium 1.4.0, which is no dependency: over 50 trajectories of 200 steps,
with torques beyond the limit, angles, speeds and rewards differed by less than 2e-15.
"""

import numpy as np
import pytest

from backchannel.tasks.pendulum import STEPS, rollout, starts, step, torques

GOOD = (-5.0, -4.0, -5.0, -18.0)


def test_one_step_by_hand():
    # Hanging but for 0.1, at speed 1, pushed by 3, of which 2 are possible.
    angle, speed, reward = step(np.array([np.pi - 0.1]), np.array([1.0]), np.array([3.0]))
    pulled = 1.0 + 0.05 * (15 * np.sin(np.pi - 0.1) + 3 * 2)
    assert speed[0] == pytest.approx(pulled)
    assert angle[0] == pytest.approx(np.pi - 0.1 + 0.05 * pulled)
    assert reward[0] == pytest.approx(-((np.pi - 0.1) ** 2 + 0.1 + 0.004))


def test_angles_go_round_and_speeds_end():
    turned = np.array([0.3, 0.3 + 2 * np.pi, 0.3 - 4 * np.pi])
    _, _, reward = step(turned, np.zeros(3), np.zeros(3))
    np.testing.assert_allclose(reward, -0.09, rtol=1e-9)
    side = np.array([np.pi / 2, -np.pi / 2, np.pi / 2])
    _, speed, _ = step(side, np.array([7.9, -7.9, -7.9]), np.array([2.0, -2.0, -2.0]))
    np.testing.assert_allclose(speed, [8.0, -8.0, -7.9 + 0.05 * (15 - 6)])


def test_small_swings_have_the_period_of_a_rod():
    # theta'' = -(3 g / 2 l) theta about the bottom: a period of 2 pi / sqrt(15) = 1.622 seconds.
    seen = rollout(lambda seen: np.zeros(len(seen)), np.array([np.pi + 0.05]), np.zeros(1)).observations[0]
    up = np.flatnonzero((seen[:-1, 2] < 0) & (seen[1:, 2] >= 0))
    assert 0.05 * np.diff(up).mean() == pytest.approx(2 * np.pi / 15**0.5, rel=0.01)


def test_trajectories_are_those_of_single_pendulums():
    rng = np.random.default_rng(0)
    angle, speed = starts(3, rng)
    weights = rng.normal(size=(3, 4))
    together = rollout(torques(weights), angle, speed, steps=30)
    pushed = rollout(lambda seen: np.full(3, 5.0), angle, speed, steps=2)
    np.testing.assert_array_equal(pushed.torques, 2.0)
    for i in range(3):
        alone = rollout(torques(weights[i]), angle[i : i + 1], speed[i : i + 1], steps=30)
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_of_them[i])
    x, y, total = float(angle[0]), float(speed[0]), 0.0
    for _ in range(30):
        features = np.array([np.sin(x), y / 8, np.cos(x) * np.sin(x), np.cos(x) * y / 8])
        u = 2 * np.tanh(features @ weights[0])
        total -= ((x + np.pi) % (2 * np.pi) - np.pi) ** 2 + 0.1 * y**2 + 0.001 * u**2
        y = min(max(y + 0.05 * (15 * np.sin(x) + 3 * u), -8), 8)
        x += 0.05 * y
    assert together.returns[0] == pytest.approx(total)


def test_a_mirrored_pendulum_is_pushed_the_other_way():
    weights, (angle, speed) = np.array([1.0, -2.0, 3.0, 0.5]), starts(5, np.random.default_rng(1))
    one, other = (rollout(torques(weights), s * angle, s * speed, steps=50) for s in (1, -1))
    np.testing.assert_allclose(one.torques, -other.torques, atol=1e-9)
    np.testing.assert_allclose(one.returns, other.returns, atol=1e-9)


def test_weights_that_swing_it_up():
    angle, speed = starts(200, np.random.default_rng(2))
    assert (np.abs(angle) <= np.pi).all()
    assert (np.abs(speed) <= 1).all()
    good = rollout(torques(np.array(GOOD)), angle, speed)
    idle = rollout(torques(np.zeros(4)), angle, speed)
    assert good.observations.shape == (200, STEPS, 3)
    assert good.returns.mean() > -300
    assert idle.returns.mean() < -1000


def test_wrong_arguments():
    with pytest.raises(ValueError, match="angle and speed must be"):
        rollout(torques(np.zeros(4)), np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="weights must be"):
        torques(np.zeros(3))
