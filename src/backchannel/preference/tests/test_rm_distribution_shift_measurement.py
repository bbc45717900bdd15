"""RM distribution-shift measurement: proofs and contrast."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from backchannel.card import Method
from backchannel.preference import rm_distribution_shift_measurement as module
from backchannel.preference.rm_distribution_shift_measurement import (
    Rated,
    auroc,
    confidence,
    distance_from,
    drop,
    energy,
    false_alarms,
    reliability,
    rm_distribution_shift_measurement,
)
from backchannel.testing.battery import check_card


def calibrated(n, seed, spread=2.0):
    """Rewards [n, 2] of a model whose confidence is the probability of being right."""
    rng = np.random.default_rng(seed)
    lead = spread * np.abs(rng.normal(size=n))
    lead = np.where(rng.random(n) < 1 / (1 + np.exp(-lead)), lead, -lead)
    level = rng.normal(size=n)
    return np.stack([level + lead, level], 1)


def test_card():
    check_card(Method("rm_distribution_shift_measurement", "preference", module.CARD, module))


def test_step_by_hand():
    rewards = np.log([[3.0, 1.0], [1.0, 1.5], [9.0, 1.0], [4.0, 1.0]])  # confidences 0.75, 0.6, 0.9, 0.8
    np.testing.assert_allclose(confidence(rewards), [0.75, 0.6, 0.9, 0.8])
    found = reliability(rewards, bins=2)  # 0.75 falls into the upper one
    np.testing.assert_array_equal(found.pairs, [1, 3])
    np.testing.assert_allclose(found.confidence, [0.6, 2.45 / 3])
    np.testing.assert_allclose(found.accuracy, [0.0, 1.0])
    assert found.ece == pytest.approx(1 / 4 * 0.6 + 3 / 4 * (1 - 2.45 / 3))
    variance = (0.75 * 0.25 + 0.9 * 0.1 + 0.8 * 0.2) / 3
    noise = 1 / 4 * math.sqrt(2 * 0.24 / math.pi) + 3 / 4 * math.sqrt(2 * variance / (math.pi * 3))
    assert found.noise == pytest.approx(noise)
    np.testing.assert_allclose(energy(rewards), -np.log([4.0, 2.5, 10.0, 5.0]))
    np.testing.assert_allclose(energy(rewards, 0.5), -0.5 * np.log([10.0, 3.25, 82.0, 17.0]))
    one = rm_distribution_shift_measurement(rewards, {"turned": rewards[:, ::-1]})
    assert (one["inside"].accuracy, one["turned"].accuracy) == (0.75, 0.25)
    assert one["inside"].confidence == pytest.approx(3.05 / 4)
    assert one["inside"].error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert math.isnan(one["turned"].distance)
    assert "distance" not in one["turned"].detection


def test_step_embeddings_by_hand():
    middle = np.array([5.0, -3.0])
    features = middle + np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, -1.0], [0.0, 1.0]])  # variances 2 and 1/2
    far = distance_from(features)
    there = middle + np.array([[2.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    np.testing.assert_allclose(far(there), [2**0.5, 2**0.5, 2], rtol=1e-5)
    inside = Rated(np.zeros((2, 2)), features.reshape(2, 2, 2))
    shifts = {
        "there": Rated(np.zeros((1, 2)), middle + np.array([[[2.0, 0.0], [2.0, 2.0]]])),
        "half": Rated(np.zeros((1, 2)), middle + np.array([[[0.0, 0.0], [2.0, 0.5]]])),
    }
    found = rm_distribution_shift_measurement(inside, shifts)
    # Of the mean embeddings (2, 1) and (1, 0.25). Answers inside are all sqrt(2) away; those there sqrt(2) and
    # sqrt(10), of which the mean is more, and those of the other shift 0 and sqrt(2.5), of which the mean is less.
    assert [found[name].distance for name in shifts] == pytest.approx([2, 0.625**0.5], rel=1e-5)
    assert found["inside"].distance == pytest.approx(0, abs=1e-9)
    assert [found[name].detection["distance"].auroc for name in shifts] == [1.0, 0.0]
    bare = rm_distribution_shift_measurement(inside, {"bare": np.zeros((1, 2))})["bare"]  # a shift without embeddings
    assert math.isnan(bare.distance)
    assert set(bare.detection) == {"energy", "max softmax"}


def test_step_false_alarms_and_temperature():
    # 95 percent of 20 scores are 19: the threshold is the second lowest. In the cold only the larger reward counts.
    assert false_alarms(np.array([0.5, 1.0, 1.5, -1.0]), np.arange(20.0)) == 0.5
    inside, there = np.array([[1.0, 1.0]]), {"there": np.array([[1.4, -9.0]])}
    warm, cold = (
        rm_distribution_shift_measurement(inside, there, temperature=each)["there"].detection["energy"].auroc
        for each in (1.0, 0.1)
    )
    assert (warm, cold) == (1.0, 0.0)  # 1 + log(2) > 1.4 > 1 + log(2) / 10


def test_known_auroc_and_false_alarms_of_scikit_learn():
    rng = np.random.default_rng(0)
    inside, shifted = rng.integers(0, 12, 300).astype(float), rng.integers(3, 15, 200).astype(float)  # with ties
    truth, both = np.repeat([0, 1], [300, 200]), np.concatenate([inside, shifted])
    assert auroc(inside, shifted) == pytest.approx(roc_auc_score(truth, both), abs=1e-12)
    wrong, hit, _ = roc_curve(truth, both, drop_intermediate=False)
    assert false_alarms(inside, shifted) == pytest.approx(wrong[np.argmax(hit >= 0.95)], abs=1e-12)


def test_known_ece_of_a_calibrated_model_is_noise():
    # 200 data sets: the mean ECE lies within 5 standard errors and 3 percent (skew of small bins) of (3).
    found = [reliability(calibrated(1000, seed)) for seed in range(200)]
    eces, noises = (np.array(each) for each in zip(*((f.ece, f.noise) for f in found), strict=True))
    error = 5 * eces.std() / np.sqrt(200) + 0.03 * noises.mean()
    assert abs(eces.mean() - noises.mean()) < error
    # Twice as sure: far above noise. Half as sure: as well.
    assert all(reliability(factor * calibrated(4000, 7)).ece > 0.06 for factor in (3.0, 1 / 3))


def test_limit_small_temperatures_are_the_larger_reward():
    rewards = calibrated(50, 1)
    np.testing.assert_allclose(energy(rewards, 1e-4), -rewards.max(1), atol=1e-4)


def test_limit_one_bin_is_the_gap_of_confidence_and_accuracy():
    rewards = 3 * calibrated(500, 2)
    found = rm_distribution_shift_measurement(rewards, {}, bins=1)["inside"]
    assert found.reliability.ece == pytest.approx(abs(found.confidence - found.accuracy))


def test_limit_ties_and_certainty():
    rewards = np.array([[1.0, 1.0], [1e4, 0.0], [0.0, 1e4]])
    found = rm_distribution_shift_measurement(rewards, {"same": rewards})
    assert found["inside"].accuracy == 0.5
    np.testing.assert_array_equal(found["inside"].reliability.pairs, [1, 0, 0, 0, 2])
    assert {each.auroc for each in found["same"].detection.values()} == {0.5}


def test_limit_drop_is_linear_between_strengths():
    rng = np.random.default_rng(3)
    features, rewards = rng.normal(size=(400, 2, 3)), calibrated(400, 3)
    shifts = {
        str(s): Rated(np.where(rng.random((400, 1)) < s, rewards[:, ::-1], rewards), features + 4 * s)
        for s in (0.25, 0.5)
    }
    found = rm_distribution_shift_measurement(Rated(rewards, features), shifts)
    inside, near, away = (found[name] for name in ("inside", "0.25", "0.5"))
    lost = [inside.accuracy - each.accuracy for each in (near, away)]
    assert drop(inside, [near, away], near.distance) == pytest.approx(lost[0])
    assert drop(inside, [near, away], near.distance / 2) == pytest.approx(lost[0] / 2)
    assert drop(inside, [near, away], (near.distance + away.distance) / 2) == pytest.approx(sum(lost) / 2)
    for path in ([away, near], [near, near], [inside, near]):
        with pytest.raises(ValueError, match="grow along the path"):
            drop(inside, path, 0.1)
    with pytest.raises(ValueError, match="on the path"):
        drop(inside, [near], 2 * away.distance)


def test_contrast_the_level_of_rewards_is_for_energy_alone():
    # What labels cannot show, a level for each prompt, changes no accuracy and no confidence, and so no max softmax;
    # the energy sees nothing else. Where margins shrink at levels
    # that vary from prompt to prompt anyway, it is the other way round.
    rewards = calibrated(2000, 4, spread=1.0)
    found = rm_distribution_shift_measurement(rewards, {"lower": rewards - 3.0})
    lower, inside = found["lower"], found["inside"]
    assert (lower.accuracy, lower.confidence) == pytest.approx((inside.accuracy, inside.confidence))
    assert lower.detection["max softmax"].auroc == pytest.approx(0.5, abs=0.01)  # rounding
    assert lower.detection["energy"].auroc > 0.9
    level = 20 * np.random.default_rng(5).normal(size=(2000, 1))
    centred = rewards - rewards.mean(1, keepdims=True)
    unsure = rm_distribution_shift_measurement(centred + level, {"unsure": 0.2 * centred + level})["unsure"]
    assert unsure.detection["max softmax"].auroc > 0.7
    assert unsure.detection["energy"].auroc == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: rm_distribution_shift_measurement([[1.0, 0.0]], {"inside": [[1.0, 0.0]]}), "cannot be called inside"),
        (lambda: rm_distribution_shift_measurement([[1.0, np.nan]], {}), "rewards of inside must be finite"),
        (lambda: rm_distribution_shift_measurement([[1.0, 0.0]], {"x": [[1.0, 2.0, 3.0]]}), "rewards of x must be"),
        (lambda: rm_distribution_shift_measurement(np.zeros((3, 2, 1)), {}), "rewards of inside must be"),
        (lambda: rm_distribution_shift_measurement(np.zeros((0, 2)), {}), "rewards of inside must be"),
        (
            lambda: rm_distribution_shift_measurement(Rated(np.zeros((2, 2)), np.zeros((1, 2, 3))), {}),
            "embeddings of inside",
        ),
        (lambda: energy(np.zeros((1, 2)), 0.0), "temperature"),
        (lambda: reliability(np.zeros((1, 2)), 0), "bins"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
