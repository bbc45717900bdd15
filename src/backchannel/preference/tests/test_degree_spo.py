"""Degree SPO: proofs and contrast."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.card import Method  # noqa: E402
from backchannel.parts.objectives import Pairs, random_batch  # noqa: E402
from backchannel.preference import degree_spo as module  # noqa: E402
from backchannel.preference.degree_spo import degree_spo, graded, key_phrases, versions  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.ipo import ipo  # noqa: E402
from backchannel.testing.battery import check_card  # noqa: E402


def test_card():
    check_card(Method("degree_spo", "preference", module.CARD, module))


def _made_up(n=5, v=3, width=4, degrees=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    states = torch.randn(n, v, width, generator=rng, dtype=torch.float64)
    return random_batch(Pairs, n, seed), states, torch.randint(degrees, (n, v), generator=rng)


def test_step_loss_by_hand():
    # Independently, in NumPy, as equations (2) and (3) read.
    pairs, states, degree = _made_up()
    spo = degree_spo(4, 3, gamma=0.3, beta=0.2).double()
    with torch.no_grad():
        spo.head.weight.copy_(torch.randn(3, 4, generator=torch.Generator().manual_seed(9)))
        spo.head.bias.copy_(torch.tensor([0.5, -1.0, 0.25]))
    logits = np.asarray(states) @ np.asarray(spo.head.weight.detach()).T + np.asarray(spo.head.bias.detach())
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    surprise = -np.log(np.take_along_axis(p, np.asarray(degree)[:, :, None], 2)[:, :, 0])
    w, v, rw, rv = (np.asarray(each) for each in pairs[:4])
    h = 0.2 * ((w - rw) - (v - rv))
    loss, info = spo(pairs, states, degree)
    np.testing.assert_allclose(loss.detach(), np.log1p(np.exp(-h)) + 0.3 * surprise.mean(1), rtol=1e-9)
    np.testing.assert_allclose(info.margin, h, rtol=1e-9)
    assert torch.equal(spo.named(states), torch.as_tensor(logits.argmax(-1)))


def test_step_versions_by_hand():
    # Round(d P / (K - 1)) phrases go: of five, with four degrees, 0, 2 (1.67), 3 (3.33) and all.
    pieces, phrases = list("abcdefgh"), [(6, 7), (0, 2), (3, 4), (4, 5), (7, 8)]
    assert ["".join(each) for each in versions(pieces, phrases, 4)] == ["abcdefgh", "cdefh", "cefh", "cf"]
    assert ["".join(each) for each in versions(pieces, phrases[:1], 3)] == ["abcdefgh", "abcdefh", "abcdefh"]
    assert versions([1, 2], [], 2) == [[1, 2], [1, 2]]


def test_known_key_phrases_by_hand():
    # Phrases: red bridge (2), bridge (1), long red ferry (3). Frequencies: red 2, bridge 2, long 1, ferry 1. Lengths of
    # phrases with them: red 5, bridge 3, long 3, ferry 3. Scores: 2.5 + 1.5 = 4, 1.5, 3 + 2.5 + 3 = 8.5.
    words = ["the", "red", "bridge", ",", "a", "bridge", "and", "the", "long", "red", "ferry", "."]
    assert key_phrases(words) == [(8, 11), (1, 3), (5, 6)]
    # x is alone, and once in a phrase of n: (n + 1) / 2 against 2 + 2 of "p q". y is alone three times: 1, not 3.
    for n, order in ((4, [(0, 4), (7, 9), (5, 6)]), (8, [(0, 8), (9, 10), (11, 13)])):
        assert key_phrases([*"xbcdefgh"[:n], ",", "x", ",", "p", "q"]) == order
    assert key_phrases([*"y,y,y,x,xz"])[:2] == [(8, 10), (6, 7)]
    assert key_phrases([]) == []
    assert key_phrases(["fine"]) == [(0, 1)]
    assert graded("The red bridge, a bridge and the long red ferry.", 4) == [
        "The red bridge, a bridge and the long red ferry.", "The red bridge, a bridge and the.",
        "The, a bridge and the.", "The, a and the.",
    ]  # fmt: skip


def test_known_each_version_is_a_part_of_the_one_before():
    rng = np.random.default_rng(0)
    for _ in range(20):
        text = " ".join(rng.choice(["the", "sea", "is", "blue", "and", "wide", ",", "old"], 15))
        found = [each.split() for each in graded(text, 5)]
        for longer, shorter in itertools.pairwise(found):
            rest = iter(longer)
            assert all(word in rest for word in shorter)
        assert not [word for word in found[-1] if word.strip(",") in ("sea", "blue", "wide", "old")]


@pytest.mark.parametrize("other", [dpo(0.3), ipo(0.2)], ids=["dpo", "ipo"])
def test_limit_gamma_zero_is_the_loss_without_and_a_fresh_classifier_knows_nothing(other):
    pairs, states, degree = _made_up()
    plain = other(pairs)[0]
    loss, _ = degree_spo(4, 3, gamma=0.0, objective=other).double()(pairs, states, degree)
    torch.testing.assert_close(loss, plain, rtol=0, atol=0)
    loss, _ = degree_spo(4, 3, gamma=0.5, objective=other).double()(pairs, states, degree)
    torch.testing.assert_close(loss, plain + 0.5 * np.log(3))
    torch.testing.assert_close(
        degree_spo(4, 3, gamma=0.0, beta=0.3).double()(pairs, states, degree)[0], dpo(0.3)(pairs)[0]
    )


def test_contrast_dpo_leaves_a_state_that_no_classifier_can_read():
    # The state of an answer is u . (its features), one number. The label depends on feature 0 alone, and DPO, from the
    # log-probability theta . features, turns nothing else; with degrees, which depend on feature 1, u turns to it.
    rng = torch.Generator().manual_seed(3)
    chosen = torch.randn(64, 2, generator=rng, dtype=torch.float64)
    rejected = torch.cat([-chosen[:, :1], chosen[:, 1:]], 1)
    chosen, rejected = (
        torch.where((chosen[:, :1] > 0), chosen, rejected),
        torch.where((chosen[:, :1] > 0), rejected, chosen),
    )
    degree = (chosen[:, 1:] > 0).long()

    def learned(gamma):
        theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        u = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
        spo = degree_spo(1, 2, gamma, beta=1.0).double()
        with torch.no_grad():
            spo.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        optimizer = torch.optim.SGD([theta, u, *spo.parameters()], lr=0.5)
        for _ in range(60):
            zero = torch.zeros(64, dtype=torch.float64)
            loss, _ = spo(Pairs(chosen @ theta, rejected @ theta, zero, zero), (chosen @ u)[:, None, None], degree)
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
        right = (spo.named((chosen @ u)[:, None, None]) == degree).double().mean()
        return float(right), theta.detach()

    blind, plain = learned(0.0)
    seeing, theta = learned(1.0)
    assert blind < 0.7
    assert seeing > 0.95
    torch.testing.assert_close(theta, plain)  # here nothing else is shared


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: degree_spo(4, 1), "degrees must be 2 or more, not 1"),
        (lambda: degree_spo(4, gamma=-0.1), "gamma"),
        (lambda: degree_spo(4, gamma=float("inf")), "gamma"),
        (lambda: degree_spo(0), "width"),
        (lambda: degree_spo(4, beta=0.0), "beta"),
        (lambda: versions("ab", [], 1), "degrees"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
