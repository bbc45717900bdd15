"""Judges out of the tiny language model: what points are, and what a judge of pairs reads."""

import pytest

torch = pytest.importorskip("torch", reason="the tiny language model needs torch")

from backchannel.tasks.tiny_answers import (  # noqa: E402
    BAD,
    END,
    FILL,
    LENGTH,
    PLAIN,
    TOPIC,
    WORD,
    Answers,
    fresh,
    gold,
    random_prompts,
    writer,
)
from backchannel.tasks.tiny_judges import ASK, POINTS, PairJudge, learn_to_judge, points_of, true_points  # noqa: E402
from backchannel.tasks.tiny_tuning import Labelled  # noqa: E402


def answered(*answers):
    """Answers to the first three topics."""
    prompt = torch.tensor([[1, TOPIC, TOPIC + 1, TOPIC + 2]])
    tokens = [[*words, *([END] * (LENGTH - len(words)))] for words in answers]
    return Answers(prompt.expand(len(answers), -1), torch.tensor(tokens))


def written(n, seed):
    rng = torch.Generator().manual_seed(seed)
    prompts = random_prompts(n, rng)
    return writer(prompts, rng), writer(prompts, rng)


def test_points_are_gold_rewards_in_steps_of_one():
    # Three topics earn 3, two 2, one with a filler word a little below 1; five rude words are worth less than -2.
    some = answered([WORD, WORD + 2, WORD + 4], [WORD, WORD + 2], [WORD, FILL], [], [BAD] * 5)
    assert gold(some)[:2].tolist() == [3.0, 2.0]
    assert 0 < gold(some)[2] < 1
    assert gold(some)[4] < -2
    assert true_points(some).tolist() == [5, 4, 2, 2, 0]


def test_a_judge_reads_the_mean_of_an_answers_states_and_may_prefer_a_place():
    one, other = written(5, seed=0)
    judge = PairJudge(fresh(0, width=16, layers=1), seed=1).eval()
    hidden = judge.body.hidden(torch.cat([one.prompts, one.tokens], 1))
    for i in range(5):
        states = hidden[i, one.prompts.shape[1] :][one.mask[i]]
        torch.testing.assert_close(judge.read(one)[i], states.mean(0))
    torch.testing.assert_close(judge(one, other), -judge(other, one))
    torch.testing.assert_close(judge(one, one), torch.zeros(5))
    with torch.no_grad():
        judge.place += 0.7
    torch.testing.assert_close(judge(one, other) + judge(other, one), torch.full((5,), 1.4))


def test_a_judge_learns_no_place_from_labels_that_know_none_and_ends_without_luck():
    # Each of two answers is chosen once. Were the chosen one always shown first, the place alone would explain it: 60
    # steps of Adam would take it to 0.18; by a coin it stays near 0, where it began.
    one, other = [WORD, WORD + 2], [BAD, BAD]
    data = Labelled(answered(one, other), answered(other, one))
    judge = learn_to_judge(fresh(0, width=16, layers=1), data, 60, 3e-3, seed=0, dropout=0.3)
    assert abs(float(judge.place)) < 0.1
    assert not judge.training
    pair = answered(one), answered(other)
    assert torch.equal(judge(*pair), judge(*pair))
    told = learn_to_judge(fresh(0, width=16, layers=1), Labelled(*pair), 30, 3e-3, seed=0)
    assert float(told(*pair)) > 0.5
    assert float(told(*pair[::-1])) < -0.5


def test_points_are_the_tokens_after_a_prompt_that_asks_for_them():
    model = fresh(2, width=16, layers=1)
    some, _ = written(4, seed=3)
    asked = some.marked(ASK)
    logits = model.head(model.hidden(torch.cat([asked.prompts, asked.tokens], 1))[:, -1])
    told = points_of(model, some)
    torch.testing.assert_close(told, torch.softmax(logits[:, PLAIN + 2 : PLAIN + 2 + POINTS], 1))
    assert not torch.equal(asked.prompts, some.prompts)
