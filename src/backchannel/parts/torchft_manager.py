"""torchft's Manager for a worker that is one process, with the process group and the store that it wants.

torchft is made for workers of several processes each, and asks every worker for a store of its own, through which the
workers of a quorum meet. This store, the Manager and the server from which a worker that catches up takes its model
must be where the others reach them: at the address of the interface by which this process reaches the lighthouse. Of
itself torchft would tell them the name of the machine, which they may not know.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from torch.distributed import TCPStore  # type: ignore[attr-defined]


class Managed(NamedTuple):
    """The Manager, its process group, which each quorum makes anew, and the store: it lives as long as it is held."""

    manager: Any
    processes: Any
    store: TCPStore


def managed(
    name: str,
    lighthouse: str,
    least: int,
    limit: float,
    save: Callable[[], dict[str, Any]],
    load: Callable[[dict[str, Any]], None],
    differ: bool,
) -> Managed:
    """A Manager over gloo, that waits for each quorum.

    Args:
        name: of this worker, which no other has.
        lighthouse: "http://host:port".
        least: workers without which there is no quorum.
        limit: seconds that any wait may take.
        save: what one who catches up needs.
        load: what one who catches up does with it.
        differ: whether workers may begin with different models, so that all but one catch up at once.

    Raises:
        ImportError: without torchft.
        ValueError: for an address that is none.
        RuntimeError: if the lighthouse does not answer.
    """
    try:
        from torchft import Manager, ProcessGroupGloo
        from torchft.checkpointing import HTTPTransport
    except ImportError as error:
        raise ImportError("this needs torchft: pip install 'backchannel[elastic]'") from error
    own, within = reaching(lighthouse), timedelta(seconds=limit)

    class Transport(HTTPTransport[Any]):  # type: ignore[misc]
        """At an address instead of a name."""

        def address(self) -> str:
            told = urlsplit(super().address())
            return told._replace(netloc=f"{own}:{told.port}").geturl()

    store = TCPStore(own, 0, is_master=True, wait_for_workers=False, timeout=within)
    processes = ProcessGroupGloo(timeout=within)
    manager = Manager(
        pg=processes,
        load_state_dict=load,
        state_dict=save,
        min_replica_size=least,
        use_async_quorum=False,
        init_sync=differ,
        timeout=within,
        quorum_timeout=within,
        connect_timeout=within,
        rank=0,
        world_size=1,
        store_addr=own,
        store_port=store.port,
        hostname=own,
        lighthouse_addr=lighthouse,
        replica_id=name,
        checkpoint_transport=Transport(within, num_chunks=0),
    )
    return Managed(manager, processes, store)


def reaching(lighthouse: str) -> str:
    """The IPv4 address of this machine's interface towards a lighthouse at "http://host:port"; nothing is sent."""
    try:
        parts = urlsplit(lighthouse)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise ValueError(f"a lighthouse is at http://host:port, not at {lighthouse!r}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((host, port))
        except OSError as error:
            raise RuntimeError(f"the lighthouse at {lighthouse} cannot be reached: {error}") from error
        return str(asked.getsockname()[0])
