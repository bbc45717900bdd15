"""Tuning, end to end on a model made in memory: it learns, is judged, resumes, and refuses what cannot be."""

import json

import pytest

torch = pytest.importorskip("torch", reason="tuning is torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from transformers import AutoModelForCausalLM, LlamaForSequenceClassification  # noqa: E402

from backchannel.align.evaluate import split  # noqa: E402
from backchannel.align.examples import Example  # noqa: E402
from backchannel.align.judges import Scored  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.rewards import reward_scores  # noqa: E402
from backchannel.align.tune import tune  # noqa: E402
from backchannel.lm.answers import Rated  # noqa: E402
from backchannel.parts.objectives import Info, Objective, Scores  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
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
    assert found.finished
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
    with pytest.raises(ValueError, match=r"was begun with another settings: steps was 9 and is 0"):
        _tune(tmp_path / "parts", few, save=3, resume=True)
    with pytest.raises(ValueError, match="was begun with another model: it was 'LlamaForCausalLM"):
        _tune(tmp_path / "parts", few, save=3, steps=9, resume=True, model=small_llama(seed=1))
    with pytest.raises(ValueError, match="was begun with another records"):
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
