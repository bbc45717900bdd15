"""Status: computed, never typed.

*sketch*: the file has a card, and so the battery runs on it. *checked*: its tests hold three proofs and a contrast
(functions named `test_step_`, `test_known_`, `test_limit_`, `test_contrast_`), each written: it reaches a check, and is
not marked to be skipped or to fail. *reproduced*: its published evidence holds on at least three seeds, for the code
as it stands (comments and docstrings apart). *does not hold here*: the evidence was published and says no.

Status reads the tests and does not run them: that they pass is for `make test` to show.
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
    names = written_tests(tests) if tests.exists() else []
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


def written_tests(path: Path) -> list[str]:
    """The names of the tests in a file that check something: what pytest collects, less what is still to be written."""
    body = ast.parse(path.read_text()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")]
    nodes = [*body, *(node for each in classes for node in each.body)]
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef) and _is_written(node)]


def _is_written(test: ast.FunctionDef) -> bool:
    """Whether a check comes before the first statement that ends the test, and no mark says that it need not pass."""
    if any(_last_name(mark) in ("skip", "xfail") for mark in test.decorator_list):
        return False
    for statement in test.body:
        if isinstance(statement, ast.Raise | ast.Return) or _ends(statement):
            return False
        if any(_checks(node) for node in ast.walk(statement)):
            return True
    return False


def _ends(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and _last_name(statement.value) in ("fail", "skip", "xfail")


def _checks(node: ast.AST) -> bool:
    """An assertion of something that is not written out as a constant, `pytest.raises`, or a call of `assert_...`."""
    if isinstance(node, ast.Assert):
        return not isinstance(node.test, ast.Constant)
    return isinstance(node, ast.Call) and _last_name(node).startswith(("raises", "assert_"))


def _last_name(node: ast.expr) -> str:
    """`skip` of `pytest.mark.skip("...")`."""
    while isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
