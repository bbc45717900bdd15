"""Elastic: training apart with workers that die, come back and join, by torchft's quorum.

    apart = backchannel.distributed.wrap_elastic(model, optimizer, sparse_loco(30), "worker-3", "http://host:29510")

Before each exchange the workers that are alive form a quorum, at a lighthouse: a small server that torchft brings along
(`torchft_lighthouse`). If one dies during the exchange, the round is discarded: those who saw it fail begin it again
from where it began. One who missed a round, or is new, takes model, outer state and optimiser from another, and what it
had learned is dropped; what it remembers unsent begins at 0. Who brings nothing counts as one that stood still. One
whose method, settings, shapes or version are others leaves with an error as it catches up; one whose numbers are not
finite leaves, and costs the others a round.

What the lighthouse is to this, it is to everybody: without it no round can begin, and each worker says so.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

import backchannel
from backchannel.parts.apart import check_model, flat, put, terms
from backchannel.parts.comm import Stacked, TorchComm
from backchannel.parts.group import Group
from backchannel.parts.outer import Outer, check_method
from backchannel.parts.sharded import is_sharded
from backchannel.parts.torchft_manager import managed


def wrap_elastic(
    model: nn.Module,
    optimizer: Any,
    method: Outer,
    name: str,
    lighthouse: str,
    least: int = 1,
    limit: float = 60.0,
) -> Elastic:
    """Exchange by `method` after the steps of `optimizer`, with whoever is alive.

    Args:
        model: whose trainable parameters are exchanged; a worker that joins late may begin with any.
        optimizer: the inner one.
        method: an outer method that waits for its exchanges: `diloco(...)` or `sparse_loco(...)`.
        name: of this worker, which no other has.
        lighthouse: address of the lighthouse: "http://host:port".
        least: workers without which no round is made.
        limit: seconds that any wait may take.

    Raises:
        ImportError: without torchft.
        ValueError: for a method that does not wait for its exchanges, a model in DataParallel or
            DistributedDataParallel, or an address that is none.
        RuntimeError: if the lighthouse does not answer.
    """
    check_method(method)
    check_model(model)
    if any(is_sharded(each) for each in model.modules()):
        raise ValueError(
            "elastic training takes no sharded model, whose shards would be taken for one another: use wrap"
        )
    return Elastic(model, optimizer, method, name, lighthouse, least, limit)


class Elastic:
    """A method at work among workers that come and go; made by `wrap_elastic`.

    `t` counts steps, `rounds` those that were committed, `lost` those that were not, `up` bits; `workers` says how many
    took part, round by round.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        method: Outer,
        name: str,
        lighthouse: str,
        least: int,
        limit: float,
    ):
        self.parameters = [each for each in model.parameters() if each.requires_grad]
        self.optimizer, self.method = getattr(optimizer, "optimizer", optimizer), method
        self._lighthouse = lighthouse
        self._begun = {
            "version of backchannel": backchannel.__version__,
            "method or its settings": terms(method),
            "parameters' shapes": str([tuple(each.shape) for each in self.parameters]),
        }
        self._least, self._limit = least, limit
        self.t = self.rounds = self.lost = self.up = 0
        self.workers: list[int] = []  # how many there were, round by round
        start, alone = flat(self.parameters)[None], Stacked(1)
        self.state = method.init(alone, start)
        method.step(alone, start, self.state, next(t for t in range(1, 1_000_000) if method.due(t)))
        if alone.pending():
            raise ValueError(
                "elastic training needs a method that waits for its exchanges, as diloco and sparse_loco do"
            )
        found = managed(name, lighthouse, least, limit, self._shared, self._catch_up, differ=True)
        self._manager, self._processes = found.manager, found.processes
        self._store: Any = found.store
        self._hook = self.optimizer.register_step_post_hook(lambda *_: self._stepped())

    def _stepped(self) -> None:
        self.t += 1
        if not self.method.due(self.t):
            return
        try:
            self._manager.start_quorum()  # may call _catch_up
        except (RuntimeError, TimeoutError) as error:
            raise RuntimeError(
                f"no quorum within {self._limit:g} seconds: does the lighthouse at {self._lighthouse} answer, and are "
                f"{self._least} workers there? ({error})"
            ) from error
        made = None
        if not self._manager.errored():  # else the quorum itself failed
            group = Group(self._processes)
            comm = TorchComm(group=group)
            try:
                made = self.method.step(comm, flat(self.parameters)[None], self.state, self.t)
            except RuntimeError as error:
                self._manager.report_error(error)
            except ValueError as error:  # a worker's numbers are not finite: it leaves, and the round is lost to others
                if not bool(torch.isfinite(flat(self.parameters)).all()):
                    raise
                self._manager.report_error(error)
            finally:
                group.close()
        if self._manager.should_commit() and made is not None:
            rows, self.state, _ = made
            put(self.parameters, rows[0])
            self.rounds, self.up = self.rounds + 1, self.up + comm.up
            self.workers.append(comm.size)
        else:
            put(self.parameters, self.state.x)  # the round begins again
            self.lost += 1

    def close(self) -> None:
        """Leave, and let go of the store: the others go on."""
        self._hook.remove()
        with contextlib.suppress(RuntimeError):  # torchft's own threads may be gone already
            self._manager.shutdown(wait=False)
        self._store = None

    def _shared(self) -> dict[str, Any]:
        """What one who catches up needs."""
        shared = {name: value for name, value in self.state._asdict().items() if value.dim() == 1}
        progress = {"rounds": self.rounds, "t": self.t, "begun": self._begun}
        return {"shared": shared, "optimizer": self.optimizer.state_dict(), **progress}

    def _catch_up(self, saved: dict[str, Any]) -> None:
        """Take over what others have; ValueError, and nothing is taken over, if theirs is another training."""
        for name, mine in self._begun.items():
            theirs = saved["begun"].get(name)
            if theirs != mine:
                raise ValueError(f"the {name} must be the same in all workers: others have {theirs}, this one {mine}")
        own = {name: torch.zeros_like(value) for name, value in self.state._asdict().items() if value.dim() == 2}
        self.state = type(self.state)(**{**saved["shared"], **own})
        self.rounds, self.t = saved["rounds"], saved["t"]
        self.optimizer.load_state_dict(saved["optimizer"])
        put(self.parameters, self.state.x)
