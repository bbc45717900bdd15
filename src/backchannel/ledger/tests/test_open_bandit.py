"""Open Bandit's logs: the packaged ones, and CSVs as they were published."""

import numpy as np

from backchannel.ledger.log import key_of
from backchannel.ledger.read import open_log
from backchannel.ledger.tests.test_read import feature_sets, only


def test_known_open_bandit_is_recognised(tmp_path):
    log = open_log("open-bandit", logged_by="bts")
    assert (log.rows, len(log.actions), log.has_time) == (10_000, 80, True)
    batch = only(log)
    assert batch.reward.sum() == 42
    assert np.isclose(batch.propensity.min(), 4.5e-5)
    assert set(batch.position) == {1, 2, 3}
    assert log.items is not None
    assert np.all(np.diff(log.items.start) == 4)
    assert len(batch.option) == 800_000
    assert set(batch.features.key) == {key_of("affinity")}
    assert len(batch.features.value) == 517
    uniform = open_log("open-bandit")
    assert set(only(uniform).propensity) == {1 / 80}
    assert any("CC BY 4.0" in note for note in uniform.notes)


def test_known_open_bandit_csv_with_items_beside(tmp_path):
    (tmp_path / "all.csv").write_text(
        ",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0,user-item_affinity_1\n"
        "0,2019-11-24 00:00:34.762830+00:00,1,3,1,0.0125,81ce,0.0,2.0\n"
    )
    (tmp_path / "item_context.csv").write_text(",item_id,item_feature_0,item_feature_1\n0,0,-0.5,aed\n1,1,,b\n")
    log = open_log(tmp_path / "all.csv")
    batch = only(log)
    assert log.actions == ["0", "1"]
    assert (batch.action[0], batch.position[0], batch.propensity[0]) == (1, 3, 0.0125)
    assert batch.time[0] == 1574553634.76283
    assert feature_sets(batch.features) == [set(), {(key_of("affinity"), 2.0)}]
    sets = feature_sets(log.items)
    assert sets == [
        {(key_of("item_feature_0"), -0.5), (key_of("item_feature_1", "aed"), 1.0)},
        {(key_of("item_feature_1", "b"), 1.0)},
    ]
