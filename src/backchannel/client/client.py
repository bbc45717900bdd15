"""The client of the decision service, for threads (`Client`) and for an event loop (`AsyncClient`).

    client = Client("http://127.0.0.1:8423", queue="feedback.db")
    decided = client.decide("shop", {"device": "phone"})
    client.feedback("shop", decided.id, 1.0)

A call goes on trying, with growing pauses, while the service cannot be reached, is too busy (429) or not ready (503),
and always with the same id, so that it counts once. With a queue, feedback returns at once: what cannot be sent waits
in a file, through restarts, and goes out in order with later calls or with `flush`.

A decision that cannot be had in time raises UnavailableError, and there is no default option to fall back to: the
service may have chosen another one and kept that, and feedback to the default would be learned as feedback to it. Take
your default, and send no feedback about it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from backchannel.client.core import Core, Do, Heard, Post, Reply, Step, Steps, Wait
from backchannel.client.queue import Queue
from backchannel.feedback import Kind
from backchannel.serve.records import DecideAnswer, DecideRequest, FeedbackRequest

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Options = Sequence[str] | Mapping[str, Mapping[str, Any]]


class Client:
    """The client for threads; one may serve many of them.

    Args:
        url: of the service, such as http://127.0.0.1:8423.
        token: its bearer token, if the service asks for one.
        timeout: seconds for one call to the service, with all its attempts.
        attempt: seconds for one attempt.
        queue: a file for feedback, shown and watched decisions that the service cannot take now.
        transport: how requests travel, such as httpx.HTTPTransport(verify=...); default: the network.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 10.0,
        attempt: float = 2.0,
        queue: str | os.PathLike[str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._httpx = _httpx()
        self.queue = Queue(queue) if queue is not None else None
        self._core = Core(url, timeout, attempt, self.queue)
        self._http = self._httpx.Client(headers=_headers(token), transport=transport)

    def decide(
        self,
        app: str,
        context: Mapping[str, Any] | None = None,
        options: Options | None = None,
        slate: int | None = None,
        id: str | None = None,
        *,
        defer: bool = False,
        action: str | None = None,
        propensity: float | None = None,
        baseline: str | None = None,
    ) -> DecideAnswer:
        """One decision; arguments are those of `DecideRequest`. The same id gives the same decision again."""
        request = _decision(context, options, slate, id, defer, action, propensity, baseline)
        return self.decide_many(app, [request])[0]

    def decide_many(self, app: str, requests: Sequence[DecideRequest]) -> list[DecideAnswer]:
        """Decisions in few calls, in the order of the requests."""
        return self._run(self._core.decide(app, requests))

    def feedback(
        self,
        app: str,
        decision: str,
        value: Any,
        kind: Kind = "reward",
        *,
        id: str | None = None,
        option: str | None = None,
        time: float | None = None,
        source: str | None = None,
    ) -> Heard:
        """One feedback to a decision; arguments are those of `FeedbackRequest`."""
        return self.feedback_many(app, [FeedbackRequest(decision, value, kind, id, option, time, source)])[0]

    def feedback_many(self, app: str, requests: Sequence[FeedbackRequest]) -> list[Heard]:
        """Feedback in few calls, in the order of the requests."""
        return self._run(self._core.feedback(app, requests))

    def shown(self, app: str, *decisions: str) -> list[Heard]:
        """Deferred decisions were shown: they count from now on."""
        return self._run(self._core.shown(app, decisions))

    def flush(self) -> int:
        """Send all that waits in the queue; returns how many items the service took. What it cannot take now stays.

        Raises:
            UnavailableError: the service cannot be reached.
            RefusedError: it refuses this token or application.
        """
        return self._run(self._core.flush())

    def _run(self, steps: Steps[T]) -> T:
        given = None
        while True:
            try:
                step = steps.send(given)
            except StopIteration as end:
                found: T = end.value
                return found
            given = self._take(step)

    def _take(self, step: Step) -> Any:
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        if isinstance(step, Do):
            return step.work(*step.given)
        try:
            answer = self._http.post(step.url, content=step.body, timeout=step.timeout)
        except self._httpx.RequestError as error:
            return _why(error)
        return Reply(answer.status_code, answer.content)

    def close(self) -> None:
        """Close connections and the queue; what waits stays in its file."""
        self._http.close()
        if self.queue is not None:
            self.queue.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """The same for an event loop; arguments are those of `Client`."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 10.0,
        attempt: float = 2.0,
        queue: str | os.PathLike[str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._httpx = _httpx()
        self.queue = Queue(queue) if queue is not None else None
        self._core = Core(url, timeout, attempt, self.queue)
        self._http = self._httpx.AsyncClient(headers=_headers(token), transport=transport)

    async def decide(
        self,
        app: str,
        context: Mapping[str, Any] | None = None,
        options: Options | None = None,
        slate: int | None = None,
        id: str | None = None,
        *,
        defer: bool = False,
        action: str | None = None,
        propensity: float | None = None,
        baseline: str | None = None,
    ) -> DecideAnswer:
        """As `Client.decide`."""
        request = _decision(context, options, slate, id, defer, action, propensity, baseline)
        return (await self.decide_many(app, [request]))[0]

    async def decide_many(self, app: str, requests: Sequence[DecideRequest]) -> list[DecideAnswer]:
        """As `Client.decide_many`."""
        return await self._run(self._core.decide(app, requests))

    async def feedback(
        self,
        app: str,
        decision: str,
        value: Any,
        kind: Kind = "reward",
        *,
        id: str | None = None,
        option: str | None = None,
        time: float | None = None,
        source: str | None = None,
    ) -> Heard:
        """As `Client.feedback`."""
        found = await self.feedback_many(app, [FeedbackRequest(decision, value, kind, id, option, time, source)])
        return found[0]

    async def feedback_many(self, app: str, requests: Sequence[FeedbackRequest]) -> list[Heard]:
        """As `Client.feedback_many`."""
        return await self._run(self._core.feedback(app, requests))

    async def shown(self, app: str, *decisions: str) -> list[Heard]:
        """As `Client.shown`."""
        return await self._run(self._core.shown(app, decisions))

    async def flush(self) -> int:
        """As `Client.flush`."""
        return await self._run(self._core.flush())

    async def _run(self, steps: Steps[T]) -> T:
        given = None
        while True:
            try:
                step = steps.send(given)
            except StopIteration as end:
                found: T = end.value
                return found
            given = await self._take(step)

    async def _take(self, step: Step) -> Any:
        if isinstance(step, Wait):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Do):
            return await asyncio.to_thread(step.work, *step.given)
        return await self._post(step)

    async def _post(self, step: Post) -> Reply | str:
        try:
            answer = await self._http.post(step.url, content=step.body, timeout=step.timeout)
        except self._httpx.RequestError as error:
            return _why(error)
        return Reply(answer.status_code, answer.content)

    async def close(self) -> None:
        """As `Client.close`."""
        await self._http.aclose()
        if self.queue is not None:
            self.queue.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _decision(
    context: Mapping[str, Any] | None,
    options: Options | None,
    slate: int | None,
    id: str | None,
    defer: bool,
    action: str | None,
    propensity: float | None,
    baseline: str | None,
) -> DecideRequest:
    offered: Any = options
    if isinstance(options, Mapping):
        offered = {name: dict(features) for name, features in options.items()}
    elif options is not None:
        offered = list(options)
    return DecideRequest(dict(context or {}), offered, id, slate, defer, action, propensity, baseline)


def _headers(token: str | None) -> dict[str, str]:
    return {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise ImportError("the client needs httpx: pip install 'backchannel[client]'") from None
    return httpx
