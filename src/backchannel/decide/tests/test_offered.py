"""What a policy does is what it is judged by: `act` draws from the distribution that the estimates use.

Every policy of the default set, on rows that offer a part of the options, and on options with features of their own.
"""

import numpy as np
import pytest

from backchannel.card import find
from backchannel.decide import policies
from backchannel.decide.acting import Request, act
from backchannel.decide.features import encode
from backchannel.decide.fold import COMMON_DRAWS, Passes
from backchannel.decide.learn import learn
from backchannel.feedback import Decision, Feedback
from backchannel.feedback import encode as encode_record
from backchannel.ledger.read import open_log

KINDS, ROWS, SEEDS, REPEATS = 6, 50, 4, 400
DRAWS = SEEDS * REPEATS


def requests_of(part):
    """Six kinds of requests, options as names or with features."""
    if part:
        offers = [["a", "b"], ["c"], ["b", "d", "c"], ["d", "a"], ["a", "b", "c", "d"], ["c", "b"]]
        return [Request(context={"x": 0.5 * i - 1, "c": "uv"[i % 2]}, options=each) for i, each in enumerate(offers)]
    offers = [{f"o{j}": {"good": (i * j) % 3 / 2, "bad": j / 4} for j in range(1 + i)} for i in range(KINDS)]
    return [Request(context={"x": 0.5 * i - 1}, options=each) for i, each in enumerate(offers)]


@pytest.fixture(scope="module", params=[True, False], ids=["a part of the options", "options with features"])
def logged(request, tmp_path_factory):
    """Learned policies, and rows of a log that are the requests, each ROWS times."""
    folder = tmp_path_factory.mktemp("offered")
    rng = np.random.default_rng(0)
    kinds = requests_of(request.param)
    lines = []
    for i in range(KINDS * 500):
        each = kinds[i % KINDS]
        names = list(each.options)
        chosen = names[rng.integers(len(names))]
        right = chosen in "ac" if request.param else each.options[chosen]["good"] > 0.4
        reward = float(rng.random() < 0.3 + 0.4 * right)
        chance = 1 / len(names)
        lines.append(
            encode_record(Decision(str(i), chosen, options=each.options, context=each.context, propensity=chance))
        )
        lines.append(encode_record(Feedback(f"f{i}", str(i), "reward", reward)))
    (folder / "log.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    log = open_log(folder / "log.jsonl")
    batch = next(log.batches(KINDS * ROWS))
    return request.param, batch, learn(log)[1]


def probabilities(policy, batch, seed):
    """float64[kinds, options]: of each kind's options in the order of the request, averaged over its rows."""
    passes = Passes(policies.make(find(policy.key), policy.given), find(policy.key).card.context)
    block, rng, n = encode(policy.encoder, batch), np.random.default_rng(seed), batch.action.size
    widest = int(np.diff(batch.offered).max())
    found = np.zeros((KINDS, widest))
    q, use = np.zeros(n * max(len(policy.encoder.actions), widest)), np.ones(n, bool)
    common = passes.common(policy.state, block, rng)
    for place in range(widest):
        there = use & (np.diff(batch.offered) > place)
        at = np.minimum(batch.offered[:-1] + place, batch.option.size - 1)
        action = np.where(there, place if policy.encoder.ragged else batch.option[at], 0)
        table = passes.weigh(policy.state, block._replace(action=action), there, q, rng, np.zeros(0), common=common)
        for kind in range(KINDS):
            rows = table[kind::KINDS, 0]
            found[kind, place] = rows.mean() if there[kind] else 0.0
    return np.minimum(found, 1.0)


def test_act_draws_from_what_the_estimates_use(logged):
    part, batch, learned = logged
    expected_keys = [*policies.DEFAULT] if part else ["uniform", "lin_ucb", "lin_ts", "square_cb", "fast_cb"]
    assert [policy.key for policy in learned] == expected_keys
    kinds = requests_of(part)
    for policy in learned:
        expected = probabilities(policy, batch, 1)
        np.testing.assert_allclose(expected.sum(axis=1), 1.0, atol=1e-9 if policy.key != "lin_ts" else 0.05)
        counts = np.zeros(expected.shape)
        said = np.zeros(expected.shape)
        for seed in range(SEEDS):
            for i, decision in enumerate(act(policy, kinds * REPEATS, seed=seed)):
                place = list(kinds[i % KINDS].options).index(decision.action)
                counts[i % KINDS, place] += 1
                said[i % KINDS, place] += decision.propensity
        share = counts / DRAWS
        # `act` draws; policies without closed form have noise of their own: 10,000 draws for each actor and here, or
        # a hundred for each row.
        noise = 1 / DRAWS + (1 / SEEDS + 1) / COMMON_DRAWS + 1 / (100 * ROWS)
        # 2 x 11 x 6 x 4 shares at most: 5.3 deviations are 6e-5 in all; where the normal law fails, ten draws more are.
        bound = 5.3 * np.sqrt(expected * (1 - expected) * noise) + 12 / DRAWS * ((expected > 0) & (expected < 1))
        assert (np.abs(share - expected) <= bound + 1e-12).all(), (policy.key, share, expected)
        if policy.key not in ("thompson", "lin_ts"):
            drawn = counts > 0
            np.testing.assert_allclose(said[drawn] / counts[drawn], expected[drawn], rtol=1e-9)


def test_what_sees_contexts_takes_the_best_of_what_is_offered(logged):
    """Of b and c alone it would say no more than a coin, if it had decided for a first."""
    part, batch, learned = logged
    found = {policy.key: probabilities(policy, batch, 0) for policy in learned}
    better = [(0, 0), (2, 2), (3, 1), (5, 0)] if part else [(1, 1)]  # a before b, c before b and d, a before d, ...
    for key in ("lin_ucb", "lin_ts", "square_cb", "fast_cb"):
        assert all(found[key][place] > 0.6 for place in better), (key, found[key])
    assert set(np.unique(found["lin_ucb"])) == {0.0, 1.0}
