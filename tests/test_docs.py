"""What the pages say runs, leads somewhere, and uses the words of the glossary."""

import doctest
import importlib.util
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backchannel.card import index

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("guides/*.md")])
BY_HAND = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"^```(pycon|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DISPLAY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page, language):
    return [found[2] for found in BLOCK.finditer(page.read_text()) if found[1] == language]


def topics():
    table = (DOCS / "glossary.md").read_text().split("\n## Topics\n")[1]
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "pycon")], ids=lambda page: page.stem)
def test_snippets_and_commands_run(page, tmp_path, monkeypatch):
    snippets, commands = blocks(page, "pycon"), blocks(page, "console")
    if any("import torch" in snippet for snippet in snippets):
        pytest.importorskip("torch", reason="this page shows the torch engine")
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest("\n".join(snippets), {}, page.name, str(page), 0)
    assert test.examples
    said = []
    results = doctest.DocTestRunner(optionflags=DISPLAY).run(test, out=said.append)
    assert results.failed == 0, "".join(said)
    for line in "".join(commands).splitlines():
        run(line)


def run(line):
    """One `$ backchannel ...` of a page."""
    from backchannel.cli import act, app, audit, compare, convert, learn, methods, workshop  # noqa: F401  (each registers its commands)

    prompt, program, *arguments = shlex.split(line)
    assert (prompt, program) == ("$", "backchannel")
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.output


def test_every_block_that_shows_a_prompt_is_run():
    for page in PAGES:
        text = page.read_text()
        assert len(re.findall(r"^>>> ", text, re.MULTILINE)) == sum(
            len(re.findall(r"^>>> ", block, re.MULTILINE)) for block in blocks(page, "pycon")
        ), f"{page.name} has a >>> outside of ```pycon"


@pytest.mark.parametrize("page", BY_HAND, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        place = Path(os.path.normpath(page.parent / path)) if path else page
        assert place.exists(), f"{page.name} links {target}, which is not there (to a method, link its source)"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w]+", "-", head.lower()).strip("-") for head in heads]
            assert anchor in slugs, f"{page.name} links {target}, but that page has no such heading"


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    for page in PAGES:
        assert str(page.relative_to(DOCS)) in nav, f"{page.name} is not in the nav of mkdocs.yml"


def test_every_topic_is_in_the_glossary():
    known = topics()
    assert known == sorted(known)
    assert len(known) == len(set(known))
    for entry in index():
        for topic in entry["topics"]:
            assert topic in known, f"{entry['key']}: the topic {topic!r} is not in docs/glossary.md"


def test_every_topic_is_used():
    used = {topic for entry in index() for topic in entry["topics"]}
    assert [topic for topic in topics() if topic not in used] == []


def test_every_feedback_is_in_the_glossary():
    words = re.findall(r"^\*\*(.*)\*\*$", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    known = {word for line in words for word in re.split(r"[,;] ", line)}
    for entry in index():
        assert set(entry["feedback"]) <= known, f"{entry['key']}: {entry['feedback']}"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_to_the_source_lead_to_pages_of_the_site(generate):
    text = "[a](../src/backchannel/online/exp3.py), [b](../../src/backchannel/testing/battery.py), [c](../x.py), "
    text += "[d](../src/backchannel/loop.py) `../src/backchannel/loop.py`"
    assert generate.on_page_markdown(text, page=None) == (
        "[a](methods/online/exp3.md), [b](../reference/backchannel.testing.battery.md), [c](../x.py), "
        "[d](reference/backchannel.loop.md) `../src/backchannel/loop.py`"
    )


def test_a_chapter_becomes_markdown_with_nothing_read_as_markup(generate):
    text = (
        "Draw A_t < b*c, [x].\n\nEquations:\n\n    P_t = a * b   (1)\n\n      deeper\n\n"
        "Deviations: `a_b < c`.\n\n    >>> 1\n    1"
    )
    assert generate.markdown(text) == (
        "Draw A\\_t &lt; b\\*c, \\[x\\].\n\n**Equations:**\n\n```text\nP_t = a * b   (1)\n\n  deeper\n```\n\n"
        "**Deviations:** `a_b < c`.\n\n```pycon\n>>> 1\n1\n```\n"
    )


def test_a_check_that_one_seed_alone_made_leaves_the_others_empty(generate, tmp_path, monkeypatch):
    def check(name, measured, headline=True):
        return {"name": name, "measured": measured, "relation": "<=", "bound": 2.0, "holds": True, "headline": headline}

    runs = [
        {"seed": 0, "checks": [check("a | b", 1.0), check("a | b", 1.0, headline=False)]},
        {"seed": 7, "checks": [check("a | b", 1.5), check("a | b", 1.5, headline=False), check("with a model", 0.5)]},
    ]
    (tmp_path / "docs" / "evidence").mkdir(parents=True)
    (tmp_path / "docs" / "evidence" / "x.json").write_text(json.dumps({"statement": "s", "runs": runs}))
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    rows = [line for line in generate.evidence("x") if line.startswith("|")][2:]
    assert rows == [
        "| a \\| b | ≤ 2 | 1 | 1.5 |",
        "| (a \\| b) | ≤ 2 | 1 | 1.5 |",
        "| with a model | ≤ 2 |  | 0.5 |",
    ]


def test_every_method_has_a_page_with_its_references(generate):
    from backchannel.workshop.bib import parse

    references = parse((ROOT / "refs.bib").read_text())
    for entry in index():
        page = generate.method_page(entry, index(), references)
        assert page.startswith("# ")
        assert f"::: backchannel.{entry['family']}.{entry['key']}.{entry['key']}\n" in page
        assert references[entry["paper"]]["year"] in page
        shown = (DOCS / "evidence" / f"{entry['key']}.png").exists()
        assert (f"evidence/{entry['key']}.png" in page) == shown
