"""Whether a module's weights are shards of `fully_shard`, without importing what that needs: it takes a second."""

from __future__ import annotations

import sys
from typing import Any


def is_sharded(module: Any) -> bool:
    """Whoever has called `fully_shard` has imported it."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)
