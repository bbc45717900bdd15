"""Estimators and tuning against the Open Bandit Pipeline: see oracles/obp_numbers.py for how its numbers were made."""

import json
from pathlib import Path

import numpy as np
import pytest

from backchannel.ledger import estimators as ope
from backchannel.ledger.intervals import bootstrap
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
