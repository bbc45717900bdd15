"""Apart: a method of local updates around an ordinary training script.

    apart = backchannel.distributed.wrap(model, optimizer, method=sparse_loco(steps=30))
    for batch in batches:                       # each process has its own
        loss(model, batch).backward()
        optimizer.step()                        # after this step, and when a round is due, the method exchanges
        optimizer.zero_grad()
    apart.settle()                              # the model that all have in common

What is counted is calls of `optimizer.step`: accumulated gradients are one step, and a step that a gradient scaler
skips is none. All processes must make the same number of steps: who makes fewer is missed. The model is the plain
module: `DistributedDataParallel` averages gradients in every step, and is refused. Of a sharded model (FSDP), each
exchanges its own shards with the processes that hold the same ones elsewhere: give it a Comm of these.

If an exchange fails, all processes raise; model and state are as they were before it. `settle` still works;
`state_dict` raises where an answer that was on its way is lost. Buffers (the running means of a batch norm) are not
exchanged, and parameters that are frozen when the model is wrapped never are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

import backchannel
from backchannel.parts.comm import NO_GRADIENT, Comm, TorchComm
from backchannel.parts.outer import Outer, check_method
from backchannel.parts.sharded import is_sharded
from backchannel.parts.watch import Monitor, Watch

_wrapped: WeakSet[nn.Module] = WeakSet()


def wrap(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    method: Outer,
    comm: Comm | None = None,
    saved: Mapping[str, Any] | None = None,
    monitor: Monitor | None = None,
) -> Apart:
    """Exchange by `method` after the steps of `optimizer`.

    Args:
        model: whose trainable parameters are exchanged; the same weights in every process.
        optimizer: the inner one; `accelerate`'s is fine, too.
        method: `diloco(...)`, `sparse_loco(...)` or another whose protocol is "outer".
        comm: default one worker in each process of the default group of `torch.distributed`.
        saved: a `state_dict` to go on from, where the model has been loaded already.
        monitor: hears how long each process computes and exchanges: `c4(processes)` of `distributed/c4.py` names who is
            slow or hangs. Each fault is a RuntimeWarning.

    Raises:
        ValueError: if weights, the method's settings or versions differ between processes, if parameters are on
            several devices, or if the model is wrapped already or is in another wrapper.
        RuntimeError: if there is no process group, or a process does not come.
    """
    check_method(method)
    check_model(model)
    reshard(model)
    check_shards(model, comm)
    if model in _wrapped:
        raise ValueError("the model is wrapped already: settle() ends that")
    return Apart(model, optimizer, method, TorchComm() if comm is None else comm, saved, monitor)


class Apart:
    """A method at work; made by `wrap`. `comm.up` counts bits, `info` is of the last exchange, `t` counts steps."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        method: Outer,
        comm: Comm,
        saved: Mapping[str, Any] | None = None,
        monitor: Monitor | None = None,
    ):
        self.parameters = [each for each in model.parameters() if each.requires_grad]
        self.method, self.comm, self.t = method, comm, 0
        self.info: Any = None
        start = flat(self.parameters)
        if monitor is not None and not isinstance(comm, TorchComm):
            raise ValueError("a monitor hears processes of a group: comm must be a TorchComm")
        if len(comm.workers) != 1:
            raise ValueError(f"one worker lives in a process that trains one model, not {len(comm.workers)}")
        if isinstance(comm, TorchComm):
            comm.group.same("the version of backchannel", _digest(backchannel.__version__.encode()))
            comm.group.same("the method or its settings", _digest(terms(method).encode()))
            comm.group.same("whether there is a monitor", int(monitor is not None))
            if saved is None:
                comm.group.same("the weights at the start", _digest(start.cpu().numpy().tobytes()))
        self.state = method.init(comm, start[None])
        self._trained = False
        self._watch: Watch | None = None
        if saved is not None:
            self.load_state_dict(saved)
        if monitor is not None and isinstance(comm, TorchComm):
            self._watch = Watch(monitor, comm.group)
        self._model = model
        _wrapped.add(model)
        inner = getattr(optimizer, "optimizer", optimizer)  # of accelerate's
        self._hook = inner.register_step_post_hook(lambda *_: self._stepped())

    def _stepped(self) -> None:
        """After an inner step: exchange, if it is time; the parameters change only when all of it is done."""
        self.t += 1
        self._trained = self._trained or any(
            each.grad is not None and bool(_own(each.grad).any()) for each in self.parameters
        )
        if not self.method.due(self.t):
            return
        if not self._trained:
            self.comm.refuse(NO_GRADIENT)
        now = flat(self.parameters)
        if len(now) != len(self.state.x):
            had = len(self.state.x)
            raise ValueError(f"the parameters have {len(now):,} entries now and had {had:,}: did one change its shape?")
        with self._watch.exchange() if self._watch else nullcontext():
            rows, state, info = self.method.step(self.comm, now[None], self.state, self.t)
        put(self.parameters, rows[0])
        self.state, self.info, self._trained = state, info, False

    def settle(self) -> None:
        """End: wait for what is on its way, drop it, and put the model that all have in common into the parameters."""
        self._hook.remove()
        _wrapped.discard(self._model)
        self.comm.drop()
        if self._watch:
            self._watch.close()
        reshard(self._model)
        put(self.parameters, self.state.x)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on to the last bit, beside the states of model and optimiser."""
        with self._watch.waiting() if self._watch else nullcontext():
            pending = self.comm.pending()
        return {
            "method": terms(self.method),
            "t": self.t,
            "state": self.state._asdict(),
            "pending": pending,
            "bits": (self.comm.up, self.comm.down),
            "trained": self._trained,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """`state_dict` undone. ValueError if it is of another method or model, or differs between processes."""
        fields, own = saved["state"], self.state._asdict()
        if saved["method"] != terms(self.method):
            raise ValueError("this state is of another method, or of other settings")
        if fields.keys() != own.keys() or any(fields[name].shape != own[name].shape for name in own):
            raise ValueError("this state is of another method or of another model")
        if isinstance(self.comm, TorchComm):
            own_x = _digest(fields["x"].cpu().numpy().tobytes() + str(saved["t"]).encode())
            self.comm.group.same("the checkpoint's steps or model", own_x)
        self.t, self._trained = saved["t"], saved["trained"]
        self.state = type(self.state)(**fields)
        self.comm.restore(dict(saved["pending"]))
        self.comm.up, self.comm.down = saved["bits"]
        if self._watch:
            self._watch.begin()


def check_model(model: nn.Module) -> None:
    """ValueError if the model is in a wrapper of torch's own that brings gradients together."""
    if isinstance(model, DistributedDataParallel):
        raise ValueError("the model is in DistributedDataParallel, which sends every gradient: wrap the plain module")
    if isinstance(model, DataParallel):
        raise ValueError("the model is in DataParallel: wrap the plain module, in one process for each device")


def reshard(model: nn.Module) -> None:
    """Have a model of `fully_shard` hold its shards alone: after an evaluation its root still holds all of itself."""
    some: Any = model.modules()
    for each in some:
        if is_sharded(each):
            each.reshard()


def check_shards(model: nn.Module, comm: Comm | None) -> None:
    """ValueError if the model is sharded in a way in which its shards cannot be exchanged for themselves."""
    if any(type(each).__name__ == "FullyShardedDataParallel" for each in model.modules()):
        raise ValueError("the model is in FullyShardedDataParallel, whose parameters move: shard it by fully_shard")
    for each in list[Any](model.parameters()):
        if not hasattr(each, "to_local") or each.device_mesh.size() == 1:
            continue
        if each.device_mesh.ndim > 1 and each.placements[0].is_replicate():
            raise ValueError(
                "the model is replicated over the first dimension of its mesh (HSDP), which sends every gradient: "
                "shard it over the other dimension alone, and let comm be of the first"
            )
        if comm is None:
            raise ValueError(
                "the model is sharded: let comm be of the processes that hold the same shards, as "
                "TorchComm(group=current(group))"
            )


def flat(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters behind one another, in float32 at least: a copy, [d]. ValueError unless they share a device."""
    parts = [_own(each).detach().reshape(-1) for each in parameters]
    if any(each.is_complex() for each in parts):
        raise ValueError("complex parameters cannot be exchanged")
    if not parts:
        raise ValueError("the model has no parameters that are trained")
    if len(devices := {str(each.device) for each in parts}) > 1:
        raise ValueError(f"all parameters must be on one device; these are on {', '.join(sorted(devices))}")
    return torch.cat([each if each.dtype == torch.float64 else each.float() for each in parts])


def put(parameters: Iterable[Tensor], vector: Tensor) -> None:
    """`flat` undone, in place. ValueError if the sizes do not fit."""
    own = [_own(each).detach() for each in parameters]
    if (size := sum(each.numel() for each in own)) != len(vector):
        raise ValueError(f"the parameters have {size:,} entries now and had {len(vector):,}: did one change its shape?")
    with torch.no_grad():
        for each, part in zip(own, vector.split([each.numel() for each in own]), strict=True):
            each.copy_(part.view_as(each))


def terms(what: Any) -> str:
    """A method in words: the functions that it is made of, and the numbers and words that they hold."""
    if isinstance(what, (bool, int, float, str, type(None))):
        return repr(what)
    if isinstance(what, tuple):
        return f"({', '.join(map(terms, what))})"
    if isinstance(what, Callable) and hasattr(what, "__code__"):  # type: ignore[arg-type]
        held = zip(what.__code__.co_freevars, what.__closure__ or (), strict=True)
        inside = (f"{name}={terms(cell.cell_contents)}" for name, cell in held)
        return f"{what.__module__}.{what.__qualname__}({', '.join(inside)})"
    return type(what).__name__


def _own(x: Tensor) -> Tensor:
    """What this process holds of a tensor that may be sharded."""
    local: Tensor = x.to_local() if hasattr(x, "to_local") else x
    return local


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "little")
