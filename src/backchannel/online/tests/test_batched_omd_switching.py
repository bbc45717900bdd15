"""Batched OMD under switching costs: proofs and contrast."""

import numpy as np
import pytest

from backchannel import play
from backchannel.base import NOTHING
from backchannel.channels.hide import asked, bandit
from backchannel.loop import Run, copy_state
from backchannel.meters.count import queries, switches
from backchannel.meters.regret import pseudo_regret
from backchannel.online.batched_omd_switching import batched_omd_switching, extra_observations, regret_bound
from backchannel.online.exp3 import exp3
from backchannel.online.hedge import hedge
from backchannel.tasks.adversarial import sequence
from backchannel.tasks.bernoulli import bernoulli

METERS = {"regret": pseudo_regret(), "switches": switches(), "queries": queries()}


def tsallis(estimates: np.ndarray, eta: float) -> np.ndarray:
    """The 1/2-Tsallis weights by bisection."""
    low, high = -eta * estimates.min(), -eta * estimates.min() + np.sqrt(len(estimates)) + 1
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum((eta * estimates + middle) ** -2.0) > 1 else (low, middle)
    return (eta * estimates + high) ** -2.0


def exponential(estimates: np.ndarray, eta: float) -> np.ndarray:
    weights = np.exp(-eta * (estimates - estimates.min()))
    return weights / weights.sum()


@pytest.mark.parametrize("feedback", ["bandit", "flexible", "full"])
def test_step_a_run_by_hand(feedback):
    # 23 rounds, so that batches differ in length; the losses are random numbers, the arms the learner's own.
    horizon, arms = 23, 3
    table = np.random.default_rng(1).random((horizon, arms))
    learner = batched_omd_switching(arms, horizon, 15, feedback)
    n, eta = int(learner.state.batches[0]), learner.state.step_size[0]
    run = Run(learner, sequence(table), horizon, seed=4, channel=asked(arms))
    bounds = [b * horizon // n for b in range(n + 1)]
    estimates, weights = np.zeros(arms), np.full(arms, 1 / arms)
    for b in range(n):
        looked = np.zeros(arms)
        for t in range(bounds[b], bounds[b + 1]):
            run.advance(1)
            action = run.trace.actions[t]
            assert action == run.trace.actions[bounds[b]]
            np.testing.assert_allclose(run.trace.propensities[t], weights[action], rtol=1e-9)
            seen = run.state.asked.copy()
            assert seen.sum() == run.trace.queries[t]
            if feedback == "bandit":
                assert not seen.any() or (np.flatnonzero(seen) == [action]).all()
            scale = {"bandit": 1 / weights[action], "flexible": arms, "full": 1.0}[feedback]
            looked += np.where(seen, table[t] * scale * (bounds[b + 1] - bounds[b]) * n / horizon, 0)
        assert run.trace.queries[bounds[b] : bounds[b + 1]].sum() == (arms if feedback == "full" else 1)
        estimates += looked
        np.testing.assert_allclose(run.state.losses, estimates, rtol=1e-9)
        weights = tsallis(estimates, eta) if feedback == "bandit" else exponential(estimates, eta)


def test_step_free_looks_at_its_own_arm():
    # Extra observations: its own arm in every round, all arms once in a batch; only the latter count.
    horizon = 64
    learner = extra_observations(arms=2, horizon=horizon, extra=32)
    run = Run(learner, sequence([[0.25, 0.75]]), horizon, seed=0, channel=asked(2)).advance()
    assert sorted(set(run.trace.queries)) == [1, 2]
    assert run.trace.queries.sum() == horizon + 32
    np.testing.assert_allclose(run.state.losses, np.array([0.25, 0.75]) * 32, rtol=1e-12)  # s = 2 rounds x N / T = 1


def test_step_too_few_extra_observations_are_not_asked():
    horizon = 64
    run = Run(extra_observations(2, horizon, 5), sequence([[0.25, 0.75]]), horizon, seed=0, channel=asked(2)).advance()
    n = run.state.batches[0]
    assert (run.trace.queries == 1).all()
    counts = np.bincount(run.trace.actions, minlength=2) > 0
    assert ((run.state.losses > 0) == counts).all()
    expected = np.zeros(2)
    for t in range(horizon):
        a = run.trace.actions[t]
        expected[a] += [0.25, 0.75][a] / run.trace.propensities[t] * n / horizon
    np.testing.assert_allclose(run.state.losses, expected, rtol=1e-9)


@pytest.mark.parametrize("feedback", ["bandit", "flexible", "full"])
def test_known_estimates_are_unbiased_by_enumeration(feedback):
    # Every round that it may look in, every arm that it may have drawn, every arm that it may look at.
    losses = np.random.default_rng(2).random((5, 3))
    learner = batched_omd_switching(3, 40, 24, feedback)
    start = copy_state(learner.state)
    start.scale[0] = 5 * start.batches[0] / 40
    start.probabilities[:] = [0.2, 0.5, 0.3]
    expected = np.zeros(3)
    for row in losses:
        for action in range(3):
            for looked in range(3):
                told = np.full(3, np.nan)
                arms = {"bandit": [action], "flexible": [looked], "full": [0, 1, 2]}[feedback]
                told[arms] = row[arms]
                state = copy_state(start)
                learner.update(state, NOTHING, action, start.probabilities[action], told)
                expected += state.losses * start.probabilities[action] / 3 / 5
    np.testing.assert_allclose(expected, losses.sum(axis=0) * start.batches[0] / 40, rtol=1e-12)


def test_known_the_look_is_uniform_in_its_batch():
    learner = batched_omd_switching(2, 100, 20)
    rng, counts = np.random.default_rng(3), np.zeros(5)
    for _ in range(4000):
        state = copy_state(learner.state)
        learner.act(state, NOTHING, rng)
        counts[state.look[0]] += 1
    # Binomial(4000, 1/5) has a standard deviation of 25.3; five of them, five counts: below 1e-5.
    assert np.abs(counts - 800).max() < 5 * 25.3


def test_known_shrinking_dartboard_keeps_the_distribution():
    # The arm of the last batch is distributed as W_b; after the estimate it is distributed as W_{b+1}.
    learner = batched_omd_switching(3, 60, feedback="full")
    base = copy_state(learner.state)
    base.step_size[0] = 1.0
    base.before[:] = [0.0, 0.4, 1.0]
    base.losses[:] = base.before + np.array([1.5, 0.1, 0.6])
    base.round[0] = base.end[0] = base.batch[0] = 7
    old, new = exponential(base.before, 1.0), exponential(base.losses, 1.0)
    rng, draws = np.random.default_rng(4), 6000
    counts, changes = np.zeros(3), 0
    for _ in range(draws):
        state = copy_state(base)
        state.arm[0] = was = rng.choice(3, p=old)
        action, propensity = learner.act(state, NOTHING, rng)
        assert abs(propensity - new[action]) < 1e-12
        counts[action] += 1
        changes += action != was
    deviation = np.sqrt(draws * new * (1 - new))
    assert (np.abs(counts - draws * new) < 5 * deviation).all()  # three counts at five deviations: below 1e-5
    # It changes arms as rarely as the rule says: with probability sum_a W_b(a) (1 - e^-l(a)) (1 - W_{b+1}(a)).
    change = np.sum(old * (1 - np.exp(base.before - base.losses)) * (1 - new))
    assert abs(changes - draws * change) < 5 * np.sqrt(draws * change * (1 - change))
    assert change < 0.6 * (1 - np.sum(old * new))  # drawing afresh would change arms more often


def test_known_bandit_batches_are_drawn_afresh():
    # Nothing was lost in the last batch: the dartboard would stay, bandit feedback draws from W all the same.
    base = copy_state(batched_omd_switching(2, 100, 20).state)
    base.round[0] = base.end[0] = 50
    base.batch[0], base.arm[0] = 10, 1
    learner, rng, drawn = batched_omd_switching(2, 100, 20), np.random.default_rng(5), 0
    for _ in range(1000):
        drawn += learner.act(copy_state(base), NOTHING, rng)[0]
    assert abs(drawn - 500) < 5 * np.sqrt(250)  # below 1e-6


def test_known_flexible_looks_are_uniform_over_arms():
    learner = batched_omd_switching(3, 3000, feedback="flexible")
    run = Run(learner, sequence([[1.0, 1.0, 1.0]]), 3000, seed=6, channel=asked(3)).advance()
    # Each look adds K = 3 to the arm it is at. Binomial(3000, 1/3) has a standard deviation of 25.8.
    np.testing.assert_allclose(run.state.losses.sum(), 9000)
    assert np.abs(run.state.losses / 3 - 1000).max() < 5 * 25.8


@pytest.mark.parametrize("feedback", ["bandit", "flexible", "full"])
@pytest.mark.parametrize("budget", [3, 17, 100, 299, 300, 900])
def test_known_the_budget_is_never_exceeded(feedback, budget):
    learner = batched_omd_switching(3, 300, budget, feedback)
    # The task outlives the learner's horizon by 100 rounds.
    spent = Run(learner, bernoulli([0.2, 0.5, 0.8]), 400, seed=budget, channel=asked(3)).advance().trace.queries.sum()
    price, n = (3 if feedback == "full" else 1), learner.state.batches[0]
    assert spent == n * price <= budget
    if feedback != "bandit":
        assert n == min(budget // price, 300)


@pytest.mark.parametrize("extra", [0, 1, 50, 100, 200, 599, 600, 5000])
def test_known_extra_observations_are_never_exceeded(extra):
    run = Run(extra_observations(3, 300, extra), bernoulli([0.2, 0.5, 0.8]), 300, seed=1, channel=asked(3)).advance()
    beyond_its_own = run.trace.queries.sum() - 300
    assert beyond_its_own == (2 * min(extra // 2, 300) if extra >= 3 ** (1 / 3) * 300 ** (2 / 3) else 0)


def test_known_default_plans():
    # Tsallis: N = (T sqrt(2 (sqrt K - 1) sqrt K))^(2/3). Its bound is then three switches' worth of batches.
    state = batched_omd_switching(4, 8000).state
    assert state.batches[0] == round((8000 * 2) ** (2 / 3))
    np.testing.assert_allclose(regret_bound(4, 8000), 3 * state.batches[0], rtol=0.1)
    np.testing.assert_allclose(
        regret_bound(4, 8000, 4000, "full"), 2 * 8000 * np.sqrt(1.5 * np.log(4) / 1000), rtol=1e-9
    )
    np.testing.assert_allclose(
        regret_bound(4, 8000, 1000, "flexible"), 2 * 8000 * np.sqrt(3 * np.log(4) / 1000), rtol=1e-9
    )


def test_limit_looking_at_all_in_every_round_is_hedge_under_the_dartboard():
    table = np.random.default_rng(5).random((50, 4))
    ours, theirs = batched_omd_switching(4, 50, feedback="full"), hedge(4, 50)
    theirs.state.step_size[:] = ours.state.step_size
    state = copy_state(theirs.state)
    run = Run(ours, sequence(table), 50, seed=0, channel=asked(4))
    for t in range(50):
        run.advance(1)
        np.testing.assert_allclose(run.trace.propensities[t], state.probabilities[run.trace.actions[t]], rtol=1e-10)
        theirs.update(state, NOTHING, 0, 1.0, table[t])
    np.testing.assert_allclose(run.state.losses, table.sum(axis=0), rtol=1e-12)


def test_limit_batches_of_one_round_with_negentropy_are_exp3():
    # With 50 arms and 10 rounds as many batches as rounds are best, and the step sizes agree.
    ours, theirs = batched_omd_switching(50, 10, entropy="negentropy"), exp3(50, 10)
    assert ours.state.batches[0] == 10
    np.testing.assert_allclose(ours.state.step_size, theirs.state.step_size, rtol=1e-12)
    run = Run(ours, bernoulli(np.full(50, 0.5)), 10, seed=6, channel=asked(50)).advance()
    other = Run(theirs, bernoulli(np.full(50, 0.5)), 10, seed=6, channel=bandit())
    state = other.state
    for t in range(10):
        np.testing.assert_allclose(run.trace.propensities[t], state.probabilities[run.trace.actions[t]], rtol=1e-9)
        loss = other.task.loss(other.task.state, t, run.trace.actions[t])
        theirs.update(state, NOTHING, run.trace.actions[t], run.trace.propensities[t], loss)


def test_contrast_exp3_pays_for_its_switches():
    # Exp3 changes arms in a constant share of the rounds while it learns. 16 runs of each: the standard errors are
    # below 60 (Exp3) and 30.
    horizon, arms = 8000, bernoulli([0.45, 0.55])
    ours = play(batched_omd_switching(2, horizon), arms, horizon, replicates=16, channel=asked(2), meters=METERS)
    theirs = play(exp3(2, horizon), arms, horizon, replicates=16, meters=METERS)
    cost, other = (run.final("regret") + run.final("switches") for run in (ours, theirs))
    assert cost.mean() < 0.5 * other.mean()
    assert cost.mean() <= regret_bound(2, horizon)


def test_contrast_bandit_feedback_cannot_spend_what_flexible_feedback_can():
    # The same 8,000 observations: one of its own arm a round, or one of any arm. Standard errors are below 25.
    horizon, arms = 8000, bernoulli([0.45, 0.55])
    arguments = {"replicates": 16, "channel": asked(2), "meters": METERS}
    own = play(batched_omd_switching(2, horizon, 8000), arms, horizon, **arguments)
    any_arm = play(batched_omd_switching(2, horizon, 8000, "flexible"), arms, horizon, **arguments)
    assert own.final("queries").max() < 0.1 * horizon
    assert (any_arm.final("queries") == horizon).all()
    cost = [(run.final("regret") + run.final("switches")).mean() for run in (own, any_arm)]
    assert cost[1] < 0.6 * cost[0]


def test_arguments_that_make_no_sense_are_refused():
    for arguments in ({"budget": 0}, {"feedback": "none"}, {"entropy": "none"}, {"budget": 2, "feedback": "full"}):
        with pytest.raises(ValueError, match="must"):
            batched_omd_switching(3, 10, **arguments)
    with pytest.raises(ValueError, match="extra"):
        extra_observations(3, 10, -1)
