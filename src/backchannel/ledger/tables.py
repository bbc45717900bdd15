"""Writing tables: CSV and Parquet in the library's own layout, and Open Bandit's CSV. DuckDB writes the rows."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import msgspec

from backchannel.ledger.columns import CATEGORY, CONTEXT, OPTION
from backchannel.ledger.problems import LogError, counted
from backchannel.ledger.store import identifier, literal
from backchannel.ledger.tabular import SAMPLE
from backchannel.ledger.writers import STEP, Writer

WIDEST = 2000  # columns that features of options may take


def write_table(writer: Writer, path: Path, format: str, gzipped: bool) -> None:
    """The library's own layout, with the columns that the log has something for."""
    store = writer.store
    cells: dict[str, str] = {}
    if writer.filled["id"]:
        cells["id"] = "id"
    cells["action"] = "action"
    for name in ("reward", "propensity", "time", "feedback_time", "position", "policy"):
        if writer.filled[name] or name == "reward":
            cells[name] = name
    if writer.filled["version"]:
        cells["version"] = "version::BIGINT"
    if writer.hidden:
        cells["shown"] = "coalesce(shown, true)"
    if writer.ragged:
        cells["options"] = "options" if format == "parquet" else "to_json(options)::VARCHAR"
    absent = "coalesce({}, 0)" if store.zero else "{}"
    cells |= {CONTEXT + name: absent.format(column) for name, column in store.numeric.items()}
    for name, column in store.categorical.items():
        if name in writer.truths:
            cells[CONTEXT + name] = f"{column}::BOOLEAN"
        else:
            cells[(CATEGORY if format == "csv" and _misleads(writer, column) else CONTEXT) + name] = column
    for feature, options in _option_cells(writer, items=True).items():
        escaped = feature.replace("%", "%25").replace(".", "%2E")
        cells |= {f"{OPTION}{escaped}.{option}": cell for option, cell in options.items()}
    if format == "parquet":
        alike = {name.lower() for name in cells}
        if len(alike) < len(cells):
            raise LogError("Parquet cannot hold columns whose names differ in case alone, and this log has such names")
    _copy(writer, cells, path, format, gzipped)


def write_open_bandit(writer: Writer, path: Path, gzipped: bool) -> None:
    """Open Bandit's columns; what has none is named."""
    store, filled = writer.store, writer.filled
    for what in ("id", "policy", "version", "feedback_time"):
        if filled[what]:
            writer.say(f"Open Bandit has no column for the {what}: {counted(filled[what], 'row has', 'rows have')} one")
    if writer.hidden:
        writer.say(f"Open Bandit cannot mark the {counted(writer.hidden, 'decision', 'decisions')} that nobody saw")
    if writer.ragged:
        writer.say("Open Bandit cannot hold which options a row offers")
    if store.numeric:
        writer.say(f"user features are categories: left out {', '.join(map(repr, list(store.numeric)[:5]))}")
    actions = writer.actions
    number = {name: index for index, name in enumerate(actions)}
    if all(name.isascii() and name.isdigit() and str(int(name)) == name for name in actions):
        number = {name: int(name) for name in actions}
    else:
        shown = ", ".join(f"{index} = {name}" for name, index in list(number.items())[:10])
        writer.say(f"items are numbered: {shown}" + (", ..." if len(number) > 10 else ""))
    known = "{" + ", ".join(f"{literal(name)}: {index}" for name, index in number.items()) + "}"
    cells = {"": "(row_number() OVER (ORDER BY seq)) - 1"}
    if filled["time"]:
        cells["timestamp"] = "strftime(make_timestamp((time * 1e6)::BIGINT), '%Y-%m-%d %H:%M:%S.%f+00:00')"
    cells["item_id"] = f"(MAP {known})[action]"
    cells["position"] = "coalesce(position, 1)"
    if filled["position"] < writer.rows:
        writer.say("where a row has no position, 1 is written")
    cells["click"] = "CASE WHEN reward IN (0, 1) THEN reward::INTEGER::VARCHAR ELSE reward::VARCHAR END"
    cells["propensity_score"] = "propensity"
    if all(name.startswith("user_feature_") for name in store.categorical):
        cells |= store.categorical
    else:
        for index, (name, column) in enumerate(store.categorical.items()):
            writer.say(f"the context {name!r} is written as 'user_feature_{index}'")
            cells[f"user_feature_{index}"] = column
    features = _option_cells(writer, items=False)
    writer.leave_items(writer.item_features, "Open Bandit has features of items in another file, item_context.csv")
    affinity = features.pop("affinity", {})
    if features:
        writer.say(f"options have an affinity only: left out {', '.join(map(repr, list(features)[:5]))}")
    if affinity:
        cells |= {
            f"user-item_affinity_{number[name]}": f"coalesce({affinity.get(name, 'NULL')}, 0.0)"
            for name in sorted(actions, key=lambda name: number[name])
        }
    _copy(writer, cells, path, "csv", gzipped)


def _misleads(writer: Writer, column: str) -> bool:
    """Whether a reader of the CSV's first rows would take these categories for numbers or truth values."""
    looks = f"TRY_CAST({column} AS DOUBLE) IS NULL AND lower({column}) NOT IN ('true', 'false') AND {column} != ''"
    head = f"SELECT {column} FROM log ORDER BY seq LIMIT {SAMPLE}"
    return not writer.store.one(f"SELECT count(*) FILTER ({looks}) FROM ({head})")[0]


def _option_cells(writer: Writer, items: bool) -> dict[str, dict[str, str]]:
    """{feature: {option: SQL}} of the numbers that options have, those of `items` too; says what is left out."""
    found = {feature: dict(options) for feature, options in _own_cells(writer).items()}
    if items:
        text = [f for f in writer.item_features if any(isinstance(i.get(f), str | bool) for i in writer.items.values())]
        writer.leave_items(text, "a table holds numbers of items, not their text")
        for option, features in writer.items.items():
            for feature, value in features.items():
                if feature not in text:
                    cells = found.setdefault(feature, {})
                    if option in cells:
                        writer.twice.add(feature)
                    own = cells.get(option, "NULL")
                    cells[option] = f"coalesce({own}, {float(value)!r}::DOUBLE)"
    if sum(map(len, found.values())) > WIDEST:
        writer.say(f"features of options would take more than {WIDEST:,} columns: left out; jsonl and vw-adf hold them")
        return {}
    return found


def _own_cells(writer: Writer) -> dict[str, dict[str, str]]:
    """The same of the numbers that rows say themselves."""
    store = writer.store
    if store.wide or "features" not in store.columns:
        return store.wide
    found: dict[str, dict[str, str]] = {}
    text: set[str] = set()
    last = int(store.one("SELECT max(seq) FROM log")[0])
    for start in range(0, last + 1, STEP):
        where = f"features IS NOT NULL AND seq BETWEEN {start} AND {start + STEP - 1}"
        for (held,) in store.db.execute(f"SELECT features FROM log WHERE {where}").fetchall():
            for option, features in msgspec.json.decode(held).items():
                for feature, value in features.items():
                    if isinstance(value, str | bool):
                        text.add(feature)
                    elif value is not None and option not in found.setdefault(feature, {}):
                        pointer = "/" + "/".join(
                            each.replace("~", "~0").replace("/", "~1") for each in (option, feature)
                        )
                        cell = f"json_extract(features, {literal(pointer)})"
                        found[feature][option] = f"TRY_CAST({cell}::VARCHAR AS DOUBLE)"
    if text:
        names = ", ".join(map(repr, sorted(text)[:5]))
        writer.say(f"a table holds numbers of options, not their text: left out what is text in {names}")
    return {feature: options for feature, options in found.items() if options}


def _copy(writer: Writer, cells: dict[str, str], path: Path, format: str, gzipped: bool) -> None:
    database = writer.store.db
    named = ", ".join(f"{cell} AS {identifier(name or 'index')}" for name, cell in cells.items())
    query = f"SELECT {named} FROM log ORDER BY seq"
    if format == "parquet":
        database.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
        return
    quoted = ['"' + name.replace('"', '""') + '"' if set(name) & set('",\r\n') else name for name in cells]
    rows = Path(writer.store.folder, "rows.csv")
    try:
        database.execute(f"COPY ({query}) TO {literal(str(rows))} (FORMAT csv, HEADER false)")
        with gzip.open(path, "wb") if gzipped else open(path, "wb") as file, open(rows, "rb") as body:
            file.write(",".join(quoted).encode() + b"\n")
            shutil.copyfileobj(body, file, 1 << 20)
    finally:
        if rows.exists():
            os.unlink(rows)
