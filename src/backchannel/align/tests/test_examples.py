"""Examples: what is said of records that an objective cannot use."""

import pytest

pytest.importorskip("torch", reason="objectives are torch's")
pytest.importorskip("transformers", reason="tokenizers are those of transformers")

from backchannel.align.examples import examples
from backchannel.align.tokens import Encoder
from backchannel.lm.answers import Ranked, Rated
from backchannel.parts.objectives import Info, Objective, Rankings
from backchannel.preference.bco import bco
from backchannel.preference.dpo import dpo
from backchannel.preference.kto import kto
from backchannel.preference.plackett_luce import plackett_luce
from backchannel.testing.small_models import word_tokenizer


@pytest.mark.parametrize("objective", [kto(0.1), bco(0.1)], ids=["kto", "bco"])
def test_an_objective_of_good_and_bad_answers_does_not_learn_from_scores(objective):
    scored = [Rated(f"w{i}", f" w{i + 1}", score=i / 8) for i in range(8)]
    with pytest.raises(ValueError, match=r"learns which answers are good \(label\), and the data say it of none"):
        examples(scored, Encoder(word_tokenizer(), 64), objective)


def test_what_was_not_left_out_is_not_spoken_of():
    rated = [Rated("w1", " w2", good=True), Rated("w1", " w3", good=False)]
    found, notes = examples(rated, Encoder(word_tokenizer(), 64), dpo(0.1))
    assert len(found) == 1
    assert notes == []


def _ranked(prompt, *scores):
    return Ranked(prompt, [" w1", " w2", " w3"], list(scores) or None)


def test_an_order_among_equals_is_not_learned():
    known = [
        _ranked("w4", 3, 2, 1),
        _ranked("w5", 3, 3, 1),
        _ranked("w6", 1, 1, 1),
        _ranked("w7", 3, 1, 1),
        _ranked("w8"),
    ]
    singles = [Rated("w9", f" w{k}", score=score) for k, score in ((1, 2.0), (2, 1.0), (3, 2.0))]
    found, notes = examples([*known, *singles], Encoder(word_tokenizer(), 64), plackett_luce(0.1))
    assert [each.record.prompt for each in found] == ["w4", "w8"]
    assert notes == ["left out: rankings with ties (4)"]

    # One that reads scores can tell equals from others.
    listwise = Objective(lambda r: ((r.score.softmax(1) * -r.policy).sum(1), Info(r.policy[:, 0].detach())), Rankings)
    found, notes = examples(known[:4], Encoder(word_tokenizer(), 64), listwise)
    assert (len(found), notes) == (4, [])
