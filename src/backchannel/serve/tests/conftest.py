"""A service over policies that a small log taught."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backchannel.decide import learn as job
from backchannel.ledger.read import open_log
from backchannel.serve.config import AppConfig, Config, ServiceConfig
from backchannel.serve.service import Service
from backchannel.serve.tests.postgres_server import Server, programs


class Taught(dict[str, Path]):
    """Key -> a policy file: three options, a number and a category. Each is learned when it is asked for."""

    def __init__(self, folder: Path):
        rows = [f"{'abc'[i % 3]},{i % 5 == 0:d},0.5,{i % 7},{'xy'[i % 2]}" for i in range(200)]
        self.log = folder / "log.csv"
        self.log.write_text("action,reward,propensity,context.size,context.city\n" + "\n".join(rows) + "\n")

    def __missing__(self, key: str) -> Path:
        _, (policy,) = job.learn(open_log(self.log), [key])
        self[key] = self.log.with_name(f"{key}.policy")
        policy.save(self[key])
        return self[key]


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """Policy files by the keys of their learners."""
    return Taught(tmp_path_factory.mktemp("policies"))


@pytest.fixture
def make(policies: dict[str, Path], tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """make(key, now=..., **fields of AppConfig): a service of the app "shop" that learns only when told to look."""
    made: list[Service] = []

    def build(key: str, now: Any = None, **app: Any) -> Service:
        store = f"sqlite:{tmp_path / f'{len(made)}.db'}"
        config = Config(app={"shop": AppConfig(policy=str(policies[key]), **app)}, service=ServiceConfig(store=store))
        service = Service(config)
        if now is not None:
            service.apps["shop"].now = now
        made.append(service)
        return service

    yield build
    for service in made:
        service.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server."""
    folder = programs()
    if folder is None:
        raise RuntimeError(
            "no PostgreSQL that this user (in place of root: nobody) may run: pip install 'backchannel[test]' into a "
            "folder that this user may enter, or install Debian's postgresql"
        )
    server = Server(folder)
    yield server
    server.end()
