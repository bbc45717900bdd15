"""RLHF length diagnostics: proofs and contrast."""

import numpy as np
import pytest

from backchannel.card import Method
from backchannel.preference import rlhf_length_diagnostics as module
from backchannel.preference.rlhf_length_diagnostics import (
    Running,
    balanced,
    correlation,
    length_reward,
    mismatched,
    penalised,
    rlhf_length_diagnostics,
)
from backchannel.testing.battery import check_card

BEFORE = [3, 7, 8, 12, 14, 26], [1.0, 2.0, 4.0, 3.0, 5.0, 9.0]
AFTER = [5, 13, 15, 17, 18, 33], [2.0, 6.0, 5.0, 7.0, 8.0, 1.0]


def test_card():
    check_card(Method("rlhf_length_diagnostics", "preference", module.CARD, module))


def test_step_by_hand():
    found = rlhf_length_diagnostics(*BEFORE, *AFTER, width=10)
    # Bins 0-9 and 10-19 hold answers of both: 3 and 1, 2 and 4; 20-29 and 30-39 of one only.
    means = [(1 + 2 + 4) / 3, (3 + 5) / 2], [2.0, (6 + 5 + 7 + 8) / 4]
    within = 4 / 12 * (means[1][0] - means[0][0]) + 6 / 12 * (means[1][1] - means[0][1])
    gain = (2 + 6 + 5 + 7 + 8 + 1) / 6 - (1 + 2 + 4 + 3 + 5 + 9) / 6
    assert found.gain == pytest.approx(gain)
    assert found.within == pytest.approx(within)
    assert found.ratio == pytest.approx(within / gain)
    assert found.shared == pytest.approx(10 / 12)
    assert (found.length_before, found.length_after) == pytest.approx((70 / 6, 101 / 6))
    assert [tuple(each[:4]) for each in found.bins] == [(0, 10, 3, 1), (10, 20, 2, 4), (20, 30, 1, 0), (30, 40, 0, 1)]
    assert found.bins[1][4:] == (means[0][1], means[1][1])
    assert np.isnan(found.bins[2].reward_after)
    assert np.isnan(found.bins[3].reward_before)
    squares = sum((x - 7 / 3) ** 2 for x in (1, 2, 4)) + 2 * 1.0, sum((x - 6.5) ** 2 for x in (6, 5, 7, 8))
    noise = squares[0] / (6 - 3), squares[1] / (6 - 3)
    error = (4 / 12) ** 2 * (noise[0] / 3 + noise[1] / 1) + (6 / 12) ** 2 * (noise[0] / 2 + noise[1] / 4)
    assert found.error == pytest.approx(error**0.5)


def test_step_correlations_are_pearsons():
    found = rlhf_length_diagnostics(*BEFORE, *AFTER)
    assert found.correlation_before == pytest.approx(np.corrcoef(*BEFORE)[0, 1])
    assert found.correlation_after == pytest.approx(np.corrcoef(*AFTER)[0, 1])
    rows = [[1, 2, 4], [5, 5, 5], [9, 2, 3]], [[0, 1, 1], [1, 2, 3], [2, 0, 4]]
    by_hand = np.mean([np.corrcoef(rows[0][i], rows[1][i])[0, 1] for i in (0, 2)])
    assert correlation(*rows) == pytest.approx(by_hand)
    assert np.isnan(correlation([3, 3], [1, 2]))


def test_step_rewards_by_hand():
    length = np.array([5.0, 10.0, 20.0])
    assert length_reward(length, 10).tolist() == [0.5, 1.0, 0.0]
    assert penalised(np.array([1.0, 1.0, 1.0]), length, 10, 2.0).tolist() == [2.0, 1.0, -1.0]
    running = Running()
    assert running.deviation == 1.0
    first, second = np.array([1.0, 2.0, 6.0]), np.array([-3.0, 4.0])
    np.testing.assert_allclose(running.scaled(first), (first - 3) / first.std())
    both = np.concatenate([first, second])
    np.testing.assert_allclose(running.scaled(second), (second - both.mean()) / both.std())
    assert (running.count, running.mean, running.deviation) == (5, pytest.approx(2.0), pytest.approx(both.std()))


def test_known_the_remainder_is_the_shift_of_lengths():
    # (4), by Kitagawa's decomposition: as many answers of both, and every bin holds some of each.
    rng = np.random.default_rng(0)
    lengths = [np.concatenate([np.arange(6), rng.binomial(5, p, 94)]) for p in (0.3, 0.8)]
    rewards = [x**1.5 + each * np.sin(x) + rng.normal(size=100) for each, x in enumerate(lengths)]
    found = rlhf_length_diagnostics(lengths[0], rewards[0], lengths[1], rewards[1], width=1)
    shift = sum((b.after - b.before) / 100 * (b.reward_before + b.reward_after) / 2 for b in found.bins)
    assert found.shared == pytest.approx(1)
    assert found.gain - found.within == pytest.approx(shift, rel=1e-12)
    assert abs(found.within) > 0.05


def test_known_the_error_is_what_repetition_shows():
    # 2,000 times: a deviation of 2,000 values is within 7 percent of the truth but for 1 in 10^4.
    rng = np.random.default_rng(1)
    before, after = rng.integers(0, 40, 60), rng.integers(10, 60, 60)
    draws = [
        rlhf_length_diagnostics(before, 2 * rng.normal(size=60), after, rng.normal(size=60), 10) for _ in range(2000)
    ]
    spread = np.std([each.within for each in draws])
    assert np.mean([each.error**2 for each in draws]) ** 0.5 == pytest.approx(spread, rel=0.07)


def test_limit_a_reward_of_length_alone_gains_nothing_within_bins():
    rng = np.random.default_rng(2)
    before, after = rng.integers(1, 30, 200), rng.integers(10, 40, 200)
    found = rlhf_length_diagnostics(before, length_reward(before, 40), after, length_reward(after, 40), width=1)
    assert found.gain > 0.1
    assert found.within == pytest.approx(0, abs=1e-12)
    assert found.ratio == pytest.approx(0, abs=1e-12)
    assert found.correlation_before == pytest.approx(1)


def test_limit_equal_lengths_and_one_wide_bin_leave_nothing_to_length():
    rng = np.random.default_rng(3)
    length, reward = rng.integers(1, 30, 100), rng.normal(size=100)
    for after, width in ((length, 1), (length[::-1] + 5, 1000)):
        found = rlhf_length_diagnostics(length, reward, after, reward + 0.7, width)
        assert found.within == pytest.approx(found.gain) == pytest.approx(0.7)
        assert found.ratio == pytest.approx(1)
    assert np.isnan(rlhf_length_diagnostics(length, reward, length, reward).ratio)


def test_contrast_a_correlation_does_not_tell_what_tuning_gained():
    # Both worlds have one correlation before tuning; in one of them the policy gets longer, in the other better.
    rng = np.random.default_rng(4)
    length = rng.integers(5, 25, 400)
    reward = 0.1 * length + rng.normal(size=400)
    longer = rlhf_length_diagnostics(length, reward, length + 10, reward + 1.0, width=1)
    better = rlhf_length_diagnostics(length, reward, length, reward + 1.0, width=1)
    assert longer.correlation_before == better.correlation_before
    assert longer.gain == pytest.approx(better.gain)
    assert longer.ratio < 0.4 < better.ratio


@pytest.mark.parametrize("width", [1, 3])
def test_balanced_pairs_do_not_follow_length(width):
    rng = np.random.default_rng(5)
    longer = rng.integers(-6, 13, 500)
    kept = balanced(longer, rng, width)
    assert len(set(kept.tolist())) == len(kept)
    assert (np.diff(kept) > 0).all()
    bins = np.ceil(abs(longer) / width)
    assert (longer[kept] == 0).sum() == (longer == 0).sum()
    for b in np.unique(bins[longer != 0]):
        up, down = ((bins == b) & (longer > 0)), ((bins == b) & (longer < 0))
        assert up[kept].sum() == down[kept].sum() == min(up.sum(), down.sum())
    assert (longer > 6).any()
    assert (longer[kept] <= 6).all()  # the longer answer alone was chosen beyond


def test_mismatched_rows_have_other_prompts():
    rng = np.random.default_rng(6)
    prompt = rng.integers(0, 3, 300)
    assert mismatched([4, 7], rng).tolist() == [1, 0]  # two prompts are enough
    found = mismatched(prompt, rng)
    assert (prompt[found] != prompt).all()
    # Uniform among rows of other prompts: of about 100 rows, the other two prompts within 6 standard errors.
    for own in range(3):
        others = [each for each in range(3) if each != own]
        count = (prompt == own).sum()
        expected = (prompt == others[0]).sum() / (prompt != own).sum()
        share = (prompt[found[prompt == own]] == others[0]).mean()
        assert abs(share - expected) < 6 * 0.5 / count**0.5


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: rlhf_length_diagnostics([1], [1], [1], [1], 0), "width must be at least 1 token, not 0"),
        (lambda: rlhf_length_diagnostics([1, 2], [1], [1], [1]), r"\[n\] alike"),
        (lambda: rlhf_length_diagnostics([], [], [1], [1]), "n at least 1"),
        (lambda: rlhf_length_diagnostics([1, 2], [0, np.nan], [1], [1]), "finite"),
        (lambda: rlhf_length_diagnostics([1, np.inf], [0, 0], [1], [1]), "finite"),
        (lambda: rlhf_length_diagnostics([-1], [0], [1], [1]), "at least 0"),
        (lambda: correlation([1, 2], [1]), "alike"),
        (lambda: length_reward(1, 0), "target"),
        (lambda: penalised(1, 1, 0, 1), "most must be positive"),
        (lambda: balanced([1], np.random.default_rng(0), 0), "width"),
        (lambda: mismatched([1, 1], np.random.default_rng(0)), "two prompts"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
