"""Records of answers: what is refused, and how one kind becomes another."""

from collections import Counter

import pytest

from backchannel.lm.answer_kinds import converted
from backchannel.lm.answers import Preference, Ranked, Rated, answers_of, content, kind_of, turn
from backchannel.lm.protocol import assistant, system, user

ASKED = [user("Is the sky blue?")]


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda: Preference("a", "", "b"), "chosen is empty"),
        (lambda: Preference("a", "b", " \n"), "rejected is empty"),
        (lambda: Preference("a", "b", "b"), "chosen and rejected are the same: 'b'"),
        (lambda: Preference(ASKED, [assistant("b")], "b"), "chosen and rejected are the same: 'b'"),
        (lambda: Preference("a", "b", "c", strength=1.5), "strength must be a probability, not 1.5"),
        (lambda: Preference("a", "b", "c", strength=float("nan")), "strength must be a probability, not nan"),
        (lambda: Preference("a", "b", "c", gap=float("nan")), "gap must be a finite number, not nan"),
        (lambda: Preference("a", "b", "c", rationale=""), "rationale must not be empty: leave it out"),
        (lambda: Rated("a", "b", score=float("inf")), "score must be a finite number, not inf"),
        (lambda: Rated("a", "b", annotator=""), "annotator must not be empty: leave it out"),
        (
            lambda: Rated("a", [assistant("b")]),
            "the prompt is a plain text and answer a conversation: expected the same",
        ),
        (lambda: Rated(["a"], "b"), r"the prompt must be a text or a list of messages, not \['a'\]"),
        (lambda: Rated(None, "b"), "the prompt must be a text or a list of messages, not None"),
        (lambda: Rated("a", 3), "answer must be a text or a message, not 3"),
        (lambda: Rated([], "b"), "the prompt has no message"),
        (
            lambda: Rated([*ASKED, assistant("x")], "b"),
            "must end with a message of the user, not of the assistant; `con",
        ),
        (lambda: Rated([system("x")], "b"), "must end with a message of the user, not of the system$"),
        (lambda: Rated([*ASKED, system("x"), *ASKED], "b"), "message 2 of the prompt is the system's"),
        (
            lambda: Rated(ASKED, "b", continues=True),
            "continues a message of the assistant, but the prompt ends with the us",
        ),
        (lambda: Rated("a", "b", continues=True), "continues is for conversations"),
        (lambda: Rated(ASKED, [user("b")]), r"answer must be one message of the assistant, not 1 \(user\)"),
        (lambda: Rated(ASKED, []), r"answer must be one message of the assistant, not 0 \(none\)"),
        (lambda: Rated(ASKED, [assistant("b"), *ASKED]), r"not 2 \(assistant, user\)"),
        (lambda: Ranked("a", ["b"]), "a ranking needs two answers or more, not 1"),
        (lambda: Ranked("a", ["b", "c", "b"]), "answers 1 and 3 are the same: 'b'"),
        (lambda: Ranked("a", ["b", ""]), "answer 2 is empty"),
        (lambda: Ranked("a", ["b", "c"], [1.0]), "there are 2 answers and 1 scores"),
        (lambda: Ranked("a", ["b", "c"], [1.0, 2.0]), "score 2 is higher than score 1"),
        (lambda: Ranked("a", ["b", "c"], [1.0, float("nan")]), "each score must be a finite number, not nan"),
    ],
)
def test_what_could_only_do_harm_is_refused(made, sentence):
    with pytest.raises(ValueError, match=sentence):
        made()


def test_what_is_good_is_not_refused():
    assert Preference([system("x"), *ASKED], "b", [assistant("c")], strength=0.0, gap=-1.0).tie is False
    assert Preference("", "b", "b ", strength=0.5).tie
    assert Ranked("a", ["b", "c"], [1.0, 1.0]).scores == [1.0, 1.0]
    assert Rated([*ASKED, assistant("It")], " is.", continues=True).continues
    for record, kind, said in (
        (Preference("a", "b", "c"), "pairs", ["b", "c"]),
        (Rated(ASKED, [assistant("b")]), "singles", ["b"]),
        (Ranked("a", ["b", "c"]), "rankings", ["b", "c"]),
    ):
        assert kind_of(record) == kind
        assert [content(answer) for answer in answers_of(record)] == said
    assert turn("b") == turn([assistant("b")]) == assistant("b")


def made(records, kind):
    left = Counter()
    found = list(converted(records, kind, left))
    return found, dict(left)


def test_pairs_of_rankings():
    ranked = Ranked(
        ASKED, ["a", "b", "c"], [3.0, 1.0, 1.0], rationale="because", annotator="Ada", id="r", meta={"x": 1}
    )
    more = {"rationale": "because", "annotator": "Ada", "meta": {"x": 1}}
    found, left = made([ranked], "pairs")
    assert found == [
        Preference(ASKED, "a", "b", gap=2.0, id="r/1-2", **more),
        Preference(ASKED, "a", "c", gap=2.0, id="r/1-3", **more),
    ]
    assert left == {"ties": 1}
    found, left = made([Ranked("q", ["a", "b", "c", "d"])], "pairs")
    assert [(each.chosen, each.rejected, each.gap, each.id) for each in found] == [
        (*pair, None, None) for pair in ("ab", "ac", "ad", "bc", "bd", "cd")
    ]
    assert left == {}


def test_ratings_are_compared_within_a_prompt_and_an_annotator():
    ratings = [
        Rated("q", "a", score=1, annotator="Ada"),
        Rated("q", "b", score=5, annotator="Ada"),
        Rated("q", "c", score=9, annotator="Bob"),
        Rated("p", "d", score=2, annotator="Ada"),
        Rated("q", "a", score=2, annotator="Ada"),  # she thought again
        Rated("q", "e", annotator="Ada"),
        Preference("x", "y", "z", strength=0.7),
    ]
    found, left = made(ratings, "pairs")
    assert found == [Preference("x", "y", "z", strength=0.7), Preference("q", "b", "a", gap=3, annotator="Ada")]
    assert left == {
        "ratings of an answer rated again": 1,
        "demonstrations": 1,
        "ratings without another of the same prompt and annotator": 2,
    }
    for each, place in zip(ratings, "xyz", strict=False):
        each.meta = {"shop": 1, "place": place}
    ranked, _ = made(ratings[:2], "rankings")
    assert ranked == [Ranked("q", ["b", "a"], [5, 1], annotator="Ada", meta={"shop": 1})]


def test_good_and_bad_answers_make_pairs():
    ratings = [
        Rated(ASKED, text, good, meta={"x": 1, "y": text})
        for text, good in (("a", True), ("b", False), ("c", True), ("d", False))
    ]
    found, left = made(ratings, "pairs")
    assert [(each.chosen, each.rejected) for each in found] == [("a", "b"), ("a", "d"), ("c", "b"), ("c", "d")]
    assert all(each.meta == {"x": 1} for each in found)
    assert left == {"ties": 2}


def test_pairs_become_answers_that_are_good_or_bad():
    pairs = [
        Preference("q", "a", "b", 0.9, 1.0, id="p", annotator="Ada"),
        Preference("q", "a", "b", 0.2),
        Preference("q", "a", "b", 0.5),
    ]
    found, left = made([*pairs, Ranked("q", ["a", "b"], id="r"), Ranked("q", ["a", "b"], [2, 1], id="s")], "singles")
    assert found == [
        Rated("q", "a", True, annotator="Ada", id="p/chosen"),
        Rated("q", "b", False, annotator="Ada", id="p/rejected"),
        Rated("q", "a", False),
        Rated("q", "b", True),
        Rated("q", "a", score=2, id="s/1"),
        Rated("q", "b", score=1, id="s/2"),
    ]
    assert left == {"strengths": 2, "gaps": 1, "ties": 1, "rankings without scores": 1}
    ranked, left = made(pairs, "rankings")
    assert ranked == [Ranked("q", ["a", "b"], annotator="Ada", id="p"), Ranked("q", ["b", "a"])]
    assert left == {"strengths": 2, "gaps": 1, "ties": 1}


def test_demonstrations_are_the_best_alone():
    records = [
        Preference("q", "a", "b"),
        Preference("q", "a", "b", 0.1),
        Preference("q", "a", "b", 0.5),
        Ranked("q", ["c", "d"]),
        Rated("q", "e", True, id="x"),
        Rated("q", "f", False),
        Rated("q", "g"),
    ]
    found, left = made(records, "demonstrations")
    assert found == [Rated("q", "a"), Rated("q", "b"), Rated("q", "c"), Rated("q", "e", id="x"), Rated("q", "g")]
    assert left == {"ties": 1, "answers that are bad": 1}


def test_demonstrations_of_scored_answers_are_the_best_of_their_prompt():
    records = [
        Rated("q", "a", score=1),
        Rated("q", "b", score=5, id="x"),
        Rated("q", "c", score=5),
        Rated("q", "d", score=9, annotator="Ada"),  # nothing is known of how she scores others
        Rated("p", "e", score=2),
        Rated("o", "f", score=2),
        Rated("o", "g", score=2),
        Rated("q", "h", True, score=1),
        Rated("q", "i", False, score=9),
    ]
    found, left = made(records, "demonstrations")
    assert found == [Rated("q", "h"), Rated("q", "b", id="x"), Rated("q", "c")]
    assert left == {
        "answers scored below the best of their prompt": 1,
        "scored answers without a lower score beside them": 4,
        "answers that are bad": 1,
    }


def test_what_was_not_left_out_is_not_counted():
    assert made([Rated("q", "a", True), Rated("q", "b", False)], "pairs") == ([Preference("q", "a", "b")], {})


def test_the_best_of_a_ranking_with_scores_is_what_it_would_be_of_single_ratings():
    def both(*scores):
        ranked = Ranked("q", list("abc"), list(scores))
        singles = [Rated("q", answer, score=score) for answer, score in zip("abc", scores, strict=True)]
        return made([ranked], "demonstrations"), made(singles, "demonstrations")

    for scores, best in (((3, 2, 1), "a"), ((3, 3, 1), "ab"), ((3, 1, 1), "a"), ((2, 2, 2), "")):
        (of_ranking, left), (of_singles, other) = both(*scores)
        assert [each.answer for each in of_ranking] == [each.answer for each in of_singles] == list(best), scores
        equal = "scored answers without a lower score beside them"
        assert (
            left == other == ({"answers scored below the best of their prompt": 3 - len(best)} if best else {equal: 3})
        )
    told = Ranked("q", list("abc"), [3, 3, 1], id="r", annotator="Ada")
    assert made([told], "demonstrations")[0] == [
        Rated("q", "a", id="r/1", annotator="Ada"),
        Rated("q", "b", id="r/2", annotator="Ada"),
    ]
