"""EXO-pair: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, random_pairs  # noqa: E402
from backchannel.preference.cdpo import cdpo  # noqa: E402
from backchannel.preference.exo_pair import exo_pair  # noqa: E402
from backchannel.preference.tests.trl_oracle import dpo_losses  # noqa: E402


def _at(h):
    return Pairs(h, *torch.zeros(3, *h.shape, dtype=torch.float64))


def test_step_loss_by_hand():
    pairs = random_pairs(7, seed=1)
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    q = 1 / (1 + np.exp(-0.3 * (w - rw - v + rv)))
    loss, info = exo_pair(0.2, 0.3)(pairs)
    np.testing.assert_allclose(loss, q * np.log(q / 0.8) + (1 - q) * np.log((1 - q) / 0.2), rtol=1e-9)
    np.testing.assert_allclose(info.margin, 0.3 * (w - rw - v + rv), rtol=1e-12)


def test_known_trl():
    pairs = random_batch(Pairs, 6, seed=2)
    expected = dpo_losses("exo_pair", pairs, beta=0.3, label_smoothing=0.01)
    torch.testing.assert_close(exo_pair(0.01, 0.3)(pairs)[0], expected, rtol=0, atol=1e-6)


def test_known_it_is_a_divergence_with_its_zero_at_the_label():
    h = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    loss = exo_pair(0.1, 1.0)(_at(h))[0]
    assert bool((loss >= -1e-15).all())
    assert float(h[loss.argmin()]) == pytest.approx(np.log(9), abs=0.01)
    assert float(exo_pair(0.1, 1.0)(_at(torch.tensor([np.log(9)])))[0]) == pytest.approx(0, abs=1e-12)


def test_limit_near_the_label_both_divergences_are_alike():
    # KL(q, p) and KL(p, q) differ by the third order of q - p; cDPO's loss is the latter and a constant.
    at = np.log(9) + torch.tensor([-1e-3, 1e-3], dtype=torch.float64)
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    torch.testing.assert_close(exo_pair(0.1, 1.0)(_at(at))[0], cdpo(0.1, 1.0)(_at(at))[0] - entropy, rtol=1e-3, atol=0)


def test_contrast_cdpo_averages_probabilities_and_exo_log_odds():
    # One margin for pairs of which 55 in a hundred say w, labels smoothed to 0.001. The forward divergence is least at
    # the mean probability; the reverse one at the mean of the labels' log odds, 0.1 log 999: further to the majority.
    h = torch.linspace(-12, 12, 24001, dtype=torch.float64)

    def best(objective):
        return float(h[(0.55 * objective(_at(h))[0] + 0.45 * objective(_at(-h))[0]).argmin()])

    seen = 0.55 * 0.999 + 0.45 * 0.001
    assert best(cdpo(0.001, 1.0)) == pytest.approx(np.log(seen / (1 - seen)), abs=1e-3)
    assert best(exo_pair(0.001, 1.0)) == pytest.approx(0.1 * np.log(999), abs=1e-3)


@pytest.mark.parametrize(("rate", "beta", "word"), [(0, 1, "flip_rate"), (0.5, 1, "flip_rate"), (0.1, 0, "beta")])
def test_wrong_arguments(rate, beta, word):
    with pytest.raises(ValueError, match=word):
        exo_pair(rate, beta)
