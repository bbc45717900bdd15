"""FLR: proofs and contrast."""

import itertools
import math
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.align.judges import Scored  # noqa: E402
from backchannel.lm.local import Local  # noqa: E402
from backchannel.lm.protocol import assistant, system, user  # noqa: E402
from backchannel.parts.objectives import Pairs, random_pairs  # noqa: E402
from backchannel.preference.claims.flr import tiny_rewards, tiny_scorer  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.flr import (  # noqa: E402
    FOLLOW_UPS,
    OPENING,
    FollowUps,
    flr,
    follow_up,
    follow_up_judge,
    mined,
    reader,
    remarked,
)
from backchannel.preference.self_rewarding_lm import agreement, judged  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.tasks.tiny_judges import points_of  # noqa: E402
from backchannel.tasks.tiny_tuning import Labelled, improve, tune  # noqa: E402


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_step_reward_by_hand():
    # Two answers; three positive follow-ups of 2, 4, 5 tokens, two negative ones of 10 and 5.
    positive = torch.tensor([[-4.0, -6.0, -10.0], [-8.0, -8.0, -20.0]])
    negative = torch.tensor([[-30.0, -5.0], [-20.0, -10.0]])
    tokens = torch.tensor([2, 4, 5]), torch.tensor([10, 5])
    torch.testing.assert_close(follow_up(positive, negative), torch.tensor([-20 / 3 + 35 / 2, -36 / 3 + 30 / 2]))
    torch.testing.assert_close(follow_up(positive, negative, how="sum"), torch.tensor([-20.0 + 35, -36.0 + 30]))
    torch.testing.assert_close(
        follow_up(positive, negative, *tokens),
        torch.tensor([-(2 + 1.5 + 2) / 3 + (3 + 1) / 2, -(4 + 2 + 4) / 3 + (2 + 2) / 2]),
    )
    torch.testing.assert_close(follow_up(positive, negative, *tokens, how="sum"), torch.tensor([-5.5 + 4, -10.0 + 4]))


def test_step_mining_by_hand():
    scores = torch.tensor([[2.0, 5.0, 1.0], [3.0, 3.0, 3.0], [0.0, 1.0, 1.5]])
    found = flr(answers=3).select(scores, _rng())
    assert (found.row.tolist(), found.better.tolist(), found.worse.tolist()) == ([0, 2], [1, 2], [2, 0])
    torch.testing.assert_close(found.gap, torch.tensor([4.0, 1.5]))
    assert mined(scores, 1.5).row.tolist() == [0]  # a gap of `least` is too small
    assert flr(answers=3, least=1.4).select(scores, _rng()).row.tolist() == [0, 2]
    assert flr(answers=3, least=1.5).select(scores, _rng()).row.tolist() == [0]


def test_step_the_loss_by_hand():
    pairs = Pairs(*torch.tensor([[-4.0], [-6.0], [-5.0], [-5.5]], dtype=torch.float64))
    loss, info = flr(0.5).objective(pairs)
    h = 0.5 * ((-4 + 5) - (-6 + 5.5))
    assert float(info.margin) == pytest.approx(h, abs=1e-12)
    assert float(loss) == pytest.approx(math.log1p(math.exp(-h)), abs=1e-12)


def test_step_the_scorer_plays_the_user():
    talk = [system("Be kind."), user("Hello?"), assistant("Yes?"), user("What is 1 plus 1?")]
    told = [user("Hello?"), assistant("Yes?"), user("2.")]
    assert reader("Hello?", "Yes?") == [*OPENING, assistant("Hello?"), user("Yes?")]
    assert reader(talk, "2.", opening=(user("Begin."),)) == [
        user("Begin."), assistant(told[0].content), user(told[1].content), assistant("What is 1 plus 1?"), user("2."),
    ]  # fmt: skip
    shown = remarked("Hello?", "Yes?", "How rude.", (user("Begin."),))
    assert (shown.prompt, shown.answer) == ([user("Begin."), *reader("Hello?", "Yes?", ())], "How rude.")


class _Table:
    """A scorer whose log-likelihoods are known: by how much an answer and a follow-up have in common."""

    def __init__(self):
        self.asked = []

    def __call__(self, conversation, texts):
        self.asked.append((conversation, list(texts)))
        return [-len(text) + 3.0 * (conversation[-1].content in text) for text in texts]


def test_known_judge_is_the_reward_of_its_scorer_and_a_judge_of_align():
    table, follow_ups = _Table(), FollowUps(("four is good", "yes"), ("five is bad",))
    judge = follow_up_judge(table, follow_ups)
    assert judge("2 + 2?", "four") == pytest.approx((-12 + 3 - 3) / 2 + 11)
    assert judge("2 + 2?", "five") == pytest.approx((-12 - 3) / 2 + 11 - 3)
    assert table.asked[0] == (reader("2 + 2?", "four"), ["four is good", "yes", "five is bad"])
    verdict = Scored(judge, "flr")(["2 + 2?"], ["four"], ["five"])
    assert verdict.wins == [1.0]
    assert verdict.scores == [(pytest.approx(5.0), pytest.approx(0.5))]
    follow_up_judge(table, opening=(user("Begin."),))("2 + 2?", "four")
    assert table.asked[-1][0] == reader("2 + 2?", "four", (user("Begin."),))
    assert table.asked[-1][1] == [*FOLLOW_UPS.positive, *FOLLOW_UPS.negative]


class _Bigrams:
    """A language model whose next token depends on the last one alone."""

    device = "cpu"

    def __init__(self):
        self.table = torch.randn(128, 128, generator=_rng(7))

    def eval(self):
        return self

    def __call__(self, input_ids, past_key_values, use_cache):
        return SimpleNamespace(logits=self.table[input_ids], past_key_values=SimpleNamespace(crop=lambda many: None))


def test_known_judge_on_a_language_model_of_bigrams():
    letters = SimpleNamespace(
        chat_template=None, eos_token_id=0, encode=lambda text, add_special_tokens: [ord(x) for x in text]
    )
    model = _Bigrams()
    judge = follow_up_judge(Local(model, letters, "bigrams").score, FollowUps(("good", "I see"), ("bad",)), opening=())
    logs = torch.log_softmax(model.table, 1).double()
    texts = ("good", "I see", "bad")
    good, see, bad = (sum(float(logs[ord(a), ord(b)]) for a, b in itertools.pairwise("\n" + text)) for text in texts)
    assert judge("why?", "because.") == pytest.approx((good + see) / 2 - bad, abs=1e-4)


def test_limit_constants_of_follow_ups_cancel_and_equal_numbers_make_sum_and_mean_alike():
    positive, negative = torch.randn(2, 5, 3, generator=_rng(1), dtype=torch.float64)
    shift = torch.randn(2, 3, generator=_rng(2), dtype=torch.float64)
    before, after = follow_up(positive, negative), follow_up(positive + shift[0], negative + shift[1])
    torch.testing.assert_close(before - before[0], after - after[0])
    torch.testing.assert_close(follow_up(positive, negative, how="sum"), 3 * before)
    ones = torch.ones(3)
    torch.testing.assert_close(follow_up(positive, negative, ones, ones), before)
    torch.testing.assert_close(follow_up(negative, positive), -before)


def test_limit_it_is_dpo_on_pairs_mined_from_the_first_model():
    pairs = random_pairs(9, seed=1)
    torch.testing.assert_close(flr(0.3).objective(pairs)[0], dpo(0.3)(pairs)[0], rtol=0, atol=0)
    recipe = flr(0.3, answers=3)
    assert recipe.sources() == [(slice(0, None), [(0.0, 1.0)] * 3)]
    assert (recipe.begin, recipe.anchor) == ("last", "start")


def test_contrast_a_model_that_has_read_users_but_gives_no_points_still_judges():
    # Self-rewarding asks the model for points, which this one has never given: its agreement with gold is little above
    # luck (0.54 to 0.60 on other seeds), while the follow-ups that it has read tell (0.64 to 0.68).
    start = t.reference(0, width=24, layers=1, steps=60)
    scorer = tiny_scorer(start, seed=1, steps=120, conversations=1500)
    prompts = t.random_prompts(300, _rng(2))
    drawn = [start.sample(prompts, _rng(3 + k)) for k in range(2)]
    truth = torch.stack([t.gold(each) for each in drawn], 1)
    points = judged(torch.stack([points_of(start, each) for each in drawn], 1))
    ours, theirs = (agreement(each, truth) for each in (tiny_rewards(scorer, drawn), points))
    assert ours > 0.62
    assert theirs < ours - 0.03


def test_one_round_of_the_recipe_is_dpo_on_its_pairs():
    start = t.reference(0, width=24, layers=1, steps=60)

    def worst_first(drawn, rng):
        return -torch.stack([t.gold(each) for each in drawn], 1)

    ours = improve(start, flr(0.3, answers=3), worst_first, 1, 24, 2, 1e-3, 5)
    rng = _rng(5)
    asked = t.random_prompts(24, rng)
    drawn = [start.sample(asked, rng) for _ in range(3)]
    scores = -torch.stack([t.gold(each) for each in drawn], 1)
    told = scores.max(1)[0] > scores.min(1)[0]
    tokens = torch.stack([each.tokens for each in drawn], 1)
    pick = torch.arange(24)
    best, worst = (t.Answers(asked, tokens[pick, each]).rows(told) for each in (scores.argmax(1), scores.argmin(1)))
    theirs = tune(start, lambda *_: Labelled(best, worst), dpo(0.3), 2, 1e-3, 0)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: flr(answers=1), "answers must be 2 or more, not 1"),
        (lambda: flr(beta=0), "beta must"),
        (lambda: flr(least=-0.1), "least must be at least 0, not -0.1"),
        (lambda: flr(least=math.nan), "least must"),
        (lambda: follow_up(torch.zeros(2, 0), torch.zeros(2, 1)), "positive must hold at least one follow-up"),
        (lambda: follow_up(torch.zeros(2, 1), torch.tensor([[-math.inf], [0]])), "negative must hold finite"),
        (lambda: follow_up(torch.zeros(1), torch.zeros(1), torch.ones(1)), "of neither"),
        (lambda: follow_up(torch.zeros(2), torch.zeros(1), torch.ones(1), torch.ones(1)), "tokens of positive"),
        (lambda: follow_up(torch.zeros(1), torch.zeros(1), torch.ones(1), torch.zeros(1)), "tokens of negative"),
        (lambda: follow_up(torch.zeros(2, 1), torch.zeros(3, 1)), r"same answers, not of \[2\] and \[3\]"),
        (lambda: follow_up(torch.zeros(1), torch.zeros(1), how="max"), "how must be mean or sum, not 'max'"),
        (lambda: reader([user("a"), assistant("b")], "c"), "must end with what the user said"),
        (lambda: follow_up_judge(_Table(), FollowUps((), ("no",))), "at least one positive"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
