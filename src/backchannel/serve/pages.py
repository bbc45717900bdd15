"""Whatever of the service is not hot: health, metrics, the API's document, the page, export and administration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from backchannel.serve.app import App
from backchannel.serve.config import Scope
from backchannel.serve.export import exported
from backchannel.serve.ledger import LedgerError
from backchannel.serve.metrics import exposition
from backchannel.serve.openapi import document
from backchannel.serve.page import page
from backchannel.serve.records import Control, Problem
from backchannel.serve.security import RefusedError
from backchannel.serve.service import Service

_encode = msgspec.json.Encoder().encode
_control = msgspec.json.Decoder(Control)
Answer = Callable[[Request], Any]


def slow_routes(service: Service) -> Starlette:
    """The ASGI application of all routes that are not hot."""

    def guarded(answer: Answer, scope: Scope | None = None) -> Answer:
        async def route(request: Request) -> Response:
            try:
                if scope is not None:
                    service.gate.check(request.headers.get("authorization", "").encode() or None, scope)
                found: Response = await answer(request)
            except RefusedError as error:
                return json(Problem(error.sentence), error.status)
            except LedgerError as error:
                return json(Problem(str(error)), 503)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                return json(Problem(str(error)), 400)
            return found

        return route

    def app_of(request: Request) -> App:
        app = service.apps.get(request.path_params["app"])
        if app is None:
            raise RefusedError(404, f"there is no application {request.path_params['app']!r}")
        return app

    async def health(request: Request) -> Response:
        return json({"status": "alive"})

    async def ready(request: Request) -> Response:
        problem = await run_in_threadpool(service.problem)
        return json(Problem(problem), 503) if problem else json({"status": "ready"})

    async def metrics(request: Request) -> Response:
        return Response(await run_in_threadpool(exposition, service), media_type="text/plain; version=0.0.4")

    async def openapi(request: Request) -> Response:
        return json(document(service.config))

    async def index(request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(page, service), headers={"content-security-policy": POLICY})

    async def state(request: Request) -> Response:
        return json(await run_in_threadpool(app_of(request).facts))

    async def export(request: Request) -> Response:
        return StreamingResponse(exported(app_of(request)), media_type="application/x-ndjson")

    async def control(request: Request) -> Response:
        app = app_of(request)
        body = await request.body()
        if len(body) > service.config.service.most_bytes:
            raise RefusedError(413, f"a body may have {service.config.service.most_bytes:,} bytes")
        kept = await service.committer.append_async(app.control(_control.decode(body)))
        return json({"id": kept.entry.id, "seq": kept.seq})

    return Starlette(
        routes=[
            Route("/healthz", guarded(health)),
            Route("/readyz", guarded(ready)),
            Route("/metrics", guarded(metrics, "admin")),
            Route("/openapi.json", guarded(openapi)),
            Route("/", guarded(index, "admin")),
            Route("/v1/{app}/state", guarded(state, "admin")),
            Route("/v1/{app}/export", guarded(export, "admin")),
            Route("/v1/{app}/control", guarded(control, "admin"), methods=["POST"]),
        ]
    )


POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'"


def json(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(_encode(value), status, media_type="application/json")
