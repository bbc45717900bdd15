"""The judge whose taste runs in circles: styles and circles by hand, labels at the stated rate, opponents as asked."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the tiny language model needs torch")

from backchannel.parts.preferences import checked_preferences, total_order  # noqa: E402
from backchannel.tasks.tiny_answers import (  # noqa: E402
    END,
    FILL,
    LENGTH,
    TOPIC,
    WORD,
    Answers,
    random_prompts,
    reference,
    sample,
    writer,
)
from backchannel.tasks.tiny_contest import Contest, Rival, style, versus  # noqa: E402
from backchannel.tasks.tiny_tuning import Annotator  # noqa: E402

NAMED, DOUBLED, FILLER = (WORD, WORD + 2, WORD + 4), (WORD + 1, WORD + 3, WORD + 5), (FILL, FILL + 1, FILL + 2)
PLAIN, CHATTY, TWICE, BOTH = NAMED, (*NAMED, *FILLER), (*NAMED, *DOUBLED), (*NAMED, *DOUBLED, *FILLER)


def answered(*words):
    """One answer to the first three topics."""
    prompt = torch.tensor([[1, TOPIC, TOPIC + 1, TOPIC + 2]])
    return Answers(prompt, torch.tensor([[*words, *([END] * (LENGTH - len(words)))]]))


def written(n, seed):
    rng = torch.Generator().manual_seed(seed)
    prompts = random_prompts(n, rng)
    return writer(prompts, rng), writer(prompts, rng)


def test_styles_by_hand():
    found = {each: style(answered(*each))[0].tolist() for each in (PLAIN, CHATTY, TWICE, BOTH)}
    assert found == {PLAIN: [-1.5, -1.5], CHATTY: [1.5, -1.5], TWICE: [-1.5, 1.5], BOTH: [1.5, 1.5]}
    assert style(answered(*FILLER, FILL + 3, FILL))[0].tolist() == [1.5, -1.5]  # no more than MOST count
    assert style(answered(WORD, WORD, WORD + 6, WORD + 7))[0].tolist() == [-1.5, -1.5]  # one word twice, another topic


def test_preferences_by_hand():
    # Plain against chatty: golds 3 and 2.85, lengths 4 and 7, and (-1.5)(-1.5) - (-1.5)(1.5) = 4.5.
    one, other = answered(*PLAIN), answered(*CHATTY)
    chance = Contest(scale=2.0, turn=0.5, length=0.1).prefers(one, other)
    assert float(torch.logit(chance)) == pytest.approx(2 * 0.15 - 0.1 * 3 + 0.5 * 4.5, abs=1e-5)


def test_no_reward_explains_the_circle():
    every = [answered(*each) for each in (TWICE, PLAIN, CHATTY, BOTH)]

    def matrix(turn):
        return np.array([[float(Contest(turn=turn).prefers(a, b).double()) for b in every] for a in every]).round(6)

    around = checked_preferences(matrix(1.0))
    assert all(around[i, (i + 1) % 4] > 0.98 for i in range(4))
    assert total_order(around) is None


def test_two_orders_sum_to_one_and_no_circle_is_bradley_and_terry():
    one, other = written(500, 0)
    judge = Contest(1.3, 0.8, 0.2)
    torch.testing.assert_close(judge.prefers(one, other) + judge.prefers(other, one), torch.ones(500))
    torch.testing.assert_close(Contest(1.3, 0.0, 0.2).prefers(one, other), Annotator(1.3, 0.2).prefers(one, other))


def test_judgements_come_at_the_stated_rate():
    one, other = answered(*PLAIN), answered(WORD)
    many = [Answers(each.prompts.expand(20_000, -1), each.tokens.expand(20_000, -1)) for each in (one, other)]
    judge = Contest(0.5, 0.1)
    won = judge.judged(many, torch.Generator().manual_seed(3))
    assert won.shape == (20_000, 2, 2)
    torch.testing.assert_close(won + won.mT, 1 - torch.eye(2).expand(20_000, 2, 2))
    # 0.02 is at least 5.6 standard errors: an error rate below 1e-7.
    assert abs(float(won[:, 0, 1].mean()) - float(judge.prefers(one, other))) < 0.02


def test_versus_is_a_half_against_oneself_and_one_less_the_other_way_round():
    one, other = (reference(seed, width=16, layers=1, steps=80) for seed in (0, 1))
    rate, error = versus(one, one, Contest(), 2000, 5)
    assert abs(rate - 0.5) < 5 * error < 0.05  # an error rate below 1e-6
    there, back = versus(one, other, Contest(), 2000, 5), versus(other, one, Contest(), 2000, 5)
    assert abs(there[0] + back[0] - 1) < 8 * error


def test_a_rival_answers_from_the_mixture_of_policy_and_start():
    start, policy = (reference(seed, width=16, layers=1, steps=80) for seed in (0, 1))
    answers = written(200, 1)[0]
    for weight, parts in ((0.0, [(policy, 1.0)]), (1.0, [(start, 1.0)]), (0.25, [(policy, 0.75), (start, 0.25)])):
        rival = Rival(Contest(), start, weight, seed=4)
        rival.follow(0, policy, None)
        rng = torch.Generator().manual_seed(4)
        other = sample([(model, answers.prompts, share) for model, share in parts], rng)
        assert torch.equal(rival(answers), Contest().wins(answers, other, rng).float())
    assert Rival(Contest(), start, 0.0, 0).policy is start
    with pytest.raises(ValueError, match=r"weight must lie in \[0, 1\], not 1.5"):
        Rival(Contest(), start, 1.5, 0)
