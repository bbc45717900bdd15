"""Constrained RLHF: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.card import Method  # noqa: E402
from backchannel.parts.objectives import Rollouts, random_batch  # noqa: E402
from backchannel.preference import constrained_rlhf as module  # noqa: E402
from backchannel.preference.constrained_rlhf import ThresholdSearch, constrained_rlhf  # noqa: E402
from backchannel.preference.ppo import ppo  # noqa: E402
from backchannel.preference.tests.ppo_by_hand import ppo_by_hand  # noqa: E402
from backchannel.testing.battery import check_card  # noqa: E402


def _headed(n=9, seed=1, heads=3):
    rng = torch.Generator().manual_seed(seed)
    value, returns = torch.randn(2, n, 9, heads, generator=rng, dtype=torch.float64)
    return random_batch(Rollouts, n, seed)._replace(value=value, returns=returns)


def test_card():
    check_card(Method("constrained_rlhf", "preference", module.CARD, module))


def test_step_loss_by_hand():
    batch = _headed()
    batch = batch._replace(advantage=batch.advantage * (torch.arange(9) % 3 > 0))  # where it is 0 nothing is clipped
    losses, shares, errors = ppo_by_hand(batch, 0.3, 0.4)
    loss, info = constrained_rlhf([1, 2], epsilon=0.3, value_weight=0.4).objective(batch)
    np.testing.assert_allclose(loss, losses, rtol=1e-10)
    np.testing.assert_allclose(info.clipped, shares, rtol=1e-12)
    np.testing.assert_allclose(info.value_error, errors, rtol=1e-12)


@pytest.mark.parametrize("kind", ["inequality", "equality"])
def test_step_multipliers_and_mixture_by_hand(kind):
    method, rng = constrained_rlhf([1.0, -0.5], kind, rate=0.7), np.random.default_rng(0)
    mu = np.zeros(2)
    for _ in range(5):
        rewards = rng.normal(size=(6, 2)).astype(np.float32)
        off = rewards.mean(0) - [1.0, -0.5]
        w = 1 / (1 + np.exp(-mu)) if kind == "inequality" else np.tanh(mu)
        slope = w * (1 - w) if kind == "inequality" else 1 - w**2
        mu = mu - 0.7 * slope * off
        method.update(torch.from_numpy(rewards))
        np.testing.assert_allclose(method.multipliers, mu, rtol=1e-4, atol=1e-5)
    w = 1 / (1 + np.exp(-mu)) if kind == "inequality" else np.tanh(mu)
    advantages = rng.normal(size=(4, 7, 3))
    mixed = (2 - w.sum()) * advantages[..., 0] + w[0] * advantages[..., 1] + w[1] * advantages[..., 2]
    np.testing.assert_allclose(method.mixed(torch.from_numpy(advantages)), mixed, rtol=1e-4, atol=1e-5)


def test_known_constraints_of_a_table_are_met():
    # Three answers with two rewards each, exact natural policy gradients. The policy nearest to the reference that
    # meets both is, from theory, the reference tilted by both rewards; its means are made the thresholds.
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.2, 0.1]])
    reference = torch.log(torch.tensor([0.2, 0.2, 0.6]))
    goal = torch.softmax(reference + rewards @ torch.tensor([1.5, 0.5]), 0)
    for kind in ("inequality", "equality"):
        method = constrained_rlhf((goal @ rewards).tolist(), kind, rate=1.0)
        logits = reference.clone()
        for _ in range(500):
            policy = torch.softmax(logits, 0)
            signals = torch.cat([(-0.5 * (policy.log() - reference))[:, None], rewards], 1)  # the price is 0.5 a nat
            logits = logits + 0.3 * method.mixed(signals - policy @ signals)
            method.update((policy @ rewards)[None])
        torch.testing.assert_close(torch.softmax(logits, 0), goal, rtol=0, atol=2e-3)
        torch.testing.assert_close(method.weights, torch.tensor([0.75, 0.25]), rtol=0, atol=5e-3)


def test_known_the_simplex_finds_the_top_of_a_hill():
    peak = np.array([0.3, -1.2])
    search = ThresholdSearch(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    tried = []
    for _ in range(120):
        tried.append(search.point.copy())
        x = search.point - peak
        search.tell(float(-(x[0] ** 2) - 3 * x[1] ** 2 - x[0] * x[1]))
    assert search.best is not None
    np.testing.assert_allclose(search.best[1], peak, atol=1e-4)
    assert len(np.unique(np.round(tried[:20], 12), axis=0)) == 20


def test_step_the_simplex_by_hand():
    # Values go down to the right and up: reflect (best so far), expand; reflect to the middle; contract; shrink.
    def told(values):
        search, points = ThresholdSearch(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])), []
        for value in values:
            points.append(search.point.tolist())
            search.tell(value)
        return [*points, search.point.tolist()]

    start = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    assert told([0, 1, 2])[3] == [1.0, 1.0]
    assert told([0, 1, 2, 3])[4] == [1.5, 1.5]
    assert told([0, 1, 2, 3, 4])[5] == [0.5, 2.5]  # opposite of (1, 0), over (0, 1) and (1.5, 1.5)
    assert told([0, 1, 2, 3, 2.5])[5] == [0.0, 2.0]  # the expanded point was no better: opposite over (0, 1), (1, 1)
    assert told([0, 1, 2, 1.5])[4] == [0.0, 2.0]  # the reflected point is second: kept
    assert told([0, 1, 2, 2])[4] == [0.0, 2.0]  # as good as the best: kept, and not expanded
    assert told([0, 1, 2, 3, 3])[5] == [0.0, 2.0]  # the expanded point is as good as the reflected one, which is kept
    assert told([0, 1, 2, 0.5])[4] == [0.25, 0.25]  # contracted towards the worst
    assert told([0, 1, 2, 1])[4] == [0.25, 0.25]  # no better than the second: the same
    assert told([0, 1, 2, 0.5, 0.7])[5] == [0.75, 0.75]  # kept, still the worst: reflected
    assert told([0, 1, 2, 0.5, 0])[5] == [0.5, 0.5]  # no better than the worst: all come nearer to the best
    shrunk = told([0, 1, 2, -1, -1, 0, 0])
    assert shrunk[5:7] == [[0.5, 0.5], [0.0, 0.5]]
    assert shrunk[:3] == start


def test_limit_one_head_and_a_weight_of_one_is_ppo():
    batch = _headed(heads=1)
    plain = batch._replace(value=batch.value[:, :, 0], returns=batch.returns[:, :, 0])
    torch.testing.assert_close(constrained_rlhf([1.0]).objective(batch)[0], ppo(0.2, 0.5)(plain)[0])
    assert not constrained_rlhf([1.0]).objective.reference
    method = constrained_rlhf([1.0], "inequality", rate=1.0)
    method.multipliers = torch.tensor([50.0])
    advantages = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(method.mixed(advantages), advantages[:, 1])


def test_contrast_a_fixed_sum_goes_past_what_a_weight_stops_at():
    # One reward, raised by its weight: a fixed weight goes on for ever; xi-PPO's turns round at the threshold, and
    # mu-PPO's fades there; below the threshold both push on.
    below, above = torch.full((3, 1), 0.5), torch.full((3, 1), 2.0)
    pushed, stopped, turned = (constrained_rlhf([1.0], kind, rate=2.0) for kind in ("inequality",) * 2 + ("equality",))
    for _ in range(50):
        pushed.update(below)
        stopped.update(above)
        turned.update(above)
    assert float(pushed.weights) > 0.9
    assert 0 < float(stopped.weights) < 0.1
    assert float(turned.weights) < -0.9
    advantages = torch.tensor([[0.0, 1.0]])
    assert float(pushed.mixed(advantages)) > 0.9
    assert float(turned.mixed(advantages)) < -0.9


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"thresholds": []}, "at least one reward"),
        ({"kind": "both"}, "kind must be"),
        ({"rate": 0}, "rate"),
        ({"epsilon": 1}, "epsilon"),
        ({"epsilon": 0}, "epsilon"),
        ({"value_weight": 0}, "value_weight"),
    ],
)
def test_wrong_arguments(given, word):
    with pytest.raises(ValueError, match=word):
        constrained_rlhf(**({"thresholds": [1.0]} | given))
    with pytest.raises(ValueError, match="3 advantages, the price's first, not 2"):
        constrained_rlhf([1.0, 2.0]).mixed(torch.zeros(4, 2))
    for shape in ((2, 2), (3,), (3, 2, 1)):
        with pytest.raises(ValueError, match=r"N \+ 1 points"):
            ThresholdSearch(np.zeros(shape))
