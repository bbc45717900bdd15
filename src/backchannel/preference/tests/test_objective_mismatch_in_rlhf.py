"""Objective mismatch in RLHF: proofs and contrast."""

import math
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from backchannel.card import Method
from backchannel.parts.ranks import rank_correlation
from backchannel.preference import objective_mismatch_in_rlhf as module
from backchannel.preference.objective_mismatch_in_rlhf import (
    Measured,
    Run,
    interval,
    measured,
    objective_mismatch_in_rlhf,
)
from backchannel.testing.battery import check_card

QUANTILE = NormalDist().inv_cdf


def run(reward, gold, error=0.1, accuracy=0.7, group="", **more):
    """A run whose means all have one error."""
    c = np.ones(len(reward))
    scores = {name: Measured(np.array(each, float), error * c) for name, each in {"gold": gold, **more}.items()}
    said = Measured(np.array(reward, float), error * c)
    return Run(Measured(accuracy, 0.01), said, scores, np.arange(len(c)) ** 2, {"length": 5 + np.arange(len(c))}, group)


def test_card():
    check_card(Method("objective_mismatch_in_rlhf", "preference", module.CARD, module))


def test_step_a_run_by_hand():
    reward = Measured([0.0, 2.0, 5.0, 4.0, 6.0, 7.0], [0.3, 0.4, 0.5, 0.1, 0.2, 0.3])
    gold = Measured([0.0, 3.0, 2.2, 2.0, 1.0, -1.0], [0.2, 0.1, 0.2, 0.4, 0.3, 0.1])
    other = Measured([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.1] * 6)
    beside = {"length": [4, 5, 6, 7, 8, 9], "refusals": [0, 0.1, 0.1, 0.2, 0.4, 0.3]}
    whole = Run(Measured(0.7, 0.01), reward, {"gold": gold, "other": other}, [0, 1, 3, 6, 10, 15], beside)
    found = objective_mismatch_in_rlhf([whole], alpha=0.02)
    one, two = found.runs[0].scores["gold"], found.runs[0].scores["other"]
    assert (one.peak, one.gap, one.gap_divergence, one.lost) == (1, 4, 14.0, 4.0)
    assert one.after == pytest.approx(stats.spearmanr([5, 4, 6, 7], [2.2, 2, 1, -1]).statistic)  # the peak is left out
    z = {
        (a, b): min(
            (reward.mean[b] - reward.mean[a]) / math.hypot(reward.error[a], reward.error[b]),
            (gold.mean[a] - gold.mean[b]) / math.hypot(gold.error[a], gold.error[b]),
        )
        for a, b in combinations(range(6), 2)
    }
    worst = max(z, key=z.get)
    assert worst == (1, 5)  # the reward rises by 5 / 0.5, gold falls by 4 / 0.14
    assert (one.start, one.end, one.z) == (*worst, pytest.approx(10.0))
    assert one.mismatch
    assert (two.peak, two.gap, two.lost, two.mismatch) == (5, 0, 0.0, False)
    assert math.isnan(two.after)
    assert two.z == pytest.approx(-1 / math.hypot(0.1, 0.1))  # from 2 to 3 the reward fell, too; there the score rose
    assert found.runs[0].drift == {"length": (4.0, 5.0, 9.0), "refusals": (0.0, 0.1, 0.3)}
    assert found.mismatch
    assert found.reasons == ["training: in 1 of 1 runs the training reward rose while gold fell"]
    assert found.false_alarm == 0.02
    assert all(math.isnan(each) for each in (found.guide[0], found.correlations.rho[0, 0]))


def test_step_across_runs_by_hand():
    runs = [
        run([0, 1, 2], [0, 4, 1], accuracy=0.6, group="few", other=[0, 1, 2]),
        run([0, 3, 1], [0, 2, 3], accuracy=0.8, group="many", other=[5, 1, 0]),
        run([0, 1, 9], [0, 5, 2], accuracy=0.8, group="many", other=[1, 1, 3]),
        run([1, 0, 2], [0, 1, 6], accuracy=0.7, group="many", other=[0, 7, 4]),
    ]
    found = objective_mismatch_in_rlhf(runs)
    names = ["RM accuracy", "training reward", "divergence", "gold", "other", "length"]
    assert found.correlations.names == names
    last = np.array([[0.6, 2, 1, 2], [0.8, 1, 3, 0], [0.8, 9, 2, 3], [0.7, 2, 6, 4]]).T
    for (i, x), (j, y) in combinations(zip((0, 1, 3, 4), last, strict=True), 2):
        rho = stats.spearmanr(x, y).statistic
        ends = interval(rho, 4, QUANTILE(0.975))
        mine = (each[i, j] for each in found.correlations[1:])
        assert tuple(mine) == pytest.approx((rho, *ends))
        assert found.correlations.rho[j, i] == pytest.approx(rho)
    assert np.isnan(found.correlations.rho[2]).all()  # all runs went as far
    regret = found.regret
    assert list(regret) == ["training reward", "gold", "other", "RM accuracy"]
    # Best gold of the runs: 4, 3, 5, 6. The reward takes checkpoints 2, 1, 2, 2, of which the third's is the highest.
    assert regret["training reward"].within["gold"] == pytest.approx((3 + 1 + 3 + 0) / 4)
    assert regret["training reward"].among["gold"] == 6 - 2
    assert regret["training reward"].among["other"] == 7 - 3
    assert regret["RM accuracy"].within["gold"] == pytest.approx((3 + 0 + 3 + 0) / 4)
    assert regret["RM accuracy"].among["gold"] == pytest.approx(6 - (3 + 2) / 2)  # two are as right
    assert regret["gold"] == ({"gold": 0.0, "other": pytest.approx((1 + 5 + 2 + 3) / 4)}, {"gold": 0.0, "other": 3.0})
    assert regret["other"].among["gold"] == 6 - 1
    few, many = found.groups["few"], found.groups["many"]
    assert few == (1, 0.6, 1.0, 3.0, 1)
    assert many == (3, pytest.approx(2.3 / 3), pytest.approx(11 / 3), pytest.approx(1.0), 3)
    assert found.reasons == [
        "training: in 2 of 4 runs the training reward rose while gold fell",
        "training: in 2 of 4 runs the training reward rose while other fell",
    ]


def test_step_the_guide_by_hand():
    rng = np.random.default_rng(0)
    accuracy, gold = 0.6 + 0.2 * rng.random(40), rng.normal(size=40)
    runs = [run([0, 1], [-9, g], 0.3, a) for a, g in zip(accuracy, gold, strict=True)]
    upper, least = objective_mismatch_in_rlhf(runs, alpha=0.1, guide=0.8).guide
    rho = stats.spearmanr(accuracy, gold).statistic
    by_hand = math.tanh(math.atanh(rho) + QUANTILE(0.95) * math.sqrt((1 + rho**2 / 2) / 37))
    assert upper == pytest.approx(by_hand)
    kept = (1 - 0.01**2 / accuracy.var(ddof=1)) * (1 - 0.3**2 / gold.var(ddof=1))
    assert least == pytest.approx(0.8 * math.sqrt(kept))
    found = objective_mismatch_in_rlhf([run([0, 1], [-9, -g], 0.3, g) for g in np.linspace(0.5, 0.9, 12)])
    assert found.reasons == [f"RM accuracy: its rank correlation with gold is at most {found.guide[0]:.2f}, below 0.00"]


def test_known_means_and_errors():
    samples = np.random.default_rng(1).normal(size=(3, 50))
    mean, error = measured(samples)
    np.testing.assert_allclose(mean, samples.mean(1))
    np.testing.assert_allclose(error, stats.sem(samples, axis=1))
    assert interval(1.0, 5, 1.0)[1] < 1
    assert interval(1.0, 5, 0.0) == pytest.approx((0.95, 0.95))  # an exchange of neighbours costs 0.1
    assert all(math.isnan(each) for each in interval(0.5, 3, 1.0))


def test_known_intervals_cover():
    # 95 percent of 600, at two correlations: within 0.046, which is 0.01 and 4 standard errors.
    rng = np.random.default_rng(2)
    for rho in (0.0, 0.7):
        pearson, inside = 2 * math.sin(math.pi * rho / 6), 0  # of normal numbers with that Spearman correlation
        for _ in range(600):
            x, y = rng.normal(size=(2, 30))
            low, high = interval(rank_correlation(x, pearson * x + math.sqrt(1 - pearson**2) * y), 30, QUANTILE(0.975))
            inside += low < rho < high
        assert abs(inside / 600 - 0.95) < 0.046


@pytest.mark.parametrize(("many", "scores"), [(1, 1), (3, 1), (2, 2)])
def test_step_the_alarm_is_at_the_stated_level(many, scores):
    # Each run has 3 checkpoints and so 3 pairs for each score. The reward surely rises; gold falls by the quantile of
    # its own share of alpha / 2, or by a little more.
    line = -QUANTILE(0.03 / 2 / (3 * many * scores)) * math.hypot(1, 1)
    more = {"other": [0, 0, 0]} if scores == 2 else {}
    for fall, alarm in ((line - 1e-6, False), (line + 1e-6, True)):
        runs = [run([0, 1, 99], [0, 0, each], 1.0, **more) for each in [-fall] + [0] * (many - 1)]
        assert objective_mismatch_in_rlhf(runs, alpha=0.03).mismatch == alarm


def test_known_pairs_exceed_a_quantile_as_often_as_it_says():
    # A reward that surely rises, gold that stays: of 1,000 pairs a tenth, within 4 standard errors but for 1 in 10^4.
    golds = np.random.default_rng(3).normal(size=(1000, 2))
    found = objective_mismatch_in_rlhf([run([0, 99], each, 1.0) for each in golds]).runs
    share = np.mean([each.scores["gold"].z > QUANTILE(0.9) for each in found])
    assert abs(share - 0.1) < 4 * math.sqrt(0.09 / 1000)


def test_known_false_alarms_are_at_most_those_stated_wherever_gold_peaks():
    # Paths that follow: both rise, then both fall, the reward as a monotone function. 28 pairs share a level of 0.1: at
    # most a tenth of 500 runs, and 4 standard errors.
    true = np.array([0.0, 1.0, 1.5, 1.5, 1.5, 1.0, 0.5, 0.5])
    noise = 0.2 * np.random.default_rng(4).normal(size=(500, 2, 8))
    found = objective_mismatch_in_rlhf([run(np.sqrt(true) + x, true + y, 0.2) for x, y in noise]).runs
    share = np.mean([each.scores["gold"].z > QUANTILE(1 - 0.1 / 28) for each in found])
    assert share < 0.1 + 4 * math.sqrt(0.09 / 500)


def test_known_false_alarms_of_the_guide():
    # 30 runs, true Spearman correlation at the guide, and noise: alpha / 2 = 0.1 of 50, and 4 standard errors.
    rng, alarms = np.random.default_rng(5), 0
    pearson = 2 * math.sin(math.pi * 0.7 / 6)
    for x, y, e, f in rng.normal(size=(50, 4, 30)):
        accuracy, gold = 0.7 + 0.02 * x + 0.01 * e, pearson * x + math.sqrt(1 - pearson**2) * y + 0.5 * f
        runs = [run([0, 1], [-9, g], 0.5, a) for a, g in zip(accuracy, gold, strict=True)]
        upper, least = objective_mismatch_in_rlhf(runs, alpha=0.2).guide
        alarms += upper < least
    assert alarms / 50 < 0.1 + 4 * math.sqrt(0.09 / 50)


def test_limit_reward_that_is_gold():
    rng = np.random.default_rng(6)
    golds = rng.normal(size=(10, 9))
    found = objective_mismatch_in_rlhf([run(np.exp(g), g, 0.0) for g in golds])
    assert not found.mismatch
    assert all(each.scores["gold"].gap == 0 for each in found.runs)
    assert found.regret["training reward"].within["gold"] == 0
    assert found.correlations.rho[1, 3] == pytest.approx(1)
    parted = objective_mismatch_in_rlhf([run(-np.exp(g), g, 0.0) for g in golds])
    assert all(each.mismatch for each in parted.runs)
    assert not objective_mismatch_in_rlhf([run(-np.exp(g), g, 100.0) for g in golds]).mismatch


def test_limit_units_do_not_matter():
    rng = np.random.default_rng(7)
    rewards, golds = rng.normal(size=(2, 6, 5))
    plain = [run(r, g) for r, g in zip(rewards, golds, strict=True)]
    scaled = [
        each._replace(
            reward=Measured(3 * each.reward.mean - 4, 3 * each.reward.error),
            scores={"gold": Measured(0.1 * each.scores["gold"].mean + 7, 0.1 * each.scores["gold"].error)},
        )
        for each in plain
    ]
    one, other = (objective_mismatch_in_rlhf(each) for each in (plain, scaled))
    assert one.reasons == other.reasons
    for a, b in zip(one.runs, other.runs, strict=True):
        assert a.scores["gold"].z == pytest.approx(b.scores["gold"].z)
    np.testing.assert_allclose(one.correlations.rho, other.correlations.rho)


def test_limit_runs_of_other_lengths_do_not_matter():
    # But for the number of pairs: 3 and 10, so that the alarm is at alpha / 26.
    short, long = run([0, 1, 2], [0, 2, 1], accuracy=0.6), run([0, 1, 2, 3, 4], [0, 1, 3, 2, 2], accuracy=0.8)
    found = objective_mismatch_in_rlhf([short, long])
    for each, own in zip((short, long), found.runs, strict=True):
        assert str(objective_mismatch_in_rlhf([each]).runs[0]) == str(own)  # nan is nan
    assert found.groups[""][:4] == pytest.approx((2, 0.7, 1.5, 1.0))


def test_contrast_a_correlation_along_the_run_sees_what_it_sees():
    # Gold rises for long and then falls: over all checkpoints it goes with the reward, and yet it parted.
    reward, gold = np.arange(12.0), np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 7, 5.0])
    found = objective_mismatch_in_rlhf([run(reward, gold)])
    assert rank_correlation(reward, gold) > 0.7
    assert found.mismatch
    assert (found.runs[0].scores["gold"].gap, found.runs[0].scores["gold"].start) == (2, 8)
    # Both have stopped rising, and noise says where they peak: the peaks are apart, and nothing parted.
    # 50 runs raise one alarm with probability 1e-4 at most.
    noise = 0.1 * np.random.default_rng(8).normal(size=(50, 2, 12))
    flat = objective_mismatch_in_rlhf([run(np.tanh(reward) + x, np.tanh(reward) + y) for x, y in noise], alpha=2e-4)
    assert not any(each.mismatch for each in flat.runs)
    assert np.mean([abs(each.scores["gold"].gap) for each in flat.runs]) > 2


def test_contrast_equally_good_reward_models_raise_no_alarm():
    # 40 models of one accuracy, measured on 1,000 comparisons: no correlation, and none to ask for.
    rng = np.random.default_rng(9)
    accuracy, gold = 0.7 + 0.0145 * rng.normal(size=40), rng.normal(size=40)
    runs = [run([0, 1], [-9, g], 0.1, a)._replace(accuracy=(a, 0.0145)) for a, g in zip(accuracy, gold, strict=True)]
    found = objective_mismatch_in_rlhf(runs)
    assert found.guide[0] < 0.7  # a fixed bound would have said that accuracy is no guide
    assert not found.mismatch


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: objective_mismatch_in_rlhf([], 0.0), "alpha must lie in"),
        (lambda: objective_mismatch_in_rlhf([], guide=2), "guide in"),
        (lambda: objective_mismatch_in_rlhf([]), "runs must be at least one"),
        (lambda: objective_mismatch_in_rlhf([run([0], [0])]), "divergence of run 0 must be 2 finite numbers"),
        (lambda: objective_mismatch_in_rlhf([run([0, 1], [0, 1, 2])]), "gold of run 0 must be 2 finite"),
        (lambda: objective_mismatch_in_rlhf([run([0, np.nan], [0, 1])]), "training reward of run 0"),
        (lambda: objective_mismatch_in_rlhf([run([0, 1], [0, 1], -1)]), "errors not below 0"),
        (
            lambda: objective_mismatch_in_rlhf([run([0, 1], [0, 1], accuracy=7)]),
            r"accuracy of run 0 must lie in \[0, 1\]",
        ),
        (lambda: objective_mismatch_in_rlhf([run([0, 1], [0, 1])._replace(scores={})]), "one or more"),
        (lambda: objective_mismatch_in_rlhf([run([0, 1], [0, 1]), run([0, 1], [0, 1], x=[0, 1])]), "those of run 0"),
        (lambda: measured([1.0]), "at least 2 along the last axis"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
