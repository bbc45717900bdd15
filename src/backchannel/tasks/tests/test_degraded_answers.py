"""Questions with good and degraded answers: what each sort is, and parts that do not meet."""

import numpy as np
import pytest

from backchannel.tasks.degraded_answers import KINDS, SHARES, answered, subjects

PARTS = [(part, n) for part, n in (("train", 120), ("development", 50), ("test", 200))]


@pytest.mark.parametrize(("part", "n"), PARTS)
def test_answers_are_what_they_are_called(part, n):
    data = answered(n, part, np.random.default_rng(3))
    assert len({each.question for each in data}) == n
    assert {each.kind for each in data} == set(KINDS)
    for each in data:
        known = KINDS[each.kind].values
        stem = each.good[: len(each.truncated)]
        assert each.truncated == stem
        assert each.truncated[-1] not in ".,"
        assert 0.25 <= len(each.truncated.split()) / len(each.good.split()) <= 0.7
        assert each.wrong != each.good
        assert len(each.wrong.split()) >= 4
        assert any(value.lower() in each.good.lower() for value in known.values())
        assert each.irrelevant not in (each.good, each.wrong)
        assert "{" not in "".join(each)


def test_a_wrong_answer_differs_from_the_good_one_by_its_value_alone():
    for each in answered(200, "test", np.random.default_rng(5)):
        facts = KINDS[each.kind]
        hits = [
            (s, v) for s, v in facts.values.items() for form in facts.answers
            if form.format(s=s, v=v).replace(" my ", " your ").lower() == each.good.lower()
        ]  # fmt: skip
        assert len(hits) == 1
        subject, value = hits[0]
        assert subject in each.question
        others = [str(int(value) + k) for k in range(-9, 10) if k] if each.kind == "sum" else set(facts.values.values())
        made = {
            form.format(s=subject, v=other).replace(" my ", " your ").lower()
            for form in facts.answers for other in others if other != value
        }  # fmt: skip
        assert each.wrong.lower() in made


def test_parts_share_no_subject_and_are_the_same_for_every_generator():
    found = {part: set(subjects(part)) for part in SHARES}
    assert not found["train"] & found["test"]
    assert not found["development"] & (found["train"] | found["test"])
    assert sum(map(len, found.values())) == sum(len(kind.values) for kind in KINDS.values())
    one, other = (answered(40, "test", np.random.default_rng(seed)) for seed in (1, 1))
    assert one == other
    assert one != answered(40, "test", np.random.default_rng(2))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: answered(10_000, "test", np.random.default_rng(0)), "n must be .* at most"),
        (lambda: answered(1, "all", np.random.default_rng(0)), "part must be one of"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
