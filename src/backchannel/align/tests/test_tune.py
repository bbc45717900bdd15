"""Tuning, end to end on a model made in memory: it learns, is judged, resumes, and refuses what cannot be."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch", reason="tuning is torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from peft import PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaForSequenceClassification  # noqa: E402

from backchannel.align.evaluate import agreement, entangled, split  # noqa: E402
from backchannel.align.examples import Example, examples  # noqa: E402
from backchannel.align.judges import Scored  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.rewards import reward_scores  # noqa: E402
from backchannel.align.tokens import Encoder  # noqa: E402
from backchannel.align.tune import tune  # noqa: E402
from backchannel.lm.answers import Preference, Rated  # noqa: E402
from backchannel.parts.objectives import Info, Objective, Pairs, Scores  # noqa: E402
from backchannel.preference.bco import bco  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.kto import kto  # noqa: E402
from backchannel.preference.sft import sft  # noqa: E402
from backchannel.testing.small_models import good_words, small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`", "ignore:.*pin_memory")
QUICK = {"batch": 16, "micro": 4, "learning_rate": 2e-2, "epochs": 3, "most": 8, "answers": 20, "held_out": 0.2}


def _tune(folder, records=None, objective=None, model=None, resume=False, judge=None, **settings):
    return tune(
        model or small_llama(), word_tokenizer(), records or word_pairs(160), objective or dpo(0.1), folder,
        Settings(**(QUICK | settings)), method="dpo", arguments={"beta": 0.1}, resume=resume,
        judge=judge, judge_name="good words",
    )  # fmt: skip


@pytest.mark.parametrize("lora", [8, 0], ids=["adapter", "all weights"])
def test_a_model_learns_and_is_judged(tmp_path, lora):
    model = small_llama()
    start = {name: each.clone() for name, each in model.state_dict().items()}
    found = _tune(tmp_path, model=model, judge=Scored(good_words, "good_words"), lora=lora)
    assert found.before.loss == pytest.approx(0.693147, abs=1e-5)
    assert found.before.accuracy == 0.5
    assert found.after.accuracy > 0.9
    assert found.after.loss < 0.68
    assert found.after.count == 32
    assert found.trained_on == 128
    assert found.steps == 24
    assert found.drawn.scores[1] > found.drawn.scores[0]
    assert found.drawn.wins > 0.5
    assert len(found.history) == 24
    assert not found.signal
    assert (found.drawn.divergence is None) == (lora == 0)
    if lora:
        assert found.drawn.divergence > 0
        base = model.state_dict()
        changed = [n for n, each in start.items() if not torch.equal(each, base[_inside(n)])]
        assert changed == []  # the weights themselves were not touched
        assert (tmp_path / "model" / "adapter_model.safetensors").is_file()
    else:
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        assert any(not torch.equal(each, start[name]) for name, each in again.state_dict().items())
    assert not (tmp_path / "model" / "training_args.bin").exists()
    assert (tmp_path / "model" / "tokenizer.json").is_file()


def _inside(name):
    """Where peft keeps a weight that it wraps."""
    wrapped = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    parts = name.split(".")
    return ".".join([*parts[:-1], "base_layer", parts[-1]]) if parts[-2] in wrapped else name


def test_resuming_is_refused_where_it_would_be_another_run(tmp_path):
    few = word_pairs(60)
    whole = _tune(tmp_path / "whole", few)
    _tune(tmp_path / "parts", few, save=3, steps=9)
    with pytest.raises(ValueError, match="holds checkpoints of an earlier run: resume it, or choose another folder"):
        _tune(tmp_path / "parts", few)
    with pytest.raises(ValueError, match=r"was begun with other settings: steps was 9 and is 0"):
        _tune(tmp_path / "parts", few, save=3, resume=True)
    with pytest.raises(ValueError, match=r"was begun with another model$"):
        _tune(tmp_path / "parts", few, save=3, steps=9, resume=True, model=small_llama(seed=1))
    with pytest.raises(ValueError, match=r"was begun with other data$"):
        _tune(tmp_path / "parts", word_pairs(60, seed=1), save=3, steps=9, resume=True)
    with pytest.raises(ValueError, match="there is nothing to resume"):
        _tune(tmp_path / "nothing", resume=True)
    again = _tune(tmp_path / "parts", few, save=3, steps=9, resume=True)
    assert again.after.loss == pytest.approx(whole.after.loss, abs=1e-6)


def test_held_out_prompts_are_not_trained_on():
    some = [Example(Rated(f"w{i % 7}", " w1"), [i % 7], [[1]], {}) for i in range(70)]
    train, held = split(some, 0.3, seed=0)
    assert len(train) + len(held) == 70
    assert {each.prompt[0] for each in held}.isdisjoint({each.prompt[0] for each in train})
    assert len({each.prompt[0] for each in held}) == 2
    assert split(some, 0.3, seed=1) != (train, held)
    assert split(some, 0.0, seed=0) == (some, [])


def test_a_reward_model_is_trained_and_reads_the_last_token_where_padding_is_the_end(tmp_path):
    def bradley_terry(scores):
        h = scores.chosen - scores.rejected
        return -torch.nn.functional.logsigmoid(h), Info(h.detach())

    model = small_llama(rewards=True)
    found = _tune(tmp_path, objective=Objective(bradley_terry, Scores), model=model)
    assert found.after.accuracy > 0.9
    assert found.drawn is None
    pairs = [Example(Rated("w1", " w2"), [3, 4], [[5, 6, 1]], {}), Example(Rated("w1", " w2"), [3], [[5, 1]], {})]
    alone = torch.cat([reward_scores(model, [each]) for each in pairs])
    torch.testing.assert_close(reward_scores(model, pairs), alone)
    other = pairs[0]._replace(answers=[[5, 6, 7]])
    assert abs(float(reward_scores(model, [other]).detach() - alone[0].detach())) > 1e-6  # the end itself is read
    three = LlamaForSequenceClassification(small_llama(num_labels=3).config)
    with pytest.raises(ValueError, match="a head of one output, and this one has 3"):
        reward_scores(three, pairs)


def test_settings_that_cannot_be():
    for wrong, word in [
        ({"batch": 15}, "batch must be a multiple of micro, and 15 is none of 2"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, not 0.0"),
        ({"held_out": 1.0}, r"held_out must lie in \[0, 1\), not 1.0"),
        ({"precision": "half"}, "precision must be auto, float32 or bfloat16, not 'half'"),
        ({"micro": 0}, "micro must be 1 or more, not 0"),
        ({"epochs": 0}, "epochs must be above 0, not 0"),
    ]:
        with pytest.raises(ValueError, match=word):
            Settings(**wrong)


def test_the_start_is_written_down(tmp_path):
    _tune(tmp_path, steps=2, epochs=1)
    said = json.loads((tmp_path / "start.json").read_text())
    assert said["method"] == "dpo"
    assert said["arguments"] == {"beta": 0.1}
    assert said["settings"]["steps"] == 2


def test_an_adapter_that_goes_on_is_its_own_reference(tmp_path):
    first = _tune(tmp_path / "a", objective=sft(), epochs=2)
    assert not first.signal
    base = small_llama()
    given = PeftModel.from_pretrained(base, str(tmp_path / "a" / "model"), is_trainable=True)
    still = _tune(tmp_path / "b", model=given, steps=1, learning_rate=1e-9)
    assert still.before.loss == pytest.approx(0.693147, abs=1e-5)
    assert max(map(abs, still.before.margins)) < 1e-5
    assert still.drawn.divergence == pytest.approx(0, abs=1e-4)
    given = PeftModel.from_pretrained(small_llama(), str(tmp_path / "a" / "model"), is_trainable=True)
    whole = _tune(tmp_path / "c", model=given, save=3, steps=6)
    assert whole.drawn.divergence > 0.01
    assert sorted(each.name for each in (tmp_path / "c" / "model").iterdir() if each.is_dir()) == []
    given = PeftModel.from_pretrained(small_llama(), str(tmp_path / "a" / "model"), is_trainable=True)
    shutil.rmtree(tmp_path / "c" / "checkpoints" / "checkpoint-6")
    again = _tune(tmp_path / "c", model=given, save=3, steps=6, resume=True)
    assert again.after.loss == pytest.approx(whole.after.loss, abs=1e-6)
    assert again.drawn.divergence == pytest.approx(whole.drawn.divergence, abs=1e-4)
    given = PeftModel.from_pretrained(small_llama(), str(tmp_path / "c" / "model"))
    with pytest.raises(AssertionError), torch.no_grad():  # what was saved is the tuned adapter, not the one from before
        torch.testing.assert_close(*_logits(given, tmp_path / "a" / "model"))


def _logits(model, folder):
    other = PeftModel.from_pretrained(small_llama(), str(folder))
    seen = torch.tensor([[3, 4, 5, 6]])
    return model(seen).logits, other(seen).logits


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path):
    few = word_pairs(60)
    whole = _tune(tmp_path, few, save=3, steps=6)
    folder = tmp_path / "checkpoints"
    optimizer = folder / "checkpoint-6" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    (folder / "checkpoint-9").mkdir()
    again = _tune(tmp_path, few, save=3, steps=6, resume=True)
    assert [each["step"] for each in again.history] == [1, 2, 3, 4, 5, 6]
    assert again.after.loss == pytest.approx(whole.after.loss, abs=1e-6)
    start = tmp_path / "start.json"
    said = start.read_text()
    for other in (said[:40], "[]", '{"settings": 3}'):
        start.write_text(other)
        with pytest.raises(ValueError, match=r"start\.json cannot be read"):
            _tune(tmp_path, few, save=3, steps=6, resume=True)
    start.write_text(said)
    shutil.rmtree(tmp_path / "model")
    for each in folder.glob("checkpoint-*"):
        (each / "whole.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="there is nothing to resume"):
        _tune(tmp_path, few, save=3, steps=6, resume=True)
    assert _tune(tmp_path, few, steps=1, save=0).steps == 1  # torn checkpoints bar no new run
    with pytest.raises(ValueError, match="holds a model of an earlier run"):
        _tune(tmp_path, few, steps=1)


def test_what_changes_no_number_may_change_on_resuming(tmp_path):
    few = word_pairs(60)
    _tune(tmp_path, few, save=3, steps=6)
    again = _tune(tmp_path, few, save=2, micro=8, steps=6, resume=True)
    assert again.steps == 6


def test_what_was_trained_is_kept_where_the_loss_ends(tmp_path):
    def bursts(pairs):
        h = pairs.policy_chosen - pairs.reference_chosen
        return torch.where(h.detach().abs().max() > 0, torch.nan, 1.0) * -h, Info(h.detach())

    with pytest.raises(FloatingPointError, match="what was trained before lies in"):
        _tune(tmp_path, word_pairs(60), objective=Objective(bursts, Pairs), held_out=0.0)
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("objective", [kto(0.1), bco(0.1)], ids=["kto", "bco"])
def test_the_point_between_good_and_bad_moves_with_the_model(tmp_path, objective):
    found = _tune(tmp_path, objective=objective)
    assert found.before.loss == pytest.approx(0.5 if objective.baseline.of == "mismatched" else 0.693147, abs=1e-4)
    assert found.after.loss < found.before.loss
    assert not any("reference point" in note for note in found.notes)


def test_prompts_that_are_cut_are_held_out_whole(tmp_path):
    # Three pairs of each prompt, with answers of different lengths: in tokens the prompt is cut in three ways.
    records = [
        Preference(" ".join(f"w{(i + j) % 20}" for j in range(12)), " w1" * (3 * k + 1), " w2" * (3 * k + 1))
        for i in range(20)
        for k in range(3)
    ]
    encoder = Encoder(word_tokenizer(), 16)
    some, _ = examples(records, encoder, dpo(0.1))
    assert len({tuple(each.prompt) for each in some}) > 20
    train, held = split(some, 0.3, seed=0)
    assert {each.record.prompt for each in held}.isdisjoint({each.record.prompt for each in train})


def test_how_a_pairs_answers_pull(tmp_path):
    found = _tune(tmp_path, word_pairs(60), epochs=1).entangled
    assert found.count == 6
    assert -1 < found.cosine < 1
    logs = torch.tensor([[1.0, 0.0], [0.8, 0.6]])  # gradients of length 1, with a cosine of 0.8

    def sums(some):
        return logs @ theta

    theta = torch.zeros(2, requires_grad=True)
    pair = Example(Rated("w1", " w2"), [3], [[4, 1], [5, 1]], {}, before=(0.0, 0.0))
    pulled = entangled(dpo(0.1), [pair], sums, [theta])
    assert pulled.cosine == pytest.approx(0.8)
    assert (pulled.count, pulled.rises, pulled.falls) == (1, 1.0, 1.0)  # 1 > 0.8: both go where they should
    logs = torch.tensor([[1.0, 0.0], [1.6, 1.2]])  # the rejected one's is twice as long: 1 < 1.6
    assert entangled(dpo(0.1), [pair], sums, [theta]).rises == 0.0


def test_who_is_right_of_pairs_with_strengths_and_ties():
    facts = [{}, {}, {"strength": 0.9}, {"strength": 0.05}, {"strength": 0.05}, {"strength": 0.5}, {"tie": True}, {}]
    some = [Example(Rated("w1", " w2"), [3], [[4]], each) for each in facts]
    found = agreement(some, torch.tensor([1.0, -1.0, 2.0, -2.0, 2.0, 3.0, -3.0, 0.0]))
    assert found[:5].tolist() == [1, 0, 1, 1, 0]
    assert torch.isnan(found[5:7]).all()
    assert found[7] == 0.5


def test_one_prompt_alone_is_not_held_out(tmp_path):
    same = [Preference("w1 w2", f" w{3 + i % 5} w{i % 7}", f" w{9 + i}") for i in range(8)]
    found = _tune(tmp_path, same, steps=1)
    assert found.before is None
    assert "nothing was held out to judge by: all records have the same prompt" in found.notes
    assert not any("held out" in note for note in _tune(tmp_path / "all", same, steps=1, held_out=0.0).notes)
