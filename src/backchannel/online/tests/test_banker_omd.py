"""Banker-OMD: proofs and contrast."""

import numpy as np
import pytest

from backchannel import play
from backchannel.channels.hide import bandit
from backchannel.channels.late import delay, fixed, uniform
from backchannel.live import Live
from backchannel.loop import Run
from backchannel.online.banker_omd import banker_omd
from backchannel.online.tsallis_inf import tsallis_inf
from backchannel.parts.barrier import inverse_power
from backchannel.tasks.adversarial import sequence


class Ledger:
    """The bank account by account, in NumPy: one deposit for each round, each with its own balance."""

    def __init__(self, arms, exponent, ratio):
        self.exponent, self.ratio, self.arms = exponent, ratio, arms
        self.deposits, self.out, self.largest = [], {}, 0.0  # [v_s, dual point of z_s]; round -> point, sigma, unit, C
        self.waits, self.invested, self.t = [], 0.0, 0

    def withdraw(self):
        """The distribution of the next decision, and the withdrawals that pay for it."""
        self.waits.append(len(self.out))
        total, harmonic = sum(d + 1 for d in self.waits), 1 + np.log(1 + max(self.waits))
        unit = np.sqrt(total / (harmonic * self.ratio)) / (len(self.out) + 1)
        sigma, bank = self.largest * unit, sum(v for v, _ in self.deposits)
        share = min(1.0, sigma / bank) if bank > 0 else 0.0
        dual = np.zeros(self.arms)
        for account in self.deposits:
            taken = share * account[0]
            account[0] -= taken
            dual += taken / sigma * account[1] if sigma > 0 else 0.0
        self.invested += max(0.0, sigma - bank)
        self.out[self.t] = (dual, sigma, unit, self.largest)
        self.t += 1
        x = np.empty(self.arms)
        inverse_power(dual, self.exponent, x)
        return x

    def answer(self, s, action, propensity, loss):
        dual, sigma, unit, seen = self.out.pop(s)
        self.largest = max(self.largest, abs(loss))
        if seen == 0:
            sigma = self.largest * unit
            self.invested += sigma
        else:
            loss = np.clip(loss, -2 * seen, 2 * seen)
        if sigma > 0:
            moved = dual.copy()
            moved[action] += loss / propensity / sigma
            self.deposits.append([sigma, moved])


@pytest.mark.parametrize("regulariser", ["log_barrier", "tsallis"])
def test_step_account_by_account(regulariser):
    # Losses of both signs and growing size, answers out of order; every distribution and every balance agree.
    arms, horizon = 4, 60
    agent, rng = Live(banker_omd(arms, horizon, regulariser), seed=1), np.random.default_rng(1)
    state = agent.state
    ledger = Ledger(arms, {"log_barrier": 1.0, "tsallis": 2.0}[regulariser], state.ratio[0])
    decided = {}
    for t in range(horizon):
        out = agent.probabilities(arms)
        np.testing.assert_allclose(out, ledger.withdraw(), rtol=1e-9)
        action, propensity = agent.act()
        assert propensity == out[action]
        decided[t] = (action, propensity)
        while decided and rng.random() < 0.55:
            s = int(rng.choice(list(decided)))
            loss = 1.2**t * (rng.random() - 0.2) if rng.random() < 0.9 else -50.0 - t
            agent.update(*decided[s], loss, decision=s)
            ledger.answer(s, *decided.pop(s), loss)
        np.testing.assert_allclose(state.balance[0], sum(v for v, _ in ledger.deposits), rtol=1e-9)
        np.testing.assert_allclose(state.invested[0], ledger.invested, rtol=1e-9)


def test_step_a_deposit_moves_its_own_point():
    agent = Live(banker_omd(2, 10, "tsallis"))
    state = agent.state
    action, propensity = agent.act()
    assert propensity == 0.5
    agent.update(action, 0.5, 1.0, decision=0)  # round 0, sigma = C sqrt(1): the point moves by 1 / 0.5
    assert state.balance[0] == state.invested[0] == 1.0
    assert state.deposits[action] == 2.0
    agent.update(action, 0.5, 1.0, decision=0)  # answered already: money is not made twice
    assert state.balance[0] == 1.0


def test_step_the_divisor_is_the_propensity_of_the_decision():
    deposits = []
    for propensity in (0.5, 0.25):
        agent = Live(banker_omd(2, 10))
        action, _ = agent.act()
        agent.update(action, propensity, 1.0, decision=0)
        deposits.append(agent.state.deposits[action])
    assert deposits == [2.0, 4.0]


def test_known_scale_of_the_log_barrier():
    # Rounds 0..3, an answer of 3 to round 0, rounds 4 and 5: d = 0, 1, 2, 3, 3, 4; R = K log T; C = 3.
    agent = Live(banker_omd(2, 100))
    decided = [agent.act() for _ in range(4)]
    agent.update(*decided[0], 3.0, decision=0)
    agent.act()
    agent.act()
    assert agent.state.waited[0] == 1 + 2 + 3 + 4 + 4 + 5
    sigma = 3 / 5 * np.sqrt((1 + 2 + 3 + 4 + 4 + 5) / ((1 + np.log(5)) * 2 * np.log(100)))
    np.testing.assert_allclose(agent.state.scales[5], sigma, rtol=1e-12)


def test_known_money_is_conserved_and_never_negative():
    rng = np.random.default_rng(2)
    task = sequence(rng.standard_normal((500, 3)) * np.exp(rng.standard_normal((500, 1))))
    run = Run(banker_omd(3, 500), task, 500, seed=1, channel=delay(bandit(), uniform(60)))
    for _ in range(500):
        run.advance(1)
        state = run.state
        out = state.scales[state.owners >= 0].sum()
        assert state.balance[0] >= 0
        np.testing.assert_allclose(state.balance[0] + out, state.invested[0], rtol=1e-9)
        assert (state.owners >= 0).sum() == state.outstanding[0]


def test_known_scale_times_128_changes_no_decision():
    # A power of two is exact in floating point: the very same actions, and 128 times the losses.
    table = np.random.default_rng(3).standard_normal((800, 4)) + np.array([0.3, 0, 0, 0])
    channel = delay(bandit(), uniform(30))
    runs = [Run(banker_omd(4, 800), sequence(table * c), 800, seed=4, channel=channel).advance() for c in (1.0, 128.0)]
    np.testing.assert_array_equal(runs[0].trace.actions, runs[1].trace.actions)
    np.testing.assert_allclose(128 * runs[0].state.deposits, runs[1].state.deposits, rtol=1e-12)


@pytest.mark.parametrize("rounds", [1, 7, 40])
def test_limit_a_short_memory_writes_off_and_goes_on(rounds):
    # With answers 10 rounds late, a memory of 40 forgets nothing; one of 7 forgets all, and then nothing is learned.
    table = np.tile([0.9, 0.1], (400, 1))
    channel = delay(bandit(), fixed(10))
    run = Run(banker_omd(2, 400, memory=rounds), sequence(table), 400, seed=5, channel=channel).advance()
    whole = Run(banker_omd(2, 400), sequence(table), 400, seed=5, channel=channel).advance()
    same = np.array_equal(run.trace.actions, whole.trace.actions)
    assert same == (rounds == 40)
    assert run.state.outstanding[0] == min(rounds, 10)
    if rounds < 10:
        assert not run.state.deposits.any()


def test_limit_without_delay_the_tsallis_bank_is_tsallis_inf():
    # sigma_t = sqrt(t) and all money back at once: the bank's average is the leader's cumulative loss / sqrt(t).
    table = (np.random.default_rng(6).random((2000, 5)) < [0.5, 0.5, 0.3, 0.5, 0.6]).astype(float)
    table[0] = 1.0  # so that C = 1 from the start
    ours = Run(banker_omd(5, 2000, "tsallis"), sequence(table), 2000, seed=7).advance()
    theirs = Run(tsallis_inf(5), sequence(table), 2000, seed=7).advance()
    np.testing.assert_array_equal(ours.trace.actions, theirs.trace.actions)
    np.testing.assert_allclose(ours.trace.propensities, theirs.trace.propensities, rtol=1e-6)
    np.testing.assert_allclose(ours.state.deposits, theirs.state.losses, rtol=1e-6)


def test_contrast_tiny_losses_paralyse_tsallis_inf_and_not_the_bank():
    # Losses of 0.0005 or 0: Tsallis-INF, made for [0, 1], still plays almost uniformly, and the bank does not notice.
    # Uniform play has regret 1500 in units of the largest loss; the bank's lies near 60 in each of 16 runs.
    rng = np.random.default_rng(8)
    task = sequence(0.0005 * (rng.random((3000, 3)) < [0.9, 0.9, 0.15]))
    ours = play(banker_omd(3, 3000), task, 3000, replicates=16, seed=9).final() / 0.0005
    theirs = play(tsallis_inf(3), task, 3000, replicates=16, seed=9).final() / 0.0005
    assert ours.max() < 300
    assert theirs.min() > 1000


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="regulariser"):
        banker_omd(3, 10, "entropy")
    with pytest.raises(ValueError, match="at least 1"):
        banker_omd(0, 10)
