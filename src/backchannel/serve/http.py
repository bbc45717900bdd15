"""The service over HTTP: the hot routes bare, everything else by Starlette.

`decide`, `feedback` and `shown` take one request, or a list of up to 100, and answer when the ledger has them. A
refused request is {"error": one sentence}: 400 for what does not fit, 401 and 403 for tokens, 404, 413 for too long a
body, 429 beyond the rate, 503 with the reason when the ledger cannot keep anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Union

import msgspec

from backchannel.serve.app import App
from backchannel.serve.config import Scope
from backchannel.serve.ledger import Entry, Kept, LedgerError
from backchannel.serve.records import DecideRequest, FeedbackAnswer, FeedbackRequest, Problem, Shown
from backchannel.serve.security import RefusedError
from backchannel.serve.service import Service

MOST = 100  # requests of one call
JSON = [(b"content-type", b"application/json")]
_encode = msgspec.json.Encoder().encode
ASGI = Callable[..., Awaitable[None]]


class Hot:
    """One hot route: how its body is read, which entry it makes, and what is answered."""

    def __init__(
        self, kind: Any, scope: Scope, entry: Callable[[App, Any], Entry], answer: Callable[[Kept], Any]
    ) -> None:
        self.decode = msgspec.json.Decoder(Union[kind, list[kind]]).decode  # noqa: UP007
        self.scope, self.entry, self.answer = scope, entry, answer


def _heard(kept: Kept) -> FeedbackAnswer:
    return FeedbackAnswer(kept.entry.id, "kept" if kept.fresh else "repeated")


HOT = {
    "decide": Hot(DecideRequest, "decide", App.decision, App.answer),
    "feedback": Hot(FeedbackRequest, "feedback", App.feedback, _heard),
    "shown": Hot(Shown, "feedback", App.shown, _heard),
}


class Http:
    """The ASGI application; `slow` answers whatever is not hot."""

    def __init__(self, service: Service, slow: ASGI) -> None:
        self._service, self._slow = service, slow

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One request."""
        posted = scope["type"] == "http" and scope["method"] == "POST"
        parts: list[str] = scope["path"].split("/") if posted else []
        hot = HOT.get(parts[3]) if len(parts) == 4 and parts[1] == "v1" else None
        if hot is None:
            await self._slow(scope, receive, send)
            return
        try:
            status, body = 200, await self._answer(hot, parts[2], scope, receive)
        except RefusedError as error:
            status, body = error.status, _encode(Problem(error.sentence))
        except LedgerError as error:
            status, body = 503, _encode(Problem(str(error)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            status, body = 400, _encode(Problem(str(error)))
        self._service.metrics.requests[parts[3], status] += 1
        length = b"%d" % len(body)
        await send({"type": "http.response.start", "status": status, "headers": [*JSON, (b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, hot: Hot, name: str, scope: dict[str, Any], receive: Any) -> bytes:
        service = self._service
        headers = dict(scope["headers"])
        service.gate.check(headers.get(b"authorization"), hot.scope)
        app = service.apps.get(name)
        if app is None:
            raise RefusedError(404, f"there is no application {name!r}")
        body = await _body(headers, receive, service.config.service.most_bytes)
        requests = hot.decode(body)
        if not isinstance(requests, list):
            return _encode(hot.answer(await service.committer.append_async(hot.entry(app, requests))))
        if not 1 <= len(requests) <= MOST:
            raise RefusedError(400, f"a call holds 1 to {MOST} requests, not {len(requests)}")
        entries = [hot.entry(app, request) for request in requests]
        kept = await asyncio.gather(*(service.committer.append_async(entry) for entry in entries))
        return _encode([hot.answer(each) for each in kept])


async def _body(headers: dict[bytes, bytes], receive: Any, most: int) -> bytes:
    """The whole body, refused as soon as it is too long."""
    said = headers.get(b"content-length", b"0")
    if not said.isdigit() or int(said) > most:
        raise RefusedError(413, f"a body may have {most:,} bytes")
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the client has gone")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise RefusedError(413, f"a body may have {most:,} bytes")
        if not message.get("more_body"):
            return b"".join(parts)


def application(service: Service) -> Http:
    """The whole service as an ASGI application."""
    from backchannel.serve.pages import slow_routes

    return Http(service, slow_routes(service))
