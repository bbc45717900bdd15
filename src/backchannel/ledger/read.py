"""Open a feedback log, whatever it is written in.

>>> from backchannel.ledger.read import open_log
>>> log = open_log("open-bandit")
>>> log.rows, len(log.actions), log.has_propensity
(10000, 80, True)
>>> batch = next(log.batches(1000))
>>> batch.propensity[0], batch.categories.shape
(np.float64(0.0125), (1000, 4))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import duckdb

from backchannel.ledger import open_bandit
from backchannel.ledger.between import ids_once, times_forwards
from backchannel.ledger.columns import Columns
from backchannel.ledger.items import Items, read_items
from backchannel.ledger.log import Log
from backchannel.ledger.native import join, read_native
from backchannel.ledger.problems import LogError, Problems
from backchannel.ledger.sources import TABLES, Source, find
from backchannel.ledger.store import Store, first_line
from backchannel.ledger.stored import StoredLog
from backchannel.ledger.tabular import Table, read_table
from backchannel.ledger.vw import read_vw


def open_log(
    source: str | os.PathLike[str],
    *,
    format: str | None = None,
    columns: Columns | None = None,
    items: str | os.PathLike[str] | Items | None = None,
    skip_bad_rows: int = 0,
    logged_by: str = "random",
    progress: Callable[[float], None] | None = None,
) -> Log:
    """A log, ready to stream.

    Args:
        source: a file, a glob, `-` for standard input, or `open-bandit` for the packaged log.
        format: "jsonl", "csv", "parquet", "vw" or "vw-adf"; recognised if not given. Each may be gzipped.
        columns: what the columns of a table mean; not needed for the library's own layout and for Open Bandit.
        items: features of the options that never change: {option: {feature: value}}, or a table with the action's
            column.
        skip_bad_rows: up to so many bad rows are left out and counted; the next one raises.
        logged_by: of `open-bandit`: the policy that made the log, "random" or "bts".
        progress: called now and then, perhaps from another thread, with the part that has been read, from 0 to 1.
    """
    name = os.fspath(source)
    problems = Problems(skip_bad_rows)
    store = Store(name, progress=progress)
    try:
        found = fill(store, name, format, columns, items, problems, logged_by)
        return StoredLog(store, found, problems.notes())
    except duckdb.Error as error:
        store.close()
        raise LogError(f"{name} cannot be read: {first_line(error)}") from None
    except BaseException:
        store.close()
        raise


def fill(
    store: Store,
    name: str,
    format: str | None,
    columns: Columns | None,
    items: str | os.PathLike[str] | Items | None,
    problems: Problems,
    logged_by: str = "random",
) -> Items | None:
    """Read all that `name` names into the store; returns the features of the options."""
    given: Any = items
    if open_bandit.is_packaged(name):
        for what, value in (("format", format), ("column map", columns)):
            if value is not None:
                raise LogError(f"the packaged open-bandit takes no {what}: its own is known")
        path, items_path = open_bandit.packaged(logged_by)
        found = [Source(path, f"open-bandit ({logged_by})", "parquet", False)]
        given = items_path if items is None else items
        store.name = found[0].name
        store.notes.append(open_bandit.ATTRIBUTION)
    else:
        found = find(name, format, store.folder)
        if columns is not None and found[0].format not in TABLES:
            raise LogError(f"a column map is for tables; {found[0].name} is {found[0].format} and needs none")
    for index, each in enumerate(found):
        store.file_of = (index, len(found))
        if each.format == "jsonl":
            read_native(store, each, problems)
        elif each.format in ("vw", "vw-adf"):
            read_vw(store, each, problems)
        else:
            columns, given = _read_table(store, each, columns, given, problems)
        store.progress(1.0)
    store.clean(problems)
    if found[0].format not in ("vw", "vw-adf"):  # whose tags may repeat
        ids_once(store, "log", problems)
    overlap = times_forwards(store, problems) if "time" in store.meanings else False
    if found[0].format == "jsonl":
        join(store, problems)
    store.finish(overlap)
    return given if given is None or isinstance(given, Mapping) else read_items(store, given, columns)


def _read_table(
    store: Store, source: Source, columns: Columns | None, items: Any, problems: Problems
) -> tuple[Columns | None, Any]:
    """Read a table; returns the map and the items of an Open Bandit log once it is recognised."""
    if columns is None:
        header = Table(source, store).header
        if open_bandit.is_open_bandit(header):
            columns = open_bandit.columns_for(header)
            items = open_bandit.items_beside(source.path) if items is None else items
    read_table(store, source, columns, problems)
    return columns, items
