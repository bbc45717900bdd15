"""Who may do what: bearer tokens with scopes, and a rate for each of them.

Only SHA-256 digests of tokens are kept, and they are compared in constant time. Without tokens a service answers only
on loopback.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time

from backchannel.serve.config import Config, Scope


class RefusedError(Exception):
    """A request that is turned away: its status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Gate:
    """Checks tokens and rates."""

    def __init__(self, config: Config) -> None:
        self._tokens = [(token.name, token.sha256.encode(), frozenset(token.scopes)) for token in config.token]
        self._rate = config.service.requests_per_second
        self._buckets: dict[str, tuple[float, float]] = {}
        if not self._tokens and not is_loopback(config.service.host):
            raise ValueError(
                f"a service on {config.service.host} needs tokens; without them it answers on loopback only "
                "(backchannel serve --new-token NAME makes one)"
            )

    def check(self, authorization: bytes | None, scope: Scope) -> None:
        """Refuse a request whose header gives it no right to `scope`, or that comes too soon."""
        name = ""
        if self._tokens:
            name, scopes = self._holder(authorization)
            if scope not in scopes:
                raise RefusedError(403, f"this token has no scope {scope!r}")
        if self._rate is not None:
            self._count(name)

    def _holder(self, authorization: bytes | None) -> tuple[str, frozenset[Scope]]:
        if authorization is None or not authorization.startswith(b"Bearer "):
            raise RefusedError(401, "a bearer token is needed: Authorization: Bearer TOKEN")
        digest = hashlib.sha256(authorization[7:]).hexdigest().encode()
        found = None
        for name, kept, scopes in self._tokens:  # all of them, whichever fits
            if hmac.compare_digest(kept, digest):
                found = name, scopes
        if found is None:
            raise RefusedError(401, "this token is not known")
        return found

    def _count(self, name: str) -> None:
        """A bucket for each token that holds one second's worth."""
        assert self._rate is not None
        now = time.monotonic()
        left, since = self._buckets.get(name, (max(self._rate, 1.0), now))
        left = min(left + (now - since) * self._rate, max(self._rate, 1.0))
        if left < 1:
            self._buckets[name] = left, now
            raise RefusedError(429, f"more than {self._rate:g} requests a second")
        self._buckets[name] = left - 1, now


def is_loopback(host: str) -> bool:
    """Whether nobody else can reach this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def new_token() -> tuple[str, str]:
    """A token and its SHA-256."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()
