"""Audit card: proofs and contrast."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize

from backchannel.parts.comparisons import comparisons, tally
from backchannel.parts.scalar_utility import scalar_utility
from backchannel.parts.triples import intransitive
from backchannel.preference.audit_card import (
    REQUIRED,
    RewardFit,
    Stated,
    audit_card,
    findings,
    to_json,
    to_markdown,
    unstated,
)
from backchannel.tasks.voted_menus import voted_menus

NAME = {"name": "menus"}


def votes_of(*counts):
    """Comparisons from (first, second, wins, losses, ties)."""
    rows = [
        (a, b, vote) for a, b, *numbers in counts for n, vote in zip(numbers, (1, -1, 0), strict=True) for _ in range(n)
    ]
    first, second, vote = zip(*rows, strict=True)
    return {"first": first, "second": second, "vote": vote}


def test_step_counts_and_the_ratio_by_hand():
    card = audit_card(votes_of((0, 1, 4, 1, 2), (1, 2, 2, 5, 0), (0, 2, 3, 1, 1)), NAME, draws=19)
    assert (card.items, card.pairs, card.votes, card.ties, card.annotators) == (3, 3, 19, 3, 1)
    wins, lost = np.array([4, 2, 3]), np.array([1, 5, 1])
    free = (wins * np.log(wins / (wins + lost)) + lost * np.log(lost / (wins + lost))).sum()

    def loss(u):
        x = np.array([u[0] - u[1], u[1], u[0]])
        return wins @ np.logaddexp(0, -x) + lost @ np.logaddexp(0, x)

    best = minimize(loss, np.zeros(2), tol=1e-12).fun
    assert card.scalar.statistic == pytest.approx(2 * (free + best), abs=1e-6)  # (2)
    assert card.scalar.freedom == 1
    text = to_markdown(card)
    assert "19 votes, 3 of them ties, on 3 pairs of 3 items, by 1 annotators." in text
    assert f"coin {-np.log(2):.4f}, one utility {-best / 16:.4f}, a probability for each pair {free / 16:.4f}" in text


def test_step_a_reward_model_by_hand():
    data = comparisons(["a", "a", "b", "b"], ["b", "b", "c", "c"], [1, -1, 1, 0])
    card = audit_card(data, NAME, rewards=[2.0, 1.0, 1.0], draws=19)
    apart = np.array([1.0, -1.0, 0.0])
    right = np.array([1.0, 0.0, 0.5])
    # By pair: a-b has residuals 0.5 and -0.5, b-c has 0.
    assert card.reward == RewardFit(right.mean(), 0.0, -np.logaddexp(0, -apart).mean(), pytest.approx(0.0, abs=1e-9))
    assert audit_card(data, NAME, rewards=[3.0, 2.0, 1.0], draws=19).reward.accuracy == pytest.approx(2 / 3)
    assert audit_card(votes_of((0, 1, 2, 0, 0)), NAME, rewards=[1.0, 0.0], draws=19).reward.slope is None
    for wrong in ([1.0, 2.0], [1.0, np.nan, 2.0]):
        with pytest.raises(ValueError, match="3 finite numbers"):
            audit_card(data, NAME, rewards=wrong)


def test_known_rates_are_found():
    # 500 menus, 10 annotators in each of two groups: the estimate is off by more than 5 points with a probability below
    # 1e-6 (its standard error is below 1 point).
    for share in (0.0, 0.1, 0.3):
        card = audit_card(voted_menus(250, 10, share, seed=4, alike=0.8), NAME, draws=49)
        assert card.triples.rate == pytest.approx(share, abs=0.05)
        assert (card.scalar.p == 0.02) == (share > 0)


def test_known_each_required_field_is_rendered():
    full = Stated(**{name: f"words on {name}" for name in Stated.__struct_fields__})
    card = audit_card(voted_menus(20, 3, 0.1, 0), full, rewards=np.zeros(60), draws=19)
    text = to_markdown(card)
    heads = [line[3:] for line in text.split("\n") if line.startswith("## ")]
    assert heads == list(REQUIRED.values())
    assert len(set(heads)) == len(heads) == 21
    assert all(f"words on {name}" in text for name in Stated.__struct_fields__)
    assert unstated(card) == []
    assert "[to be stated" not in text
    bare = audit_card(voted_menus(20, 3, 0.1, 0), NAME, draws=19)
    assert to_markdown(bare).count("[to be stated by a person: ") == len(unstated(bare)) == 13
    assert len(findings(bare)) == 7
    assert set(json.loads(to_json(card))) >= {"stated", "triples", "scalar", "agreement", "groups", "contexts"}


def test_limit_groups_that_agree_are_as_none():
    data = voted_menus(150, 6, 0.0, seed=1)
    card = audit_card(data, NAME, draws=99)
    # Level 1 % of a valid test at each of ten seeds: three or more would have probability 1e-4.
    others = [audit_card(voted_menus(20, 4, 0.0, seed=k), NAME, draws=99).groups.p for k in range(10)]
    assert sum(p <= 0.01 for p in others) < 3
    assert card.kappa.value == pytest.approx(card.agreement.value, abs=0.05)
    assert len(card.within) == 2
    one = audit_card(data._replace(group=np.zeros_like(data.group)), NAME, draws=99)
    assert (one.within, one.kappa, one.groups.pairs) == ([], None, 0)
    assert one.agreement.value == pytest.approx(card.agreement.value)


def test_limit_an_order_that_is_always_kept_has_no_fault():
    card = audit_card(votes_of((0, 1, 9, 0, 0), (1, 2, 9, 0, 0), (0, 2, 9, 0, 0)), NAME, draws=19)
    assert (card.triples.rate, card.scalar.p) == (pytest.approx(0, abs=1e-6), 1.0)
    assert card.scalar.statistic == pytest.approx(0, abs=0.1)
    assert card.agreement.value == 1.0


def test_contrast_people_who_are_consistent_make_a_majority_that_goes_round():
    # Condorcet: three groups, each with an order of its own. All votes as one say that every triple goes round, and
    # that no utility explains them; group by group there is nothing of the sort.
    orders = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    first, second, vote, group = [], [], [], []
    for menu in range(40):
        for g, order in enumerate(orders):
            for a, b in ((0, 1), (1, 2), (0, 2)):
                for _ in range(8):
                    first.append(3 * menu + a)
                    second.append(3 * menu + b)
                    vote.append(1 if order.index(a) < order.index(b) else -1)
                    group.append(g)
    data = comparisons(first, second, vote, group=group)
    card = audit_card(data, NAME, draws=99)
    assert (card.triples.high < 0.1, card.scalar.p) == (True, 1.0)
    assert (card.groups.p, card.groups.value > 0.4) == (0.01, True)
    together = tally(data)
    assert intransitive(together).low > 0.9
    assert scalar_utility(together, np.random.default_rng(0), 99).p == 0.01


def test_contrast_majorities_that_go_round_count_noise():
    data = voted_menus(300, 3, 0.0, seed=2, spread=0.5)
    card = audit_card(data, NAME, draws=19)
    assert card.triples.counted > 0.05
    assert card.triples.rate < 0.05
    assert card.triples.low == 0.0


def test_contexts_that_move_choices_are_seen():
    rng = np.random.default_rng(3)
    pair, context = np.repeat(np.arange(150), 12), np.tile([0, 1], 900)
    vote = np.where(rng.random(1800) < np.where(context, 0.8, 0.5), 1, -1)
    card = audit_card(comparisons(2 * pair, 2 * pair + 1, vote, context=context), NAME, draws=99)
    assert card.contexts.p == 0.01
    assert card.contexts.value == pytest.approx(0.3, abs=0.1)
    assert "Choices depend on the context" in to_markdown(card)
    assert "No triple of items was compared in all three pairs" in to_markdown(card)


def test_votes_that_cannot_tell_say_so():
    one_vote = voted_menus(100, 1, 0.0, 0)
    text = to_markdown(audit_card(one_vote._replace(group=one_vote.group * 0), NAME, draws=19))
    assert "cannot tell choices that go round from noise" in to_markdown(audit_card(one_vote, NAME, draws=19))
    assert "No reward model was given." in text


def test_groups_are_told_apart_by_their_people():
    # Four people who each always vote alike, two a group: of the six ways to make two groups of them, two look like
    # this one, so that p is near 1/3 (below 0.1: never). Forty votes as such would be certain.
    pair, person = np.repeat(np.arange(20), 4), np.tile(np.arange(4), 20)
    vote, group = np.where(person < 2, 1, -1), person // 2
    told = comparisons(2 * pair, 2 * pair + 1, vote, person, group)
    assert audit_card(told, NAME, draws=99).groups.p > 0.1
    assert audit_card(told._replace(annotator=person % 2), NAME, draws=99).groups.p == 0.01  # each in both groups
    apart = told._replace(vote=np.where(person == 3, -1, 1))  # the second group disagrees within itself
    assert [each.value for each in audit_card(apart, NAME, draws=19).within] == [1.0, pytest.approx(-1, abs=0.1)]
