"""Small language models of transformers for tests: made in memory, words for tokens, drawn from a seed."""

from __future__ import annotations

import random
from typing import Any

import torch

from backchannel.lm.answers import Preference

WORDS = 30
GOOD = 10  # the first words are good ones


def word_tokenizer(template: str | None = None) -> Any:
    """Words w0 .. w29, with EOS, BOS and a padding token; texts are split at spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "<eos>", "<bos>", *(f"w{i}" for i in range(WORDS))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", bos_token="<bos>", pad_token="<pad>")
    found.chat_template = template
    return found


def small_llama(seed: int = 0, rewards: bool = False, **changes: Any) -> Any:
    """A Llama of two layers of width 32 over the words; with `rewards` one with a head of one output."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    settings: dict[str, Any] = {
        "vocab_size": WORDS + 3, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "bos_token_id": 2,
        "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    config: Any = LlamaConfig(**(settings | ({"num_labels": 1} if rewards else {}) | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (LlamaForSequenceClassification if rewards else LlamaForCausalLM)(config)


def word_pairs(n: int, seed: int = 0) -> list[Preference]:
    """Pairs whose chosen answer is of good words and whose rejected answer is of others; every prompt is another."""
    rng = random.Random(seed)

    def some(low: int, high: int) -> str:
        return " ".join(f"w{rng.randrange(low, high)}" for _ in range(rng.randrange(3, 8)))

    prompts = [" ".join(f"w{rng.randrange(WORDS)}" for _ in range(6)) for _ in range(n)]
    return [
        Preference(each, " " + some(0, GOOD), " " + some(GOOD, WORDS), id=f"p{i}") for i, each in enumerate(prompts)
    ]


def good_words(prompt: Any, answer: str) -> float:
    """Good words less others: a judge for such answers."""
    return float(sum(1 if int(word[1:]) < GOOD else -1 for word in answer.split() if word[:1] == "w"))
