"""Judges that fail, at their worst times: before training the run stops, afterwards what was trained is kept."""

import itertools
import json
import math
import os
import signal

import pytest

torch = pytest.importorskip("torch", reason="models are torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from backchannel.align.judges import Scored  # noqa: E402
from backchannel.align.load import load_model  # noqa: E402
from backchannel.align.online import improve  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.rewards import RewardJudge  # noqa: E402
from backchannel.align.rollouts import PolicyGradient  # noqa: E402
from backchannel.align.tune import tune  # noqa: E402
from backchannel.parts.recipes import Recipe, best_and_worst  # noqa: E402
from backchannel.preference.bradley_terry import bradley_terry  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.reinforce import reinforce  # noqa: E402
from backchannel.testing.small_models import good_words, small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`", "ignore:.*pin_memory")
torch.set_num_threads(1)
QUICK = {"steps": 1, "batch": 4, "micro": 4, "most": 4, "lora": 2, "held_out": 0.2}
RECIPE = Recipe(2, lambda scores, rng: best_and_worst(scores), dpo(0.1))
PAIRS = word_pairs(30)


def _failing(after, until=10**9):
    """A judge that raises from its `after`-th call on, until another."""
    calls = []

    def score(prompt, answer):
        calls.append(answer)
        if after < len(calls) <= until:
            raise TimeoutError("too slow")
        return good_words(prompt, answer)

    judge = Scored(score, "failing")
    judge.calls = calls
    return judge


def _tune(folder, judge, answers=4):
    settings = Settings(**QUICK, answers=answers)
    return tune(small_llama(), word_tokenizer(), PAIRS, dpo(0.1), folder, settings, judge=judge, judge_name="failing")


def _improve(folder, judge, answers=2, rounds=3):
    return improve(
        small_llama(initializer_range=0.3), word_tokenizer(), PAIRS, RECIPE, judge, folder,
        Settings(**QUICK, answers=answers), rounds=rounds, prompts=6, judge_name="failing",
    )  # fmt: skip


def test_a_judge_that_never_works_is_said_before_training(tmp_path):
    for run in (_tune, _improve):
        with pytest.raises(ValueError, match="the judge failing said nothing of answers from before training: Time"):
            run(tmp_path, _failing(0))
        assert not (tmp_path / "model").exists()


def test_a_judge_that_fails_after_training_is_counted_and_told(tmp_path):
    found = _tune(tmp_path, _failing(3))  # the trial, and a pair or two where answers did not change
    silences = [each.win is None for each in found.drawn.samples]
    assert silences == sorted(silences)
    assert 0 < found.drawn.silent == sum(silences) < 4
    note = next(each for each in found.notes if each.startswith("the judge said nothing of "))
    assert note.endswith(" answers; the first time: TimeoutError: too slow")
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


def test_a_round_of_which_the_judge_says_nothing_is_the_last_and_all_is_kept(tmp_path):
    found = _improve(tmp_path, _failing(1 + 12))  # the trial and a round of 6 prompts
    assert found.steps == 1
    assert not found.signal
    assert "no answers of round 2 were judged in full: the run ends before it" in found.notes
    assert any(note.endswith("the first time: TimeoutError: too slow") for note in found.notes)
    assert found.drawn.wins is None
    weights = tmp_path / "model" / "adapter_model.safetensors"
    assert weights.is_file()


def test_prompts_of_which_the_judge_says_nothing_are_left_out(tmp_path):
    found = _improve(tmp_path, _failing(1 + 12 + 4, until=1 + 12 + 8))  # in the second round two answers, asked twice
    assert found.steps == 3
    assert "left out: prompts of which the judge said nothing (1)" in found.notes
    assert found.drawn.wins is not None


def _at(call, act):
    """A judge that does something at its n-th call."""
    calls = itertools.count(1)

    def score(prompt, answer):
        found = good_words(prompt, answer)
        return act(found) if next(calls) >= call else found

    return Scored(score, "failing")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def _pressing(number):
    """What a judge does that is interrupted, once."""
    pressed = []

    def press(found):
        if not pressed:
            pressed.append(True)
            os.kill(os.getpid(), number)
        return found

    return press


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_round_is_judged_keeps_the_rounds_before(tmp_path, number):
    earlier = signal.getsignal(number)
    press = _pressing(number)
    found = _improve(tmp_path, _at(1 + 12 + 3, press))  # the trial, a round of 6 prompts, and in the middle of the next
    assert (found.steps, found.signal) == (1, number)
    assert found.drawn.wins is not None
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()
    assert signal.getsignal(number) is earlier


def test_a_signal_in_the_first_round_leaves_no_model(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _improve(tmp_path, _at(1 + 3, _pressing(signal.SIGINT)))
    heard = []
    earlier = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))  # whose owner goes on
    try:
        with pytest.raises(KeyboardInterrupt):
            _improve(tmp_path, _at(1 + 3, _pressing(signal.SIGINT)))
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert heard == [signal.SIGINT]
    assert not (tmp_path / "model").exists()
    assert _improve(tmp_path, Scored(good_words, "rule"), rounds=1).steps == 1  # the folder is free


def test_a_signal_within_a_step_of_a_round_ends_that_step(tmp_path):
    def tell(what, share):
        if what.startswith("training") and share < 0.5:
            os.kill(os.getpid(), signal.SIGINT)

    found = improve(
        small_llama(initializer_range=0.3), word_tokenizer(), PAIRS, RECIPE, Scored(good_words, "rule"), tmp_path,
        Settings(**(QUICK | {"steps": 4}), answers=0), rounds=2, prompts=6, tell=tell,
    )  # fmt: skip
    assert (found.steps, found.signal) == (1, signal.SIGINT)


@pytest.mark.parametrize("round_", [0, 1])
def test_a_loss_that_is_no_number_in_a_later_round_keeps_the_rounds_before(tmp_path, round_):
    gradient, judge = PolicyGradient(reinforce(), 2), _at(2 + 12 * round_, lambda score: math.copysign(3e38, score))
    found = r"loss is not finite at the record with the prompt 'w.*scores were .* to -?3e\+38"
    with pytest.raises(FloatingPointError, match=found + (r"; what was learned .*model" if round_ else "$")):
        improve(
            small_llama(initializer_range=0.3), word_tokenizer(), PAIRS, gradient,
            judge, tmp_path, Settings(**QUICK, answers=2), rounds=3, prompts=6,
        )  # fmt: skip
    assert (tmp_path / "model").exists() == bool(round_)


def test_without_held_out_answers_the_first_round_is_the_trial(tmp_path):
    said = r"of no prompt in a round did the judge failing score all .*: TimeoutError: too slow"
    with pytest.raises(ValueError, match=said):
        _improve(tmp_path, _failing(0), answers=0)


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("chat", [True, False])
def test_a_reward_model_judges_as_it_was_trained(tmp_path, chat, lora):
    template = "{% for m in messages %}{{ 'w0 ' if m.role == 'user' else 'w1 ' }}{{ m.content }} {% endfor %}"
    template += "{% if add_generation_prompt %}w1 {% endif %}"
    small_llama().save_pretrained(tmp_path / "base")
    word_tokenizer(template).save_pretrained(tmp_path / "base")
    model, tokenizer = load_model(str(tmp_path / "base"), rewards=True)
    settings = Settings(**(QUICK | {"lora": lora}), chat=chat)
    tune(model, tokenizer, PAIRS, bradley_terry(), tmp_path / "out", settings)
    judge = RewardJudge(tmp_path / "out")
    assert judge.encoder.prompt("w5") == tokenizer("w0 w5 w1" if chat else "w5")["input_ids"]
    assert json.loads((tmp_path / "out" / "model" / "backchannel.json").read_text()) == {"chat": chat}
    assert judge([PAIRS[0].prompt], ["w1"], ["w2"]).scores is not None
