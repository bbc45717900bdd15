"""The torch battery: what must hold for every exchange. Public, for methods of one's own:

    from backchannel.card import Method
    from backchannel.testing.torch_battery import EXCHANGE_CHECKS

    @pytest.mark.parametrize("check", EXCHANGE_CHECKS, ids=lambda check: check.__name__)
    def test_my_exchange(check):
        check(Method("my_exchange", "distributed", my_module.CARD, my_module))

Exchanges are tried on a small quadratic whose every number is a dyadic fraction, so that float64 is exact and "the
same" means the same to the last bit. A check raises AssertionError. Nothing is left to luck.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections import namedtuple
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from backchannel.card import Method, find
from backchannel.parts.comm import Comm, Stacked, TorchComm
from backchannel.parts.compressors import Compressor, Message, contractive, identity, natural, rand_k, top_k
from backchannel.parts.exchange import Problem
from backchannel.parts.outer import Outer
from backchannel.testing.battery import check_card
from backchannel.testing.processes import run_processes

Check = Callable[[Method], None]

WORKERS, DIMENSION, ROUNDS = 4, 3, 6


def arena() -> Problem:
    """Four workers whose curvatures and centres are dyadic numbers: six rounds of descent are exact in float64."""
    curvature = torch.tensor([[1.0, 0.5, 1.0], [0.5, 1.0, 1.0], [2.0, 1.0, 1.0], [2.0, 4.0, 1.0]], dtype=torch.float64)
    centres = torch.tensor(
        [[3.0, -1.0, 2.0], [0.0, 4.0, -2.0], [-5.0, 1.0, 1.0], [2.0, 2.0, -7.0]], dtype=torch.float64
    )

    def gradients(x: Tensor, local: Tensor) -> Tensor:
        return curvature[local] * (x - centres[local])

    def loss(x: Tensor) -> Tensor:
        return (curvature * (x - centres).square()).sum() / (2 * WORKERS)

    return Problem(gradients, loss, float(curvature.mean(0).max()), curvature.max(1).values, DIMENSION)


def check_state_is_tensors(method: Method) -> None:
    """A State is a NamedTuple of tensors with the model as `x`; a step leaves the State that it was given alone."""
    problem, comm = arena(), Stacked(WORKERS)
    exchange = method.example()
    state = exchange.init(comm, problem.oracle(comm), _start())
    for name, value in state._asdict().items():
        assert isinstance(value, Tensor), f"{method.key}: State.{name} is a {type(value).__name__}, not a tensor"
    assert state.x.shape == (DIMENSION,)
    before = [value.clone() for value in state]
    after, info = exchange.step(comm, problem.oracle(comm), state)
    assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True)), f"{method.key}: a step changed its input"
    assert type(after) is type(state), f"{method.key}: a step changes the State's type"
    assert all(isinstance(value, Tensor) for value in info), f"{method.key}: Info is not all tensors"
    moved = _play(exchange, Stacked(WORKERS), ROUNDS).x
    assert not torch.equal(moved, _start()), f"{method.key}: the model has not moved after {ROUNDS} rounds"


def check_identity_is_gradient_descent(method: Method) -> None:
    """For exchanges with a compressor and a step size: uncompressed, it is gradient descent, to the last bit."""
    if not {"compressor", "step_size"} <= set(method.card.example):
        return
    problem, everyone = arena(), torch.arange(WORKERS)
    x, step = _start(), method.card.example["step_size"]
    for _ in range(ROUNDS):
        x = x - step * problem.gradients(x, everyone).mean(0)
    state = _play(_with(method, identity()), Stacked(WORKERS), ROUNDS)
    assert torch.equal(state.x, x), f"{method.key}: uncompressed it is not gradient descent: {state.x} against {x}"


def check_bits_are_bytes(method: Method) -> None:
    """The bits counted are those of the packed messages, and the messages survive being packed."""
    for name, exchange in _variants(method).items():
        counted, packed = Stacked(WORKERS), _Packing(WORKERS)
        one, other = _play(exchange, counted, ROUNDS), _play(exchange, packed, ROUNDS)
        assert counted.up == packed.up, f"{method.key}, {name}: {counted.up} bits counted, {packed.up} packed"
        assert counted.down == packed.down
        _assert_same(one, other, f"{method.key}, {name}: packing a message changes it")


def check_resume(method: Method) -> None:
    """Going on from a state dict, through bytes, is going on without a stop, to the last bit."""
    for name, exchange in _variants(method).items():
        whole, half = _play(exchange, Stacked(WORKERS), ROUNDS), _play(exchange, Stacked(WORKERS), ROUNDS // 2)
        file = io.BytesIO()
        torch.save(half._asdict(), file)
        file.seek(0)
        again = type(half)(**torch.load(file, weights_only=True))
        rest = _play(exchange, Stacked(WORKERS), ROUNDS - ROUNDS // 2, again)
        _assert_same(whole, rest, f"{method.key}, {name}: resuming is not the same")


EXCHANGE_CHECKS: tuple[Check, ...] = (
    check_card,
    check_state_is_tensors,
    check_identity_is_gradient_descent,
    check_bits_are_bytes,
    check_resume,
)


class Processes(NamedTuple):
    """What came of the methods in two processes: for each rank, key -> variant -> (State, bits up, bits down)."""

    results: list[dict[str, dict[str, tuple[dict[str, Tensor], int, int]]]]


def in_two_processes(methods: Sequence[Method], timeout: float = 120.0) -> Processes:
    """Run each method in two processes over gloo, two workers in each, on the loopback interface.

    The port is free because the store that takes it lives here. If a process does not answer within `timeout` seconds,
    or fails, TimeoutError or RuntimeError names its rank and shows what it wrote.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    names = [f"{method.family}.{method.key}" for method in methods]
    code = "from backchannel.testing.torch_battery import _process; _process()"
    with tempfile.TemporaryDirectory() as folder:
        run_processes(code, lambda rank: [str(rank), str(store.port), folder, *names], 2, Path(folder), timeout)
        return Processes([torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)])


def check_processes(method: Method, processes: Processes) -> None:
    """`TorchComm` in two processes gives the numbers and bits of `Stacked` in one."""
    for name, exchange in _variants(method).items():
        comm = Stacked(WORKERS)
        state = _play(exchange, comm, ROUNDS)._asdict()
        for rank, result in enumerate(processes.results):
            other, up, down = result[method.key][name]
            assert (up, down) == (comm.up, comm.down), f"{method.key}, {name}: rank {rank} counts other bits"
            for field, value in state.items():
                local = 2 * rank if value.shape[:1] == (WORKERS,) else None
                expected = value if local is None else value[local : local + 2]
                message = f"{method.key}, {name}: {field} in rank {rank} is not that of one process"
                torch.testing.assert_close(other[field], expected, rtol=1e-13, atol=1e-13, msg=message)


def play_outer(method: Outer, comm: Comm, steps: int, begin: dict[str, Any] | None = None) -> Any:
    """Workers that descend the arena's quadratics by themselves, with an outer method: its State, and `t` and `rows`.

    Args:
        begin: what this returned, as a dict, with `pending` of the Comm beside it, to go on from.
    """
    problem = arena()
    if begin is None:
        rows, t = _start().expand(len(comm.workers), DIMENSION).clone(), 0
        state = method.init(comm, rows)
    else:
        begin = dict(begin)
        comm.restore(begin.pop("pending"))
        rows, t = begin.pop("rows"), int(begin.pop("t"))
        state = type(method.init(Stacked(len(rows)), rows))(**begin)
    for now in range(t + 1, t + steps + 1):
        rows = rows - 0.125 * problem.gradients(rows, comm.workers)
        if method.due(now):
            rows, state, _ = method.step(comm, rows, state, now)
    fields = {**state._asdict(), "t": torch.tensor([t + steps]), "rows": rows}
    return namedtuple("Played", fields)(**fields)


# ---- private


class _Packing(Stacked):
    """Stacked, with every message sent through bytes."""

    def gather(self, message: Message, compressor: Compressor, who: Tensor | None = None) -> Tensor:
        packed = compressor.pack(message)
        self.up += sum(8 * len(one) for one in packed)
        return compressor.decompress(compressor.unpack(packed, message.dimension, message.values.dtype))

    def send(self, message: Message, compressor: Compressor, who: Tensor | None = None) -> Tensor:
        packed = compressor.pack(message)
        self.down += 8 * len(packed[0]) * (self.size if who is None else len(who))
        return compressor.decompress(compressor.unpack(packed, message.dimension, message.values.dtype))[0]


def _start() -> Tensor:
    return torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)


def _with(method: Method, compressor: Compressor) -> Any:
    return method.factory(**{**method.card.example, "compressor": compressor})


def _variants(method: Method) -> dict[str, Any]:
    """The card's example, and with other compressors where it takes one: greedy, random and random in its values."""
    if "compressor" not in method.card.example:
        return {"example": method.example()}
    compressors = {"top_k": top_k(2), "rand_k": contractive(rand_k(1)), "natural": natural(), "identity": identity()}
    return {"example": method.example()} | {name: _with(method, each) for name, each in compressors.items()}


def _play(exchange: Any, comm: Comm, rounds: int, state: Any = None) -> Any:
    if isinstance(exchange, Outer):
        return play_outer(exchange, comm, rounds)
    gradient = arena().oracle(comm)
    if state is None:
        state = exchange.init(comm, gradient, _start())
    for _ in range(rounds):
        state, _ = exchange.step(comm, gradient, state)
    return state


def _assert_same(one: Any, other: Any, message: str) -> None:
    for name, a, b in zip(one._fields, one, other, strict=True):
        assert torch.equal(a, b), f"{message}: State.{name}"


def _process() -> None:
    """What one of the two processes does."""
    rank, port, folder, *names = sys.argv[1:]
    store = TCPStore("127.0.0.1", int(port), is_master=False)
    dist.init_process_group("gloo", store=store, rank=int(rank), world_size=2)
    results: dict[str, Any] = {}
    for family, key in (name.split(".") for name in names):
        results[key] = {}
        for variant, exchange in _variants(find(key, family)).items():
            comm = TorchComm(WORKERS // 2)
            state = _play(exchange, comm, ROUNDS)
            comm.pending()  # what is on its way is counted when it is there
            results[key][variant] = (dict(state._asdict()), comm.up, comm.down)
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
