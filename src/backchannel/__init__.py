"""backchannel: learning from feedback.

A learner acts, a task answers, a channel decides what gets through, meters count. Start with `play`, or with
`backchannel learn --help` on the command line. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "Run": "backchannel.loop",
    "play": "backchannel.loop",
    "Decision": "backchannel.feedback",
    "Feedback": "backchannel.feedback",
}
__all__ = ["Decision", "Feedback", "Run", "__version__", "play"]

if TYPE_CHECKING:
    from backchannel.feedback import Decision, Feedback
    from backchannel.loop import Run, play


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'backchannel' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
