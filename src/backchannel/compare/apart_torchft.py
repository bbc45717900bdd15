"""torchft's own DiLoCo as a contestant: its manager, its process group, one fragment, the same outer optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from backchannel.parts.torchft_manager import managed, reaching


def begin(model: nn.Module, optimizer: Any, every: int, rank: int, workers: int, address: str, limit: float) -> Any:
    """Start it for this worker; keep what is returned. ImportError without torchft."""
    from torchft.coordination import LighthouseServer
    from torchft.local_sgd import DiLoCo

    host, _, port = address.rpartition(":")
    lighthouse, server = f"http://{host}:{int(port) + 1}", None
    if rank == 0:
        bind = f"{reaching(lighthouse)}:{int(port) + 1}"
        server = LighthouseServer(bind=bind, min_replicas=workers, join_timeout_ms=60_000)
    own = managed(f"worker-{rank}", lighthouse, workers, limit, dict, lambda saved: None, differ=False)
    outer = torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.9, nesterov=True)
    method = DiLoCo(own.manager, [model], optimizer, outer, every, pin_memory=False)
    method.__enter__()
    return server, own, method
