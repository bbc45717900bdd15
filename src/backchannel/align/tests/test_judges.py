"""Judges and samplers: scores, a language model that is asked twice, and answers that end where they end."""

import math

import pytest

torch = pytest.importorskip("torch", reason="samplers draw from models of torch")
pytest.importorskip("transformers", reason="samplers draw from models of transformers")

from backchannel.align.evaluate import drawn  # noqa: E402
from backchannel.align.judges import Compared, Scored, plain, scored  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.sampler import Transformers  # noqa: E402
from backchannel.align.start import ready  # noqa: E402
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
    for wrong in (math.nan, True, "good", None):
        with pytest.raises(ValueError, match=r"rule must return a finite number, and returned .* for 'aa'"):
            Scored(lambda prompt, answer, wrong=wrong: wrong, "rule")(["p"], ["aa"], ["b"])


def test_judges_are_named_as_module_and_function():
    assert scored("builtins:len").score is len
    for name, said in [
        ("builtins", "named as module:function"),
        ("nowhere:f", "cannot be loaded: No module named 'nowhere'"),
        ("math:nothing", "math has no nothing"),
        ("math:pi", "is no function"),
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
    first = Compared(_Judge(lambda a, b: "a"))
    assert first(["p"], ["x"], ["y"]).wins == [0.5]
    assert first.split == 1  # the order decided
    assert Compared(_Judge(lambda a, b: "TIE"))(["p"], ["x"], ["y"]).wins == [0.5]


def test_nonsense_is_asked_again_and_then_counted_never_guessed():
    tries = []

    def nonsense(a, b):
        tries.append(a)
        return "As a language model, both"

    judge = Compared(_Judge(nonsense), tries=3)
    assert judge(["p"], ["x"], ["y"]).wins == [None]
    assert len(tries) == 6
    assert judge.silent == 2

    def fails_once(a, b):
        tries.append(a)
        if tries.count(a) == 1:
            raise LanguageModelError("timed out")
        return "A" if a == "x" else "B"

    tries.clear()
    judge = Compared(_Judge(fails_once))
    assert judge(["p"], ["x"], ["y"]).wins == [1.0]
    assert judge.silent == 0


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
    assert found.interval == (0, 1)
    silent = drawn(["p", "q"], before, after, Compared(_Judge(lambda a, b: "?")), "judge")
    assert silent.wins is None
    assert silent.silent == 2
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


def test_what_cannot_be_drawn():
    for wrong in ({"most": 0}, {"temperature": -1.0}):
        with pytest.raises(ValueError, match="most must be 1 or more and temperature at least 0"):
            Transformers(small_llama(), [END], 0, **wrong)
