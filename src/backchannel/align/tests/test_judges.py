"""Judges and samplers: scores, a language model that is asked twice, and answers that end where they end."""

import json
import math
import sys
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="samplers draw from models of torch")
pytest.importorskip("transformers", reason="samplers draw from models of transformers")

from backchannel.align.evaluate import drawn  # noqa: E402
from backchannel.align.judges import Compared, Scored, Verdict, plain, scored, side, told, tried  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.sampler import Transformers  # noqa: E402
from backchannel.align.start import ready  # noqa: E402
from backchannel.lm.openai import OpenAICompatible  # noqa: E402
from backchannel.lm.protocol import LanguageModelError, Reply, system, user  # noqa: E402
from backchannel.testing.small_models import small_llama  # noqa: E402

END = 1


class _Judge:
    """A language model that answers by `says(first, second)`, which may raise."""

    name = "judge"

    def __init__(self, says):
        self.says, self.calls = says, 0

    async def complete(self, messages, *, max_tokens=256, temperature=0.0, stop=(), seed=None):
        self.calls += 1
        text = messages[-1].content
        first = text.split("Answer A:\n")[1].split("\n\nAnswer B:")[0]
        second = text.split("Answer B:\n")[1].split("\n\nWhich")[0]
        return Reply(self.says(first, second), 1, 1)


def test_scores_compare_and_are_kept():
    verdict = Scored(lambda prompt, answer: len(answer), "length")(
        ["p", "p", "p"], ["aa", "b", "cc"], ["a", "bb", "dd"]
    )
    assert verdict.wins == [1.0, 0.0, 0.5]
    assert verdict.scores == [(2, 1), (1, 2), (2, 2)]
    assert (
        verdict.wins
        == Scored(lambda prompt, answer: Fraction(len(answer)), "")(
            ["p", "p", "p"], ["aa", "b", "cc"], ["a", "bb", "dd"]
        ).wins
    )


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.array, torch.tensor, lambda n: torch.tensor([float(n)])])
def test_scalars_of_other_libraries_are_numbers(kind):
    judge = Scored(lambda prompt, answer: kind(len(answer)), "length")
    assert judge(["p"], ["aa"], ["a"]) == ([1.0], [(2.0, 1.0)])
    assert told(judge) == []


@pytest.mark.parametrize("kind", [bool, np.bool_, torch.tensor])
def test_yes_and_no_are_1_and_0(kind):
    judge = Scored(lambda prompt, answer: kind(len(answer) > 1), "long")
    assert judge(["p"], ["aa"], ["a"]) == ([1.0], [(1.0, 0.0)])


@pytest.mark.parametrize("wrong", [math.nan, math.inf, "good", None, torch.tensor([1.0, 2.0]), 1j])
def test_a_score_that_is_no_number_is_asked_for_again_and_then_none(wrong):
    heard = []

    def score(prompt, answer):
        heard.append(answer)
        return wrong if answer == "x" else 1.0

    judge = Scored(score, "rule")
    assert judge(["p", "p"], ["x", "a"], ["b", "b"]) == ([None, 0.5], [None, (1.0, 1.0)])
    assert heard == ["x", "x", "b", "a"]  # the same answer is scored once
    assert len(judge.notes) == 1
    assert "said nothing of 1 of 3 answers; the first time: " in judge.notes[0]


def test_a_function_that_raises_is_asked_again_and_its_first_reason_kept():
    calls = []

    def score(prompt, answer):
        calls.append(answer)
        if calls.count(answer) == 1 or answer == "x":
            raise {"x": KeyError("x")}.get(answer, RuntimeError("service down"))
        return len(answer)

    judge = Scored(score, "rule")
    assert judge(["p", "p"], ["aa", "y"], ["b", "x"]).wins == [1.0, None]
    assert judge.notes == ["the judge said nothing of 1 of 4 answers; the first time: RuntimeError: service down"]


def test_a_function_that_exits_has_failed():
    judge = Scored(lambda prompt, answer: sys.exit("gave up"), "quitter")
    assert judge(["p"], ["a"], ["b"]) == ([None], [None])
    assert judge.notes == ["the judge said nothing of 2 of 2 answers; the first time: SystemExit: gave up"]


def test_a_judge_that_stays_silent_is_asked_seldom_and_heard_when_it_comes_back():
    calls, broken = [], [True]

    def score(prompt, answer):
        calls.append(answer)
        if broken[0]:
            raise OSError("gone")
        return len(answer)

    judge = Scored(score, "rule")
    assert judge(["p"] * 40, [f"{i}" for i in range(40)], ["z"] * 40).wins == [None] * 40
    assert len(calls) == 16 * 2 + 2  # twice each of 16 in a row; then the 16th and the 32nd silence, once
    assert "of 41 of 41 answers; it was asked seldom in the end; the first time: OSError: gone" in judge.notes[0]
    broken[0] = False
    assert judge(["p"] * 40, [f"{i:2}" for i in range(40)], [f"{i:3}" for i in range(40)]).wins[-1] == 0.0
    assert "seldom" not in judge.notes[0]


def test_a_judge_is_tried_before_training():
    asked = []

    def late(prompt, answer):
        asked.append(answer)
        if len(asked) < 4:
            raise RuntimeError("warming up")
        return 1.0

    tried(Scored(late, "late"), "late", ["p", "q", "r"], ["a", "b", "c"])
    assert asked == ["a", "a", "b", "b"]  # no more than it takes
    with pytest.raises(ValueError, match="the judge nan said nothing of answers from before training: a judge"):
        tried(Scored(lambda prompt, answer: math.nan, "nan"), "nan", ["p", "q"], ["a", "b"])
    down = _Judge(lambda a, b: _raise(LanguageModelError("http://x: no connection")))
    with pytest.raises(ValueError, match=r"the judge m said nothing of answers .*: http://x: no connection"):
        tried(Compared(down), "m", ["p"] * 20, list("abcdefghijklmnopqrst"))
    assert down.calls == 3
    tried(None, "", ["p"], ["a"])
    tried(lambda prompts, first, second: Verdict([None]), "empty answers", ["p"], [""])


def _raise(error):
    raise error


def test_judges_are_named_as_module_and_function(tmp_path, monkeypatch):
    (tmp_path / "broken_judge.py").write_text("def (")
    (tmp_path / "late_judge.py").write_text("async def f(prompt, answer):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert scored("builtins:len").score is len
    for name, said in [
        ("builtins", "named as module:function"),
        ("nowhere:f", "cannot be loaded: No module named 'nowhere'"),
        ("math:nothing", "math has no nothing"),
        ("math:pi", "is no function"),
        ("broken_judge:f", "'broken_judge:f' cannot be loaded: SyntaxError: "),
        ("late_judge:f", "is an async function, and a plain one is needed"),
    ]:
        with pytest.raises(ValueError, match=said):
            scored(name)


def test_a_model_is_believed_where_it_says_the_same_in_both_orders():
    long = _Judge(lambda a, b: "A" if len(a) > len(b) else "Answer B.")
    judge = Compared(long)
    assert judge(["p", "p"], ["aaa", "a"], ["bb", "bb"]).wins == [1.0, 0.0]
    assert judge.split == 0
    assert long.calls == 4
    judge(["p"], ["aaa"], ["bb"])
    assert long.calls == 4  # the same question is not paid for twice
    assert judge.notes == []
    first = Compared(_Judge(lambda a, b: "a" if a != "zz" else "b"))
    tried(first, "first", ["p"], ["x"])
    assert first.notes == []  # one answer twice says nothing of the order
    assert first(["p"] * 3, ["x", "x", "zz"], ["y", "z", "x"]).wins == [0.5, 0.5, 0.0]
    assert first.split == 2  # the order decided
    said = "of 2 of 3 pairs the judge said something else when their order was turned round: they count as ties"
    assert told(first) == [said]
    assert Compared(_Judge(lambda a, b: "TIE"))(["p"], ["x"], ["y"]).wins == [0.5]


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        *[(text, 1.0) for text in ("A", "a", "A.", "(A)", "**A**", '"A"', "Answer A", "Answer: A", "**Answer A.**")],
        *[
            (text, 1.0)
            for text in ("Response A", "The better answer is A.", "The better answer is: **A**", "A is better")
        ],
        *[(text, 0.0) for text in ("B", "Answer B", "The best answer is B", "My answer is B.", "Final answer: B\n")],
        *[(text, 0.5) for text in ("TIE", "Tie.", "**TIE**", "A tie", "It's a tie.")],
        *[(text, None) for text in ("", "A is worse than B", "A/B", "A or B", "A, B", "a better one is B", "Both")],
        *[
            (text, None)
            for text in ("Neither A nor B", "not A", "A B", "Answer", "A is better, but B", "I cannot", "C")
        ],
    ],
)
def test_a_reply_is_heard_where_it_names_one_side_and_nothing_else(text, heard):
    assert side(text) == heard


def test_nonsense_is_asked_again_and_then_counted_never_guessed():
    tries = []

    def nonsense(a, b):
        tries.append(a)
        return "As a language model, both"

    judge = Compared(_Judge(nonsense))
    assert judge(["p"], ["x"], ["y"]).wins == [None]
    assert len(tries) == 3  # the other order could not make it a verdict
    assert judge.notes == [
        "the judge said nothing of 1 of 1 questions; the first time: "
        "it answered 'As a language model, both', which is none of A, B and TIE"
    ]

    def fails_once(a, b):
        tries.append(a)
        if tries.count(a) == 1:
            raise TimeoutError("timed out")
        return "A" if a == "x" else "B"

    tries.clear()
    judge = Compared(_Judge(fails_once))
    assert judge(["p"], ["x"], ["y"]).wins == [1.0]
    assert judge.notes == []


def test_a_service_that_is_down_is_not_asked_for_each_pair():
    down = _Judge(lambda a, b: _raise(LanguageModelError("http://x: answer 401: no key")))
    judge = Compared(down)
    assert judge(["p"] * 15, [f"{i}" for i in range(15)], ["y"] * 15).wins == [None] * 15
    assert down.calls == 3  # in one order, and once: its client has tried again
    assert judge.notes[0].endswith("; it was asked seldom in the end; the first time: http://x: answer 401: no key")
    down.says = lambda a, b: "A" if b == "y" else "B"
    assert judge(["p"] * 3, ["a", "b", "c"], ["y"] * 3).wins == [None, 1.0, 1.0]


def test_what_a_service_may_send():
    def told(content):
        lm = OpenAICompatible("m", base_url="http://x/v1")
        return lm._read(json.dumps({"choices": [{"message": {"content": content}}], "usage": None}), [user("q")])

    assert told("A").text == "A"
    assert told(None).text == ""
    for wrong in (["A"], {"text": "A"}, 3):
        with pytest.raises(LanguageModelError, match="not a chat completion"):
            told(wrong)


def test_prompts_as_texts():
    assert plain("p") == "p"
    assert plain([user("p")]) == "p"
    assert plain([system("s"), user("p")]) == "system: s\nuser: p"


def test_what_answers_show():
    before, after = [("a", 3, True), ("bbbb", 5, False)], [("aaa", 2, True), ("bb", 2, True)]
    found = drawn(["p", "q"], before, after, Scored(lambda prompt, answer: len(answer), "length"), "length")
    assert found.lengths == (4, 2)
    assert found.endless == (0.5, 0)
    assert found.wins == 0.5
    assert [each.win for each in found.samples] == [1, 0]
    assert found.samples[0].scores == (1, 3)
    assert found.scores == (2.5, 2.5)
    low, high = found.interval
    assert 0 <= low < 0.5 < high <= 1
    known = drawn(["p", "q"], before, after, Scored(lambda prompt, answer: len(answer) % 4 or None, "length"), "length")
    assert [each.scores for each in known.samples] == [(1, 3), None]
    assert (known.scores, known.wins, known.silent) == ((1, 3), 1, 1)
    silent = drawn(["p", "q"], before, after, Compared(_Judge(lambda a, b: "?")), "judge")
    assert silent.wins is None
    assert (silent.silent, silent.scores) == (2, None)
    assert drawn(["p", "q"], before, after, None, "").judge == ""


def test_answers_are_those_of_the_model_one_by_one():
    # Greedy answers in a batch of uneven prompts are the likeliest tokens, found by hand without a cache or padding.
    model = small_llama().eval()
    prompts = [[3, 4, 5, 6, 7], [8], [9, 10, 11]]
    found = Transformers(model, [END], pad=END, most=6, temperature=0.0, batch=3)(prompts, 1, seed=0)
    for prompt, (answer,) in zip(prompts, found, strict=True):
        seen = list(prompt)
        for _ in range(6):
            with torch.no_grad():
                token = int(model(torch.tensor([seen])).logits[0, -1].argmax())
            seen.append(token)
            if token == END:
                break
        assert answer == seen[len(prompt) :]


@pytest.mark.parametrize(("a", "b"), [(1.5, -0.5), (0.4, 0.6), (0.0, 1.0), (2.0, 0.0)])
def test_mixtures_are_those_of_the_policy_and_the_reference(a, b):
    torch.manual_seed(0)
    model = ready(small_llama(initializer_range=0.3), Settings(lora=4), rewards=False).eval()
    for name, each in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(each, std=0.3)
    prompts = [[3, 4, 5, 6, 7], [8], [9, 10, 11]]
    draw = Transformers(model, [END], pad=END, most=6, temperature=0.0, batch=3)
    found = draw.mixing(a, b)(prompts, 1, seed=0)
    assert found == draw.mixing(a, b)(prompts, 1, seed=0)  # nothing is left of the first time
    for prompt, (answer,) in zip(prompts, found, strict=True):
        for i, token in enumerate(answer):
            seen = torch.tensor([prompt + answer[:i]])
            with torch.no_grad():
                policy = model(seen).logits[0, -1]
                with model.disable_adapter():
                    reference = model(seen).logits[0, -1]
            assert token == int((a * policy + b * reference).argmax())
    assert (a, b) == (2.0, 0.0) or found != draw(prompts, 1, seed=0)


def test_a_mixture_with_the_reference_needs_an_adapter():
    draw = Transformers(small_llama(), [END], pad=END)
    assert draw.mixing(2.0, 0.0).weights == (2.0, 0.0)
    with pytest.raises(ValueError, match="needs a model with an adapter"):
        draw.mixing(1.5, -0.5)


def test_draws_follow_the_seed_and_leave_torchs_generator_alone():
    model = small_llama()
    model.train()
    draw = Transformers(model, [END], pad=0, most=5, temperature=1.0, batch=4)
    before = torch.get_rng_state()
    one, again, other = draw([[3, 4], [5]], 3, seed=1), draw([[3, 4], [5]], 3, seed=1), draw([[3, 4], [5]], 3, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert one == again != other
    assert [len(each) for each in one] == [3, 3]
    assert all(END not in answer[:-1] for each in one for answer in each)


def test_drawn_tokens_have_the_models_probabilities():
    # The first token of 4,000 answers against the model's distribution: chi-square, 1e-6 of false alarms.
    scipy = pytest.importorskip("scipy.stats")
    model = small_llama().eval()
    found = Transformers(model, [END], pad=0, most=1, temperature=1.0, batch=500)([[3, 4, 5]], 4000, seed=0)
    counts = torch.bincount(torch.tensor([answer[0] for answer in found[0]]), minlength=33).double()
    with torch.no_grad():
        expected = 4000 * torch.softmax(model(torch.tensor([[3, 4, 5]])).logits[0, -1].double(), 0)
    assert scipy.chisquare(counts.numpy(), expected.numpy() * 4000 / float(expected.sum())).pvalue > 1e-6


def test_settings_that_a_model_brings_along_draw_from_nothing_else():
    model = small_llama()
    plain = Transformers(model, [END], pad=0, most=6, temperature=1.0)([[3, 4], [5]], 3, seed=1)
    model.generation_config.repetition_penalty, model.generation_config.min_new_tokens = 5.0, 4
    model.generation_config.suppress_tokens = [6, 7, 8]
    assert Transformers(model, [END], pad=0, most=6, temperature=1.0)([[3, 4], [5]], 3, seed=1) == plain
    assert model.generation_config.repetition_penalty == 5.0  # and are there afterwards


def test_answers_end_where_the_model_does():
    model = small_llama(max_position_embeddings=8)
    (answer,), _ = Transformers(model, [], pad=0, most=20, temperature=0.0)([[3, 4, 5], [6, 7, 8]], 1, seed=0)
    assert len(answer) == 5
    with pytest.raises(ValueError, match="a prompt of 8 tokens leaves no room for an answer within 8"):
        Transformers(model, [END], pad=0, most=20)([[3] * 8], 1, seed=0)


def test_prompt_and_answer_are_no_longer_than_the_limit():
    model = small_llama(initializer_range=0.3)
    draw = Transformers(model, [], 2, most=40, limit=16)
    assert {len(answer) for answer in draw([[3, 4, 5, 6, 7, 8]], 3, seed=0)[0]} == {10}
    with pytest.raises(ValueError, match="a prompt of 6 tokens leaves no room for an answer within 6"):
        Transformers(model, [], 2, most=40, limit=6)([[3, 4, 5, 6, 7, 8]], 1, seed=0)


def test_what_cannot_be_drawn():
    for wrong in ({"most": 0}, {"temperature": -1.0}):
        with pytest.raises(ValueError, match="most must be 1 or more and temperature at least 0"):
            Transformers(small_llama(), [END], 0, **wrong)
