"""Run claims, print what they found, and write the evidence: NAME.json (numbers) and NAME.png (the figure)."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

import backchannel
from backchannel.card import index
from backchannel.claim import Evidence, run_claim
from backchannel.workshop.status import code_hash, method_file

PACKAGE = Path(__file__).resolve().parents[1]


def claims(family: str | None = None) -> list[tuple[str, str]]:
    """(family, key) of every method that has a claim."""
    listed = [(entry["family"], entry["key"]) for entry in index() if family in (None, entry["family"])]
    return [(fam, key) for fam, key in listed if (PACKAGE / fam / "claims" / f"{key}.py").exists()]


def run_seed(family: str, key: str, seed: int, full: bool) -> tuple[Evidence, dict[str, Any]]:
    """Run a claim on one seed: the evidence, and its record for the file."""
    evidence, seconds = run_claim(family, key, seed, full)
    checks = [msgspec.to_builtins(check) for check in evidence.checks]
    return evidence, {
        "seed": seed,
        "full": full,
        "holds": evidence.holds,
        "seconds": round(seconds, 1),
        "checks": checks,
        "tables": [msgspec.to_builtins(table) for table in evidence.tables],
        "note": evidence.note,
    }


def write_evidence(out: Path, family: str, key: str, evidence: Evidence, runs: list[dict[str, Any]]) -> list[Path]:
    """Write `out`/key.json and, if the claim draws, `out`/key.png (of `evidence`); returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    record = {
        "claim": key,
        "family": family,
        "statement": evidence.statement,
        "code": code_hash(method_file(PACKAGE, family, key)),
        "versions": versions(),
        "commit": commit(),
        "runs": runs,
    }
    paths = [out / f"{key}.json"]
    _replace(paths[0], msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    if evidence.draw is not None:
        paths.append(out / f"{key}.png")
        beside = paths[1].with_suffix(".tmp.png")
        _draw(evidence, beside)
        beside.replace(paths[1])
    return paths


def versions() -> dict[str, str]:
    """What computed it."""
    found = {"backchannel": backchannel.__version__, "python": platform.python_version(), "machine": platform.machine()}
    for name in ("numpy", "numba", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed took no part
    return found


def commit() -> str | None:
    """The checkout's commit, with + if files differ from it; None outside a checkout."""
    git = ["git", "-C", str(PACKAGE)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode != 0:
        return None
    dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def _draw(evidence: Evidence, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    assert evidence.draw is not None
    evidence.draw(figure)
    figure.savefig(path)


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_suffix(path.suffix + ".tmp")
    beside.write_bytes(content)
    beside.replace(path)
