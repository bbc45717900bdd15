"""Estimators and tuning against the Open Bandit Pipeline: see oracles/obp_numbers.py for how its numbers were made."""

import json
from pathlib import Path

import numpy as np
import pytest

from backchannel.decide.against import against
from backchannel.decide.scan import Scan
from backchannel.ledger import estimators as ope
from backchannel.ledger.intervals import bootstrap
from backchannel.ledger.read import open_log
from backchannel.ledger.tuning import tune_by_error, tune_by_slope

NUMBERS = json.loads(Path(__file__).with_name("oracles").joinpath("obp_numbers.json").read_text())
SHAPES = {"clip": ope.clipped, "switch": ope.switched, "shrink": ope.shrunk, "sub_gaussian": ope.sub_gaussian}
PARAMETRISED = {
    "switch": ope.switch_doubly_robust,
    "shrink": ope.shrunk_doubly_robust,
    "clipped_ips": ope.clipped_ips,
    "clipped_doubly_robust": ope.clipped_doubly_robust,
    "sub_gaussian_ips": ope.sub_gaussian_ips,
    "sub_gaussian_doubly_robust": ope.sub_gaussian_doubly_robust,
}


def rows_of(case, policy="evaluated"):
    a = {name: np.array(value) for name, value in case["inputs"].items()}
    row = np.arange(a["action"].size)
    pi, q = a[policy][row, :, a["position"]], a["q_hat"][row, :, a["position"]]
    return ope.from_tables(a["action"], a["reward"], a["propensity"], pi, q), a["estimated_weight"]


@pytest.mark.parametrize("case", NUMBERS["cases"])
def test_known_estimates(case):
    rows, odds = rows_of(case)
    numbers = case["obp 0.4.1"] | case["obp master 8cbd5fa"]
    compared = 0
    for name, value in numbers.items():
        if name == "tuning":
            continue
        key, *parameter = name.split()
        if key == "replay":
            ours = ope.replay(rows_of(case, "greedy")[0])
        elif key == "balanced_ips":
            ours = ope.balanced_ips(rows, odds, float(parameter[0]))
        elif parameter:
            ours = PARAMETRISED[key](rows, float(parameter[0]))
        else:
            ours = ope.ESTIMATORS[key].contributions(rows)
        assert ours.mean() == pytest.approx(value, abs=1e-9), name
        compared += 1
    assert compared == 16


@pytest.mark.parametrize("case", NUMBERS["cases"])
@pytest.mark.parametrize("name", NUMBERS["cases"][0]["obp master 8cbd5fa"]["tuning"])
def test_known_tuning(case, name):
    expected = case["obp master 8cbd5fa"]["tuning"][name]
    shape, base = name.split()
    rows, _ = rows_of(case)
    rows = ope.without_model(rows) if base == "ips" else rows
    by_slope = tune_by_slope(rows, SHAPES[shape], expected["candidates"], delta=0.1)
    assert by_slope.value == expected["slope"]["chosen"]
    for rule, delta in (("mse", None), ("mse with bound", 0.1)):
        tuned = tune_by_error(rows, SHAPES[shape], expected["candidates"], delta)
        np.testing.assert_allclose(tuned.scores, expected[rule]["scores"], rtol=1e-6)
        assert tuned.value == expected[rule]["chosen"]
        weight = SHAPES[shape](rows.weight, tuned.value)
        assert ope.doubly_robust(rows._replace(weight=weight)).mean() == pytest.approx(
            expected[rule]["value"], abs=1e-9
        )


def test_known_open_bandit_summary_is_consistent():
    known = NUMBERS["open bandit"]
    assert known["self_normalised_ips"] == pytest.approx(known["sum of weight * reward"] / known["sum of weights"])
    assert known["ips"] == pytest.approx(known["sum of weight * reward"] / known["rows"])
    assert len(known["weights of clicked rows, sorted"]) == known["clicks"] == 38


def test_known_open_bandit_bootstrap():
    # obp resamples w r / mean(w), which is 0 but in the clicked rows. The spread is 0.0022; a percentile of obp's 2000
    # resamples has a standard error of about 0.00013, of which 0.0007 is five.
    known = NUMBERS["open bandit"]
    x = np.zeros(known["rows"])
    x[: known["clicks"]] = known["weights of clicked rows, sorted"]
    ours = bootstrap(x * known["rows"] / known["sum of weights"], resamples=20_000)
    np.testing.assert_allclose(ours, known["bootstrap, 2000 resamples, 95 %"], rtol=0, atol=7e-4)


@pytest.mark.parametrize("size", [10_000, 777])
def test_known_open_bandit_value_from_the_packaged_log(size):
    """obp's Bernoulli TS, its probabilities rounded to six digits, on the packaged random log: 0.004776."""
    known = NUMBERS["open bandit"]
    chance = np.array(known["probability[item][position]"])
    log = open_log("open-bandit", logged_by="random")
    assert [int(name) for name in log.actions] == list(range(80))
    rows = ope.join(
        ope.evaluated(batch.reward, batch.propensity, chance[batch.action, batch.position - batch.position.min()])
        for batch in log.batches(size)
    )
    assert rows.reward.size == known["rows"]
    assert rows.weight.sum() == pytest.approx(known["sum of weights"], rel=1e-5)
    assert (rows.weight**2).sum() == pytest.approx(known["sum of squared weights"], rel=1e-5)
    assert rows.weight.max() == pytest.approx(known["largest weight"], rel=1e-4)
    np.testing.assert_allclose(
        np.sort(rows.weight[rows.reward == 1]), known["weights of clicked rows, sorted"], rtol=0.02, atol=1e-6
    )
    assert ope.ips(rows).mean() == pytest.approx(known["ips"], rel=1e-5)
    assert ope.self_normalised_ips(rows).mean() == pytest.approx(known["self_normalised_ips"], rel=1e-5)
    assert round(ope.self_normalised_ips(rows).mean(), 6) == 0.004776


def test_known_open_bandit_value_of_the_other_log():
    """The same policy by how often it took each item at each position: 0.00525; it really earned 0.0042."""
    log, other = open_log("open-bandit", logged_by="random"), open_log("open-bandit", logged_by="bts")
    found = against(log, Scan(log), other, seed=0)
    here, there = next(log.batches()), next(other.batches())
    chance = np.zeros((80, 4))
    np.add.at(chance, (there.action, there.position), 1)
    chance /= np.maximum(chance.sum(axis=0), 1)
    weight = chance[here.action, here.position] / here.propensity
    assert found.estimate.value == pytest.approx((weight * here.reward).sum() / weight.sum(), rel=1e-12)
    assert found.effective_rows == pytest.approx(weight.sum() ** 2 / (weight**2).sum(), rel=1e-12)
    assert round(found.estimate.value, 5) == 0.00525
    assert found.earned.value == pytest.approx(NUMBERS["open bandit"]["click rate of the log of Bernoulli TS"])
