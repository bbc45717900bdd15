"""Patience: calls that may never answer, such as those to a store whose machine is gone.

    within(5.0, lambda: store.get("key"))

The call is made in a thread of its own. If it takes too long, its caller goes on and the thread is left to itself. At
the interpreter's exit such threads are given a last moment: one that comes back from native code while the
interpreter is being torn down makes the process abort with all done.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

LAST = 2.0  # seconds that all threads together are waited for at the exit
_threads: WeakSet[threading.Thread] = WeakSet()


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` returns or raises.

    Raises:
        TimeoutError: if it takes longer than `seconds`.
    """
    found: list[tuple[Any, Exception | None]] = []

    def run() -> None:
        try:
            found.append((call(), None))
        except Exception as error:  # raised again below, in the thread that asked
            found.append((None, error))

    thread = threading.Thread(target=run, daemon=True, name="backchannel-asks")
    _threads.add(thread)
    thread.start()
    thread.join(seconds)
    if not found:
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    value, error = found[0]
    if error is not None:
        raise error
    return value


@atexit.register
def _last_moment() -> None:
    end = time.monotonic() + LAST
    for thread in list(_threads):
        thread.join(max(end - time.monotonic(), 0.0))
