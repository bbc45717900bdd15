"""A learned policy as a file: which method, called with what, how rows become features, and the arrays of its State.

No code is kept and none is run that the library does not hold itself: the method is looked up by its key in the
package, its factory is called with the kept numbers, and the State is filled with the kept arrays if their shapes are
the ones that the factory made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from backchannel.arrays import read_arrays, write_arrays
from backchannel.base import State
from backchannel.card import find
from backchannel.decide import policies
from backchannel.decide.features import Encoder, encode
from backchannel.decide.fold import Passes
from backchannel.decide.streams import stream
from backchannel.feedback import Decision
from backchannel.ledger.log import Batch, Options, key_of

FORMAT = 1


class Policy(NamedTuple):
    """A learned policy."""

    key: str
    family: str
    given: dict[str, Any]
    encoder: Encoder
    state: State
    learned_from: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to one file (arrays and JSON; beside its place first, then over it)."""
        about = {
            "backchannel": "policy",
            "format": FORMAT,
            "key": self.key,
            "given": self.given,
            "encoder": msgspec.to_builtins(self.encoder),
            "learned_from": self.learned_from,
        }
        write_arrays(path, {f"state.{name}": value for name, value in self.state._asdict().items()}, about)


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """The policy that `save` wrote.

    Raises:
        ValueError: in one sentence, if the file is no policy, of another format, of a method that this version does not
            have, or if its arrays do not fit.
    """
    arrays, about = read_arrays(path)
    if not isinstance(about, dict) or about.get("backchannel") != "policy":
        raise ValueError(f"{path} is not a policy file")
    if about.get("format") != FORMAT:
        raise ValueError(f"{path} has the policy format {about.get('format')!r}; this version reads format {FORMAT}")
    try:
        encoder = msgspec.convert(about["encoder"], Encoder)
        method = find(str(about["key"]))
        given = about["given"]
        if method.card.protocol != "learner" or "bandit" not in method.card.feedback:
            raise ValueError(f"{method.key} is no policy")
        sizes = policies.arguments(method, encoder, int(given.get("horizon", 1)))
        apart = [name for name in ("arms", "dimension", "bits", "disjoint") if sizes.get(name) != given.get(name)]
        if apart:
            raise ValueError(f"{apart[0]} is {given.get(apart[0])!r}, which does not fit its features")
        learner = policies.make(method, given)
        fields = {}
        for name, like in learner.state._asdict().items():
            if f"state.{name}" not in arrays:
                raise ValueError(f"it has no array State.{name}")
            kept = arrays[f"state.{name}"]
            if kept.shape != like.shape or kept.dtype != like.dtype:
                raise ValueError(f"State.{name} is {kept.dtype}{kept.shape}, not {like.dtype}{like.shape}")
            fields[name] = np.array(kept, order="C")
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        reason = error.args[0] if error.args else error
        raise ValueError(f"{path} cannot be loaded by this version: {reason}") from None
    return Policy(
        method.key, method.family, given, encoder, type(learner.state)(**fields), str(about.get("learned_from"))
    )


class Request(msgspec.Struct):
    """One line for `backchannel act`: what is known, and what may be chosen (default: every option of the log)."""

    context: dict[str, Any] = {}
    options: list[str] | dict[str, dict[str, Any]] | None = None
    id: str | None = None
    time: float | None = None


def act(policy: Policy, requests: Iterable[Request], seed: int = 0, size: int = 4096) -> Iterator[Decision]:
    """A decision for each request, with its propensity; in order, in batches of `size`."""
    method = find(policy.key)
    passes = Passes(policies.make(method, policy.given), method.card.context)
    rng = stream(seed, "act")
    number, held = 0, []
    for request in requests:
        held.append(request)
        if len(held) == size:
            yield from _decide(policy, passes, held, rng, number)
            number, held = number + size, []
    if held:
        yield from _decide(policy, passes, held, rng, number)


def _decide(
    policy: Policy, passes: Passes, requests: list[Request], rng: np.random.Generator, number: int
) -> Iterator[Decision]:
    names = [_options(policy.encoder, request, number + i + 1) for i, request in enumerate(requests)]
    batch = _batch(policy.encoder, requests, names, number)
    chosen, propensity = passes.sample(policy.state, encode(policy.encoder, batch), rng)
    for i, request in enumerate(requests):
        action = names[i][chosen[i]] if policy.encoder.ragged else policy.encoder.actions[chosen[i]]
        yield Decision(
            id=request.id if request.id is not None else str(number + i + 1),
            action=action,
            options=request.options,
            context=request.context,
            propensity=min(float(propensity[i]), 1.0),
            time=request.time,
            policy=policy.key,
        )


def _options(encoder: Encoder, request: Request, number: int) -> list[str]:
    if request.options is None:
        if encoder.own:
            raise ValueError(
                f"request {number}: this policy was learned on options with features; give them as options"
            )
        return encoder.actions
    names = list(request.options)
    if not names:
        raise ValueError(f"request {number}: options is empty: there is nothing to choose from")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"request {number}: the option {twice!r} is given more than once")
    if not encoder.ragged:
        unknown = [name for name in names if name not in encoder.actions]
        if unknown:
            raise ValueError(f"request {number}: the policy has never met the option {unknown[0]!r}")
    return names


def _batch(encoder: Encoder, requests: list[Request], names: list[list[str]], number: int) -> Batch:
    n = len(requests)
    numbers = np.full((n, len(encoder.numeric)), np.nan)
    categories = np.zeros((n, len(encoder.categorical)), np.uint64)
    for i, request in enumerate(requests):
        for j, column in enumerate(encoder.numeric):
            numbers[i, j] = _number(request.context, column, number + i + 1)
        for j, column in enumerate(encoder.categorical):
            value = request.context.get(column)
            categories[i, j] = 0 if value is None else key_of(column, _text(value))
    restricted = encoder.ragged or any(request.options is not None for request in requests)
    place = {name: i for i, name in enumerate(encoder.actions)}
    offered = np.concatenate([[0], np.cumsum([len(each) for each in names])]).astype(np.int64)
    option = np.array([place.get(name, 0) for each in names for name in each], np.int64)
    features = None
    if encoder.own:  # of the options offered; where learners have a model for each option, of all in their order
        every = names if encoder.ragged else [encoder.actions] * n
        lists = [_features(request, name) for request, each in zip(requests, every, strict=True) for name in each]
        start = np.concatenate([[0], np.cumsum([len(each) for each in lists])]).astype(np.int64)
        key = np.array([k for each in lists for k, _ in each], np.uint64)
        features = Options(start, key, np.array([v for each in lists for _, v in each], float))
    zeros, nan = np.zeros(n, np.int64), np.full(n, np.nan)
    action = option[offered[:-1]]
    return Batch(
        np.arange(number + 1, number + n + 1), action, nan, nan, np.arange(n, dtype=float), nan, zeros, numbers,
        categories, offered if restricted else None, option if restricted else None, features,
    )  # fmt: skip


def _number(context: Mapping[str, Any], column: str, number: int) -> float:
    value = context.get(column)
    if value is None:
        return float("nan")
    if isinstance(value, (int, float)):
        return float(value)
    raise ValueError(f"request {number}: {column} must be a number, as in the log, not {value!r}")


def _features(request: Request, name: str) -> list[tuple[int, float]]:
    given = request.options.get(name, {}) if isinstance(request.options, dict) else {}
    pairs = []
    for column, value in given.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            pairs.append((key_of(column), float(value)))
        elif value is not None:
            pairs.append((key_of(column, _text(value)), 1.0))
    return pairs


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
