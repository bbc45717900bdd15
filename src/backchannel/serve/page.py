"""The page at /: where each application stands, and its last decisions with what was heard of them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import msgspec

from backchannel.serve.records import Decided, Given

if TYPE_CHECKING:
    from backchannel.serve.app import App
    from backchannel.serve.service import Service

RECENT = 20
_decided = msgspec.json.Decoder(Decided)
_given = msgspec.json.Decoder(Given)
STYLE = "body{font:15px system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem}table{border-collapse:collapse}" \
    "td,th{padding:.2rem .8rem .2rem 0;text-align:left;overflow-wrap:anywhere}"  # fmt: skip


def page(service: Service) -> str:
    """The whole page."""
    problem = service.problem()
    told = f"<p><strong>{escape(problem)}</strong></p>" if problem else ""
    apps = "".join(_app(app) for app in service.apps.values())
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>backchannel</title><style>{STYLE}</style><h1>backchannel</h1>{told}{apps}"
    )


def _app(app: App) -> str:
    facts = app.facts()
    rows = [(name, str(value)) for name, value in facts.items() if name not in ("app", "counts")]
    rows += sorted((name, str(many)) for name, many in facts["counts"].items())
    return f"<h2>{escape(app.name)}</h2>{_table(rows)}<h3>Last decisions</h3>{_recent(app)}"


def _recent(app: App) -> str:
    decisions = app.ledger.latest(app.name, "decision", RECENT)
    if not decisions:
        return "<p>None yet.</p>"
    heard: dict[str, list[str]] = {kept.entry.id: [] for kept in decisions}
    for kept in app.ledger.about(app.name, list(heard)):
        if kept.entry.kind == "feedback":
            given = _given.decode(kept.entry.body)
            heard[kept.entry.about].append(f"{given.kind}: {given.value}")
    rows: list[Any] = [("decision", "action", "propensity", "feedback")]
    for kept in decisions:
        slots = _decided.decode(kept.entry.body).slots
        actions, chances = (
            ", ".join(each) for each in ((s.action for s in slots), (f"{s.propensity:.3g}" for s in slots))
        )
        rows.append((kept.entry.id, actions, chances, "; ".join(heard[kept.entry.id])))
    return _table(rows)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    return f"<table>{''.join('<tr>' + ''.join(f'<td>{escape(c)}</td>' for c in row) + '</tr>' for row in rows)}</table>"
