"""Options with features that never change: what is learned of one serves those like it."""

import numpy as np
import pytest

from backchannel.decide.acting import Request, act
from backchannel.decide.learn import learn
from backchannel.decide.policyfile import load_policy
from backchannel.ledger.log import key_of
from backchannel.ledger.read import open_log

ROWS = 3000


@pytest.fixture
def log(tmp_path):
    """Sweet things are liked, and sour ones not. One of each kind is offered and was never tried."""
    rng = np.random.default_rng(3)
    names = ["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3"]
    action = rng.choice([0, 1, 2, 4, 5, 6], ROWS)
    reward = rng.random(ROWS) < np.where(action < 4, 0.2, 0.8)
    rows = [f"{names[a]},{int(r)},0.16,{'|'.join(names)}\n" for a, r in zip(action, reward, strict=True)]
    (tmp_path / "log.csv").write_text("action,reward,propensity,options\n" + "".join(rows))
    kinds = [f"{name},{'sour' if name < 'b' else 'sweet'},{1 + i % 2}\n" for i, name in enumerate(names)]
    (tmp_path / "items.csv").write_text("action,kind,size\n" + "".join(kinds))
    return tmp_path


def test_what_was_never_tried_is_known_by_its_kind(log):
    opened = open_log(log / "log.csv", items=log / "items.csv")
    _, (policy,) = learn(opened, ["square_cb"])
    start, key, value = policy.encoder.items
    assert (start, len(policy.encoder.actions)) == ([2 * i for i in range(9)], 8)
    features = [dict(zip(key[2 * i : 2 * i + 2], value[2 * i : 2 * i + 2], strict=True)) for i in range(8)]
    assert features[3] == {key_of("kind", "sour"): 1.0, key_of("size"): 2.0}
    assert features[4] == {key_of("kind", "sweet"): 1.0, key_of("size"): 1.0}
    policy.save(log / "a.policy")
    loaded = load_policy(log / "a.policy")
    requests = [Request(options=["a3", "b3"])] * 400
    assert np.mean([decision.action == "b3" for decision in act(loaded, requests)]) > 0.8
    _, (blind,) = learn(open_log(log / "log.csv"), ["square_cb"])
    assert blind.encoder.items is None
    assert {decision.propensity for decision in act(blind, requests)} == {0.5}


def test_a_model_for_each_option_has_no_use_for_them(log):
    """The dense view is the context alone: the same policy with items and without."""
    with_items = learn(open_log(log / "log.csv", items=log / "items.csv"), ["lin_ucb"])[1][0]
    without = learn(open_log(log / "log.csv"), ["lin_ucb"])[1][0]
    for a, b in zip(with_items.state, without.state, strict=True):
        np.testing.assert_array_equal(a, b)
