"""The tiny language model that answers prompts: rewards by hand, distributions by enumeration, tuning that works."""

import pytest

torch = pytest.importorskip("torch", reason="the tiny language model needs torch")

from backchannel.parts.objectives import Scores, Singles  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.tasks.tiny_tuning import (  # noqa: E402
    Annotator,
    Drawn,
    Judged,
    drawn_twice,
    given,
    label,
    measured,
    ordered,
    rows,
    tune,
)


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _answers(*texts):
    tokens = torch.zeros(len(texts), t.LENGTH, dtype=torch.int64)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    prompts = torch.tensor([[t.PLAIN, t.TOPIC, t.TOPIC + 2, t.TOPIC + 5]]).repeat(len(texts), 1)
    return t.Answers(prompts, tokens)


def test_gold_reward_by_hand():
    first, second, third = t.WORD, t.WORD + 2 * t.WORDS, t.WORD + 5 * t.WORDS + 1
    answers = _answers(
        [first, second, third],  # all three
        [first, first + 1, first],  # one topic, one token repeated
        [first, t.WORD + t.WORDS],  # one asked, one astray
        [t.BAD, t.FILL, t.FILL + 1],
        [],
        [t.TOPIC],  # belongs in a prompt
    )
    expected = [3, 1 - 0.25, 1 - 0.5, -1 - 0.1, 0, -0.5]
    torch.testing.assert_close(t.gold(answers), torch.tensor(expected))
    assert answers.length.tolist() == [4, 4, 3, 4, 1, 2]
    assert answers.mask.sum(1).tolist() == [4, 4, 3, 4, 1, 2]
    full = t.Answers(answers.prompts[:1], torch.full((1, t.LENGTH), t.FILL))
    assert full.length.tolist() == [t.LENGTH]


def test_prompts_ask_different_topics_and_marks_change_only_themselves():
    prompts = t.random_prompts(500, _rng())
    assert bool((prompts[:, 1:].diff(dim=1) > 0).all())
    assert len(prompts.unique(dim=0)) == 20
    assert bool((t.marked(prompts, 3)[:, 1:] == prompts[:, 1:]).all())
    assert bool((t.marked(prompts, 3)[:, 0] == t.PLAIN + 3).all())
    with pytest.raises(ValueError, match=r"mark must lie in 0\.\.7, not 8"):
        t.marked(prompts, 8)


def test_log_probabilities_are_those_of_sampling():
    # The chance of ending at once, by the model and by 5,000 draws: within 5 standard errors (5e-7 for any seed).
    model = t.fresh(0).requires_grad_(False)
    prompts = t.random_prompts(1, _rng()).repeat(5000, 1)
    drawn = model.sample(prompts, _rng(1))
    empty = t.Answers(prompts[:1], torch.zeros(1, t.LENGTH, dtype=torch.int64))
    chance = float(model.log_probability(empty).exp())
    assert abs(float((drawn.length == 1).float().mean()) - chance) < 5 * (chance * (1 - chance) / 5000) ** 0.5
    # And what follows the end has no share: answers of at most one token, with their ends, sum to the chance of those.
    ones = torch.zeros(t.VOCABULARY - 1, t.LENGTH, dtype=torch.int64)
    ones[:, 0] = torch.arange(1, t.VOCABULARY)
    short = model.log_probability(t.Answers(prompts[: t.VOCABULARY - 1], ones)).exp().sum()
    assert abs(float((drawn.length == 2).float().mean()) - float(short)) < 5 * (float(short) / 5000) ** 0.5


def test_a_mixture_of_a_model_with_itself_is_the_model():
    model, prompts = t.fresh(0), t.random_prompts(50, _rng())
    alone = model.sample(prompts, _rng(2))
    both = t.sample([(model, prompts, 0.75), (model, prompts, 0.25)], _rng(2))
    assert torch.equal(alone.tokens, both.tokens)
    cold = model.sample(prompts, _rng(2), temperature=1e-4)
    best = torch.cat([cold.tokens[:, :0]], 1)
    for _ in range(t.LENGTH):
        following = model.head(model.hidden(torch.cat([prompts, best], 1))[:, -1]).argmax(1)
        ended = (best == t.END).any(1)
        best = torch.cat([best, torch.where(ended, torch.zeros_like(following), following)[:, None]], 1)
    assert float((cold.tokens == best).float().mean()) > 0.95  # near ties may fall either way


def test_labels_follow_the_annotator():
    one, other = drawn_twice(t.fresh(0), 500, _rng())
    clear = label(one, other, _rng(1), Annotator(scale=1e6))
    assert bool((t.gold(clear.chosen) >= t.gold(clear.rejected)).all())
    flipped = label(one, other, _rng(1), Annotator(scale=1e6, flips=1.0))
    assert bool((t.gold(flipped.chosen) <= t.gold(flipped.rejected)).all())
    longer = label(one, other, _rng(1), Annotator(scale=0, length=50.0))
    assert bool((longer.chosen.length >= longer.rejected.length).all())
    torch.testing.assert_close(Annotator().prefers(one, other) + Annotator().prefers(other, one), torch.ones(500))
    data = ordered(one, other, torch.arange(500) % 2 == 0)
    assert torch.equal(data.chosen.tokens[0], one.tokens[0])
    assert torch.equal(data.chosen.tokens[1], other.tokens[1])


def test_batches_hold_what_objectives_read():
    model, start = t.fresh(0), t.fresh(1)
    one, other = drawn_twice(start, 6, _rng())
    pairs = measured(model, start, ordered(one, other, torch.ones(6, dtype=torch.bool)))
    torch.testing.assert_close(pairs.policy_chosen, model.log_probability(one))
    torch.testing.assert_close(pairs.reference_rejected, start.log_probability(other))
    assert torch.equal(pairs.rejected_length, other.length)
    single = measured(model, None, Judged(one, score=torch.arange(6.0)))
    assert isinstance(single, Singles)
    assert float(single.reference.abs().sum()) == 0
    drawn = measured(model, start, Drawn(one, torch.ones(6, t.LENGTH), start.log_probabilities(one).detach()))
    torch.testing.assert_close(drawn.sampled, drawn.reference)
    torch.testing.assert_close(drawn.policy.sum(1), pairs.policy_chosen)
    some = rows(Judged(one, score=torch.arange(6.0)), torch.tensor([4, 1]))
    assert some.score.tolist() == [4, 1]
    assert torch.equal(some.answers.tokens, one.tokens[[4, 1]])


def test_tuning_raises_the_gold_reward():
    # By five standard errors of both: 3e-7 if tuning did nothing.
    start = t.reference(0, width=32, layers=1, steps=150)
    data = label(*drawn_twice(start, 1000, _rng(1)), _rng(2))
    model = tune(start, given(data, 64), dpo(0.3), 60, 2e-3, seed=0)
    before, after = t.standing(start, start, 500, seed=5), t.standing(model, start, 500, seed=5)
    assert after.gold > before.gold + 5 * (before.error + after.error)
    assert after.divergence > 0.1
    assert before.divergence == 0
    wins, error = t.win_rate(model, start, 500, seed=6)
    assert wins > 0.5 + 5 * error
    assert torch.equal(start.head.weight, t.reference(0, width=32, layers=1, steps=150).head.weight)


def test_reward_model_reads_the_answer_alone_and_learns():
    from torch.nn.functional import logsigmoid

    from backchannel.parts.objectives import Info, Objective
    from backchannel.tasks.tiny_tuning import learn_reward

    def loss(scores):
        h = scores.chosen - scores.rejected
        return -logsigmoid(h), Info(h.detach())

    start = t.reference(0, width=32, layers=1, steps=150)
    data = label(*drawn_twice(start, 1500, _rng(1)), _rng(2), Annotator(scale=1e6))
    model = learn_reward(data, Objective(loss, Scores), 100, 3e-3, seed=0)
    fresh = label(*drawn_twice(start, 1000, _rng(3)), _rng(4), Annotator(scale=1e6))
    assert float((model(fresh.chosen) > model(fresh.rejected)).float().mean()) > 0.65  # luck would be 0.5 +- 0.016
