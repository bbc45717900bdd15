"""Tuning on preferences, a step of ours against TRL's: `python benchmarks/preference.py` (Linux, a quarter of an hour).

The same model (the shape of SmolLM2-135M, random weights), the same pairs, 32 bits, DPO, LoRA of rank 8 on all linear
layers, two pairs a step, in turns in one process. TRL has its best setting: reference log-probabilities computed
beforehand, as here, no checkpointing and no 16 bits, which on a CPU make it slower. `half` and `most` say how much of a
sequence is prompt. Memory is the peak of a process of its own, above what it held before the model was made.

    --quick         a rehearsal: a small model, seconds
    --write FILE    put the tables between the marks of a Markdown file
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from marks import rewrite

BEGIN, END = "<!-- preference: benchmarks/preference.py writes it -->", "<!-- the end of preference -->"
BETA, PAIRS, RANK = 0.1, 2, 8
SMALL, LARGE = 49152, 262144  # vocabularies
SHARES = {"half": 0.5, "most": 0.8}
Step = Callable[[], float]


def language_model(vocabulary: int, quick: bool) -> Any:
    """A model of the shape of SmolLM2-135M with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    if not quick:
        size = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
    heads = {"num_key_value_heads": 2 if quick else 3, "max_position_embeddings": 8192}
    config = LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=True, **size, **heads)
    return LlamaForCausalLM(config)


def lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")


def pairs(length: int, share: float, vocabulary: int) -> list[dict[str, Any]]:
    """Made-up pairs: a prompt and two answers of tokens, and what a reference says of them."""
    import torch

    rng = torch.Generator().manual_seed(length)
    prompt = int(share * length)

    def tokens(many: int) -> list[int]:
        found: list[int] = torch.randint(3, vocabulary, (many,), generator=rng).tolist()
        return found

    return [
        {
            "prompt_ids": tokens(prompt),
            "chosen_ids": tokens(length - prompt),
            "rejected_ids": tokens(length - prompt),
            "ref_chosen_logps": -11.0 * (length - prompt),
            "ref_rejected_logps": -11.0 * (length - prompt),
        }
        for _ in range(PAIRS)
    ]


def step_of_ours(data: list[dict[str, Any]], vocabulary: int, quick: bool) -> Step:
    """A step of DPO with what this library computes."""
    import torch
    from peft import get_peft_model

    from backchannel.align.model import Answers
    from backchannel.parts.objectives import Pairs
    from backchannel.preference.dpo import dpo

    torch.manual_seed(1)
    model = get_peft_model(language_model(vocabulary, quick), lora()).train()
    answers, objective = Answers(model), dpo(BETA)
    assert not answers.notes, answers.notes
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-4)
    prompts = [each["prompt_ids"] for each in data]
    given = [[each["chosen_ids"], each["rejected_ids"]] for each in data]
    reference = torch.tensor([[each["ref_chosen_logps"], each["ref_rejected_logps"]] for each in data]).T

    def step() -> float:
        sums = answers(prompts, given).sums().view(PAIRS, 2).T
        loss = objective(Pairs(sums[0], sums[1], reference[0], reference[1]))[0].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def step_of_trl(data: list[dict[str, Any]], vocabulary: int, quick: bool) -> Step:
    """A step of TRL's DPOTrainer with its best setting."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "a": 3}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    text = Dataset.from_list([{"prompt": "a", "chosen": "a", "rejected": "a"}] * PAIRS)  # never trained on
    args = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=PAIRS,
        beta=BETA,
        precompute_ref_log_probs=True,
        gradient_checkpointing=False,
        bf16=False,
        max_length=None,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    torch.manual_seed(1)
    trainer = DPOTrainer(
        language_model(vocabulary, quick), args=args, train_dataset=text, processing_class=tokenizer, peft_config=lora()
    )
    model, trainer.current_gradient_accumulation_steps = trainer.model.train(), 1
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-4)
    batch = trainer.data_collator(data)

    def step() -> float:
        loss = float(trainer.training_step(model, dict(batch)))
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


STEPS = {"ours": step_of_ours, "trl": step_of_trl}


def seconds(length: int, share: float, vocabulary: int, threads: int, quick: bool) -> dict[str, float]:
    """The median time of a step of each, in turns."""
    import torch

    torch.set_num_threads(threads)
    data = pairs(length, share, vocabulary)
    steps = {name: make(data, vocabulary, quick) for name, make in STEPS.items()}
    first = {name: step() for name, step in steps.items()}  # not timed
    if abs(first["ours"] - first["trl"]) > 1e-3 * abs(first["trl"]):
        raise SystemExit(f"the first losses differ: {first}")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(3 if length > 512 else 5):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - began)
    return {name: median(each) for name, each in times.items()}


def status(field: str) -> float:
    """Megabytes of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {field}")


def peak(name: str, length: int, share: float, vocabulary: int, quick: bool) -> float:
    """The most megabytes above what the libraries hold, in two steps."""
    import datasets
    import peft
    import torch
    import trl

    torch.set_num_threads(1)
    del datasets, peft, trl
    before = status("VmRSS")
    step = STEPS[name](pairs(length, share, vocabulary), vocabulary, quick)
    for _ in range(2):
        step()
    return status("VmHWM") - before


def apart(*arguments: object) -> Any:
    """What this file measures, in a process of its own."""
    command = [sys.executable, __file__, "--measure", json.dumps(arguments)]
    quiet = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def table(quick: bool) -> list[str]:
    """Times and peaks, a row for each case."""
    rows = [
        "| sequence | prompt | vocabulary | threads | TRL, s a step | ours, s a step | share |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    short, long = (32, 64) if quick else (256, 1024)
    cases = [(short, "half", SMALL, 1), (short, "most", SMALL, 1), (short, "half", SMALL, 2), (short, "most", SMALL, 2)]
    cases += [(long, "most", SMALL, 2), (short, "half", LARGE, 2)]
    for length, share, vocabulary, threads in cases:
        found = apart("seconds", length, SHARES[share], vocabulary, threads, quick)
        rows.append(
            f"| {length} | {share} | {vocabulary:,} | {threads} | {found['trl']:.2f} | {found['ours']:.2f} | "
            f"{found['ours'] / found['trl']:.2f} |"
        )
        print(rows[-1], flush=True)
    rows += [
        "",
        "| sequence | prompt | vocabulary | TRL, peak MB | ours, peak MB | share |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for length, vocabulary in ((short, SMALL), (long, SMALL), (short, LARGE)):
        most = {name: apart("peak", name, length, SHARES["half"], vocabulary, quick) for name in STEPS}
        rows.append(
            f"| {length} | half | {vocabulary:,} | {most['trl']:,.0f} | {most['ours']:,.0f} | "
            f"{most['ours'] / most['trl']:.2f} |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        what, *arguments = json.loads(given.measure)
        print(json.dumps({"seconds": seconds, "peak": peak}[what](*arguments)))
        return
    text = "\n".join(table(given.quick))
    if given.write:
        rewrite(given.write, text, BEGIN, END)


if __name__ == "__main__":
    main()
