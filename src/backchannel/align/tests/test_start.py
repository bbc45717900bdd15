"""How a run begins: in a folder that is its own, with a model that drops nothing, and a first step that moves it."""

import copy
import json
import math
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch", reason="tuning is torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from peft import LoraConfig, inject_adapter_in_model  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel  # noqa: E402

from backchannel.align.load import load_model  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.start import begin, rate, ready, shape, training_arguments, without_dropout  # noqa: E402
from backchannel.align.tune import tune  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.testing.small_models import small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory")
START = {"method": "dpo", "arguments": {}, "settings": {"steps": 3}, "records": "r", "model": "m"}


def _tune(folder, model, records=None, **settings):
    quick = {"batch": 8, "micro": 4, "learning_rate": 1e-2, "steps": 2, "most": 4, "answers": 2, "lora": 4, "save": 0}
    return tune(model, word_tokenizer(), records or word_pairs(24), dpo(1.0), folder, Settings(**(quick | settings)))


def _files(folder):
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


@pytest.mark.parametrize("file", ["my_best.pt", "checkpoint-3/weights.pt"])
def test_a_folder_of_checkpoints_that_others_wrote_is_left_alone(tmp_path, file):
    mine = tmp_path / "checkpoints" / file
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = _files(tmp_path)
    for resume in (False, None):
        with pytest.raises(
            ValueError, match=r"checkpoints is of no run of align, without start\.json beside it: choose"
        ):
            begin(tmp_path, START, resume)
    assert _files(tmp_path) == before
    (tmp_path / "start.json").write_text('{"engine": "on"}')
    with pytest.raises(ValueError, match=r"start\.json was not written by align: choose another folder"):
        begin(tmp_path, START, False)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", ["result.json", "report.html", "reference.safetensors", "mismatched.safetensors"])
def test_files_of_others_are_not_written_over(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"{name} is of no run of align, without start\.json beside it: choose"):
        begin(tmp_path, START, False)
    assert [each.name for each in tmp_path.iterdir()] == [name]
    (tmp_path / "start.json").write_text(json.dumps(START))  # then it is ours
    assert begin(tmp_path, START, False) is None


def test_of_a_folder_of_ours_only_torn_checkpoints_go(tmp_path):
    assert begin(tmp_path, START, False) is None
    folder = tmp_path / "checkpoints"
    assert folder.is_dir()
    for name in ("checkpoint-3", "checkpoint-best", "checkpoint-4-old", "best"):
        (folder / name).mkdir()
        (folder / name / "weights.pt").write_text(name)
    (folder / "my_best.pt").write_text("mine")
    begin(tmp_path, START, False)
    assert sorted(each.name for each in folder.iterdir()) == [
        "best",
        "checkpoint-4-old",
        "checkpoint-best",
        "my_best.pt",
    ]
    with pytest.raises(ValueError, match="there is nothing to resume"):
        begin(tmp_path, START, True)
    assert json.loads((tmp_path / "start.json").read_text()) == START
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    assert begin(tmp_path / "empty", START, False) is None


@pytest.mark.parametrize(("warm", "steps"), [(0, 1), (0, 9), (1, 12), (5, 50)])
def test_the_learning_rate_rises_and_falls_and_is_never_0(tmp_path, warm, steps):
    assert training_arguments(tmp_path, Settings()).get_warmup_steps(steps) == warm
    found = [rate(step, warm, steps) for step in range(steps)]
    assert min(found) > 0
    assert max(found) == found[warm] == 1.0
    rises = [b - a for a, b in pairwise([0.0, *found[: warm + 1]])]
    falls = [a - b for a, b in pairwise([*found[warm:], 0.0])]
    assert rises == pytest.approx([1 / (warm + 1)] * (warm + 1))
    assert falls == pytest.approx([1 / (steps - warm)] * (steps - warm))
    assert rate(steps, warm, steps) == 0.0


def test_a_run_of_one_step_learns(tmp_path):
    model = small_llama()
    found = _tune(tmp_path, model, word_pairs(12), steps=0, batch=16, learning_rate=1e-3)
    assert found.steps == 1
    assert found.history[0]["learning_rate"] == pytest.approx(1e-3)
    assert any(bool(each.any()) for name, each in model.named_parameters() if "lora_B" in name)


def _gpt2():
    config = GPT2Config(vocab_size=33, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.1, 0.1, 0.1)
    return model


def test_the_policy_is_the_reference_until_it_moves_although_the_model_was_trained_with_dropout(tmp_path):
    for micro in (2, 8):
        found = _tune(tmp_path / str(micro), _gpt2(), steps=1, micro=micro)
        assert found.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("rewards", [False, True])
def test_nothing_is_dropped_in_training(rewards):
    model = small_llama(rewards=rewards, attention_dropout=0.5)
    seen = torch.arange(3, 20)[None]
    truth = model.eval()(seen).logits
    assert not torch.allclose(model.train()(seen).logits, truth)
    model = ready(model, Settings(lora=4), rewards)
    torch.testing.assert_close(model.train()(seen).logits, truth)
    assert model.config.attention_dropout == 0.5  # what is saved says what the model was made with
    assert next(iter(model.peft_config.values())).lora_dropout == 0


def test_checkpointing_is_asked_for_by_the_name_that_it_has(recwarn):
    model = ready(small_llama(), Settings(checkpointing=True), rewards=False)
    assert model.get_base_model().model.layers[0].gradient_checkpointing
    assert not [each for each in recwarn if "checkpointing_enable" in str(each.message)]


def test_dropout_of_a_loaded_adapter_is_off():
    model = inject_adapter_in_model(LoraConfig(lora_dropout=0.5, target_modules=["q_proj"]), small_llama())
    kept = [each.p for each in model.modules() if isinstance(each, torch.nn.Dropout)]
    assert set(kept) == {0.5}
    without_dropout(model)
    assert {each.p for each in model.modules() if isinstance(each, torch.nn.Dropout)} == {0.0}


def test_a_model_that_was_tuned_goes_on_from_its_adapter(tmp_path):
    model = small_llama(initializer_range=0.3)
    first = _tune(tmp_path / "a", model, steps=6)
    state = shape(model)
    assert first.drawn.divergence > 1e-3
    again = _tune(tmp_path / "b", model, steps=1, learning_rate=1e-9)
    loaded = small_llama(initializer_range=0.3)
    loaded.save_pretrained(tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")
    assert again.before.loss == pytest.approx(math.log(2), abs=1e-5)  # its own state is the reference
    assert again.drawn.divergence == pytest.approx(0, abs=1e-4)
    assert again.trainable == first.trainable
    model = copy.deepcopy(model)  # a copy is as good
    more = _tune(tmp_path / "c", model, steps=3)
    assert more.before.loss == pytest.approx(math.log(2), abs=1e-5)
    assert more.drawn.divergence > 1e-4
    assert shape(model) != state  # so that nothing is resumed from another adapter
    settings = json.loads((tmp_path / "c" / "model" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(tmp_path / "base")
    (tmp_path / "c" / "model" / "adapter_config.json").write_text(json.dumps(settings))
    kept = load_model(str(tmp_path / "c"))[0].eval()
    seen = torch.arange(3, 20)[None]
    torch.testing.assert_close(kept(seen).logits, model.eval()(seen).logits)


def test_an_adapter_without_peft_around_it_is_refused():
    model = small_llama()
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    model.peft_config = {}
    with pytest.raises(ValueError, match=r"holds an adapter that peft\.PeftModel is not around: load both by"):
        ready(model, Settings(lora=2), rewards=False)
