"""The audit of preference data: reading, near texts, and each count by hand."""

import json
import math
import random

import numpy as np
import pytest
from scipy.stats import binom

from backchannel.align.audit import audit, share
from backchannel.align.gathered import gather
from backchannel.align.near import near_pairs, plain
from backchannel.align.read import read
from backchannel.ledger.problems import LogError


def pair(prompt, chosen, rejected, **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def gathered(rows, group=None, context=None, shown=None):
    return gather(read(rows), "made", group, context, shown)


def audited(rows, other=None, **columns):
    return audit(gathered(rows, **columns), None if other is None else gathered(other), draws=19)


def words(n, seed=0):
    rng = random.Random(seed)
    return [f"w{rng.randrange(10_000)}" for _ in range(n)]


def test_near_texts_are_those_whose_runs_overlap():
    base = words(60)
    texts = [
        " ".join(base),
        " ".join(base).upper() + "!",  # the same words
        " ".join([*base[:-1], "other"]),  # 57 of 59 runs
        " ".join([*base[:40], *words(20, 1)]),  # 38 of 78
        " ".join(words(60, 2)),
        "short",
        "Short.",
    ]
    assert near_pairs(texts) == [(0, 1), (0, 2), (5, 6)]
    assert plain(" A,  b-C ") == "a b c"
    assert near_pairs([]) == []


def test_near_texts_are_found_among_many():
    # Similarity at the edge, 0.8: missed with probability below 1e-4 each; of 50 none is.
    texts, expected = [], []
    for k in range(50):
        base = words(202, k)
        changed = [*base[:180], *words(22, 1000 + k)]  # 178 runs in common of 222
        texts += [" ".join(base), " ".join(changed)]
        expected.append((2 * k, 2 * k + 1))
    assert near_pairs(texts) == expected


def test_all_texts_in_one_bucket_are_still_found():
    base = words(300)
    texts = [" ".join([*base, f"tail{k}"]) for k in range(120)]
    found = near_pairs(texts)
    assert {j for _, j in found} == set(range(1, 120))
    assert len(found) < 120 * 119 / 2


def test_a_share_takes_votes_on_one_prompt_together():
    hits = np.array([1, 1, 0, 1] * 25)
    alone = share(hits)
    p, z, n = 0.75, 1.96, 100
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (alone.value, alone.low, alone.high) == pytest.approx((p, middle - reach, middle + reach))
    assert share(hits, np.arange(100)) == alone
    copied = share(np.repeat(hits, 5), np.repeat(np.arange(100), 5))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=1e-9)
    assert copied.count == 500
    assert share(np.empty(0)).value is None
    assert share(np.ones(9), np.zeros(9)).low < 0.3  # one prompt


def test_rows_become_votes():
    rows = [
        pair("p", "aa", "b", annotator="x", group="g", gap=-2, first="rejected"),
        pair("p", "aa", "b", strength=0.5),
        pair("p", "aa", "b", strength=0.25),
        {"prompt": "q", "responses": ["c", "d", "e"], "ratings": [1, 3, 1]},
        {"prompt": "p", "completion": "aa", "score": 5},
        {"prompt": "p", "completion": "aa", "score": 4},
        {"prompt": "p", "completion": "b", "label": True},
        pair("q", "c", ""),
        pair("q", "c", "c"),
        {"prompt": "q"},
    ]
    found = gathered(rows, group="group", shown="first")
    assert found.vote == [1, 0, -1, 1, 1, 0]
    assert [found.texts[i] for i in found.first] == ["aa", "aa", "aa", "d", "d", "c"]
    assert [found.texts[i] for i in found.second] == ["b", "b", "b", "c", "e", "e"]
    assert found.shown == [-1, 0, 0, 0, 0, 0]
    assert found.group[0] == "g"
    assert found.from_ranking == [False] * 3 + [True] * 3
    np.testing.assert_array_equal(found.gaps(), [-2, 3.5, 3.5, np.nan, np.nan, np.nan])
    assert found.bad.kinds == {
        "an answer that is empty": 1,
        "answers that are the same": 1,
        "a row that cannot be read": 1,
    }
    assert "row 8" in found.bad.firsts["an answer that is empty"]
    with pytest.raises(LogError, match="no row of made has a column 'team'"):
        gathered(rows, group="team")


def test_conversations_and_plain_prompts_are_both_read():
    told = [{"role": "user", "content": "Hi"}]
    found = gathered([pair(told, "a", "b"), pair(told, "a", "b"), pair("Hi", "a", "b")])
    assert list(found.prompts) == ["user: Hi", "Hi"]


def test_duplicates_and_conflicts_by_hand():
    rows = [
        pair("p one", "a", "b", annotator="x"),
        pair("p one", "a", "b", annotator="x"),  # again
        pair("p one", "a", "b", annotator="y"),
        pair("P one!", "a", "b", annotator="x"),  # nearly the same prompt
        pair("q", "a", "b", annotator="x"),
        pair("q", "b", "a", annotator="x"),  # against oneself
        pair("r", "a", "b", annotator="x"),
        pair("r", "b", "a", annotator="y"),  # against another
        pair("s", "Yes.", "yes"),
    ]
    found = audited(rows)
    assert (found.duplicates.votes, found.duplicates.prompts, found.duplicates.answers) == (1, 1, 1)
    assert found.duplicates.examples == [("p one", "P one!")]
    assert (found.conflicts.pairs.value, found.conflicts.pairs.count) == (pytest.approx(2 / 3), 3)
    assert (found.conflicts.own.value, found.conflicts.own.count) == (pytest.approx(1 / 2), 2)
    assert (found.votes, found.prompts, found.answers) == (9, 5, 10)


def test_length_is_found_where_it_is_and_not_where_it_is_not():
    # 500 prompts, one vote each; P(longer) = sigmoid(b log2 ratio). Five standard errors: below 1e-6.
    rng = random.Random(0)
    for slope in (0.0, 0.7):
        rows = []
        for k in range(500):
            a, b = ("x" * rng.choice([10, 20, 40, 80]) + side for side in "ab")
            first = rng.random() < 1 / (1 + math.exp(-slope * math.log2(len(a) / len(b))))
            rows.append(pair(f"{k}", *((a, b) if first else (b, a))))
        length = audited(rows).length
        assert abs(length.effect - slope) < 5 * length.error
        assert 0.02 < length.error < 0.2
        assert (length.longer.low > 0.5) == (slope > 0)
        counted = [each.chosen.count for each in length.bins]
        assert counted == counted[::-1]
        assert sum(counted) == 1000
        assert next(each.chosen.value for each in length.bins if each.chosen.count) < (0.5 if slope else 1.0)
    assert length.explained > 0.05


def test_length_by_hand_and_its_ties():
    rows = [pair("p", "aaaa", "b"), pair("q", "c", "dd"), pair("r", "ee", "f"), pair("s", "g", "h")]
    length = audited(rows).length
    assert (length.longer.value, length.longer.count) == (pytest.approx(2 / 3), 3)
    assert length.ratio == pytest.approx(2**0.5)  # of 4, 1/2, 2 and 1
    even = audited([pair("p", "a", "b"), pair("q", "c", "d")]).length
    assert (even.longer.value, even.effect, even.bins) == (None, None, [])


def test_length_beside_ratings_is_what_ratings_leave():
    # Longer answers are rated higher, and choices follow ratings alone: length tells choices, but not beside ratings.
    rng, rows = random.Random(1), []
    for k in range(800):
        sizes = rng.choice([10, 20, 40]), rng.choice([10, 20, 40])
        scores = [math.log2(size) + rng.gauss(0, 1) for size in sizes]
        a, b = ("x" * size + side for size, side in zip(sizes, "ab", strict=True))
        better = rng.random() < 1 / (1 + math.exp(scores[1] - scores[0]))
        order = (0, 1) if better else (1, 0)
        texts = [(a, b)[i] for i in order]
        rows.append(pair(f"{k}", *texts, score_chosen=scores[order[0]], score_rejected=scores[order[1]]))
    length = audited(rows).length
    assert length.effect > 5 * length.error
    assert abs(length.beside) < 5 * length.beside_error
    assert length.beside_error < 0.2


def test_order_and_ratings_by_hand():
    rows = [
        pair("p", "a", "b", shown="chosen", score_chosen=3, score_rejected=1),
        pair("q", "a", "b", shown="chosen", score_chosen=1, score_rejected=3),
        pair("r", "a", "b", shown="rejected", score_chosen=2, score_rejected=2),
        pair("s", "a", "b", shown="chosen"),
        pair("t", "a", "b"),
    ]
    found = audited(rows, shown="shown")
    assert (found.position.value, found.position.count) == (0.75, 4)
    assert (found.ratings.contradict.value, found.ratings.contradict.count) == (pytest.approx(2 / 3), 3)
    assert found.ratings.reversed == pytest.approx(1 / 3)
    assert audited(rows).position.count == 0


def test_leakage_by_hand():
    base = " ".join(words(40))
    own = [pair("shared", "a", "b"), pair(base, "c", "d"), pair("own", "e", "f"), pair("shared", "b", "z")]
    other = [pair("Shared!", "B", "a"), pair(base + " and more", "x", "y")]
    leak = audited(own, other).leakage
    assert (leak.prompts.value, leak.prompts.count, leak.near) == (pytest.approx(1 / 3), 3, 1)
    assert (leak.pairs.value, leak.pairs.count) == (0.25, 4)
    assert leak.examples == ["shared"]
    assert audited(own, [pair("else", "g", "h")]).leakage.prompts.value == 0.0


def test_the_card_is_of_choices_alone():
    # Ten rankings of three answers: thirty pairs that cannot go round, and no choice.
    rankings = [{"prompt": f"{k}", "responses": ["a", "b", "c"], "rankings": [1, 2, 3]} for k in range(10)]
    assert audited(rankings).card is None
    rows = [
        pair("p", *order, annotator=f"{person}", team="ab"[person % 2])
        for person in range(8)
        for order in (("a", "b"), ("b", "c"), ("c", "a"))
    ]
    card = audited([*rankings, *rows], group="team").card
    assert (card.votes, card.triples.triples, card.items, card.annotators) == (24, 2, 3, 8)
    assert card.groups.pairs == 3
    assert card.agreement.value == 1.0


def test_intervals_of_length_hold_where_votes_on_a_prompt_hang_together():
    # 60 data sets of 40 prompts whose 12 votes are all alike: intervals that took votes one by one would miss most.
    missed = 0
    for seed in range(60):
        rng = random.Random(seed)
        hits = np.repeat([rng.random() < 0.5 for _ in range(40)], 12)
        found = share(hits, np.repeat(np.arange(40), 12))
        missed += not found.low <= 0.5 <= found.high
    assert missed <= binom.isf(1e-4, 60, 0.07)


def test_everything_is_plain_data():
    import msgspec

    found = audited([pair("p", "a", "bb"), pair("q", "cc", "d")])
    assert json.loads(msgspec.json.encode(found))["length"]["longer"]["count"] == 2
