"""A crowd of the tiny language model: what its users like, on average and each for themselves."""

import pytest

torch = pytest.importorskip("torch", reason="the tiny language model needs torch")

from backchannel.tasks.tiny_answers import (  # noqa: E402
    BAD,
    END,
    FILL,
    LENGTH,
    TOPIC,
    WORD,
    Answers,
    gold,
    random_prompts,
    writer,
)
from backchannel.tasks.tiny_crowd import LIKED, SPREAD, Tastes, crowd, imitators, traits  # noqa: E402


def answered(*words):
    """One answer to the first three topics."""
    prompt = torch.tensor([[1, TOPIC, TOPIC + 1, TOPIC + 2]])
    return Answers(prompt, torch.tensor([[*words, *([END] * (LENGTH - len(words)))]]))


def test_traits_and_utilities_by_hand():
    answer = answered(WORD, WORD, WORD + 3, FILL, FILL, FILL + 1, BAD)  # first word twice, second word of topic 2
    assert traits(answer).tolist() == [[8.0, -1.0, 3.0, 2.0]]  # the end counts; FILL and WORD are there twice
    # Covered 2, repeated 2, rude 1, filler 3: 2 - 0.5 - 1 - 0.15 = 0.35.
    tastes = Tastes(torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.1, 1.0, -0.5, 2.0]]))
    assert tastes(answer)[0].tolist() == pytest.approx([0.35, 0.35 + 0.8 - 1.0 - 1.5 + 4.0], abs=1e-5)


def test_the_mean_of_the_crowd_is_the_gold_reward():
    rng = torch.Generator().manual_seed(0)
    answers = writer(random_prompts(50, rng), rng)
    utilities = crowd(40, 3)(answers)
    assert utilities.mean(1).tolist() == pytest.approx(gold(answers).tolist(), abs=1e-5)
    assert utilities.std(1).min() > 0.1  # they differ


def test_imitators_have_a_liking_in_common():
    weights = imitators(10_000, 0).weights
    # A mean of 10,000 has a standard error of a hundredth of the spread: 5 of them fail once in a million seeds.
    assert ((weights.mean(0) - torch.tensor(LIKED)).abs() < 0.05 * torch.tensor(SPREAD)).all()
    assert weights.std(0).tolist() == pytest.approx(SPREAD, rel=0.05)
    assert not torch.equal(imitators(3, 0).weights, imitators(3, 1).weights)
