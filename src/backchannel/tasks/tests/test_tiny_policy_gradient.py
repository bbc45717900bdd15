"""Policy gradients on the tiny language model: rewards and prices by hand, steps that agree, rewards that rise."""

from functools import partial

import pytest

torch = pytest.importorskip("torch", reason="the tiny language model needs torch")

from backchannel.parts.objectives import Objective, Pairs, Rollouts  # noqa: E402
from backchannel.preference.ppo import generalised_advantage, ppo  # noqa: E402
from backchannel.preference.reinforce import reinforce  # noqa: E402
from backchannel.preference.rloo import leave_one_out, rloo  # noqa: E402
from backchannel.tasks.tiny_answers import LENGTH, Answers, gold, random_prompts, reference, standing  # noqa: E402
from backchannel.tasks.tiny_policy_gradient import (  # noqa: E402
    Credited,
    Critic,
    among,
    at_the_end,
    expected,
    measured,
    policy_gradient,
    roll,
)


def _start():
    return reference(0, width=16, layers=1, steps=80)


def _rolled(group=2, beta=0.5):
    rng = torch.Generator().manual_seed(1)
    model = reference(1, width=16, layers=1, steps=80)
    return model, roll(model, _start(), gold, random_prompts(6, rng), group, beta, rng)


def _same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def _apart(one, other):
    """How far log-probabilities differ. Adam's first step is a sign: weights whose gradient is all but 0 may differ."""
    _, rolled = _rolled()
    with torch.no_grad():
        away = one.log_probability(rolled.answers) - other.log_probability(rolled.answers)
    return float(away.square().mean().sqrt())


def test_a_roll_pays_for_every_token_and_is_rewarded_at_the_end():
    _, rolled = _rolled()
    mask = rolled.answers.mask
    torch.testing.assert_close(rolled.price, 0.5 * (rolled.sampled - rolled.reference))
    assert float(rolled.price.abs().sum()) > 1
    assert float(rolled.price[~mask].abs().sum()) == 0
    torch.testing.assert_close(rolled.total, gold(rolled.answers) - 0.5 * rolled.divergence)
    torch.testing.assert_close(rolled.rewards.sum(1), rolled.total)
    for row in range(len(mask)):
        last = int(mask[row].sum()) - 1
        earned = (rolled.rewards + rolled.price)[row]
        assert float(earned[last]) == pytest.approx(float(rolled.reward[row]), abs=1e-5)
        assert float(earned.abs().sum()) == pytest.approx(abs(float(rolled.reward[row])), abs=1e-5)
    assert bool((rolled.answers.prompts[0::2] == rolled.answers.prompts[1::2]).all())
    whole = Answers(rolled.answers.prompts[:1], torch.ones(1, LENGTH, dtype=torch.int64))
    assert at_the_end(torch.ones(1), whole).tolist() == [[0.0] * (LENGTH - 1) + [1.0]]


def test_credit_is_the_rule_of_totals():
    _, rolled = _rolled(group=3)
    advantage = among(leave_one_out)(rolled).advantage
    for i in range(6):
        total = rolled.total[3 * i : 3 * i + 3]
        own = total - (total.sum() - total) / 2
        torch.testing.assert_close(advantage[3 * i : 3 * i + 3], own[:, None].expand(3, LENGTH))


def test_pairs_are_the_first_two_answers_and_who_drew_them_is_the_reference():
    model, rolled = _rolled(group=3)
    pairs = measured(model, None, rolled, None, torch.tensor([4, 0]))
    assert isinstance(pairs, Pairs)
    rows = torch.tensor([12, 0])
    torch.testing.assert_close(pairs.gap, rolled.total[rows] - rolled.total[rows + 1])
    torch.testing.assert_close(pairs.reference_chosen, rolled.sampled[rows].sum(1))
    torch.testing.assert_close(pairs.reference_rejected, rolled.sampled[rows + 1].sum(1))
    torch.testing.assert_close(pairs.policy_rejected, pairs.reference_rejected)


def test_a_first_step_of_rloo_is_one_of_reinforce():
    def once(objective, rounds=1, **more):
        return policy_gradient(_start(), gold, objective, among(leave_one_out), rounds, 8, 2, 1e-3, 0, **more)

    one, other = once(rloo(0.2)), once(reinforce())
    assert _apart(one, other) < 0.02 * _apart(one, _start())
    assert _same(one, once(rloo(0.2)))
    assert not _same(one, once(rloo(0.2), epochs=2))
    assert not _same(one, once(rloo(0.2), batch=4))
    assert _same(one, once(rloo(0.2), beta=1.0))  # where nothing has moved, there is nothing to pay
    assert not _same(once(rloo(0.2), 2), once(rloo(0.2), 2, beta=1.0))


def test_rewards_rise_and_a_price_keeps_the_model_near():
    start = _start()

    def tuned(beta, objective=None, credit=None, **more):
        objective, credit = objective or rloo(0.2), credit or among(leave_one_out)
        return policy_gradient(start, gold, objective, credit, 20, 16, 4, 8e-3, 0, beta, **more)

    before = standing(start, start, 500, 9)
    free, dear = (standing(tuned(beta), start, 500, 9) for beta in (0.0, 1.0))
    assert free.gold > before.gold + 0.5
    assert dear.divergence < 0.5 * free.divergence
    critic = Critic(start)
    heard = []
    credit = expected(critic, partial(generalised_advantage, discount=1.0, trace=0.95))
    model = tuned(
        0.0, ppo(0.2, 0.5), credit, epochs=2, critic=critic, after=lambda each, now, rolled: heard.append(rolled)
    )
    assert standing(model, start, 500, 9).gold > before.gold + 0.3
    rolled = heard[-1]
    with torch.no_grad():
        value = critic(rolled.answers)
    _, returns = generalised_advantage(rolled.rewards, value, rolled.answers.mask, 1.0, 1.0)
    mask = rolled.answers.mask
    assert float((value - returns)[mask].square().mean()) < 0.9 * float(returns[mask].square().mean())


def test_a_critic_does_not_look_ahead():
    critic = Critic(_start(), outputs=2)
    torch.nn.init.ones_(critic.value.weight)
    tokens = torch.full((2, LENGTH), 15)
    tokens[1, 4] = 16
    one, other = critic(Answers(random_prompts(1, torch.Generator().manual_seed(0)).repeat(2, 1), tokens))
    assert one.shape == (LENGTH, 2)
    torch.testing.assert_close(one[:5], other[:5])
    assert not torch.allclose(one[5], other[5])


def test_weights_of_an_objective_count():
    # Answers that count for nothing teach nothing: the loss of long ones alone is the loss where short ones have none.
    def loss(rollouts):
        return rloo(0.2)(rollouts)

    def cut(rollouts):
        each, info = rloo(0.2)(rollouts)
        return each * many(rollouts) / many(rollouts).mean(), info

    def many(rollouts):
        return (rollouts.mask.sum(1) > 5).float()

    pair = [
        policy_gradient(_start(), gold, objective, among(leave_one_out), 1, 8, 2, 1e-3, 0)
        for objective in (Objective(loss, Rollouts, weight=many), Objective(cut, Rollouts))
    ]
    every = policy_gradient(_start(), gold, rloo(0.2), among(leave_one_out), 1, 8, 2, 1e-3, 0)
    assert _apart(*pair) < 0.02 * min(_apart(pair[0], _start()), _apart(pair[0], every))


def test_who_hears_of_a_round_may_change_the_model():
    start, rounds = _start(), []

    @torch.no_grad()
    def back(each, model, rolled):
        rounds.append(each)
        assert not _same(model, start)
        for now, then in zip(model.parameters(), start.parameters(), strict=True):
            now.copy_(then)

    def nothing(rolled):
        return Credited(torch.ones(len(rolled.reward), LENGTH))

    assert _same(policy_gradient(start, gold, reinforce(), nothing, 3, 4, 1, 1e-3, 0, after=back), start)
    assert rounds == [0, 1, 2]


def test_what_stands_beside_adam_steps_with_it_and_holds_the_policy():
    start, steps = _start(), []

    class Back:
        def __init__(self, parameters):
            self.parameters, self.first = parameters, [each.detach().clone() for each in parameters]

        @torch.no_grad()
        def step(self):
            steps.append(any(not torch.equal(a, b) for a, b in zip(self.parameters, self.first, strict=True)))
            for now, then in zip(self.parameters, self.first, strict=True):
                now.copy_(then)

    tuned = policy_gradient(
        start, gold, rloo(0.2), among(leave_one_out), 2, 4, 2, 1e-3, 0, epochs=2, batch=2, beside=Back
    )
    assert _same(tuned, start)
    assert steps == [True] * 8  # two rounds of two epochs of two batches
