"""`find`, `show`, `claim`: the methods, their chapters, and whether their papers' headlines hold here."""

from __future__ import annotations

import ast
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from backchannel.cli import app, stopping
from backchannel.cli.show import print_json, print_table

PACKAGE = Path(__file__).resolve().parents[1]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def find(
    words: Annotated[list[str] | None, typer.Argument(help="Words of the name, summary or topics.")] = None,
    feedback: Annotated[
        list[str] | None, typer.Option(help="One of bandit, full, graph, comparison, critique, gradient ...")
    ] = None,
    family: Annotated[str | None, typer.Option(help="online, preference, distributed, language ...")] = None,
    delayed: Annotated[bool, typer.Option("--delayed", help="Feedback comes late: those made for it first.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the methods that fit: by words, by the feedback that you have, by family; and which to begin with."""
    from backchannel.card import LATE, STRENGTHS, begin, index

    kind = _kind(feedback or [])
    family = family and family.lower()
    found = [entry for entry in index() if _fits(entry, words or [], kind, family)]
    if delayed:
        found = sorted((entry for entry in found if _takes_late(entry)), key=lambda entry: LATE not in entry["topics"])
    start = {}
    for where, context in (("nothing known before", False), ("a context before each choice", True)):
        if kind is not None and (three := begin(found, kind, context, delayed)):
            start[where] = {strength: entry["key"] for strength, entry in three.items()}
    if as_json:
        print_json({"begin": start, "methods": found})
    elif not found:
        raise ValueError(_nothing_fits(index(), words or [], kind, family))
    else:
        if start:
            rows = [[where, *(three.get(strength, "-") for strength in STRENGTHS)] for where, three in start.items()]
            print_table("begin with", ["what you have", *STRENGTHS], rows)
            print()
        columns = ["key", "feedback", "what it does", "status"]
        rows = [[entry["key"], entry["feedback"], entry["summary"], entry["status"]] for entry in found]
        print_table(f"{len(found)} methods", columns, rows)


@app.command()
def show(key: str, as_json: AsJson = False) -> None:
    """Print a method's chapter: what it does, its equations, its deviations, its arguments, its status."""
    entry = _entry(key)
    module = ast.parse(resources.files("backchannel").joinpath(entry["family"], f"{key}.py").read_text())
    chapter, call = ast.get_docstring(module) or "", _call(module, key)
    if as_json:
        print_json({**entry, "chapter": chapter, "call": call})
        return
    print(f"{chapter}\n\n{call}")
    facts = [
        f"{name}: {', '.join(value) if isinstance(value, list) else value}" for name, value in entry.items() if value
    ]
    print("\n" + "\n".join(facts))


def _call(module: ast.Module, key: str) -> str:
    """How a method is made: its signature, and what its arguments mean."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    made = next(each for each in module.body if isinstance(each, kinds) and each.name == key)
    return f"{key}({ast.unparse(made.args)})\n\n{ast.get_docstring(made) or ''}".rstrip()


@app.command()
def claim(
    key: Annotated[str | None, typer.Argument(help="A method; none with --family.")] = None,
    family: Annotated[str | None, typer.Option(help="All claims of a family, or 'all'.")] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="Give it more than once for more seeds. Default 0.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="The long version: more seeds, longer horizons.")] = False,
    out: Annotated[Path, typer.Option(help="Where the evidence goes: NAME.json and NAME.png.")] = Path("claims"),
    as_json: AsJson = False,
) -> None:
    """Re-check a paper's headline in miniature; exit 1 if it does not hold."""
    from backchannel.workshop.publish import claims, run_seed, write_evidence

    if (key is None) == (family is None):
        raise ValueError("name one method, or a family with --family")
    if key is not None:
        chosen = [(str(_entry(key)["family"]), key)]
        if chosen[0] not in claims():
            raise ValueError(f"{key} has no claim yet")
    else:
        chosen = claims(None if family == "all" else family)
        if not chosen:
            raise ValueError(f"no claims in the family {family!r}")
    out.mkdir(parents=True, exist_ok=True)  # what cannot be written is said before the work
    reports: list[dict[str, Any]] = []
    for fam, name in chosen:
        runs, failed = [], ""
        try:
            for number in seed or [0]:
                evidence, run = run_seed(fam, name, number, full)
                runs.append(run)
                if not as_json:
                    _print_run(name, evidence.statement, run)
        except Exception as error:
            if key is not None or stopping():
                raise
            failed = f"{type(error).__name__}: {error}"  # said below; the other claims of the family go on
            if not as_json:
                print(f"{name} failed: {failed}\n")
        else:
            paths = write_evidence(out, fam, name, evidence, runs)
            if not as_json:
                print("wrote " + ", ".join(str(path) for path in paths) + "\n")
        holds = not failed and all(run["holds"] for run in runs)
        reports.append({"claim": name, "holds": holds, "failed": failed, "runs": runs})
    if as_json:
        print_json({"claims": reports})
    elif key is None:
        _print_reports(reports)
    if not all(report["holds"] for report in reports):
        raise typer.Exit(1)


def _print_reports(reports: list[dict[str, Any]]) -> None:
    rows = []
    for report in reports:
        runs = report["runs"]
        told = "failed" if report["failed"] else "holds" if report["holds"] else "does not hold here"
        rows.append([report["claim"], told, len(runs), sum(run["seconds"] for run in runs)])
    print_table("claims", ["claim", "verdict", "seeds", "seconds"], rows)
    held = sum(report["holds"] for report in reports)
    print(f"{held} of {len(reports)} hold, in {sum(row[3] for row in rows):.0f} seconds")


def _print_run(name: str, statement: str, run: dict[str, Any]) -> None:
    print(f"{name}, seed {run['seed']}: {statement}")
    for table in run["tables"]:
        print_table(table["title"], table["columns"], table["rows"])
    columns = ["check", "measured", "bound", "holds", "fails by luck"]
    rows = []
    for check in run["checks"]:
        bound = check["bound"] if check["relation"] == "in" else f"{check['relation']} {check['bound']:.4g}"
        name = check["name"] if check["headline"] else f"({check['name']})"
        rows.append([name, check["measured"], bound, check["holds"], check["error_rate"]])
    print_table("checks (those in brackets are context)", columns, rows)
    if run["note"]:
        print(run["note"])
    print(f"{'holds' if run['holds'] else 'does not hold here'} ({run['seconds']} s)")


def _entry(key: str) -> dict[str, Any]:
    from backchannel.card import FAMILIES, index

    for entry in index():
        if entry["key"] == key:
            return entry
    from difflib import get_close_matches

    keys = [entry["key"] for entry in index()]
    near = [key.lower()] if key.lower() in keys else get_close_matches(key.lower(), keys, n=3, cutoff=0.3)
    unlisted = next((place for place in FAMILIES if (PACKAGE / place / f"{key}.py").exists()), None)
    if unlisted and key.isidentifier() and not key.startswith("_"):
        raise ValueError(f"{unlisted}/{key}.py is not on the list of methods yet: run `make sync`")
    raise KeyError(f"no method is called {key!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""))


def _kind(given: list[str]) -> str | None:
    """The one kind of feedback that was asked for, in small letters."""
    kinds = [kind.strip().lower() for each in given for kind in each.split(",")]
    if len(set(kinds)) > 1:
        raise ValueError(f"--feedback takes one kind, not {' and '.join(kinds)}: ask for each in turn")
    return kinds[0] if kinds else None


def _fits(entry: dict[str, Any], words: list[str], feedback: str | None, family: str | None) -> bool:
    text = " ".join([entry["key"], entry["name"], entry["summary"], *entry["topics"], *entry["feedback"]]).lower()
    return (
        all(word.lower() in text for word in words)
        and feedback in (None, *entry["feedback"])
        and family in (None, entry["family"])
    )


def _takes_late(entry: dict[str, Any]) -> bool:
    """Every learner can be told late, and what was made for it says so."""
    from backchannel.card import LATE

    return entry["protocol"] == "learner" or LATE in entry["topics"]


def _nothing_fits(entries: list[dict[str, Any]], words: list[str], feedback: str | None, family: str | None) -> str:
    """Which of what was asked for nobody has, with what there is instead."""
    kinds = sorted({kind for entry in entries for kind in entry["feedback"]})
    if feedback not in (None, *kinds):
        return f"no method has the feedback {feedback!r}; one of {', '.join(kinds)}{_nearest(feedback, kinds)}"
    families = sorted({entry["family"] for entry in entries})
    if family not in (None, *families):
        return f"no method is in the family {family!r}; one of {', '.join(families)}{_nearest(family, families)}"
    topics = sorted({topic for entry in entries for topic in entry["topics"]})
    for word in words:
        if not any(_fits(entry, [word], None, None) for entry in entries):
            return f"no method has the word {word!r}; the topics are {', '.join(topics)}"
    return "no method fits all of it; ask for less"


def _nearest(word: str | None, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word or "", known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
