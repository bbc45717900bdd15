"""Reward-augmented DPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the losses that learn from its pairs need torch")

from backchannel.card import Method  # noqa: E402
from backchannel.lm.answers import Preference, Ranked, Rated  # noqa: E402
from backchannel.lm.protocol import system, user  # noqa: E402
from backchannel.parts.objectives import Pairs  # noqa: E402
from backchannel.preference import reward_augmented_dpo as module  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.reward_augmented_dpo import asked_for, relabelled, reward_augmented_dpo  # noqa: E402
from backchannel.testing.battery import check_card  # noqa: E402


def test_card():
    check_card(Method("reward_augmented_dpo", "preference", module.CARD, module))
    assert len(reward_augmented_dpo(**module.CARD.example)) == 2


def test_step_each_pair_and_each_goal_by_hand():
    # Equation (1) for every pair and both goals, one after the other; pair 2 is a tie.
    first, second = np.array([3.0, -1.0, 2.0, 0.5]), np.array([1.0, 4.0, 2.0, 0.0])
    expected = []
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        for g in (a, b):
            one, other = -((g - a) ** 2), -((g - b) ** 2)
            if one != other:
                expected.append((i, g, other > one, abs(one - other)))
    found = relabelled(first, second)
    assert list(zip(*(each.tolist() for each in found), strict=True)) == expected
    assert len(found.row) == 6
    assert [len(each) for each in relabelled([], [])] == [0, 0, 0, 0]


def test_known_records_with_their_goals():
    asked = [system("Be brief."), user("Is the sky blue?")]
    pair = Preference(
        asked, "Yes.", "No.", strength=0.8, gap=6.5, rationale="true", annotator="Ada", id="p",
        meta={"score_chosen": 7.5, "score_rejected": 1, "source": "s"},
    )  # fmt: skip
    high, low = reward_augmented_dpo([pair])
    same = {"rationale": "true", "annotator": "Ada", "gap": 42.25}
    assert high == Preference(
        [system("Be brief.\n\nGive an answer that is rated 7.5."), asked[1]], "Yes.", "No.", id="p/1",
        meta={"score_chosen": 7.5, "score_rejected": 1, "source": "s", "goal": 7.5}, **same,
    )  # fmt: skip
    assert low == Preference(
        [system("Be brief.\n\nGive an answer that is rated 1."), asked[1]], "No.", "Yes.", id="p/2",
        meta={"score_chosen": 1, "score_rejected": 7.5, "source": "s", "goal": 1}, **same,
    )  # fmt: skip
    assert asked_for("Why?", 3.0) == "Give an answer that is rated 3.\n\nWhy?"
    assert asked_for([user("Why?")], 3.0) == [system("Give an answer that is rated 3."), user("Why?")]
    assert pair.meta == {"score_chosen": 7.5, "score_rejected": 1, "source": "s"}


def test_known_a_ranking_gives_all_its_pairs_but_ties():
    ranked = Ranked("q", ["a", "b", "c"], [3.0, 1.0, 1.0], id="r", meta={"x": 1}, annotator="Ada", rationale="why")
    found = reward_augmented_dpo([ranked], lambda prompt, goal: f"{prompt} {goal:g}")
    assert [(each.prompt, each.chosen, each.rejected, each.gap, each.id) for each in found] == [
        ("q 3", "a", "b", 4.0, "r/1-2/1"), ("q 1", "b", "a", 4.0, "r/1-2/2"),
        ("q 3", "a", "c", 4.0, "r/1-3/1"), ("q 1", "c", "a", 4.0, "r/1-3/2"),
    ]  # fmt: skip
    assert all((each.meta["x"], each.annotator, each.rationale) == (1, "Ada", "why") for each in found)
    assert found[1].meta == {"x": 1, "score_chosen": 1.0, "score_rejected": 3.0, "goal": 1.0}
    assert [each.id for each in reward_augmented_dpo([Ranked("q", ["a", "b"], [3.0, 1.0])])] == [None, None]


def test_known_other_names_of_the_scores():
    pair = Preference("q", "a", "b", meta={"good": 1, "bad": 3})
    found = reward_augmented_dpo([pair], scores=("good", "bad"))
    assert [(each.chosen, each.meta) for each in found] == [
        ("a", {"good": 1, "bad": 3, "goal": 1.0}), ("b", {"good": 3, "bad": 1, "goal": 3.0}),
    ]  # fmt: skip


def _learned(first, second, goals, answers, scores, beta=1.0, rate=0.5, steps=200):
    """Logits [goals, answers] after steps of DPO from an even policy; goals are numbers of `scores`, or all 0."""
    logits = torch.zeros(goals, answers, dtype=torch.float64, requires_grad=True)
    found = relabelled(scores[first], scores[second])
    row = torch.as_tensor(found.row)
    goal = torch.as_tensor(np.searchsorted(np.sort(scores), found.goal)) % goals
    a, b = torch.as_tensor(first)[row], torch.as_tensor(second)[row]
    swap = torch.as_tensor(found.swap)
    better, worse = torch.where(swap, b, a), torch.where(swap, a, b)
    for _ in range(steps):
        log = torch.log_softmax(logits, 1)
        zero = torch.zeros(len(row), dtype=torch.float64)
        loss = dpo(beta)(Pairs(log[goal, better], log[goal, worse], zero, zero))[0].mean()
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - rate * gradient).detach().requires_grad_()
    return torch.softmax(logits, 1).detach()


def test_known_each_goal_is_answered_with_its_own_score():
    scores = np.array([2.0, 5.0, 3.0, 9.0, 7.0])
    first, second = (each.ravel() for each in np.triu_indices(5, 1))
    policy = _learned(first, second, 5, 5, scores)
    assert policy.argmax(1).tolist() == np.argsort(scores).tolist()


def test_limit_goals_that_are_not_read_teach_nothing():
    # Without the goal in the prompt, the two halves of each pair contradict each other: at the reference their
    # gradients cancel, and no step is ever made.
    scores = np.array([2.0, 5.0, 3.0])
    first, second = np.array([0, 1, 0]), np.array([1, 2, 2])
    torch.testing.assert_close(_learned(first, second, 1, 3, scores), torch.full((1, 3), 1 / 3, dtype=torch.float64))


def test_contrast_dpo_unlearns_a_good_answer_that_lost():
    # Scores 9, 8 and 0; 9 met 8, and 8 met nobody else. DPO makes the answer of score 8 less likely than that of
    # score 0. Asked for 8, the relabelled one gives it, and asked for 9 the best.
    scores, first, second = np.array([9.0, 8.0, 0.0]), np.array([0]), np.array([1])
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(50):
        log, zero = torch.log_softmax(logits, 0), torch.zeros(1, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(dpo(1.0)(Pairs(log[:1], log[1:2], zero, zero))[0].sum(), logits)
        logits = (logits - 0.5 * gradient).detach().requires_grad_()
    plain = torch.softmax(logits.detach(), 0)
    assert plain[1] < 0.5 * plain[2]
    policy = _learned(first, second, 3, 3, scores, steps=50)
    assert policy[1].argmax() == 1
    assert policy[2].argmax() == 0


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: relabelled([1.0, float("nan")], [0.0, 1.0]), "finite"),
        (lambda: relabelled(np.ones((2, 2)), np.ones((2, 2))), r"scores must be finite numbers \[n\]"),
        (lambda: reward_augmented_dpo([Preference("q", "a", "b", gap=1.0)]), "record 1 must have the number .score_ch"),
        (lambda: reward_augmented_dpo([Rated("q", "a", score=1.0)]), "not Rated"),
        (lambda: reward_augmented_dpo([Ranked("q", ["a", "b"])]), "with scores"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
