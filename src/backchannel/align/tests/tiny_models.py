"""Tiny language models of many kinds, a batch for them, and its log-probabilities one answer at a time."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import transformers
from torch import Tensor

from backchannel.align.model import Answers
from backchannel.align.result import Settings
from backchannel.align.start import ready
from backchannel.testing.small_models import small_llama

SIZES = {
    "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"tie_word_embeddings": False}),
    "llama tied": ("Llama", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 4}),
    "gemma2": ("Gemma2", {"head_dim": 4, "sliding_window": 16, "final_logit_softcapping": 0.3}),
    "gemma3": ("Gemma3Text", {"head_dim": 4, "sliding_window": 16}),
    "gpt2": ("GPT2", {}),
    "mistral": ("Mistral", {"sliding_window": 16}),
    "phi": ("Phi", {}),
    "olmo2": ("Olmo2", {}),
    "cohere": ("Cohere", {"logit_scale": 0.3}),
    "granite": ("Granite", {"logits_scaling": 3.0}),
    "gpt-oss": ("GptOss", {"head_dim": 4, "num_local_experts": 4, "sliding_window": 64}),
    "lfm2": ("Lfm2", {"layer_types": ["conv", "full_attention"]}),
    "mamba": ("Mamba", {}),
    "bloom": ("Bloom", {}),
    "stablelm": ("StableLm", {}),
}
PROMPTS = [[5, 9, 3, 7, 20], [11, 4], [8, 6, 13, 30, 2, 17, 9], [21]]
ANSWERS = [
    [[4, 12, 2], [30, 8, 41, 6, 2]],
    [[14, 2]],
    [[7, 2], [2], [19, 23, 5, 8, 40, 3, 2], [33, 50, 2]],
    [[*range(3, 29), 2], [55, 2]],
]
SHORT = (PROMPTS[:3], ANSWERS[:3])  # no sequence of more than 16 tokens


def tiny(kind: str, dtype: torch.dtype = torch.float64, seed: int = 0, **settings: Any) -> Any:
    """A model with random weights, larger than usual so that its parts matter; in evaluation."""
    name, own = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **own, **settings})
    config.eos_token_id, config.bos_token_id = SIZES["eos_token_id"], SIZES["bos_token_id"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "norm" not in name:
                    parameter.copy_(torch.randn_like(parameter) * (0.4 if "embed" not in name else 0.7))
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            module.forward = MethodType(_rms_norm, module)
    return model.to(dtype).eval()


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    """What those of transformers compute in 32 bits, in the width of `x`: gradients can be compared to 1e-10."""
    return module.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + module.variance_epsilon)


def one_by_one(model: Any, prompts: Any, answers: Any) -> Tensor:
    """Log-probabilities of all tokens, from the model's logits of one sequence at a time, without padding."""
    found = []
    for prompt, given in zip(prompts, answers, strict=True):
        for answer in given:
            tokens = torch.tensor([[*prompt, *answer]])
            logits = model(input_ids=tokens, use_cache=False).logits[0, len(prompt) - 1 : -1]
            logs = torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), 1)
            found.append(logs.gather(1, torch.tensor(answer)[:, None])[:, 0])
    return torch.cat(found)


def slopes(model: Any, logs: Tensor) -> dict[str, Tensor]:
    """Gradients of an uneven sum of `logs`, of all parameters that learn; the model's are cleared."""
    model.zero_grad()
    (logs * torch.linspace(-1, 2, len(logs), dtype=logs.dtype)).sum().backward()
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    return found


def same(found: dict[str, Tensor], truth: dict[str, Tensor], close: float) -> None:
    """Both have gradients of the same parameters, equal as measured by the largest number of each."""
    assert found.keys() == truth.keys()
    assert truth
    for name, each in truth.items():
        scale = max(1.0, float(each.abs().max()))
        torch.testing.assert_close(found[name], each, rtol=0, atol=close * scale, msg=lambda m, n=name: f"{n}: {m}")


def adapted(moved=True):
    """A model with an adapter, which has moved from the reference or has not."""
    torch.manual_seed(0)
    model = ready(small_llama(initializer_range=0.3), Settings(lora=4), rewards=False)
    if moved:
        with torch.no_grad():
            for name, each in model.named_parameters():
                if "lora_B" in name:
                    each.add_(0.3 * torch.randn_like(each))
    return Answers(model)
