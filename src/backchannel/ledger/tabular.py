"""Tables: CSV and Parquet, read by DuckDB straight into the store, without a row passing through Python.

A context column of a CSV is numeric if whatever its first thousand rows hold of it is a number, and categorical else; a
numeric one must stay so. A note tells of a categorical column most of whose cells are numbers, unless it was declared
to be one. Parquet says itself what is a number. An empty cell is missing.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from backchannel.ledger.columns import Columns, Resolved, own_layout
from backchannel.ledger.problems import SLATES, LogError, Problems, counted, shortened
from backchannel.ledger.sources import Source, csv_header
from backchannel.ledger.store import Store, first_line, identifier, key_sql, list_sql, literal

SAMPLE = 1000
EXPECTED = {
    "action": "the name of an option",
    "reward": "a finite number, or nothing where no feedback came",
    "propensity": "a probability in (0, 1]",
    "time": "a number of seconds, ISO text or a timestamp",
    "feedback_time": "a number of seconds, ISO text or a timestamp",
    "position": "a whole number",
    "context": "a finite number, as in the rows before",
    "option": "a finite number",
}


class Table:
    """One file as DuckDB sees it: its columns, and SQL that reads them."""

    def __init__(self, source: Source, store: Store) -> None:
        self.shown = source.name
        self.is_csv = source.format == "csv"
        path = literal(str(source.path))
        if not self.is_csv:
            self.row = "file_row_number + 1"
            self.source = self.sample = f"read_parquet({path}, file_row_number = true, hive_partitioning = false)"
            try:
                described = store.db.execute(f"DESCRIBE SELECT * FROM {self.source}").fetchall()
            except duckdb.Error as error:
                raise unreadable(source, error) from None
            self.types = {name: type_ for name, type_, *_ in described if name != "file_row_number"}
            self.header = list(self.types)
        else:
            self.types = {}
            self.row = "line"
            self.header, delimiter, line_end = csv_header(source)
            columns = ", ".join(f"'x{index}': 'VARCHAR'" for index in range(len(self.header)))
            self.rejects = f"rejects{len(store.files)}"
            # The header is read as a row, and left out: DuckDB stumbles over line ends within the names that it skips.
            read = (
                f"read_csv({path}, auto_detect = false, header = false, delim = {literal(delimiter)}, quote = '\"', "
                f"escape = '\"', {line_end}columns = {{{columns}}}, strict_mode = true, "
                f"null_padding = false, allow_quoted_nulls = false, "
                f"compression = '{'gzip' if source.gzipped else 'none'}', "
            )
            rejects = f"store_rejects = true, rejects_table = '{self.rejects}', rejects_scan = '{self.rejects}scan')"
            self.source, self.sample = (
                f"(SELECT * FROM (SELECT *, row_number() OVER () - 1 AS line FROM {read}{rest}) WHERE line > 0)"
                for rest in (rejects, "ignore_errors = true)")
            )

    def rejected(self, store: Store) -> list[tuple[int, str]]:
        """Lines that are no rows, once the file has been read: their numbers, and what is wrong."""
        if not self.is_csv:
            return []
        found = f"SELECT line - 1, min(error_message) FROM {self.rejects} GROUP BY line ORDER BY line"
        rejects = store.db.execute(found).fetchall()
        store.db.execute(f"DROP TABLE {self.rejects}; DROP TABLE {self.rejects}scan")
        return [(row, " ".join(message.split()).rstrip(".")) for row, message in rejects]

    def raw(self, column: str) -> str:
        """SQL: the cell as text, where `""` is text without letters and not a missing one."""
        return f"x{self.header.index(column)}" if self.is_csv else self.text(column)

    def text(self, column: str) -> str:
        """SQL: the cell as text, NULL where empty."""
        if self.is_csv:
            return f"nullif(x{self.header.index(column)}, '')"
        name, type_ = identifier(column), self.types[column]
        if type_ in ("DOUBLE", "FLOAT"):  # whole numbers that became floats for the sake of a missing one
            whole = f"TRY_CAST(CASE WHEN {name} = trunc({name}) THEN {name} END AS HUGEINT)::VARCHAR"
            return f"coalesce({whole}, {name}::VARCHAR)"
        return f"{name}::VARCHAR"

    def number(self, column: str) -> str:
        """SQL: the cell as a number, NULL where it is none."""
        return f"TRY_CAST({self.text(column)} AS DOUBLE)" if self.is_text(column) else f"{identifier(column)}::DOUBLE"

    def is_text(self, column: str) -> bool:
        """Whether the file itself does not say that the column holds numbers."""
        if self.is_csv:
            return True
        type_ = self.types[column]
        return not (type_.startswith(("DECIMAL", "FLOAT", "DOUBLE", "BOOLEAN")) or type_.endswith(("INT", "INTEGER")))

    def options(self, column: str) -> str:
        """SQL: the cell as a list of options, NULL where it is none."""
        if not self.is_csv and self.types[column].endswith("[]"):
            return f"{identifier(column)}::VARCHAR[]"
        cell = self.text(column)
        parsed = f"WHEN json_valid({cell}) THEN {list_sql(cell)}"
        return f"CASE WHEN {cell} NOT LIKE '[%' THEN string_split({cell}, '|') {parsed} END"

    def time(self, column: str) -> str:
        """SQL: seconds since 1970, NULL where the cell is no time."""
        stamp = f"epoch(TRY_CAST({self.text(column)} AS TIMESTAMPTZ))"
        return f"coalesce({self.number(column)}, {stamp})" if self.is_text(column) else self.number(column)


def read_table(store: Store, source: Source, columns: Columns | None, problems: Problems) -> None:
    """Append one file to the store."""
    table = Table(source, store)
    resolved = columns.resolve(table.header, source.name) if columns else own_layout(table.header, source.name)
    file = len(store.files)
    try:
        _append(store, table, resolved, problems)
    except duckdb.Error as error:
        if "state machine" not in str(error) or source.path.parent == Path(store.folder):
            raise unreadable(source, error) from None
        del store.files[file:]  # line ends of two kinds, which DuckDB refuses: make them one
        read_table(store, source.with_plain_line_ends(store.folder), columns, problems)


def unreadable(source: Source, error: duckdb.Error) -> LogError:
    """DuckDB's complaint, in one sentence."""
    return LogError(f"{source.name} cannot be read as {source.format.upper()}: {first_line(error)}")


def _append(store: Store, table: Table, resolved: Resolved, problems: Problems) -> None:
    single = resolved.single
    if table.types.get(single["action"], "").endswith("[]"):
        raise LogError(f"{table.shown}, column {single['action']!r}: expected one option, found lists; {SLATES}")
    kinds, doubted = _kinds(store, table, resolved)
    if store.files and ("time" in single) != ("time" in store.meanings):
        raise LogError(f"{table.shown} and {store.files[0]} disagree: only one of them has times")
    file = len(store.files)
    store.files.append(table.shown)
    store.spelt[file] = single
    values = {"seq": f"{table.row} + {store.rows - 1}", "file": str(file), "row": table.row}
    checks: list[tuple[str, str]] = []  # SQL that is true where a cell is wrong, and the cell as text

    def check(column: str, expected: str, wrong: str) -> None:
        store.checks.append((column, expected))
        checks.append((wrong, table.text(column)))

    action = table.text(single["action"])
    values["action"] = action
    check(single["action"], EXPECTED["action"], f"{action} IS NULL")
    for meaning in ("reward", "propensity", "time", "feedback_time", "position"):
        if meaning in single:
            store.meanings.add(meaning)
            values[meaning], wrong = _cell(table, single[meaning], meaning)
            check(single[meaning], EXPECTED[meaning], wrong)
    if {"time", "feedback_time"} <= single.keys():
        early = f"{values['feedback_time']} < {values['time']}"
        check(single["feedback_time"], "a time no earlier than that of the decision", early)
    if "options" in single:
        store.offers()
        values["options"] = offers = table.options(single["options"])
        wrong = (
            f"{table.text(single['options'])} IS NOT NULL AND NOT coalesce(list_contains({offers}, {action}), false)"
        )
        check(single["action"], "one of the options of its row", wrong)
        check(single["options"], "each option once", f"len(list_distinct({offers})) < len({offers})")
    if "shown" in single:
        values["shown"], wrong = _truth(table, single["shown"])
        check(single["shown"], "true or false", wrong)
    for meaning in ("id", "policy", "version") if store.text else ("id",):
        if meaning in single:
            store.meanings.add(meaning)
            values[meaning] = cell = table.text(single[meaning])
            if meaning == "version":
                wrong = f"{cell} IS NOT NULL AND NOT regexp_full_match({cell}, '-?[0-9]{{1,18}}')"
                check(single[meaning], "a whole number", wrong)
    for name, column in resolved.context.items():
        cell = table.text(column)
        if kinds[name] == "number":
            number = table.number(column)
            values[store.number(name)] = f"CASE WHEN isfinite({number}) THEN {number} END"
            wrong = f"{cell} IS NOT NULL AND NOT coalesce(isfinite({number}) OR isnan({number}), false)"
            check(column, EXPECTED["context"], wrong)
        else:
            cell = table.raw(column)
            if kinds[name] == "truth":
                cell = f"CASE WHEN lower({cell}) IN ('true', 'false') THEN lower({cell}) ELSE {cell} END"
            (store.truths if kinds[name] == "truth" else store.texts).add(name)
            values[store.category(name)] = cell if store.text else key_sql(name, cell)
    for feature, options in resolved.option_features.items():
        for option, column in options.items():
            values[store.option_number(feature, option)], wrong = _cell(table, column, "option")
            check(column, EXPECTED["option"], wrong)
    first = len(store.checks) - len(checks)
    whens = [f"WHEN {wrong} THEN {first + index}" for index, (wrong, _) in enumerate(checks)]
    values["bad"] = f"CASE {' '.join(whens)} END"
    values["value"] = f"CASE {' '.join(f'WHEN {wrong} THEN {cell}' for wrong, cell in checks)} END"
    came = store.insert(values, table.source)
    _rejected(store, table, file, problems)
    for column in doubted:
        _doubt(store, table, column)
    store.rows += came
    unused = resolved.unused(table.header)
    if unused and file == 0:
        shown = ", ".join(repr(name) for name in unused[:5]) + (", ..." if len(unused) > 5 else "")
        store.notes.append(f"{counted(len(unused), 'column is', 'columns are')} not used: {shown}")


def _cell(table: Table, column: str, meaning: str) -> tuple[str, str]:
    """SQL of the number that a cell holds, and SQL that is true where it is wrong."""
    cell = table.text(column)
    number = table.time(column) if meaning in ("time", "feedback_time") else table.number(column)
    right = f"isfinite({number})"
    if meaning == "propensity":
        right = f"{number} > 0 AND {number} <= 1"
    elif meaning == "position":
        right = f"{number} = trunc({number}) AND abs({number}) < 1e15"
        number = f"TRY_CAST({number} AS BIGINT)"
    missing = "" if meaning == "time" else f"{cell} IS NOT NULL AND "
    return number, f"{missing}NOT coalesce({right}, false)"


def _truth(table: Table, column: str) -> tuple[str, str]:
    """SQL of a truth value, true where the cell is empty; and SQL that is true where it is wrong."""
    cell = table.text(column)
    return f"coalesce(TRY_CAST({cell} AS BOOLEAN), true)", f"{cell} IS NOT NULL AND TRY_CAST({cell} AS BOOLEAN) IS NULL"


def _kinds(store: Store, table: Table, resolved: Resolved) -> tuple[dict[str, str], list[str]]:
    """For each part of the context: "number", "truth" or "text"; and the columns of text that hold numbers, too."""
    known = dict.fromkeys(store.numeric, "number") | dict.fromkeys(store.categorical, "text")
    known |= dict.fromkeys(store.truths - store.texts, "truth")
    known |= dict.fromkeys(resolved.categories, "text")
    asked = {name: column for name, column in resolved.context.items() if name not in known}
    doubted: list[str] = []
    for name, column in list(asked.items()):
        if not table.is_csv:  # a file with types says itself
            numeric = not table.is_text(column)
            known[name] = "truth" if table.types[column] == "BOOLEAN" else "number" if numeric else "text"
    for rows in (SAMPLE, None):  # the head of the file; all of it where a column is empty there
        open_ = [name for name in asked if name not in known]
        if not open_:
            break
        cells = ", ".join(f"{table.text(asked[name])} AS t{index}" for index, name in enumerate(open_))
        counts = ", ".join(
            f"count(t{i}), count(TRY_CAST(t{i} AS DOUBLE)), count(*) FILTER (lower(t{i}) IN ('true', 'false'))"
            for i in range(len(open_))
        )
        found = store.one(
            f"SELECT {counts} FROM (SELECT {cells} FROM {table.sample} {f'LIMIT {rows}' if rows else ''})"
        )
        for index, name in enumerate(open_):
            filled, numbers, truths = found[3 * index : 3 * index + 3]
            if filled:
                known[name] = "number" if filled == numbers else "truth" if filled == truths else "text"
                if 0 < numbers < filled:
                    doubted.append(asked[name])
    return {name: known.get(name, "text") for name in resolved.context}, doubted


def _doubt(store: Store, table: Table, column: str) -> None:
    """Say so if most cells of a column that is read as categories are numbers."""
    cell = table.text(column)
    number = f"TRY_CAST({cell} AS DOUBLE)"
    text = f"{cell} IS NOT NULL AND {number} IS NULL"
    filled, numbers, line, value = store.one(
        f"SELECT count({cell}), count({number}), min(line) FILTER ({text}), arg_min({cell}, line) FILTER ({text}) "
        f"FROM {table.sample}"
    )
    if 2 * numbers > filled:
        row = store.one(f"SELECT row FROM log WHERE seq = {line + store.rows - 1}")[0]
        store.notes.append(
            f"column {column!r} of {table.shown} is read as categories: row {row} holds {shortened(value)}, "
            f"but {numbers:,} of its {filled:,} cells are numbers"
        )


def _rejected(store: Store, table: Table, file: int, problems: Problems) -> None:
    """Lines that are no rows: tell of them, and count them in the numbers of the rows behind them."""
    for row, message in table.rejected(store):
        problems.add(f"{table.shown}, row {row}: {message}")
        store.db.execute(f"UPDATE log SET row = row + 1 WHERE file = {file} AND row >= {row}")
