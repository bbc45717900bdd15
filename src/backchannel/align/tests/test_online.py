"""Recipes on a small model: it improves, learns from what it drew, begins and anchors where the recipe says."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="recipes are torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from backchannel.align import rounds  # noqa: E402
from backchannel.align.examples import Example  # noqa: E402
from backchannel.align.judges import Scored, Verdict  # noqa: E402
from backchannel.align.online import improve  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.tests.tiny_models import adapted  # noqa: E402
from backchannel.lm.answers import Rated  # noqa: E402
from backchannel.parts.recipes import Compared, Kept, Recipe, best_and_worst  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.testing.small_models import good_words, small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`", "ignore:.*pin_memory")
JUDGE = Scored(good_words, "good_words")


def _select(scores, rng):
    return best_and_worst(scores)


RECIPE = Recipe(4, _select, dpo(0.1))
FEW = {"prompts": 8, "epochs": 2, "answers": 0}


def _improve(folder, recipe=RECIPE, judge=JUDGE, rounds=3, prompts=32, **settings):
    quick = {"batch": 16, "micro": 8, "learning_rate": 2e-2, "epochs": 2, "most": 6, "answers": 20, "held_out": 0.25}
    return improve(
        small_llama(initializer_range=0.3), word_tokenizer(), word_pairs(80), recipe, judge, folder,
        Settings(**(quick | settings)), rounds=rounds, prompts=prompts, judge_name="good words",
    )  # fmt: skip


def test_a_model_improves_by_its_own_answers(tmp_path):
    heard = []

    def judge(prompts, first, second):
        verdict = JUDGE(prompts, first, second)
        heard.extend(score for pair in verdict.scores for score in pair)
        return verdict

    found = _improve(tmp_path, judge=judge, epochs=4, learning_rate=0.01)
    drawn = len(heard) // 3 // 384 * 384  # 6 pairs of two answers to each of 32 prompts a round; then the last look
    assert drawn == 384
    rounds = [score for score, _ in found.rounds]
    windows = [sum(heard[i : i + 384]) / 384 for i in range(0, 3 * drawn, 384)]
    assert rounds == pytest.approx(windows, abs=0.1)  # which are off by the look before training
    assert rounds[0] < -1
    assert rounds[1] > rounds[0] + 0.5
    assert rounds[2] > rounds[1] + 0.5
    assert found.drawn.divergence > 0.2
    assert found.drawn.scores[1] > found.drawn.scores[0]
    assert found.steps == 3 * 8
    assert found.rounds[0][1] == pytest.approx(0, abs=1e-5)
    assert 0.05 < found.rounds[1][1] < found.rounds[2][1]
    assert [each["step"] for each in found.history] == list(range(1, 25))
    assert found.history[-1]["margin"] > 0.02
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


def test_rounds_begin_and_anchor_where_the_recipe_says(tmp_path, monkeypatch):
    seen = []
    real = rounds._measured

    def measured(answers, some, recipe):
        seen.append([each.clone() for each in rounds._adapter(answers.model).values()])
        found = real(answers, some, recipe)
        with torch.no_grad():
            now = answers([found[0].prompt], [found[0].answers]).sums()
        seen.append((now.tolist(), found[0].before))
        return found

    monkeypatch.setattr(rounds, "_measured", measured)
    _improve(tmp_path / "a", Recipe(4, _select, dpo(0.1), anchor="last"), rounds=2, **FEW)
    for now, before in seen[1::2]:
        assert before == pytest.approx(now, abs=1e-5)
    seen.clear()
    _improve(tmp_path / "b", RECIPE, rounds=2, **FEW)
    now, before = seen[3]
    assert before != pytest.approx(now, abs=1e-2)  # the start's, after a round of learning
    started = []

    class Seen(rounds.Loop):
        def train(self):
            started.append(_copy(self.model))
            return super().train()

    monkeypatch.setattr(rounds, "Loop", Seen)
    _improve(tmp_path / "c", Recipe(4, _select, dpo(0.1), begin="start"), rounds=2, **FEW)
    assert all(torch.equal(a, b) for a, b in zip(*started, strict=True))
    started.clear()
    _improve(tmp_path / "d", RECIPE, rounds=2, **FEW)
    assert not all(torch.equal(a, b) for a, b in zip(*started, strict=True))


def test_an_anchor_may_lie_between_start_and_last():
    answers, example = adapted(), Example(Rated("p", "(drawn)"), [3, 4], [[5, 1], [6, 7, 1]], {})
    start, last, mixed = (
        rounds._measured(answers, [example], replace(RECIPE, anchor=anchor))[0].before
        for anchor in ("start", "last", 0.25)
    )
    assert start != pytest.approx(last, abs=1e-2)
    assert mixed == pytest.approx([0.25 * a + 0.75 * b for a, b in zip(start, last, strict=True)], abs=1e-9)


def _copy(model):
    return [each.clone() for each in rounds._adapter(model).values()]


class _Named:
    """A sampler whose answers tell of which mixture they are, and the how manieth."""

    def __init__(self, *mixture):
        self.mixture = mixture

    def mixing(self, policy, reference):
        return _Named(policy, reference)

    def __call__(self, prompts, count, seed):
        return [[(*prompt, self.mixture, j) for j in range(count)] for prompt in prompts]


def test_answers_come_from_the_mixtures_of_the_recipe():
    recipe = Recipe(3, _select, dpo(0.1), mixtures=((1.0, 0.0), (0.0, 1.0)), second=((1.5, -0.5), (0.5, 0.5)))
    found = rounds._drawn(recipe, _Named(1.0, 0.0), [[0], [1], [2]], 0)
    for i in (0, 2):
        assert found[i] == [(i, (1.0, 0.0), 0), (i, (0.0, 1.0), 0), (i, (1.0, 0.0), 1)]
    assert found[1] == [(1, (1.5, -0.5), 0), (1, (0.5, 0.5), 0), (1, (1.5, -0.5), 1)]


def test_a_round_of_one_step_moves_the_model(tmp_path):
    found = _improve(tmp_path, rounds=1, prompts=8, epochs=1, batch=32, answers=4)
    assert found.steps == 1
    assert abs(found.drawn.divergence) > 1e-4


def test_a_recipe_of_mixtures_improves_a_model(tmp_path):
    recipe = Recipe(2, _select, dpo(0.1), mixtures=((1.0, 0.0), (0.0, 1.0)), second=((1.2, -0.2), (0.8, 0.2)))
    found = _improve(tmp_path, recipe, rounds=2, **FEW)
    assert found.steps == 4


def test_scores_are_shares_of_wins_where_the_judge_has_none():
    def judge(prompts, first, second):
        return Verdict([None if "?" in a + b else float(len(a) > len(b)) for a, b in zip(first, second, strict=True)])

    left = rounds.Counter()
    kept, scores, wins = rounds._scores(judge, ["p", "q"], [["aaa", "b", "cc"], ["?", "b", "cc"]], left)
    assert kept == [0]
    assert wins.tolist() == [[[0.5, 1.0, 1.0], [0.0, 0.5, 0.0], [0.0, 1.0, 0.5]]]
    assert rounds._scores(JUDGE, ["p"], [["a", "b"]], left)[2] is None
    assert scores.tolist() == [[1.0, 0.0, 0.5]]
    assert left == {"prompts of which the judge said nothing": 1}


def test_judgements_of_pairs_reach_the_recipe_that_takes_them(tmp_path):
    taken = []

    def select(judged, rng):
        taken.append(judged)
        return best_and_worst(judged if judged.dim() == 2 else judged.sum(2))

    def compare(prompts, first, second):
        return Verdict([0.75 if a > b else 0.25 if a < b else 0.5 for a, b in zip(first, second, strict=True)])

    for compares, judge in ((True, compare), (False, compare), (True, JUDGE)):
        _improve(tmp_path / str(len(taken)), Recipe(3, select, dpo(0.1), compares=compares), judge, rounds=1, **FEW)
    assert [each.shape[1:] for each in taken] == [(3, 3), (3,), (3,)]
    assert set(taken[0].flatten().tolist()) == {0.25, 0.5, 0.75}


def test_what_was_drawn_is_learned_from_as_it_was():
    left = rounds.Counter()
    prompts, drawn = [("p", [5]), ("q", [6])], [[[7, 8], [7, 1]], [[9, 1], [9, 1]]]
    both = Compared(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0, 1]), gap=torch.tensor([2.0, 1.0]))
    (example,) = rounds._examples(both, prompts, drawn, left)
    assert example.answers == [[7, 1], [7, 8]]  # the second has no end, and gets none
    assert example.facts == {"gap": 2.0}
    assert left == {"pairs of answers that are the same": 1}
    kept = Kept(torch.tensor([1, 0]), torch.tensor([0, 0]), good=torch.tensor([True, False]))
    one, other = rounds._examples(kept, prompts, drawn, left)
    assert (one.prompt, one.answers, one.facts) == ([6], [[9, 1]], {"good": True})
    assert other.answers == [[7, 8]]


def test_prompts_that_are_refused_are_named_or_left_out(tmp_path):
    records = [*word_pairs(9), Rated(" ", "w1", good=True)]
    with pytest.raises(ValueError, match=r"record 10 \(prompt .*\): the prompt has no token"):
        improve(small_llama(), word_tokenizer(), records, RECIPE, JUDGE, tmp_path)
    quick = Settings(steps=1, batch=4, micro=4, most=4, answers=0, lora=2)
    found = improve(
        small_llama(), word_tokenizer(), records, RECIPE, JUDGE, tmp_path, quick, rounds=1, prompts=4, skip_bad_rows=1
    )
    assert found.records == 9
    assert any(note.startswith("1 bad row was skipped; the first: record 10") for note in found.notes)


def test_what_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="rounds and prompts must be 1 or more, not 0 and 32"):
        _improve(tmp_path, rounds=0)
    with pytest.raises(ValueError, match="a recipe needs an adapter"):
        _improve(tmp_path, lora=0)
    recipe = Recipe(2, _select, dpo(0.1), mixtures=((1.5, -0.5),))
    with pytest.raises(ValueError, match="the sampler that was given cannot"):
        improve(small_llama(), word_tokenizer(), word_pairs(9), recipe, JUDGE, tmp_path, sampler=lambda *_: [])
