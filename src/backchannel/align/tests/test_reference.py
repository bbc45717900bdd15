"""The reference: the weights without their adapters or a frozen copy, never the trained model; kept with a key."""

import copy
import resource

import pytest

torch = pytest.importorskip("torch", reason="language models are torch's")
pytest.importorskip("transformers", reason="the models are those of transformers")
peft = pytest.importorskip("peft", reason="adapters are those of peft")

from backchannel.align import reference  # noqa: E402
from backchannel.align.model import Answers  # noqa: E402
from backchannel.align.reference import kept_logs, reference_key, reference_logs  # noqa: E402
from backchannel.align.tests.tiny_models import ANSWERS, PROMPTS, one_by_one, same, slopes, tiny  # noqa: E402
from backchannel.ledger.problems import LogError  # noqa: E402

# peft asks transformers in a way that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def _adapted(dtype=torch.float64, dropout=0.0, **settings):
    """A model, and itself with adapters that change its numbers."""
    plain = tiny("llama", dtype, attention_dropout=dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        asked = peft.LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
        model = peft.get_peft_model(copy.deepcopy(plain), asked)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(0.3 * torch.randn_like(parameter))
    return plain, model.to(dtype)


@pytest.fixture(scope="module")
def adapted():
    return _adapted()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_known_values_and_gradients_with_adapters(checkpointing):
    model = _adapted()[1]
    before = copy.deepcopy(model)
    answers = Answers(model)
    assert answers._packs
    if checkpointing:
        model.train().activation_checkpointing_enable({"use_reentrant": False})
    truth, logs = one_by_one(before, PROMPTS, ANSWERS), answers(PROMPTS, ANSWERS)
    torch.testing.assert_close(logs.tokens, truth, rtol=1e-10, atol=1e-10)
    found = slopes(model, logs.tokens)
    assert all("lora" in name for name in found)
    same(found, slopes(before, truth), 1e-10)


def test_known_adapters_off(adapted):
    plain, model = adapted
    answers = Answers(model)
    truth = one_by_one(plain, PROMPTS, ANSWERS)
    found = reference_logs(answers, PROMPTS, ANSWERS)
    torch.testing.assert_close(found.tokens, truth.detach(), rtol=1e-10, atol=1e-10)
    assert not found.tokens.requires_grad
    assert (answers(PROMPTS, ANSWERS).tokens - truth).abs().max() > 1e-2  # and on again


def test_no_gradients_are_kept_of_the_reference():
    model = _adapted()[1]
    model.enable_input_require_grads()  # as checkpointing asks for
    answers = Answers(model)
    assert answers(PROMPTS, ANSWERS).tokens.requires_grad
    assert not reference_logs(answers, PROMPTS, ANSWERS).tokens.requires_grad


def test_limit_a_frozen_copy_is_the_same_reference(adapted):
    plain, model = adapted
    frozen = Answers(copy.deepcopy(plain).requires_grad_(False))
    torch.testing.assert_close(
        reference_logs(frozen, PROMPTS, ANSWERS).tokens, reference_logs(Answers(model), PROMPTS, ANSWERS).tokens
    )
    assert reference_key(frozen, PROMPTS, ANSWERS) == reference_key(Answers(model), PROMPTS, ANSWERS)


def test_the_trained_model_is_no_reference():
    with pytest.raises(ValueError, match="the trained model itself"):
        reference_logs(Answers(tiny("llama")), PROMPTS, ANSWERS)


def test_an_adapter_that_trains_biases_leaves_no_reference():
    model = peft.get_peft_model(tiny("qwen2"), peft.LoraConfig(r=2, target_modules=["q_proj"], bias="all"))
    with pytest.raises(ValueError, match=r"q_proj.bias is trained beside the adapters"):
        reference_logs(Answers(model), PROMPTS, ANSWERS)


def test_adapters_that_put_tokens_before_the_prompt_are_refused():
    asked = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match="use LoRA"):
        Answers(peft.get_peft_model(tiny("llama", torch.float32), asked))


def test_dropout_is_off_and_modes_are_put_back():
    plain, model = _adapted(dropout=0.5)
    model.train()
    model.base_model.model.model.layers[0].eval()
    modes = [each.training for each in model.modules()]
    found = reference_logs(Answers(model), PROMPTS, ANSWERS)
    torch.testing.assert_close(found.tokens, one_by_one(plain, PROMPTS, ANSWERS).detach(), rtol=1e-10, atol=1e-10)
    assert [each.training for each in model.modules()] == modes


@pytest.fixture
def counted(monkeypatch):
    calls = []

    def count(*given):
        calls.append(given)
        return reference_logs(*given)

    monkeypatch.setattr(reference, "reference_logs", count)
    return calls


def test_kept_logs_are_computed_once(adapted, counted, tmp_path):
    answers, file = Answers(adapted[1]), tmp_path / "run" / "reference.safetensors"
    truth = reference_logs(answers, PROMPTS, ANSWERS)
    for _ in range(2):
        found = kept_logs(file, answers, PROMPTS, ANSWERS, at_once=3)
        assert found.tokens.dtype == torch.float32
        torch.testing.assert_close(found.tokens, truth.tokens.float())
        assert torch.equal(found.lengths, truth.lengths)
    assert len(counted) == 2  # two batches, once
    assert [each.name for each in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("change", ["weight", "prompt", "answer", "split", "setting", "damage", "other file"])
def test_contrast_numbers_of_another_model_or_other_data_are_not_taken(counted, tmp_path, change):
    model = _adapted()[1]
    answers, file = Answers(model), tmp_path / "reference.safetensors"
    prompts, given = copy.deepcopy(PROMPTS), copy.deepcopy(ANSWERS)
    kept_logs(file, answers, prompts, given)
    if change == "weight":
        with torch.no_grad():
            model.base_model.model.model.norm.weight[0] += 0.1
    elif change == "prompt":
        prompts[0][0] += 1
    elif change == "answer":
        given[-1][-1][0] += 1
    elif change == "split":
        prompts[0], given[0] = prompts[0][:-1], [[prompts[0][-1], *a] for a in given[0]]
    elif change == "setting":
        model.config.rms_norm_eps = 0.5
    elif change == "damage":
        file.write_bytes(file.read_bytes()[:-50])
    else:
        file.write_text("nothing")
    del counted[:]
    found = kept_logs(file, answers, prompts, given)
    assert counted
    torch.testing.assert_close(found.tokens, reference_logs(answers, prompts, given).tokens.float())


def test_the_adapters_weights_do_not_count(adapted, counted, tmp_path):
    model = _adapted()[1]
    answers, file = Answers(model), tmp_path / "reference.safetensors"
    kept_logs(file, answers, PROMPTS, ANSWERS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter += 1
    del counted[:]
    kept_logs(file, answers, PROMPTS, ANSWERS)
    assert not counted


def test_known_a_saved_module_is_its_original_in_the_reference():
    plain, model = _adapted(modules_to_save=["lm_head"])
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight += 0.5
    before = copy.deepcopy(model)
    answers = Answers(model)
    torch.testing.assert_close(
        answers(PROMPTS, ANSWERS).tokens, one_by_one(before, PROMPTS, ANSWERS), rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(
        reference_logs(answers, PROMPTS, ANSWERS).tokens, one_by_one(plain, PROMPTS, ANSWERS).detach()
    )
    frozen = Answers(copy.deepcopy(plain).requires_grad_(False))
    assert reference_key(frozen, PROMPTS, ANSWERS) == reference_key(answers, PROMPTS, ANSWERS)


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    answers = Answers(tiny("llama").requires_grad_(False))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(LogError, match=r"reference\.safetensors cannot be written: File too large"):
            kept_logs(tmp_path / "reference.safetensors", answers, PROMPTS, ANSWERS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*tmp_path.iterdir()]
