"""What options of `align` name: a method with its arguments, and a judge."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

PROTOCOLS = ("objective", "recipe")


def made(method: str, given: list[str]) -> tuple[Any, dict[str, Any]]:
    """The objective or recipe, and the arguments with which it was made.

    What was given comes first, then its own defaults; the card's example stands in for what has none.
    """
    import inspect

    from backchannel.card import find

    try:
        found = find(method)
    except KeyError as error:
        raise ValueError(f"{error.args[0]} (--method list shows them)") from None
    except ModuleNotFoundError as error:
        raise ValueError(f"{method} needs {error.name}: pip install 'backchannel[align]'") from None
    if found.family != "preference" or found.card.protocol not in PROTOCOLS:
        raise ValueError(f"{method} is no objective of preference learning: --method list shows them")
    known = inspect.signature(found.factory).parameters
    kinds = get_type_hints(found.factory)
    arguments = {
        name: found.card.example[name] if each.default is each.empty else each.default for name, each in known.items()
    }
    twice = [name for name, count in Counter(each.partition("=")[0] for each in given).items() if count > 1]
    if twice:
        raise ValueError(f"--set names {twice[0]} more than once")
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--set takes {', '.join(f'{key}=...' for key in known) or 'nothing'}, not {each!r}")
        if words := _words(kinds[name]):
            if value not in words:
                raise ValueError(f"--set {name} must be one of {', '.join(words)}, not {value!r}")
            arguments[name] = value
            continue
        arguments[name] = _number(name, value)
        kind = str(known[name].annotation)
        if not _fits(arguments[name], kind):
            raise ValueError(f"--set {name} must be of the kind {kind}, which {value!r} is not")
    return found.factory(**arguments), {name: value for name, value in arguments.items() if value is not None}


def _words(kind: Any) -> tuple[str, ...]:
    """The words that an argument may be; none where it is no word."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def _number(name: str, text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"--set {name} must be a number, true or false, not {text!r}")


def _fits(value: Any, kind: str) -> bool:
    """Whether a value of the command line is what an argument is declared as."""
    kinds = [each.strip() for each in kind.split("|")]
    if isinstance(value, bool):
        return "bool" in kinds
    return "float" in kinds or (isinstance(value, int) and "int" in kinds)


def judged(function: str | None, reward_model: Path | None, url: str | None, model: str | None) -> tuple[Any, str]:
    """One judge or none, and its name."""
    if sum(each is not None for each in (function, reward_model, url)) > 1:
        raise ValueError("name one judge: --judge, --reward-model or --judge-url")
    if function is not None:
        from backchannel.align.judges import scored

        sys.path.insert(0, "")  # a file beside the data
        return scored(function), function
    if reward_model is not None:
        from backchannel.align.rewards import RewardJudge

        return RewardJudge(reward_model), str(reward_model)
    if url is not None:
        name = model or "default"
        return _service(url, name), name
    return None, ""


def questions(answers: int, prompts: int) -> str:
    """What a judge that compares will be asked: of each pair of answers to a prompt, in both orders."""
    count = prompts * max(1, answers * (answers - 1) // 2) * 2
    return f"a round asks the judge up to {count:,} questions: {prompts:,} prompts, {answers:,} answers to each"


def _service(url: str, model: str) -> Any:
    """A language model that compares, behind a URL. Its key is in the environment, which no command line shows."""
    import importlib.util
    import os

    if not url.startswith(("http://", "https://")):
        raise ValueError(f"--judge-url begins with http:// or https://, unlike {url!r}")
    if not importlib.util.find_spec("httpx"):
        raise ValueError("--judge-url needs httpx: pip install 'backchannel[lm]'")
    from backchannel.align.judges import Compared
    from backchannel.lm.openai import OpenAICompatible

    key = os.environ.get("BACKCHANNEL_JUDGE_KEY", "")
    return Compared(OpenAICompatible(model, base_url=url, key=key, timeout=60, tries=3, backoff=2))
