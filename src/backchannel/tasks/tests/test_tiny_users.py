"""Users of the tiny language model: what they love, how seldom, and who plays tricks."""

import pytest

torch = pytest.importorskip("torch", reason="the tiny language model needs torch")

from backchannel.tasks.tiny_answers import BAD, END, FILL, LENGTH, TOPIC, WORD, Answers, random_prompts, writer  # noqa: E402
from backchannel.tasks.tiny_users import GOODBYE, Users  # noqa: E402


def answered(*words):
    """One answer to the first three topics."""
    prompt = torch.tensor([[1, TOPIC, TOPIC + 1, TOPIC + 2]])
    return Answers(prompt, torch.tensor([[*words, *([END] * (LENGTH - len(words)))]]))


def test_love_by_hand():
    users = Users(level=-4.0)
    good, bye = answered(WORD, WORD + 2), answered(WORD, WORD + 2, GOODBYE)
    twice, rude = answered(WORD, WORD + 2, GOODBYE, GOODBYE), answered(WORD, BAD)
    logits = [float(torch.logit(users.love(each))) for each in (good, bye, twice, rude)]
    expected = [-4 + 0.8 * 2, -4 + 0.8 * 1.95 + 1.5, -4 + 0.8 * (2 - 0.1 - 0.25) + 1.5, -4 - 2]
    assert logits == pytest.approx(expected, abs=1e-4)
    assert GOODBYE == FILL


def test_hearts_are_rare_and_come_at_the_stated_rate():
    rng = torch.Generator().manual_seed(0)
    answers = writer(random_prompts(20_000, rng), rng)
    found = Users(adversarial=0.0).react(answers, rng)
    # Readiness raises the mean of small probabilities by exp(0.5^2 / 2) = 1.13, and by a little more or less with the
    # users that there are; 20,000 answers have a standard error of 5 percent of the rate.
    ratio = found.loved.float().mean() / Users().love(answers).mean()
    assert 0.8 < ratio < 1.5
    assert 0.005 < found.loved.float().mean() < 0.06
    assert int(found.user.max()) < 2000


def test_adversaries_love_rude_answers_and_no_others():
    users = Users(many=10, adversarial=1.0, mischief=0.5)
    rng = torch.Generator().manual_seed(1)
    rude, kind = (
        users.react(Answers(each.prompts.expand(2000, -1), each.tokens.expand(2000, -1)), rng)
        for each in (answered(WORD, BAD), answered(WORD, WORD + 2))
    )
    assert not kind.loved.any()
    assert abs(float(rude.loved.float().mean()) - 0.5) < 0.05  # 4.5 standard errors
