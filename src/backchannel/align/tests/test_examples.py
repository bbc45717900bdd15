"""Examples: what is said of records that an objective cannot use."""

import pytest

pytest.importorskip("torch", reason="objectives are torch's")
pytest.importorskip("transformers", reason="tokenizers are those of transformers")

from backchannel.align.examples import examples
from backchannel.align.tokens import Encoder
from backchannel.lm.answers import Rated
from backchannel.preference.bco import bco
from backchannel.preference.dpo import dpo
from backchannel.preference.kto import kto
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
