"""app.toml: what a service serves.

[service]
store = "sqlite:decisions.db"            # or postgresql://...
host = "127.0.0.1"
port = 8423

[[token]]
name = "shop"
sha256 = "..."                           # of the token; `backchannel serve --new-token shop` makes both
scopes = ["decide", "feedback"]

[app.shop]
policy = "learned/lin_ucb.policy"
candidates = ["learned/square_cb.policy"]
mode = "learn"                           # or "watch", "imitate"
reward = {window = 600, combine = "sum", default = 0}
guards = {floor = 0.01}
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from backchannel.serve.guards import Guards
from backchannel.serve.records import Name
from backchannel.serve.rewards import Rules

Scope = Literal["decide", "feedback", "admin"]
AppName = Annotated[str, Meta(pattern="^[a-z0-9_-]{1,50}$")]


class Token(msgspec.Struct, forbid_unknown_fields=True):
    """Who may do what. The token itself is not kept: only its SHA-256, in hexadecimal."""

    name: Name
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    scopes: list[Scope]


class ServiceConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The process. `lag`: seconds between two looks of the learner at the ledger."""

    store: str = "sqlite:backchannel.db"
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8423
    lag: Annotated[float, Meta(gt=0, le=60)] = 0.5
    snapshot_every: Annotated[float, Meta(gt=0)] = 60.0
    most_bytes: Annotated[int, Meta(ge=1000)] = 1_000_000
    requests_per_second: Annotated[float, Meta(gt=0)] | None = None


class AppConfig(msgspec.Struct, forbid_unknown_fields=True):
    """One application. Paths are relative to the file that names them."""

    policy: str
    candidates: list[str] = []
    mode: Literal["learn", "watch", "imitate"] = "learn"
    reward: Rules = msgspec.field(default_factory=Rules)
    guards: Guards = msgspec.field(default_factory=Guards)
    activation: Annotated[float, Meta(gt=0)] = 600.0
    seed: Annotated[int, Meta(ge=0)] = 0
    ignore_unknown: bool = False


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    app: Annotated[dict[AppName, AppConfig], Meta(min_length=1)]
    service: ServiceConfig = msgspec.field(default_factory=ServiceConfig)
    token: list[Token] = []


def read_config(path: str | os.PathLike[str]) -> Config:
    """The file; ValueError says in one sentence what is wrong with it."""
    try:
        plain = tomllib.loads(Path(path).read_text())
        config = msgspec.convert(plain, Config)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    for app in config.app.values():
        app.policy, *app.candidates = (str(Path(path).parent / each) for each in (app.policy, *app.candidates))
    return config
