"""A real service on loopback, and ways to it that fail."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from backchannel.decide import learn as job
from backchannel.ledger.read import open_log
from backchannel.serve.config import AppConfig, Config, ServiceConfig, Token
from backchannel.serve.http import application
from backchannel.serve.security import new_token
from backchannel.serve.service import Service


class Live:
    """A service on a port of its own, which can be stopped and started again."""

    def __init__(self, config: Config) -> None:
        self._config = config
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.service: Service | None = None
        self.start()

    def start(self) -> None:
        self.service = Service(self._config)
        self.service.start()
        settings = uvicorn.Config(
            application(self.service), host="127.0.0.1", port=self.port, log_level="error", lifespan="off", ws="none"
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        end = time.monotonic() + 20
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            assert time.monotonic() < end, "the server did not start in time"
            time.sleep(0.005)

    def stop(self) -> None:
        if self.service is not None:
            self._server.should_exit = True
            self._thread.join()
            self.service.stop()
            self.service = None

    def ids(self, app: str, kind: Any) -> list[str]:
        """Of the entries of one kind, in the order of the ledger."""
        assert self.service is not None
        return [kept.entry.id for kept in self.service.ledger.read(app, 0, 10_000) if kept.entry.kind == kind]


class Drops(httpx.HTTPTransport):
    """Loses the answers to chosen requests, after the service has given them."""

    def __init__(self, *lost: int) -> None:
        super().__init__()
        self.lost, self.many, self.bodies = set(lost), 0, []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.many += 1
        self.bodies.append(request.read())
        answer = super().handle_request(request)
        if self.many in self.lost:
            answer.read()
            answer.close()
            assert answer.status_code == 200
            raise httpx.ReadError("the connection broke")
        return answer


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    rows = [f"{'abc'[i % 3]},{i % 5 == 0:d},0.5,{i % 7},{'xy'[i % 2]}" for i in range(200)]
    (folder / "log.csv").write_text("action,reward,propensity,context.size,context.city\n" + "\n".join(rows) + "\n")
    _, learned = job.learn(open_log(folder / "log.csv"), ["epsilon_greedy"])
    learned[0].save(folder / "first.policy")
    return folder / "first.policy"


@pytest.fixture
def live(policy: Path, tmp_path: Path) -> Iterator[Live]:
    """The applications "shop", which decides, and "watched", which does not."""
    apps = {"shop": AppConfig(policy=str(policy)), "watched": AppConfig(policy=str(policy), mode="watch")}
    found = Live(Config(app=apps, service=ServiceConfig(store=f"sqlite:{tmp_path / 'live.db'}")))
    yield found
    found.stop()


@pytest.fixture
def guarded(policy: Path, tmp_path: Path) -> Iterator[tuple[Live, Callable[..., str]]]:
    """The same application behind a token: the service, and the token."""
    token, digest = new_token()
    config = Config(
        app={"shop": AppConfig(policy=str(policy))},
        token=[Token("shop", digest, ["decide", "feedback"])],
        service=ServiceConfig(store=f"sqlite:{tmp_path / 'guarded.db'}"),
    )
    found = Live(config)
    yield found, token
    found.stop()
