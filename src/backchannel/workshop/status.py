"""Status: computed, never typed.

*sketch*: the file has a card, and so the battery runs on it. *checked*: its tests hold three proofs and a contrast
(functions named `test_step_`, `test_known_`, `test_limit_`, `test_contrast_`). *reproduced*: its published evidence
holds on at least three seeds, for the code as it stands (comments and docstrings apart). *does not hold here*: the
evidence was published and says no.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

import msgspec

PROOFS = ("test_step_", "test_known_", "test_limit_", "test_contrast_")
SEEDS = 3


def status(package: Path, evidence: Path, family: str, key: str) -> str:
    """The status of a method, from its tests and its published evidence."""
    tests = package / family / "tests" / f"test_{key}.py"
    names = _functions(tests) if tests.exists() else []
    if not all(any(name.startswith(proof) for name in names) for proof in PROOFS):
        return "sketch"
    published = evidence / f"{key}.json"
    if not published.exists():
        return "checked"
    found: dict[str, Any] = msgspec.json.decode(published.read_bytes())
    if found["code"] != code_hash(method_file(package, family, key)) or len(found["runs"]) < SEEDS:
        return "checked"
    return "reproduced" if all(run["holds"] for run in found["runs"]) else "does not hold here"


def method_file(package: Path, family: str, key: str) -> Path:
    """The file of a method, or of a method that is a folder."""
    single = package / family / f"{key}.py"
    return single if single.exists() else package / family / key / "__init__.py"


def code_hash(path: Path) -> str:
    """A hash of what a file computes: of its syntax tree without docstrings, comments and its CARD."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not _is_card(node)]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            del body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _is_card(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "CARD" for t in node.targets)


def _functions(path: Path) -> list[str]:
    return [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
