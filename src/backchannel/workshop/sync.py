"""`make sync`: what is generated from the cards. `index.json`, METHODS.md, the tables of the docs.

python -m backchannel.workshop.sync            # write
python -m backchannel.workshop.sync --check    # exit 1 if anything would change
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from backchannel.card import discover
from backchannel.workshop.status import status

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parents[1]
WORDS = {
    "online": "Deciding in rounds",
    "games": "Games and equilibria",
    "rl": "Reinforcement learning",
    "preference": "Learning from preferences",
    "language": "Feedback in words",
    "communication": "Learning to communicate",
    "distributed": "Training apart",
    "continual": "Learning on and on",
    "recommend": "Recommending",
}


def entries() -> list[dict[str, Any]]:
    """One plain record for each card, sorted by family and key."""
    found = []
    for method in discover():
        card = method.card
        found.append(
            {
                "key": method.key,
                "name": card.name,
                "family": method.family,
                "summary": card.summary,
                "feedback": card.feedback,
                "topics": card.topics,
                "protocol": card.protocol,
                "engine": card.engine,
                "context": card.context,
                "neighbour": card.neighbour,
                "strength": card.strength,
                "extras": card.extras,
                "paper": card.paper,
                "row": card.row,
                "status": status(PACKAGE, ROOT / "docs" / "evidence", method.family, method.key),
            }
        )
    return found


def files() -> dict[Path, str]:
    """Every generated file with its content."""
    cards = entries()
    lines = b"[\n " + b",\n ".join(msgspec.json.encode(card) for card in cards) + b"\n]\n"
    return {PACKAGE / "index.json": lines.decode(), ROOT / "METHODS.md": methods_page(cards)}


def strangers(cards: list[dict[str, Any]]) -> list[str]:
    """Sentences about cards whose neighbour does not exist, or whose key stands twice."""
    keys = [card["key"] for card in cards]
    missing = [card for card in cards if card["neighbour"] not in [*keys, ""]]
    lost = [f"{card['key']} names the neighbour {card['neighbour']!r}: there is none" for card in missing]
    return lost + [f"the key {key} stands twice" for key in sorted({k for k in keys if keys.count(k) > 1})]


def methods_page(cards: list[dict[str, Any]]) -> str:
    """METHODS.md."""
    counts = {word: sum(card["status"] == word for card in cards) for word in ("reproduced", "checked", "sketch")}
    said = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
    out = [
        "# Methods",
        "",
        "Generated from the cards by `make sync`: do not edit. Status is computed: *sketch* (the battery",
        "passes), *checked* (three proofs and a contrast), *reproduced* (its claim holds on three seeds).",
        "Re-check one with `backchannel claim KEY`; find one for your feedback with `backchannel find`.",
        "",
        f"{len(cards)} methods: {said}.",
    ]
    for family, group in groupby(cards, key=lambda card: card["family"]):
        out += ["", f"## {WORDS[family]} (`{family}`)", ""]
        out += ["| key | method | feedback | what it does | status |", "|---|---|---|---|---|"]
        for card in group:
            shown = f"[`{card['key']}`](src/backchannel/{family}/{card['key']}.py)"
            words = [shown, card["name"], ", ".join(card["feedback"]), card["summary"], card["status"]]
            out.append("| " + " | ".join(words) + " |")
    return "\n".join(out) + "\n"


def main(check: bool) -> int:
    """Write, or with `check` only compare."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is not what the cards say: run `make sync`")
        else:
            path.write_text(files()[path])
            print(f"wrote {path.relative_to(ROOT)}")
    wrong = strangers(entries())
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong or (check and stale) else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
