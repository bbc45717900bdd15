"""Status is computed: from tests that are written, and from evidence that is of this very code."""

import json
import textwrap

import pytest

from backchannel.workshop.status import PROOFS, code_hash, method_file, status, written_tests

METHOD = '''
"""Name: what it does."""

import math

CARD = dict(name="Name")


class State:
    """What it knows."""

    x: float = 0.0


def name(arms: int) -> float:
    """The factory."""
    # a remark
    return math.sqrt(2 * arms) if arms > 1 else 0.0
'''


@pytest.fixture
def house(tmp_path):
    """A package with one method, whose tests hold what a name is given for."""
    package, evidence = tmp_path / "package", tmp_path / "evidence"
    for folder in (package / "online" / "tests", evidence):
        folder.mkdir(parents=True)
    (package / "online" / "name.py").write_text(METHOD)
    return package, evidence


def prove(package, names):
    text = "\n".join(f"def {name}():\n    assert value() == 1\n" for name in names)
    (package / "online" / "tests" / "test_name.py").write_text(text)


def publish(package, evidence, holds, code=None):
    code = code or code_hash(method_file(package, "online", "name"))
    runs = [{"seed": seed, "holds": each} for seed, each in enumerate(holds)]
    (evidence / "name.json").write_text(json.dumps({"code": code, "runs": runs}))


WHOLE = [f"{proof}something" for proof in PROOFS]


def test_without_tests_it_is_a_sketch(house):
    assert status(*house, "online", "name") == "sketch"


@pytest.mark.parametrize("missing", range(4))
def test_three_proofs_and_a_contrast_are_all_needed(house, missing):
    prove(house[0], [name for i, name in enumerate(WHOLE) if i != missing])
    publish(*house, [True] * 3)
    assert status(*house, "online", "name") == "sketch"


def test_with_them_it_is_checked(house):
    prove(house[0], WHOLE)
    assert status(*house, "online", "name") == "checked"


def test_words_in_a_test_file_are_no_proofs(house):
    (house[0] / "online" / "tests" / "test_name.py").write_text("# " + " ".join(WHOLE) + f"\nx = {WHOLE!r}\n")
    assert status(*house, "online", "name") == "sketch"


def written(tmp_path, text):
    path = tmp_path / "test_file.py"
    path.write_text("import pytest\n\n" + textwrap.dedent(text))
    return written_tests(path)


@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "...",
        '"""Words."""',
        "raise NotImplementedError",
        'pytest.fail("to be written")',
        'pytest.skip("to be written")\n    assert value() == 1',
        "return\n    assert value() == 1",
        "assert True",
        'assert "to be written"',
        "value()",
    ],
)
def test_what_checks_nothing_is_not_written(tmp_path, body):
    assert written(tmp_path, f"def test_step_one():\n    {body}\n") == []


@pytest.mark.parametrize("mark", ["pytest.mark.skip", 'pytest.mark.skip("later")', "pytest.mark.xfail(strict=True)"])
def test_what_need_not_pass_is_not_written(tmp_path, mark):
    assert written(tmp_path, f"@{mark}\ndef test_step_one():\n    assert value() == 1\n") == []


@pytest.mark.parametrize(
    "body",
    [
        "assert value() == 1",
        "for x in range(3):\n        assert value(x) == x",
        "with pytest.raises(ValueError):\n        value()",
        "np.testing.assert_allclose(value(), 1)",
        "if value() > 2:\n        pytest.fail('too large')\n    assert value() > 0",
    ],
)
def test_what_checks_something_is_written(tmp_path, body):
    assert written(tmp_path, f"def test_step_one():\n    {body}\n") == ["test_step_one"]


def test_only_what_pytest_collects_is_counted(tmp_path):
    text = """
        class TestName:
            def test_step_one(self):
                assert value() == 1

        class Other:
            def test_known_one(self):
                assert value() == 1

        async def test_limit_one():
            assert value() == 1

        @pytest.mark.skipif(OLD, reason="not there yet")
        @pytest.mark.parametrize("x", [1, 2])
        def test_contrast_one(x):
            def test_step_two():
                assert value() == 1
            assert value() == x
    """
    assert sorted(written(tmp_path, text)) == ["test_contrast_one", "test_step_one"]


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ([True, True, True], "reproduced"),
        ([True, True, True, True], "reproduced"),
        ([True, True], "checked"),
        ([], "checked"),
        ([True, False, True], "does not hold here"),
        ([False, False, False], "does not hold here"),
    ],
)
def test_evidence_of_three_seeds_decides(house, holds, expected):
    prove(house[0], WHOLE)
    publish(*house, holds)
    assert status(*house, "online", "name") == expected


def test_evidence_of_other_code_is_old(house):
    prove(house[0], WHOLE)
    publish(*house, [True] * 3)
    method = house[0] / "online" / "name.py"
    method.write_text(METHOD.replace("2 * arms", "3 * arms"))
    assert status(*house, "online", "name") == "checked"
    method.write_text(METHOD.replace("The factory.", "The factory of it."))
    assert status(*house, "online", "name") == "reproduced"


def test_a_method_may_be_a_folder(house):
    package, _ = house
    (package / "online" / "wide").mkdir()
    assert method_file(package, "online", "wide") == package / "online" / "wide" / "__init__.py"
    assert method_file(package, "online", "name") == package / "online" / "name.py"


def hashed(tmp_path, text):
    path = tmp_path / "file.py"
    path.write_text(text)
    return code_hash(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Name: what it does.", "Name: what it does, said better."),
        ("What it knows.", "All that it knows."),
        ("The factory.", "The factory.\n\n    Args:\n        arms: K.\n    "),
        ("# a remark", "# another"),
        ('name="Name"', 'name="Name", topics=("stochastic",)'),
        ("math.sqrt(2 * arms)", "math.sqrt(\n        2 * arms\n    )"),
        ('    """The factory."""\n', ""),
    ],
)
def test_words_and_the_card_do_not_change_the_hash(tmp_path, old, new):
    assert old in METHOD
    assert hashed(tmp_path, METHOD.replace(old, new)) == hashed(tmp_path, METHOD)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2 * arms", "2.0 * arms"),
        ("arms > 1", "arms >= 1"),
        ("else 0.0", "else 1.0"),
        ("x: float = 0.0", "x: float = 1.0"),
        ("def name(arms: int)", "def name(arms: int, more: int = 0)"),
        ("import math", "import math\n\nETA = 0.5"),
        ("math.sqrt", "math.exp"),
    ],
)
def test_code_changes_the_hash(tmp_path, old, new):
    assert old in METHOD
    assert hashed(tmp_path, METHOD.replace(old, new)) != hashed(tmp_path, METHOD)


def test_a_string_that_is_no_docstring_is_code(tmp_path):
    text = textwrap.dedent('''
        def name():
            """Words."""
            return "{}"
    ''')
    assert hashed(tmp_path, text.format("a")) != hashed(tmp_path, text.format("b"))
