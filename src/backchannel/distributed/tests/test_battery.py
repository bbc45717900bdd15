"""The batteries, on every exchange, outer method and optimizer; and what is said when a process is missing."""

import pytest

pytest.importorskip("torch", reason="distributed methods need torch")

from backchannel.card import discover
from backchannel.testing.optimizer_battery import OPTIMIZER_CHECKS
from backchannel.testing.outer_battery import OUTER_CHECKS
from backchannel.testing.processes import run_processes
from backchannel.testing.torch_battery import (
    EXCHANGE_CHECKS,
    check_processes,
    in_two_processes,
)

ALL = list(discover("distributed"))
METHODS = [method for method in ALL if method.card.protocol == "exchange"]
OUTER = [method for method in ALL if method.card.protocol == "outer"]
OPTIMIZERS = [method for method in ALL if method.card.protocol == "optimizer"]


@pytest.fixture(scope="module")
def processes():
    return in_two_processes(METHODS + OUTER)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.key)
@pytest.mark.parametrize("check", EXCHANGE_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_every_exchange(check, method):
    check(method)


@pytest.mark.parametrize("method", OUTER, ids=lambda method: method.key)
@pytest.mark.parametrize("check", OUTER_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_every_outer_method(check, method):
    check(method)


@pytest.mark.parametrize("method", METHODS + OUTER, ids=lambda method: method.key)
def test_every_exchange_in_two_processes(method, processes):
    check_processes(method, processes)


@pytest.mark.parametrize("method", OPTIMIZERS, ids=lambda method: method.key)
@pytest.mark.parametrize("check", OPTIMIZER_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_every_optimizer(check, method):
    check(method)


def test_a_missing_or_failed_process_is_named(tmp_path):
    with pytest.raises(TimeoutError, match=r"rank 0, 1 did not answer within 0\.0 seconds"):
        in_two_processes(METHODS, timeout=0.0)
    with pytest.raises(RuntimeError, match="rank 0 of 1 failed: no such method"):
        run_processes("raise SystemExit('no such method')", lambda rank: [], 1, tmp_path, timeout=60.0)
