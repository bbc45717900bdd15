"""Rationales: the question why, and an objective that learns its answer."""

import msgspec
import pytest

torch = pytest.importorskip("torch", reason="examples are torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from backchannel.align.examples import batch, examples  # noqa: E402
from backchannel.align.model import Answers  # noqa: E402
from backchannel.align.rationales import asked_why  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.tokens import Encoder  # noqa: E402
from backchannel.align.tune import sums, tune  # noqa: E402
from backchannel.lm.answers import Preference  # noqa: E402
from backchannel.lm.protocol import user  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.rationale_dpo import rationale_dpo  # noqa: E402
from backchannel.testing.small_models import small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`", "ignore:.*pin_memory")


def _pairs(n):
    return [msgspec.structs.replace(each, rationale=f"w{i % 7} w3") for i, each in enumerate(word_pairs(n))]


def test_the_question_is_as_conversational_as_the_pair():
    pair = Preference([user("Is the sky blue?")], "Yes.", "No.", rationale="It is.", id="p")
    asked = asked_why(pair)
    assert (asked.answer, asked.id, len(asked.prompt), asked.prompt[0].role) == ("It is.", "p", 1, "user")
    text = asked.prompt[0].content
    assert text.index("Is the sky blue?") < text.index("Yes.") < text.index("No.") < text.index("Why was the first")
    plain = asked_why(Preference("Is the sky blue?", " Yes.", " No.", rationale="It is."))
    assert plain.prompt == text + "\n"
    with pytest.raises(ValueError, match="no rationale"):
        asked_why(Preference("q", "a", "b"))


def test_the_batch_holds_each_rationale_behind_its_own_question():
    model = small_llama(dtype="float64").double()
    answers, encoder = Answers(model), Encoder(word_tokenizer(), 64)
    found, _ = examples(_pairs(5), encoder, rationale_dpo(0.1))
    found = [each._replace(before=(-20.0, -21.0)) for each in found]
    read = batch(rationale_dpo(0.1), found, sums(answers)(model, found))
    for i, pair in enumerate(_pairs(5)):
        why = encoder(asked_why(pair))
        alone = answers([why.prompt], [[why.answers[0]]]).sums()
        torch.testing.assert_close(read.rationale[i : i + 1], alone)
        both = answers([found[i].prompt], [found[i].answers]).sums()
        torch.testing.assert_close(torch.stack([read.policy_chosen[i], read.policy_rejected[i]]), both)
    assert read.reference_rejected.tolist() == [-21.0] * 5


def test_records_without_a_rationale_are_refused_where_it_is_learned_and_else_taken():
    mixed, encoder = [*_pairs(3), *word_pairs(5)[3:]], Encoder(word_tokenizer(), 64)
    with pytest.raises(ValueError, match=r"record 4 \(.*\) has no rationale, which"):
        examples(mixed, encoder, rationale_dpo(0.1))
    kept, notes = examples(mixed, Encoder(word_tokenizer(), 64), rationale_dpo(0.1), skip_bad_rows=2)
    assert len(kept) == 3
    assert any(note.startswith("2 bad rows were skipped; the first: record 4") for note in notes)
    assert all(each.why is None for each in examples(mixed, encoder, dpo(0.1))[0])


def test_a_question_why_that_is_too_long_takes_its_record_out():
    pairs, limit = _pairs(5), 64
    pairs[2] = msgspec.structs.replace(pairs[2], rejected=" w1" * 50)
    with pytest.raises(
        ValueError, match=r"record 3 \(.*\), asked why: the prompt has .* no room for an answer within 64"
    ):
        examples(pairs, Encoder(word_tokenizer(), limit), rationale_dpo(0.1))
    kept, _ = examples(pairs, Encoder(word_tokenizer(), limit), rationale_dpo(0.1), skip_bad_rows=1)
    assert [each.record.id for each in kept] == [pairs[i].id for i in (0, 1, 3, 4)]
    assert len(examples(pairs, Encoder(word_tokenizer(), limit), dpo(0.1))[0]) == 5


def test_a_model_learns_to_say_why(tmp_path):
    model, encoder = small_llama(), Encoder(word_tokenizer(), 64)
    settings = Settings(batch=16, micro=4, learning_rate=2e-2, epochs=2, most=8, answers=0, held_out=0.2, lora=0)
    why = [encoder(asked_why(each)) for each in _pairs(48)]

    def said():
        with torch.no_grad():
            return float(Answers(model)([each.prompt for each in why], [each.answers for each in why]).sums().mean())

    before = said()
    found = tune(model, word_tokenizer(), _pairs(48), rationale_dpo(0.3), tmp_path, settings)
    assert found.trained_on + found.after.count == 48
    assert found.after.loss < found.before.loss
    assert said() > before + 2
