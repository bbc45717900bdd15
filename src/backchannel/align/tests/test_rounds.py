"""What ends a round too early: the rounds before are kept, and what is said of them is so."""

import os
import signal
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="recipes are torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from safetensors.torch import load_file  # noqa: E402

from backchannel.align import online, rounds  # noqa: E402
from backchannel.align.asked import Asked  # noqa: E402
from backchannel.align.ending import noted  # noqa: E402
from backchannel.align.judges import Scored, Verdict  # noqa: E402
from backchannel.align.online import improve  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.parts.recipes import Recipe, best_and_worst  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.testing.small_models import good_words, small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`", "ignore:.*pin_memory")
JUDGE = Scored(good_words, "good words")
ANEW = Recipe(2, lambda scores, rng: best_and_worst(scores), dpo(0.1), begin="start")
ON = replace(ANEW, begin="last")


class Watched:
    """A run of three rounds of two steps; `at(round, step)` is called within each loss. Weights where rounds begin."""

    def __init__(self, folder, recipe, at=lambda number, step: 1.0, judge=JUDGE, **settings):
        self.began, self.number, self.step = [], 0, 0
        objective = recipe.objective

        def loss(pairs):
            each, info = objective.loss(pairs)
            self.step += 1
            return each * at(self.number, self.step), info

        self.model = small_llama(initializer_range=0.3)
        quick = {"steps": 2, "batch": 8, "micro": 8, "most": 4, "lora": 2, "learning_rate": 1e-2, "answers": 0}
        self.run = lambda: improve(
            self.model, word_tokenizer(), word_pairs(30), replace(recipe, objective=replace(objective, loss=loss)),
            judge, folder, Settings(**quick | settings), rounds=3, prompts=8, tell=self._tell,
        )  # fmt: skip
        self.saved = folder / "model" / "adapter_model.safetensors"

    def _tell(self, what, share):
        if what.startswith("round"):
            self.number, self.step = self.number + 1, 0
            self.began.append(_learned(self.model.state_dict()))


def _learned(state):
    return {name.replace(".default", ""): each.clone() for name, each in state.items() if "lora_B" in name}


def _same(saved, weights):
    kept = {name.removeprefix("base_model.model."): each for name, each in load_file(saved).items() if "lora_B" in name}
    return all(torch.equal(kept[name], each) for name, each in weights.items())


def test_a_round_that_begins_anew_and_is_cut_off_leaves_the_round_before(tmp_path):
    def stop(number, step):
        if (number, step) == (3, 1):
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    run = Watched(tmp_path / "signal", ANEW, stop)
    found = run.run()
    assert (found.signal, found.steps) == (signal.SIGINT, 4)
    assert "the last round was cut off: what is kept is the round before it" in found.notes
    assert _same(run.saved, run.began[2])
    run = Watched(tmp_path / "nan", ANEW, lambda number, step: float("nan") if number == 3 else 1.0)
    with pytest.raises(FloatingPointError, match=r"scores were .*; what was learned before lies in"):
        run.run()
    assert _same(run.saved, run.began[2])
    assert any(float(each.abs().max()) > 0 for each in run.began[2].values())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("GPU 0: 3 GiB\nmore of it"), SystemExit(3), OSError(28, "No")]
)
def test_whatever_ends_a_later_round_the_rounds_before_are_kept(tmp_path, error):
    def fail(number, step):
        if number == 3:
            raise error
        return 1.0

    run = Watched(tmp_path, ON, fail)
    with pytest.raises(type(error)) as raised:
        run.run()
    assert raised.value is error
    assert _same(run.saved, run.began[2])
    said = str(error).splitlines()[0]
    assert isinstance(error, SystemExit) or said.endswith(f"; what was learned before lies in {tmp_path / 'model'}")
    run = Watched(tmp_path / "first", ON, lambda number, step: fail(3, step))
    with pytest.raises(type(error)):
        run.run()
    assert not run.saved.exists()  # nothing was learned


@pytest.mark.parametrize("recipe", [ON, ANEW])
def test_steps_before_a_loss_that_is_no_number_count_in_the_first_round_too(tmp_path, recipe):
    run = Watched(tmp_path, recipe, lambda number, step: float("nan") if step == 2 else 1.0)
    with pytest.raises(FloatingPointError, match="what was learned before lies in"):
        run.run()
    assert not _same(run.saved, run.began[0])


def test_what_the_record_says_of_a_run_is_so(tmp_path):
    found = Watched(tmp_path / "a", replace(ON, anchor=0.25)).run()
    assert (found.settings.warmup, found.settings.save) == (0.0, 0)  # a round is short, and not gone on with
    assert found.played["share"] == 0.25
    assert 0 < found.trained_on <= 24
    found = Watched(tmp_path / "b", ON, judge=Scored(lambda prompt, answer: 0.0, "all the same")).run()
    assert (found.trained_on, found.steps) == (0, 0)
    assert "left out: rounds without anything to learn from (3)" in found.notes


def test_one_answer_cannot_be_compared():
    judge = lambda prompts, first, second: Verdict([1.0 for _ in first])  # noqa: E731
    with pytest.raises(ValueError, match="a judge that compares needs two answers or more to a prompt"):
        rounds._scores(judge, ["p"], [["a"]], rounds.Counter())
    assert rounds._scores(JUDGE, ["p"], [["a"]], rounds.Counter())[0] == [0]


def test_what_is_learned_from_is_drawn_at_temperature_1(tmp_path, monkeypatch):
    made, real = [], online.Transformers
    monkeypatch.setattr(online, "Transformers", lambda *given: made.append(real(*given)) or made[-1])
    Watched(tmp_path, ON, temperature=0.5).run()
    assert [each.temperature for each in made] == [1.0, 0.5]


def test_a_signal_while_answers_from_after_are_drawn_loses_those_alone():
    def draw(prompts, count, seed):
        raise KeyboardInterrupt

    notes = []
    asked = Asked([("p", [1, 2])], draw, word_tokenizer(), [1], 0)
    assert asked.shown([[5]], None, "", None, notes) is None
    assert notes == ["a signal came before answers from after training were drawn and judged: none are shown"]


def test_an_error_says_more_at_the_end_of_its_first_line():
    assert noted(ValueError("one\ntwo"), "three").args == ("one; three\ntwo",)
    assert noted(OSError(28, "No space"), "three").strerror == "No space; three"
    assert str(noted(KeyError("a"), "b")) == "'a; b'"


def test_scores_are_compared_as_finely_as_the_judge_gave_them(tmp_path):
    far = Scored(lambda prompt, answer: 1.7e9 + good_words(prompt, answer), "far from 0")
    one, other = Watched(tmp_path / "near", ON), Watched(tmp_path / "far", ON, judge=far)
    one.run()
    found = other.run()
    assert not any("learn from" in note for note in found.notes)
    assert all(torch.equal(each, load_file(other.saved)[name]) for name, each in load_file(one.saved).items())
    huge = Scored(lambda prompt, answer: 1e39 * good_words(prompt, answer), "huge")
    assert Watched(tmp_path / "huge", ON, judge=huge).run().steps == 6


def test_what_is_learned_from_is_no_longer_than_the_limit(tmp_path, monkeypatch):
    drawn, draw = [], rounds._drawn

    def watched(recipe, source, prompts, seed):
        rows = draw(recipe, source, prompts, seed)
        drawn.extend(len(prompt) + len(answer) for prompt, row in zip(prompts, rows, strict=True) for answer in row)
        return rows

    monkeypatch.setattr(rounds, "_drawn", watched)
    Watched(tmp_path, ON, limit=9, most=40).run()
    assert max(drawn) == 9
