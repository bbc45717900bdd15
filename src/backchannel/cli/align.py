"""`align`: tune a language model on preferences, ratings or rankings, and judge it before and after."""

from __future__ import annotations

import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from backchannel.cli import app
from backchannel.cli.made import PROTOCOLS, judged, made, questions
from backchannel.cli.methods import AsJson
from backchannel.cli.options import AnswerColumns, Seed, SkipBadRows, SplitAt, reading_answers
from backchannel.cli.show import print_json, print_table

JUDGE, TRAINING, DRAWING = "Who judges", "Training", "Learning from answers that the model draws"


@app.command()
def align(
    model: Annotated[str | None, typer.Option(help="A folder, a name on the hub, or a GGUF file.")] = None,
    data: Annotated[str | None, typer.Option(help="JSON lines, Parquet, CSV, a feedback log ...")] = None,
    method: Annotated[str, typer.Option(help="An objective's or recipe's key; `list` shows all.")] = "dpo",
    set_: Annotated[list[str] | None, typer.Option("--set", help="One of its arguments, as beta=0.1.")] = None,
    out: Annotated[Path, typer.Option(help="Where model/, report.html and result.json go.")] = Path("aligned"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    judge: Annotated[
        str | None,
        typer.Option(help="A function (prompt, answer) -> score, as module:function.", rich_help_panel=JUDGE),
    ] = None,
    reward_model: Annotated[
        Path | None,
        typer.Option(
            help="A folder of `align --method bradley_terry`, or a reward model of the hub.", rich_help_panel=JUDGE
        ),
    ] = None,
    judge_url: Annotated[
        str | None,
        typer.Option(
            help="A service in OpenAI's format, as http://host/v1; its key is in BACKCHANNEL_JUDGE_KEY.",
            rich_help_panel=JUDGE,
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="Which model is asked there, if not `default`.", rich_help_panel=JUDGE)
    ] = None,
    answers: Annotated[
        int | None, typer.Option(min=0, help="Held-out prompts to answer [32].", rich_help_panel=JUDGE)
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="Tokens of such an answer [128].", rich_help_panel=JUDGE)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="At which it is drawn [1]; 0: the likeliest.", rich_help_panel=JUDGE)
    ] = None,
    held_out: Annotated[
        float, typer.Option(help="Share of the prompts kept for judging.", rich_help_panel=JUDGE)
    ] = 0.1,
    epochs: Annotated[float, typer.Option(help="Passes over the data.", rich_help_panel=TRAINING)] = 1.0,
    steps: Annotated[int, typer.Option(min=0, help="Steps, instead of --epochs.", rich_help_panel=TRAINING)] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Examples in a step.", rich_help_panel=TRAINING)] = 16,
    micro: Annotated[
        int, typer.Option(min=1, help="Examples at a time: memory, not results.", rich_help_panel=TRAINING)
    ] = 2,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of AdamW [1e-4; 1e-6 for all weights].", rich_help_panel=TRAINING)
    ] = None,
    lora: Annotated[
        int, typer.Option(min=0, help="Rank of the adapter; 0: all weights.", rich_help_panel=TRAINING)
    ] = 16,
    prompt_limit: Annotated[
        int | None, typer.Option(min=1, help="Cut longer prompts on their left.", rich_help_panel=TRAINING)
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Tokens of prompt and answer.", rich_help_panel=TRAINING)] = 1024,
    chat: Annotated[
        bool, typer.Option("--chat", help="Apply the chat template to plain prompts.", rich_help_panel=TRAINING)
    ] = False,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=TRAINING)] = "auto",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Less memory, more time.", rich_help_panel=TRAINING)
    ] = False,
    save: Annotated[
        int | None, typer.Option(min=0, help="Steps between checkpoints [100].", rich_help_panel=TRAINING)
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Of drawing and learning [3].", rich_help_panel=DRAWING)
    ] = None,
    prompts: Annotated[int | None, typer.Option(min=1, help="In a round [64].", rich_help_panel=DRAWING)] = None,
    group: Annotated[
        int | None, typer.Option(min=2, help="Answers to a prompt, for policy gradients [4].", rich_help_panel=DRAWING)
    ] = None,
    price: Annotated[
        float | None, typer.Option(help="Of leaving the reference, per nat, for them [0].", rich_help_panel=DRAWING)
    ] = None,
    column: AnswerColumns = None,
    split: SplitAt = None,
    skip_bad_rows: SkipBadRows = 0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Tune a language model on what people said of its answers, and show what became of it."""
    if method == "list":
        _list(as_json)
        return
    if model is None or data is None:
        raise ValueError("align needs --model and --data")
    found, arguments = made(method, set_ or [])
    _needs()
    from backchannel.align.examples import KINDS
    from backchannel.align.read import read
    from backchannel.align.result import Settings
    from backchannel.align.rollouts import PolicyGradient
    from backchannel.cli.folder import check
    from backchannel.cli.progress import bar

    drawing: dict[str, Any] = {"answers": answers, "most": most, "temperature": temperature}
    given = {name: value for name, value in (drawing | {"save": save}).items() if value is not None}
    settings = Settings(
        epochs=epochs, steps=steps, batch=batch, micro=micro, learning_rate=learning_rate, lora=lora, limit=limit,
        prompt_limit=prompt_limit, chat=chat, held_out=held_out, precision=precision, checkpointing=checkpointing,
        seed=seed, **given,
    )  # fmt: skip
    gradient = not hasattr(found, "select") and found.reads not in KINDS
    if gradient:
        found = PolicyGradient(found, 4 if group is None else group, price or 0.0)
    recipe = hasattr(found, "answers")
    others: dict[str, Any] = {"--group": group, "--price": price} if not gradient else {}
    others |= {"--save": save} if recipe else {"--rounds": rounds, "--prompts": prompts}
    rewards = not recipe and _scores(found)
    if rewards:  # it writes no answers
        others |= {"--judge": judge, "--reward-model": reward_model, "--judge-url": judge_url}
        others |= {"--judge-model": judge_model} | {f"--{name}": value for name, value in drawing.items()}
    if useless := [name for name, value in others.items() if value is not None]:
        raise ValueError(f"{method} has no use for {' and '.join(useless)}")
    if judge_model is not None and judge_url is None:
        raise ValueError("--judge-model names a model of the service that --judge-url gives, which is missing")
    check(out)
    records = read(data, skip_bad_rows=skip_bad_rows, prompts=recipe, **reading_answers(column, split))
    if data != "-":
        next(iter(records))  # what cannot be read is said before a model is loaded
    asked, name = judged(judge, reward_model, judge_url, judge_model)
    if recipe and asked is None:
        raise ValueError(
            f"{method} learns from answers that it draws: name who judges them (--judge, --reward-model ...)"
        )
    if recipe and resume:
        raise ValueError(f"{method} begins anew in each round: --resume is for methods that learn from given records")
    if recipe and judge_url is not None:
        print(questions(found.answers, prompts or 64), file=sys.stderr)
    from backchannel.align.load import load_model
    from backchannel.align.online import improve
    from backchannel.align.tune import tune

    about: dict[str, Any] = {"method": method, "arguments": arguments, "judge_name": name}

    # Of a GGUF file there is no configuration beside it for peft to look at, and its words are those that it had.
    warnings.filterwarnings("ignore", message="Could not find a config file", category=UserWarning)
    with bar(quiet=as_json) as progress:
        progress("loading the model", 0.0)
        loaded, tokenizer = load_model(model, rewards=rewards)
        try:
            if recipe:
                tuned = improve(
                    loaded, tokenizer, records, found, asked, out, settings, rounds=rounds or 3,
                    prompts=prompts or 64, skip_bad_rows=skip_bad_rows, tell=progress, **about,
                )  # fmt: skip
            else:
                tuned = tune(
                    loaded, tokenizer, records, found, out, settings, judge=asked, resume=resume,
                    skip_bad_rows=skip_bad_rows, tell=progress, **about,
                )  # fmt: skip
        except _out_of_memory() as error:
            raise ValueError(
                "the GPU is out of memory: --micro 1 holds fewer examples at a time, --limit and --most shorter ones, "
                f"--checkpointing fewer hidden states, --lora 8 fewer moments ({str(error).splitlines()[0]})"
            ) from None
    tuned.command = shlex.join(["backchannel", *sys.argv[1:]])
    tuned.notes = [*records.notes, *tuned.notes]
    written = _write(out, tuned)
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(tuned), "written": list(map(str, written))})
    else:
        _print(tuned, written)
    if not tuned.finished:
        print(f"stopped after step {tuned.steps}" + ("" if recipe else ": --resume goes on"), file=sys.stderr)
    if tuned.signal:
        raise typer.Exit(128 + tuned.signal)


def _list(as_json: bool) -> None:
    """The objectives and recipes."""
    from backchannel.card import index

    found = [each for each in index() if each["family"] == "preference" and each["protocol"] in PROTOCOLS]
    if as_json:
        print_json(found)
        return
    rows = [[each["key"], ", ".join(each["feedback"]), each["summary"], each["status"]] for each in found]
    print_table(f"{len(found)} methods", ["key", "feedback", "what it does", "status"], rows)
    print("`backchannel show KEY` prints the chapter, with its arguments")


def _needs() -> None:
    import importlib.util

    missing = [name for name in ("torch", "transformers", "accelerate", "peft") if not importlib.util.find_spec(name)]
    if missing:
        raise ValueError(f"align needs {' and '.join(missing)}: pip install 'backchannel[align]'")


def _scores(objective: Any) -> bool:
    from backchannel.parts.objectives import Scores

    return objective.reads is Scores


def _out_of_memory() -> type[BaseException]:
    import torch

    return torch.OutOfMemoryError


def _write(out: Path, tuned: Any) -> list[Path]:
    import msgspec

    from backchannel.cli.folder import fill
    from backchannel.report.tuned_page import write_page

    result = msgspec.json.format(msgspec.json.encode(tuned), indent=1)
    fill(
        out, {"result.json": lambda path: path.write_bytes(result), "report.html": lambda path: write_page(tuned, path)}
    )
    return [out / "model", out / "report.html", out / "result.json"]


def _print(tuned: Any, written: list[Path]) -> None:
    from backchannel.report.tuned_page import distance, headline, level

    rows = []
    if tuned.before is not None and tuned.after is not None:
        rows.append(["loss on held-out examples", tuned.before.loss, tuned.after.loss])
        if tuned.after.accuracy is not None and tuned.before.accuracy is not None:
            before, after = (f"{100 * each.accuracy:.1f} %" for each in (tuned.before, tuned.after))
            rows.append(["chosen answer ahead", "level" if level(tuned.before) else before, after])
    if tuned.drawn is not None:
        if tuned.drawn.scores is not None:
            rows.append(["score by the judge", *tuned.drawn.scores])
        rows.append(["tokens of an answer", *tuned.drawn.lengths])
        if tuned.drawn.divergence is not None:
            rows.append([f"{distance(tuned)} of an answer, nats", 0.0, tuned.drawn.divergence])
    title = f"{tuned.method} on {tuned.trained_on:,} examples, {tuned.steps:,} steps"
    if rows:
        print_table(title, ["", "before", "after"], rows)
    else:
        print(title)
    print(headline(tuned))
    for note in tuned.notes:
        print(f"note: {note}")
    print(f"wrote {', '.join(map(str, written))}")
