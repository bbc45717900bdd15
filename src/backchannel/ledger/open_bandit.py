"""Open Bandit: logs of a fashion shop's recommendations, as Saito et al. published them, and a small one packaged.

A row is one item shown at one of three positions: whether it was clicked, with which probability the policy chose it,
four hashed features of the user, and the user's affinity with each item (past clicks). The affinity becomes a feature
of each option. Features of the items lie in a file beside, `item_context.csv`.

References: saito2021open.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from backchannel.ledger.columns import Columns
from backchannel.ledger.problems import LogError

COLUMNS = Columns(
    action="item_id",
    reward="click",
    propensity="propensity_score",
    time="timestamp",
    position="position",
    context=("user_feature_*",),
    categories=("user_feature_*",),
    option_features={"affinity": "user-item_affinity_*"},
)
POLICIES = ("random", "bts")
ATTRIBUTION = (
    "Open Bandit Dataset (small, campaign 'all'): Saito, Aihara, Matsutani and Narita (2021), ZOZO Research; CC BY 4.0"
)


def is_open_bandit(header: Sequence[str]) -> bool:
    """Whether a table has the columns of the Open Bandit Dataset."""
    return {"item_id", "position", "click", "propensity_score"} <= set(header)


def columns_for(header: Sequence[str]) -> Columns:
    """The map for what of it a file has: affinities and times may have been left out."""
    return Columns(
        action=COLUMNS.action,
        reward=COLUMNS.reward,
        propensity=COLUMNS.propensity,
        position=COLUMNS.position,
        time=COLUMNS.time if COLUMNS.time in header else None,
        context=COLUMNS.context if any(name.startswith("user_feature_") for name in header) else (),
        categories=COLUMNS.categories if any(name.startswith("user_feature_") for name in header) else (),
        option_features=COLUMNS.option_features
        if any(name.startswith("user-item_affinity_") for name in header)
        else {},
    )


def is_packaged(name: str) -> bool:
    """Whether a source's name means the packaged log: a file of that name comes first."""
    return name == "open-bandit" and not os.path.exists(name)


def packaged(logged_by: str) -> tuple[Path, Path]:
    """The packaged log of one logging policy, and its items."""
    if logged_by not in POLICIES:
        raise LogError(f"logged_by must be 'random' or 'bts', not {logged_by!r}")
    folder = Path(str(resources.files("backchannel.ledger"))) / "data"
    return folder / f"open_bandit_{logged_by}.parquet", folder / f"open_bandit_{logged_by}_items.parquet"


def items_beside(path: Path) -> Path | None:
    """The `item_context.csv` that lies beside a log, if one does."""
    beside = path.parent / "item_context.csv"
    return beside if beside.is_file() else None
