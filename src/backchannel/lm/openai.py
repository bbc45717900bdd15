"""One real client: any HTTP service that speaks the OpenAI chat completions format.

Needs `pip install backchannel[lm]`. That is most services: the format is served by commercial ones and by local
servers (llama.cpp, vLLM, Ollama) alike.

    async with OpenAICompatible("some-model", base_url="http://127.0.0.1:8080/v1") as lm:
        reply = await lm.complete([user("Hello.")], max_tokens=20)

Answers 408, 409, 429 and 5xx, timeouts and broken connections are tried again, after a wait that doubles (with
jitter), or as long as the service asks for in `Retry-After`. Anything else is a `LanguageModelError` of one sentence.
The key is an argument; it is in no message, no `repr` and on no tape. Outside `async with`, each call opens a
connection of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any

from backchannel.lm.protocol import LanguageModelError, Message, Reply, count_tokens

_AGAIN = frozenset({408, 409, 429})
_LONGEST = 60.0  # seconds between two tries


class OpenAICompatible:
    """A language model behind an HTTP endpoint."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        key: str = "",
        timeout: float = 120.0,
        tries: int = 6,
        backoff: float = 0.5,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        """A client.

        Args:
            model: as the service calls it.
            base_url: up to, not including, `/chat/completions`.
            key: sent as a bearer token if it is not empty.
            timeout: seconds for one try.
            tries: most tries for one call.
            backoff: seconds before the second try; doubles with each.
            sleep: how to wait between tries.
        """
        if tries < 1 or timeout <= 0:
            raise ValueError(f"tries must be at least 1 and timeout above 0, not {tries} and {timeout}")
        self.model = model
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.timeout = timeout
        self.tries = tries
        self.backoff = backoff
        self._key = key
        self._sleep = sleep
        self._client: Any = None

    def __repr__(self) -> str:
        return f"OpenAICompatible({self.model!r}, {self.url!r})"

    @property
    def name(self) -> str:
        """The service's name of the model."""
        return self.model

    async def __aenter__(self) -> OpenAICompatible:
        self._client = _httpx().AsyncClient(timeout=self.timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        await client.aclose()

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Reply:
        """The service's answer; LanguageModelError if it gives none."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        body |= {"stop": list(stop)} if stop else {}
        body |= {"seed": seed} if seed is not None else {}
        async with AsyncExitStack() as stack:
            client = self._client or await stack.enter_async_context(_httpx().AsyncClient(timeout=self.timeout))
            return self._read(await self._post(client, body), messages)

    async def _post(self, client: Any, body: dict[str, Any]) -> str:
        """The text of a good answer, after as many tries as it takes."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        for number in range(1, self.tries + 1):
            wait = self.backoff * 2 ** (number - 1) * (0.75 + 0.5 * random.random())
            try:
                response = await client.post(self.url, json=body, headers=headers)
            except _httpx().TimeoutException:
                trouble = f"no answer within {self.timeout:g} seconds"
            except _httpx().TransportError as error:
                trouble = f"no connection ({type(error).__name__})"
            else:
                if response.status_code == 200:
                    return str(response.text)
                trouble = f"answer {response.status_code}: {self._complaint(response.text)}"
                if response.status_code not in _AGAIN and response.status_code < 500:
                    raise LanguageModelError(f"{self.url}: {trouble}")
                wait = _seconds(response.headers.get("retry-after")) or wait
            if number < self.tries:
                await self._sleep(min(wait, _LONGEST))
        raise LanguageModelError(f"{self.url}: {trouble}; gave up after {self.tries} tries")

    def _read(self, text: str, messages: Sequence[Message]) -> Reply:
        try:
            answer = json.loads(text)
            choice = answer["choices"][0]
            content = choice["message"]["content"] or ""
            if not isinstance(content, str):
                raise TypeError("a text is needed")
            ended = choice.get("finish_reason")
            usage = dict(answer.get("usage") or {})  # some local servers do not count
        except (ValueError, LookupError, TypeError, AttributeError):
            raise LanguageModelError(f"{self.url}: not a chat completion: {self._complaint(text)}") from None
        tokens_in = usage.get("prompt_tokens", count_tokens(messages))
        tokens_out = usage.get("completion_tokens", count_tokens(content))
        return Reply(content, tokens_in, tokens_out, "length" if ended == "length" else "stop")

    def _complaint(self, text: str) -> str:
        """What the service said, short, on one line, and without the key."""
        with suppress(ValueError, LookupError, TypeError):  # not the usual shape of an error: quote it as it is
            text = json.loads(text)["error"]["message"]
        text = " ".join(str(text).split())
        return (text.replace(self._key, "[key]") if self._key else text)[:300]


def _seconds(header: str | None) -> float | None:
    """A Retry-After in seconds; None if there is none or it is a date."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise ImportError("a real language model needs httpx: pip install 'backchannel[lm]'") from None
    return httpx
