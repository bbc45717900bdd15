"""Prometheus' text format: what this process counted, and where learning stands."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backchannel.serve.service import Service

HEADS = {
    "backchannel_requests_total": ("counter", "requests of the hot routes, by their answer"),
    "backchannel_entries_total": ("counter", "entries of the ledger"),
    "backchannel_learned_decisions": ("gauge", "settled decisions that the serving policy has learned from"),
    "backchannel_open_decisions": ("gauge", "decisions whose window is open"),
    "backchannel_orphaned_feedback": ("gauge", "feedback that waits for its decision"),
    "backchannel_lag_seconds": ("gauge", "seconds since learning last looked at the ledger"),
    "backchannel_leads": ("gauge", "1 if this process learns"),
}


def exposition(service: Service) -> str:
    """The whole page of /metrics."""
    found: dict[str, list[tuple[str, float]]] = {name: [] for name in HEADS}
    for (route, status), many in sorted(service.metrics.requests.items()):
        found["backchannel_requests_total"].append((f'{{route="{route}",status="{status}"}}', many))
    for name, app in service.apps.items():
        for kind, many in service.ledger.counts(name).items():
            found["backchannel_entries_total"].append((f'{{app="{name}",kind="{kind}"}}', many))
        facts = app.facts()
        found["backchannel_learned_decisions"].append((f'{{app="{name}"}}', facts["learned"]))
        found["backchannel_open_decisions"].append((f'{{app="{name}"}}', facts["open"]))
        found["backchannel_orphaned_feedback"].append((f'{{app="{name}"}}', facts["orphans"]))
    found["backchannel_lag_seconds"].append(("", time.monotonic() - service.learner.looked))
    found["backchannel_leads"].append(("", float(service.learner.leads)))
    lines = []
    for name, (kind, words) in HEADS.items():
        lines += [
            f"# HELP {name} {words}",
            f"# TYPE {name} {kind}",
            *(f"{name}{labels} {v:g}" for labels, v in found[name]),
        ]
    return "\n".join(lines) + "\n"
