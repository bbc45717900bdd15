"""OAIF: proofs and contrast."""

import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import random_pairs  # noqa: E402
from backchannel.parts.recipes import Compared  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.ipo import ipo  # noqa: E402
from backchannel.preference.oaif import oaif  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.tasks.tiny_tuning import drawn_twice, given, gold_scores, improve, ordered, selected, tune  # noqa: E402


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_step_pairs_are_those_that_the_annotator_told_apart():
    scores = torch.tensor([[0.2, 0.9], [1.0, 1.0], [3.0, -1.0]])
    found = oaif().select(scores, _rng())
    assert isinstance(found, Compared)
    assert found.row.tolist() == [0, 2]
    assert found.better.tolist() == [1, 0]
    assert found.worse.tolist() == [0, 1]
    torch.testing.assert_close(found.gap, torch.tensor([0.7, 4.0]))
    more = oaif(answers=3).select(torch.tensor([[2.0, 5.0, 1.0]]), _rng())
    assert (more.better.tolist(), more.worse.tolist()) == ([1], [2])


def test_known_a_round_is_a_step_of_dpo_on_the_pairs_that_were_drawn():
    # By hand: the same prompts and answers, from the same generator, labelled by the gold reward, and one step of Adam.
    start = t.reference(0, width=32, layers=1, steps=150)
    model = improve(start, oaif(0.3), gold_scores, 1, 24, 1, 1e-3, seed=3)
    rng = _rng(3)
    prompts = t.random_prompts(24, rng)
    drawn = [start.sample(prompts, rng), start.sample(prompts, rng)]
    first, second = (t.gold(each) for each in drawn)
    told = first != second
    pairs = ordered(drawn[0].rows(told), drawn[1].rows(told), (first > second)[told])
    by_hand = tune(start, lambda *_: pairs, dpo(0.3), 1, 1e-3, seed=0)
    for a, b in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_limit_the_loss_is_dpos_or_the_one_that_was_given():
    pairs = random_pairs(9, seed=1)
    torch.testing.assert_close(oaif(0.3).objective(pairs)[0], dpo(0.3)(pairs)[0], rtol=0, atol=0)
    other = ipo(0.2)
    assert oaif(objective=other).objective is other
    assert oaif().anchor == "start"
    assert oaif().begin == "last"


def test_contrast_online_answers_are_of_the_policy_and_offline_ones_are_not():
    # After training, offline pairs are answers of the model from the start: far less likely under the policy than what
    # it draws itself. A round of OAIF draws from the policy. The log-ratio to the start tells them apart: its mean over
    # the start's own answers is at most 0, by Jensen, and over the policy's own at least 0.
    start = t.reference(0, width=32, layers=1, steps=150)
    one, other = drawn_twice(start, 400, _rng(1))
    data = ordered(one, other, t.gold(one) > t.gold(other))
    policy = tune(start, given(data, 64), dpo(0.1), 60, 3e-3, seed=0)
    seen = []

    def feedback(drawn, rng):
        seen.append(drawn)
        return gold_scores(drawn, rng)

    improve(policy, oaif(0.1), feedback, 1, 200, 1, 1e-3, seed=2)
    scores = gold_scores(seen[0], _rng())
    online = selected(seen[0], oaif().select(scores, _rng()))
    for side in ("chosen", "rejected"):
        away = {
            name: (policy.log_probability(some) - start.log_probability(some)).mean()
            for name, some in (("online", getattr(online, side)), ("offline", getattr(data, side)))
        }
        assert float(away["online"]) > float(away["offline"]) + 0.5


@pytest.mark.parametrize(
    ("given", "word"), [({"answers": 1}, "answers must be 2 or more, not 1"), ({"beta": 0}, "beta")]
)
def test_wrong_arguments(given, word):
    with pytest.raises(ValueError, match=word):
        oaif(**given)
