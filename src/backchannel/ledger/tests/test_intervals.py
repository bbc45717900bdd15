"""Intervals: proofs, coverage with stated error rates, and contrasts.

Misses of an interval with error e in n independent logs are Binomial(n, at most e); `many(n, e)` is exceeded with
probability below 1e-5. Simulations are seeded, and pass for any seed but for that.
"""

import math

import numpy as np
import pytest
from scipy import stats

from backchannel.ledger import intervals as ci
from backchannel.ledger.estimators import doubly_robust, evaluated, ips


def many(logs, error):
    return stats.binom(logs, error).isf(1e-5)


def few(logs, error):
    return stats.binom(logs, error).ppf(1e-5)


def test_step_empirical_bernstein_by_hand():
    x = np.array([0.0, 1.0, 1.0, 2.0] * 200)
    n, s2, doubt = 800, x.var() * 800 / 799, math.log(80)
    half = math.sqrt(2 * s2 * doubt / n) + 7 * 3 * doubt / (3 * 799)
    assert ci.empirical_bernstein(x, -1.0, 2.0) == pytest.approx((1 - half, 1 + half))
    assert ci.empirical_bernstein(x[:4], 0.0, 2.0) == (0.0, 2.0)  # never beyond the range


def test_step_confidence_sequence_is_theorem_2():
    # As Waudby-Smith and Ramdas write it, both sides at once: v = 4 (x - mu)^2 and psi = (-log(1 - l) - l) / 4.
    rng = np.random.default_rng(0)
    x, error = rng.beta(2, 5, 300), 0.1
    lows, highs = [], []
    bets, won, paid, mean, spread = 0.0, 0.0, 0.0, 0.5, 0.25
    for t in range(1, 301):
        bet = min(math.sqrt(2 * math.log(2 / error) / (spread / t * t * math.log(1 + t))), 0.5)
        bets, won = bets + bet, won + bet * x[t - 1]
        paid += 4 * (x[t - 1] - mean) ** 2 * (-math.log(1 - bet) - bet) / 4
        half = (math.log(2 / error) + paid) / bets
        lows.append(max(won / bets - half, 0))
        highs.append(min(won / bets + half, 1))
        mean = (0.5 + x[:t].sum()) / (t + 1)
        spread += (x[t - 1] - mean) ** 2
    ours = ci.confidence_sequence(3 * x - 1, -1.0, 2.0, error)  # any range is scaled to [0, 1]
    np.testing.assert_allclose(ours.low, 3 * np.maximum.accumulate(lows) - 1, rtol=1e-9)
    np.testing.assert_allclose(ours.high, 3 * np.minimum.accumulate(highs) - 1, rtol=1e-9)


def test_step_lower_sequence_cuts_its_guess_at_1():
    # x far above 1: the running guess m stays at 1, so that x - m >= -1 whatever x does next.
    x, doubt = np.array([9.0, 0.0, 30.0, 0.5, 0.0]), math.log(20)
    guess, spread, bounds = [0.5], [0.25], []
    bets = won = paid = 0.0
    for t in range(1, 6):
        bet = min(0.5, math.sqrt(2 * doubt / (spread[-1] * math.log(1 + t))))  # v_{t-1} t = 1/4 + sum of squares
        bets, won = bets + bet, won + bet * x[t - 1]
        paid += (-math.log(1 - bet) - bet) * (x[t - 1] - guess[-1]) ** 2
        bounds.append((won - paid - doubt) / bets)
        guess.append(min(1.0, (0.5 + x[:t].sum()) / (t + 1)))
        spread.append(spread[-1] + (x[t - 1] - guess[-1]) ** 2)
    assert guess[1:] == [1.0] * 5
    np.testing.assert_allclose(ci.lower_sequence(x, 0.05), np.maximum.accumulate(bounds), rtol=1e-12)


def test_step_off_policy_sequence_reflects_the_reward():
    rng = np.random.default_rng(1)
    w, r = rng.exponential(size=500), rng.random(500)
    ours = ci.off_policy_sequence(w, 4 * r + 1, 1.0, 5.0, 0.2)
    np.testing.assert_allclose(ours.low, 1 + 4 * np.maximum(ci.lower_sequence(w * r, 0.1), 0))
    np.testing.assert_allclose(ours.high, 1 + 4 * np.minimum(1 - ci.lower_sequence(w * (1 - r), 0.1), 1))


def test_known_t_quantile():
    for freedom in (1, 2, 5, 30, 199, 10_000, 5_000_000, 10**8):
        for probability in (0.025, 0.5, 0.9, 0.975, 0.9999):
            expected = stats.t(freedom).ppf(probability)
            assert ci.t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_known_student_is_scipys():
    x = np.random.default_rng(2).normal(3, 2, 40)
    expected = stats.t.interval(0.9, 39, x.mean(), x.std(ddof=1) / math.sqrt(40))
    assert ci.student(x, 0.1) == pytest.approx(expected)


def test_known_poisson_counts():
    # 2^32 equally likely numbers u, cut at the cumulative distribution: each count's probability to 1e-9.
    edges = np.append(ci._POISSON.astype(np.float64), 2.0**32) / 2**32
    np.testing.assert_allclose(edges[:-1], stats.poisson(1).cdf(np.arange(12)), atol=1e-9)
    for u in (0, int(ci._POISSON[0]) - 1, int(ci._POISSON[0]), int(ci._POISSON[3]), 2**31, 2**32 - 1):
        expected = (u >= ci._POISSON.astype(np.int64)).sum()
        assert ci._count(np.uint64(u), ci._POISSON, ci._TABLE) == expected


def test_known_bootstrap_mean_and_spread():
    # The resampled mean of skewed data: spread s / sqrt(n) (up to 1 / n), and its skew. 40,000 resamples: percentiles
    # have standard errors below 0.008 of the spread, so that 0.04 of it is 5 of them; Poisson resampling adds O(1 / n).
    x = np.random.default_rng(3).exponential(size=2000)
    spread = x.std() / math.sqrt(2000)
    ours = ci.bootstrap(x, 0.32, resamples=40_000, seed=4)
    assert ours.low == pytest.approx(x.mean() - 0.9945 * spread, abs=0.06 * spread)
    assert ours.high == pytest.approx(x.mean() + 0.9945 * spread, abs=0.06 * spread)
    rng = np.random.default_rng(5)
    y = np.where(rng.random(400) < 0.02, 30.0, 0.0)  # most rows are alike, a few are not: very skewed
    direct = rng.multinomial(400, np.full(400, 1 / 400), 40_000) @ y / 400
    ours = ci.bootstrap(y, 0.1, resamples=40_000, seed=6)
    step = 30 / 400
    assert abs(ours.low - np.quantile(direct, 0.05)) <= step
    assert abs(ours.high - np.quantile(direct, 0.95)) <= step


def test_limit_a_shift_moves_every_interval_by_itself():
    x = np.random.default_rng(7).random(101)
    assert ci.bootstrap(x + 5, seed=1) == pytest.approx(np.add(ci.bootstrap(x, seed=1), 5))
    assert ci.empirical_bernstein(x + 5, 5, 6) == pytest.approx(np.add(ci.empirical_bernstein(x, 0, 1), 5))
    for one, two in zip(ci.confidence_sequence(x + 5, 5, 6), ci.confidence_sequence(x, 0, 1), strict=True):
        np.testing.assert_allclose(one, two + 5, rtol=1e-9)


def test_limit_a_stream_in_parts_is_the_whole():
    rng = np.random.default_rng(8)
    w, r = rng.exponential(size=300), rng.random(300)
    for call in (
        lambda part, watch: ci.confidence_sequence(r[part], 0.0, 1.0, 0.1, watch),
        lambda part, watch: ci.off_policy_sequence(w[part], r[part], error=0.1, watch=watch),
    ):
        watch, whole = ci.new_watch(), call(slice(None), None)
        parts = [call(part, watch) for part in (slice(0, 1), slice(1, 130), slice(130, 300))]
        for side in (0, 1):
            np.testing.assert_array_equal(np.concatenate([part[side] for part in parts]), whole[side])


def test_limit_widths_shrink_as_the_root_of_rows():
    # Variance s^2: empirical Bernstein tends to sqrt(2 s^2 log(4 / error) / n), the sequence to a log more.
    x = np.random.default_rng(9).random(400_000)
    fixed, always = ci.empirical_bernstein(x, 0, 1), ci.confidence_sequence(x, 0, 1)
    ideal = math.sqrt(2 * x.var() * math.log(80) / x.size)
    assert 1 < (fixed.high - fixed.low) / 2 / ideal < 1.05
    assert 1 < (always.high[-1] - always.low[-1]) / 2 / ideal < 4


def test_known_coverage_at_one_look():
    # ips with weights 0.4 / 0.2 and 0.6 / 0.8, 400 rows, error 0.1. 2000 logs. Student and bootstrap should miss about
    # 200, which is tested from both sides, with 2 % of slack for what 400 rows are not yet; Bernstein at most 200.
    rng, logs, error = np.random.default_rng(10), 2000, 0.1
    value, missed = 0.4 * 0.7 + 0.6 * 0.2, np.zeros(3)
    bounds = ci.contribution_range(2.0)
    for i in range(logs):
        option = rng.random(400) < 0.2
        reward = (rng.random(400) < np.where(option, 0.7, 0.2)).astype(float)
        x = ips(evaluated(reward, np.where(option, 0.2, 0.8), np.where(option, 0.4, 0.6)))
        found = ci.student(x, error), ci.bootstrap(x, error, 400, i), ci.empirical_bernstein(x, *bounds, error)
        missed += [not low <= value <= high for low, high in found]
    assert few(logs, 0.08) <= missed[0] <= many(logs, 0.12)
    assert few(logs, 0.08) <= missed[1] <= many(logs, 0.12)
    assert missed[2] <= many(logs, error)


def test_contrast_watched_all_the_time_the_sequence_covers_and_one_look_intervals_do_not():
    # 400 streams of 3000 clicks with chance 0.3, looked at after each row from the 30th on, error 0.05. The sequence
    # misses at any time in at most 5 % of streams; empirical 95 % intervals miss at some time in far more than 20 %.
    rng, streams, rows, error = np.random.default_rng(11), 400, 3000, 0.05
    sequence = fixed = 0
    t = np.arange(1, rows + 1)
    for _ in range(streams):
        x = (rng.random(rows) < 0.3).astype(float)
        low, high = ci.confidence_sequence(x, 0, 1, error)
        sequence += ((low > 0.3) | (high < 0.3)).any()
        mean = np.cumsum(x) / t
        half = 1.96 * np.sqrt(mean * (1 - mean) / t)
        fixed += (np.abs(mean - 0.3) > half)[30:].any()
    assert sequence <= many(streams, error)
    assert fixed > many(streams, 0.2)


def test_contrast_weights_of_unknown_size():
    # A policy whose whole value, 0.9, lies on an option that the log has once in 1000 rows: 500 rows mostly show none,
    # and then Student's interval is [0, 0], and so is any range taken from the rows. The sequence misses at most 5 %.
    # The rows have none with probability 0.999^500 = 0.61. 400 logs.
    rng, logs = np.random.default_rng(12), 400
    sequence = student = 0
    for _ in range(logs):
        rare = rng.random(500) < 0.001
        reward = np.where(rare, rng.random(500) < 0.9, rng.random(500) < 0.1).astype(float)
        rows = evaluated(reward, np.where(rare, 0.001, 0.999), rare.astype(float))
        low, high = ci.off_policy_sequence(rows.weight, rows.reward)
        sequence += ((low > 0.9) | (high < 0.9)).any()
        low, high = ci.student(ips(rows))
        student += not low <= 0.9 <= high
    assert sequence <= many(logs, 0.05)
    assert student > many(logs, 0.5)


def test_known_sequence_covers_when_the_logging_policy_learns():
    # The logging policy moves, within [0.05, 0.95], toward the option that paid: rows depend on all before them. The
    # evaluated policy takes option 1, worth 0.6, always. 400 logs of 1000 rows, error 0.1, at all times; and it says
    # something: at the end it is narrower than 0.4 on average.
    rng, logs, missed, width = np.random.default_rng(13), 400, 0, 0.0
    for _ in range(logs):
        p, w, r, luck = 0.5, np.zeros(1000), np.zeros(1000), rng.random((1000, 2))
        for i in range(1000):
            one = luck[i, 0] < p
            w[i], r[i] = one / p, luck[i, 1] < (0.6 if one else 0.5)
            p = min(0.95, max(0.05, p + 0.02 * (r[i] - 0.5) * (1 if one else -1)))
        low, high = ci.off_policy_sequence(w, r, error=0.1)
        missed += ((low > 0.6) | (high < 0.6)).any()
        width += (high[-1] - low[-1]) / logs
    assert missed <= many(logs, 0.1)
    assert width < 0.4


def test_known_range_of_contributions_is_attained():
    corners = [(w, r, q, v) for w in (0.0, 5.0) for r in (-1.0, 2.0) for q in (-1.0, 2.0) for v in (-1.0, 2.0)]
    w, r, q, v = np.array(corners).T
    rows = evaluated(r, np.full(16, 0.2), w / 5, None, q, v)
    for x, bounds in (
        (ips(rows), ci.contribution_range(5.0, -1.0, 2.0)),
        (doubly_robust(rows), ci.contribution_range(5.0, -1.0, 2.0, model=True)),
    ):
        assert (x.min(), x.max()) == pytest.approx(bounds)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ci.empirical_bernstein(np.array([0.0, 3.0]), 0, 2), "stated range"),
        (lambda: ci.confidence_sequence(np.array([0.0, np.nan]), 0, 2), "stated range"),
        (lambda: ci.confidence_sequence(np.zeros(2), 1, 1), "range must not be empty"),
        (lambda: ci.off_policy_sequence(np.array([-1.0]), np.zeros(1)), "must not be negative"),
        (lambda: ci.student(np.zeros(1)), "at least 2 rows"),
        (lambda: ci.student(np.zeros(3), 1.0), "error must lie between"),
        (lambda: ci.lower_sequence(np.zeros(3), 0.0), "error must lie between"),
        (lambda: ci.bootstrap(np.zeros(19)), "at least 20 rows"),
        (lambda: ci.bootstrap(np.zeros(30), 0.001, 100), "resamples must be at least 2000"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
