"""Off-policy estimators: proofs and contrasts."""

import numpy as np
import pytest

from backchannel.ledger import estimators as ope
from backchannel.ledger.estimators import ESTIMATORS, evaluated, from_tables, join, without_model

REWARD, PROPENSITY, PROBABILITY = np.array([1.0, 0.0, 3.0]), np.array([0.5, 0.25, 0.5]), np.array([1.0, 0.5, 0.0])
CHOSEN_Q, POLICY_Q = np.array([0.5, 1.0, 2.0]), np.array([0.5, 0.75, 1.0])
ROWS = evaluated(REWARD, PROPENSITY, PROBABILITY, None, CHOSEN_Q, POLICY_Q)  # weights 2, 2, 0


def test_step_contributions_by_hand():
    np.testing.assert_array_equal(ROWS.weight, [2, 2, 0])
    np.testing.assert_array_equal(ROWS.matched, [True, False, False])
    assert ope.replay(ROWS).mean() == pytest.approx(1.0)
    np.testing.assert_allclose(ope.ips(ROWS), [2, 0, 0])
    # theta = 2 / 4; theta + w (r - theta) / mean w, with mean w = 4/3
    np.testing.assert_allclose(ope.self_normalised_ips(ROWS), [0.5 + 2 * 0.5 * 0.75, 0.5 - 2 * 0.5 * 0.75, 0.5])
    np.testing.assert_allclose(ope.direct(ROWS), POLICY_Q)
    np.testing.assert_allclose(ope.doubly_robust(ROWS), [0.5 + 2 * 0.5, 0.75 - 2 * 1.0, 1.0])
    # residuals w (r - q) = 1, -2, 0: theta = -1/4
    eta = np.array([-0.25 + (1 + 0.5) * 0.75, -0.25 + (-2 + 0.5) * 0.75, -0.25])
    np.testing.assert_allclose(ope.self_normalised_doubly_robust(ROWS), POLICY_Q + eta)
    np.testing.assert_allclose(ope.balanced_ips(ROWS, np.array([3.0, 1.0, 9.0]), 4.0).mean(), (3 + 0 + 12) / 8)


def test_step_changed_weights_by_hand():
    w = np.array([0.0, 1.0, 2.0, 8.0])
    np.testing.assert_allclose(ope.clipped(w, 2.0), [0, 1, 2, 2])
    np.testing.assert_allclose(ope.switched(w, 2.0), [0, 1, 2, 0])
    np.testing.assert_allclose(ope.shrunk(w, 4.0), [0, 4 / 5, 8 / 8, 32 / 68])
    np.testing.assert_allclose(ope.sub_gaussian(w, 0.5), [0, 1, 2 / 1.5, 8 / 4.5])
    rows = ROWS._replace(weight=np.array([1.0, 2.0, 8.0]))
    np.testing.assert_allclose(ope.clipped_ips(rows, 2.0), [1, 0, 6])
    np.testing.assert_allclose(ope.clipped_doubly_robust(rows, 2.0), POLICY_Q + np.array([0.5, -2, 2]))
    np.testing.assert_allclose(ope.switch_doubly_robust(rows, 2.0), POLICY_Q + np.array([0.5, -2, 0]))
    np.testing.assert_allclose(ope.shrunk_doubly_robust(rows, 4.0), POLICY_Q + np.array([0.8 * 0.5, -1, 32 / 68]))
    np.testing.assert_allclose(ope.sub_gaussian_ips(rows, 0.5), [1, 0, 3 * 8 / 4.5])
    np.testing.assert_allclose(ope.sub_gaussian_doubly_robust(rows, 0.5), POLICY_Q + np.array([0.5, -2 / 1.5, 8 / 4.5]))


def test_step_tables_are_reduced_and_joined():
    rng = np.random.default_rng(0)
    pi, q = rng.dirichlet(np.ones(4), 30), rng.random((30, 4))
    action, reward, propensity = rng.integers(4, size=30), rng.random(30), rng.uniform(0.1, 1, 30)
    whole = from_tables(action, reward, propensity, pi, q)
    np.testing.assert_allclose(whole.weight, [pi[i, action[i]] / propensity[i] for i in range(30)])
    np.testing.assert_allclose(whole.chosen_q, [q[i, action[i]] for i in range(30)])
    np.testing.assert_allclose(whole.policy_q, (pi * q).sum(axis=1))
    parts = join(from_tables(*(v[s] for v in (action, reward, propensity, pi, q))) for s in (slice(0, 9), slice(9, 30)))
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_known_unbiased_by_enumeration():
    # Every outcome of one row, 3 contexts x 4 options, with its probability: expectations are weighted sums.
    rng = np.random.default_rng(1)
    logged, policy = rng.dirichlet(np.ones(4), 3), rng.dirichlet(np.ones(4), 3)
    mean, context = rng.random((3, 4)), np.array([0.2, 0.3, 0.5])
    x, a = (v.ravel() for v in np.meshgrid(np.arange(3), np.arange(4), indexing="ij"))
    chance, value = context[x] * logged[x, a], (context[:, None] * policy * mean).sum()
    right = from_tables(a, mean[x, a], logged[x, a], policy[x], mean[x] + 0.3)
    assert chance @ ope.ips(right) == pytest.approx(value, rel=1e-12)
    assert chance @ ope.doubly_robust(right) == pytest.approx(value, rel=1e-12)
    assert chance @ ope.direct(right) == pytest.approx(value + 0.3)  # a wrong model alone is biased
    wrong = from_tables(a, mean[x, a], logged[x, a] / 2, policy[x], mean[x])  # wrong propensities, right model
    assert chance @ ope.doubly_robust(wrong) == pytest.approx(value, rel=1e-12)
    assert chance @ ope.ips(wrong) == pytest.approx(2 * value)


def test_known_replay_is_the_mean_of_the_matched():
    rng = np.random.default_rng(2)
    match, reward = rng.random(100) < 0.3, rng.random(100)
    rows = evaluated(reward, np.full(100, 0.25), match.astype(float))
    assert ope.replay(rows).mean() == pytest.approx(reward[match].mean(), rel=1e-12)
    own = evaluated(reward, np.full(100, 0.25), np.full(100, 0.5), matched=~match)
    assert ope.replay(own).mean() == pytest.approx(reward[~match].mean(), rel=1e-12)


def test_limit_parameters_at_their_ends():
    rng = np.random.default_rng(3)
    pi = rng.dirichlet(np.ones(3), 50)
    rows = from_tables(rng.integers(3, size=50), rng.random(50), rng.uniform(0.1, 1, 50), pi, rng.random((50, 3)))
    rows = rows._replace(weight=np.where(np.arange(50) < 5, 0.0, rows.weight))
    plain, model = ope.doubly_robust(rows), ope.direct(rows)
    for same in (
        ope.clipped_doubly_robust(rows, np.inf),
        ope.switch_doubly_robust(rows, np.inf),
        ope.shrunk_doubly_robust(rows, np.inf),
        ope.sub_gaussian_doubly_robust(rows, 0.0),
    ):
        np.testing.assert_allclose(same, plain, rtol=1e-12)
    for same in (ope.switch_doubly_robust(rows, 0.0), ope.shrunk_doubly_robust(rows, 0.0)):
        np.testing.assert_allclose(same, model, rtol=1e-12)
    np.testing.assert_allclose(ope.sub_gaussian(rows.weight, 1.0), rows.weight > 0)
    np.testing.assert_allclose(ope.doubly_robust(without_model(rows)), ope.ips(rows))
    np.testing.assert_allclose(
        ope.self_normalised_doubly_robust(without_model(rows)), ope.self_normalised_ips(rows), rtol=1e-12
    )


def test_limit_on_policy_every_estimator_is_the_mean_reward():
    rng = np.random.default_rng(4)
    p, reward = rng.uniform(0.1, 1, 60), rng.random(60)
    rows = evaluated(reward, p, p, np.ones(60, bool), np.full(60, 0.7), np.full(60, 0.7))
    for name, estimator in ESTIMATORS.items():
        expected = 0.7 if name == "direct" else reward.mean()
        assert estimator.contributions(rows).mean() == pytest.approx(expected, rel=1e-12), name


def test_contrast_linearised_spread_is_the_estimates_spread():
    # Rewards of 10 +- 0.1: sum w r / sum w hardly varies. Its contributions say so; w r / mean(w), which many use for
    # intervals, says a spread more than 20 times too wide. Ratios are of 400 replicates: their standard error is 3.5 %
    # of the spread, so that 20 % is more than 5 standard errors (error rate below 1e-6).
    rng = np.random.default_rng(5)
    estimates, ours, naive = [], [], []
    for _ in range(400):
        option = rng.random(400) < 0.2
        p = np.where(option, 0.2, 0.8)
        rows = evaluated(10 + 0.1 * rng.normal(size=400), p, np.where(option, 0.7, 0.3))
        x = ope.self_normalised_ips(rows)
        estimates.append(x.mean())
        ours.append(x.std() / 20)
        naive.append((ope.ips(rows) / rows.weight.mean()).std() / 20)
    spread = np.std(estimates)
    assert abs(np.mean(ours) / spread - 1) < 0.2
    assert np.mean(naive) > 20 * spread


def test_contrast_self_normalised_survives_a_shifted_reward_and_ips_does_not():
    # Adding 100 to every reward moves ips by 100 times the error of the mean weight; the self-normalised one by 100.
    weight_off = evaluated(np.zeros(4), np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.5, 0.5, 0.5, 0.1]))
    shifted = weight_off._replace(reward=np.full(4, 100.0))
    assert ope.self_normalised_ips(shifted).mean() == pytest.approx(100, rel=1e-12)
    assert ope.ips(shifted).mean() == pytest.approx(80, rel=1e-12)


def test_contrast_shrinkage_beats_ips_where_weights_are_large():
    # One option of ten has propensity 0.001 and is the evaluated policy's. With a decent model, the mean squared error
    # of each bounded-weight estimate is below a fifth of ips's, whose error is about V (1 - V) 1000 / 500 in variance.
    # Over 400 logs ips's mean square is far above 0.2, theirs below 0.04: their weights are at most 10.
    rng = np.random.default_rng(6)
    errors = {name: [] for name in ("ips", "clipped", "switch", "shrunk", "sub_gaussian")}
    for _ in range(400):
        rare = rng.random(500) < 0.001
        p, reward = np.where(rare, 0.001, 0.999), (rng.random(500) < 0.5).astype(float)
        rows = evaluated(reward, p, rare.astype(float), None, np.full(500, 0.4), np.full(500, 0.4))
        errors["ips"].append(ope.ips(rows).mean() - 0.5)
        errors["clipped"].append(ope.clipped_doubly_robust(rows, 10).mean() - 0.5)
        errors["switch"].append(ope.switch_doubly_robust(rows, 10).mean() - 0.5)
        errors["shrunk"].append(ope.shrunk_doubly_robust(rows, 10).mean() - 0.5)
        errors["sub_gaussian"].append(ope.sub_gaussian_doubly_robust(rows, 0.1).mean() - 0.5)
    square = {name: np.mean(np.square(e)) for name, e in errors.items()}
    assert all(square[name] < square["ips"] / 5 for name in square if name != "ips"), square


def test_contrast_a_model_fitted_on_its_own_rows_fools_doubly_robust_and_cross_fitting_does_not():
    # The model memorises: q of a row that it has seen is its reward, else the mean reward of the others (both for the
    # chosen option; option 1 is taken to be as good). On its own rows the residual vanishes, and the correction, which
    # should tell that option 1 is worth 0.9 and not 0.5, with it. Errors of 20,000 rows are below 0.02 (5 s.e.).
    rng = np.random.default_rng(7)
    option = rng.integers(2, size=20_000)
    reward = (rng.random(20_000) < np.where(option == 1, 0.9, 0.1)).astype(float)

    def fit(train):
        known = dict(zip(train.tolist(), reward[train].tolist(), strict=True))
        mean = reward[train].mean()

        def predict(rows):
            q = np.array([known.get(i, mean) for i in rows.tolist()])
            return q, q

        return predict

    everything = np.arange(20_000)
    own = evaluated(reward, np.full(20_000, 0.5), option, None, *fit(everything)(everything))
    apart = own._replace(
        **dict(zip(("chosen_q", "policy_q"), ope.cross_fit(fit, ope.assign_folds(20_000)), strict=True))
    )
    assert abs(ope.doubly_robust(own).mean() - 0.5) < 0.05
    assert abs(ope.doubly_robust(apart).mean() - 0.9) < 0.05


def test_folds_are_even_and_keep_groups_together():
    folds = ope.assign_folds(103, 5, seed=1)
    assert sorted(np.bincount(folds)) == [20, 20, 21, 21, 21]
    groups = np.repeat(["a", "b", "c", "d"], 25)
    together = ope.assign_folds(100, 2, seed=2, groups=groups)
    assert all(np.unique(together[groups == g]).size == 1 for g in "abcd")
    assert np.bincount(together).tolist() == [50, 50]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluated([], [], []), "no rows"),
        (lambda: evaluated([1.0, np.nan], [0.5, 0.5], [0, 1]), "reward must be finite, but row 1 has nan"),
        (lambda: evaluated([1.0], [0.0], [1.0]), "propensity must lie in"),
        (lambda: evaluated([1.0], [np.nan], [1.0]), "propensity must lie in"),
        (lambda: evaluated([1.0], [0.5], [1.5]), "probability must lie in"),
        (lambda: evaluated([1.0], [0.5, 0.5], [1.0]), "propensity must have one entry"),
        (lambda: evaluated([1.0], [0.5], [1.0], None, [0.5]), "pass both or neither"),
        (lambda: from_tables([0], [1.0], [0.5], [0.5, 0.5]), "probabilities must have one row"),
        (lambda: ope.replay(evaluated([1.0], [0.5], [0.5])), "says nothing about the policy"),
        (lambda: ope.self_normalised_ips(evaluated([1.0], [0.5], [0.0])), "says nothing about the policy"),
        (lambda: ope.sub_gaussian(np.ones(2), 1.1), "strength must lie in"),
        (lambda: ope.clipped(np.ones(2), np.nan), "limit must lie in"),
        (lambda: ope.assign_folds(3, 4), "folds must lie between"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
