"""Log-probabilities of answers: those of one sequence at a time, whatever the layout, model and adapters."""

import copy
import json

import pytest

torch = pytest.importorskip("torch", reason="language models are torch's")
pytest.importorskip("transformers", reason="the models are those of transformers")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from backchannel.align import packing  # noqa: E402
from backchannel.align.load import load_model  # noqa: E402
from backchannel.align.model import Answers  # noqa: E402
from backchannel.align.tests.tiny_models import ANSWERS, PROMPTS, SHORT, one_by_one, same, slopes, tiny  # noqa: E402

PACKED = ["llama", "llama tied", "qwen2", "qwen3", "gemma3", "gpt2", "mistral", "phi", "olmo2", "cohere", "granite"]
SINGLE = ("gemma3", "cohere")  # have parts that compute in 32 bits whatever they are given
PLAIN = {
    "gemma2": "scores are capped",
    "gpt-oss": "s_aux",
    "lfm2": "layers of conv",
    "mamba": "layers of linear_attention",
    "bloom": "cannot be replaced",
    "stablelm": "0 of its 2 layers",
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_known_packed_is_one_by_one(kind, dtype, close):
    model = tiny(kind, dtype)
    before = copy.deepcopy(model)
    answers = Answers(model)
    truth = one_by_one(before, *SHORT)
    logs = answers(*SHORT)
    assert answers._asked == 2  # the packed way was taken
    torch.testing.assert_close(logs.tokens, truth, rtol=close, atol=close)
    assert logs.lengths.tolist() == [len(a) for given in SHORT[1] for a in given]
    exact = dtype == torch.float64 and kind not in SINGLE
    same(slopes(model, logs.tokens), slopes(before, truth), 1e-10 if exact else 1e-5)
    same_weights = zip(model.parameters(), before.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same_weights)


@pytest.mark.parametrize("kind", PLAIN)
def test_known_models_that_cannot_be_packed_are_computed_in_rows(kind):
    model = tiny(kind, torch.float32)
    before, name = copy.deepcopy(model), model.config._attn_implementation
    answers = Answers(model)
    assert not answers._packs
    assert PLAIN[kind] in answers.notes[0]
    assert model.config._attn_implementation == name  # and are left with the attention that they had
    truth, logs = one_by_one(before, PROMPTS, ANSWERS), answers(PROMPTS, ANSWERS)
    torch.testing.assert_close(logs.tokens, truth, rtol=1e-5, atol=1e-5)
    same(slopes(model, logs.tokens), slopes(before, truth), 1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_limit_a_long_answer_goes_in_blocks_of_queries(kind, monkeypatch):
    monkeypatch.setattr(packing, "QUERIES", 4)
    model = tiny(kind)
    truth = one_by_one(copy.deepcopy(model), PROMPTS, [given[::-1] for given in ANSWERS])
    logs = Answers(model)(PROMPTS, [given[::-1] for given in ANSWERS])
    torch.testing.assert_close(logs.tokens, truth, rtol=1e-10, atol=1e-10)


def test_limit_splitting_a_batch_changes_nothing():
    answers = Answers(tiny("llama"))
    whole = answers(PROMPTS, ANSWERS)
    parts = [answers([p], [[a]]) for p, given in zip(PROMPTS, ANSWERS, strict=True) for a in given]
    torch.testing.assert_close(torch.cat([each.tokens for each in parts]), whole.tokens, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([each.sums() for each in parts]), whole.sums(), rtol=1e-12, atol=1e-12)
    halves = [answers(PROMPTS[:2], ANSWERS[:2]), answers(PROMPTS[2:], ANSWERS[2:])]
    torch.testing.assert_close(torch.cat([each.tokens for each in halves]), whole.tokens, rtol=1e-12, atol=1e-12)
    repeated = answers([p for p in PROMPTS for _ in range(2)], [given for given in ANSWERS for _ in range(2)])
    torch.testing.assert_close(repeated.sums().sum(), 2 * whole.sums().sum(), rtol=1e-12, atol=1e-12)


def test_step_sums_are_of_each_answer_in_order():
    answers = Answers(tiny("llama"))
    logs = answers(PROMPTS, ANSWERS)
    at = 0
    for total, each, length in zip(logs.sums(), logs.each(), logs.lengths, strict=True):
        torch.testing.assert_close(total, logs.tokens[at : at + length].sum())
        assert torch.equal(each, logs.tokens[at : at + length])
        at += int(length)
    assert at == len(logs.tokens)
    assert answers([], []).sums().shape == (0,)


@pytest.mark.parametrize("kind", ["gemma3", "mistral"])
def test_known_a_sequence_longer_than_the_window_is_computed_in_rows(kind):
    model = tiny(kind)
    before, answers = copy.deepcopy(model), Answers(model)
    assert "more than 16 tokens" in answers.notes[0]
    for length, packs in ((14, True), (15, False)):  # of the answer; two tokens of the prompt less the last
        prompts, given = [[3, 4, 5]], [[[6, 2], [*range(7, 7 + length)]]]
        answers._asked = 0
        torch.testing.assert_close(
            answers(prompts, given).tokens, one_by_one(before, prompts, given), rtol=1e-10, atol=1e-10
        )
        assert (answers._asked > 0) == packs


def test_contrast_packing_past_the_window_is_wrong():
    model = tiny("mistral")
    before, answers = copy.deepcopy(model), Answers(model)
    answers._window = None
    gap = answers(PROMPTS, ANSWERS).tokens - one_by_one(before, PROMPTS, ANSWERS)
    assert gap.abs().max() > 1e-2


def test_contrast_one_causal_row_sees_the_other_answers():
    # The same row without segments: positions are right, and yet answers see one another.
    model = tiny("llama")
    batch = packing.pack(PROMPTS, ANSWERS)
    whole = torch.ones(1, batch.tokens.shape[1], dtype=torch.int64)  # keeps the model from guessing at sequences
    logits = model(input_ids=batch.tokens, position_ids=batch.positions, attention_mask=whole).logits[0, batch.reads]
    leaking = torch.log_softmax(logits, 1).gather(1, batch.targets[:, None])[:, 0]
    assert (leaking - one_by_one(model, PROMPTS, ANSWERS)).abs().max() > 1e-2


@pytest.mark.parametrize("reentrant", [False, True])
def test_limit_gradient_checkpointing_changes_nothing(reentrant):
    model = tiny("llama").train()
    answers = Answers(model)
    truth = slopes(model, answers(PROMPTS, ANSWERS).tokens)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    calls = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    found = slopes(model, answers(PROMPTS, ANSWERS).tokens)
    assert len(calls) == 2  # once more in the backward pass
    same(found, truth, 1e-10)


def test_dropout_is_the_models_own_affair():
    model = tiny("llama", attention_dropout=0.5).train()
    answers = Answers(model)
    assert not answers.notes  # the check was made without
    assert model.training
    torch.manual_seed(0)
    assert not torch.allclose(answers(PROMPTS, ANSWERS).tokens, answers(PROMPTS, ANSWERS).tokens)
    model.eval()
    assert torch.equal(answers(PROMPTS, ANSWERS).tokens, answers(PROMPTS, ANSWERS).tokens)


def test_the_check_draws_nothing():
    state = torch.random.get_rng_state()
    model = tiny("gpt2").train()
    Answers(model)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_known_16_bits():
    model = tiny("llama", torch.float32)
    truth = Answers(copy.deepcopy(model))(PROMPTS, ANSWERS).tokens
    narrow = Answers(model.bfloat16())
    assert narrow._packs
    logs = narrow(PROMPTS, ANSWERS)
    assert logs.tokens.dtype == torch.float32
    assert (logs.tokens - truth).abs().mean() < 0.2


class _Masks(TorchDispatchMode):
    """The elements of the largest mask that any operation makes."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.dtype == torch.bool:
            self.most = max(self.most, out.numel())
        return out


def test_no_mask_of_all_tokens_by_all(monkeypatch):
    monkeypatch.setattr(packing, "QUERIES", 4)
    model = tiny("llama")
    answers = Answers(model)
    batch = packing.pack(PROMPTS, ANSWERS)
    row = batch.tokens.shape[1]
    with _Masks() as ours:
        answers(PROMPTS, ANSWERS).tokens.sum().backward()
    assert 0 < ours.most <= 4 * row
    with _Masks() as theirs:
        tiny("llama")(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False)
    assert theirs.most == row * row


def test_everything_else_that_the_model_does_stays_as_it_was(tmp_path):
    model = tiny("llama", torch.float32)
    before = copy.deepcopy(model)
    Answers(model)
    tokens = torch.tensor([[0, 0, 5, 9, 3], [7, 2, 8, 4, 11]])  # padded on the left, as for generating
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    found, truth = (
        each.generate(tokens, attention_mask=mask, max_new_tokens=6, do_sample=False) for each in (model, before)
    )
    assert torch.equal(found, truth)
    packed = {"input_ids": tokens[1:], "position_ids": torch.tensor([[0, 1, 0, 1, 2]])}  # as others pack
    torch.testing.assert_close(model(**packed).logits, before(**packed).logits)
    model.save_pretrained(tmp_path)
    assert "backchannel" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


def test_a_head_that_is_not_one_matrix():
    model = tiny("llama")
    model.lm_head = torch.nn.Sequential(model.lm_head, torch.nn.Tanh())
    answers = Answers(model)
    assert "all logits" in answers.notes[0]
    torch.testing.assert_close(answers(PROMPTS, ANSWERS).tokens, one_by_one(model, PROMPTS, ANSWERS))


def test_a_head_that_does_more_than_its_configuration_says():
    model = tiny("llama")
    model.lm_head.register_forward_hook(lambda module, inputs, out: 2 * out)
    answers = Answers(model)
    assert "differ by" in answers.notes[0]
    torch.testing.assert_close(answers(PROMPTS, ANSWERS).tokens, one_by_one(model, PROMPTS, ANSWERS))


@pytest.mark.parametrize(
    ("prompts", "answers", "said"),
    [
        ([[1]], [], "1 prompts, 0 with answers"),
        ([[1], []], [[[2]], [[3]]], "prompt 1 is empty"),
        ([[1]], [[]], "prompt 0 has no answers"),
        ([[1], [2]], [[[2]], [[3], []]], "answer 1 to prompt 1 is empty"),
    ],
)
def test_bad_batches(prompts, answers, said):
    with pytest.raises(ValueError, match=said):
        Answers(tiny("llama"))(prompts, answers)


def test_a_model_that_looks_ahead_is_refused():
    model = tiny("llama")
    model.lm_head.register_forward_pre_hook(lambda module, inputs: inputs[0] + inputs[0].mean(1, keepdim=True))
    with pytest.raises(ValueError, match="not causal"):
        Answers(model)


def test_an_encoder_with_a_decoder_is_refused():
    import transformers

    config = transformers.T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="causal"):
        Answers(transformers.T5ForConditionalGeneration(config))


def test_known_smollm2_which_can_be_trained_from_its_file(smollm2):
    model, tokenizer = load_model(str(smollm2))
    assert getattr(model, "hf_quantizer", None) is None  # with one, the Trainer would refuse it as quantised
    assert all(each.dtype == torch.float32 for each in model.parameters())
    answers = Answers(model)
    assert answers.notes == ()
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    texts = ("Paris.", "The capital of France is Paris, on the Seine.", "Rome.")
    prompts = [tokenizer.encode(prompt, add_special_tokens=False)]
    given = [[[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in texts]]
    with torch.no_grad():
        logs = answers(prompts, given)
        torch.testing.assert_close(logs.tokens, one_by_one(model, prompts, given), rtol=1e-4, atol=1e-4)
    assert logs.sums()[1] > logs.sums()[2]
