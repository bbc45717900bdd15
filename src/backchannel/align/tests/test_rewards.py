"""Reward models as judges."""

import pytest

torch = pytest.importorskip("torch", reason="models are torch's")
pytest.importorskip("peft", reason="align needs it")

from backchannel.align.judges import told, tried  # noqa: E402
from backchannel.align.load import load_model  # noqa: E402
from backchannel.align.rewards import RewardJudge  # noqa: E402
from backchannel.testing.small_models import small_llama, word_tokenizer  # noqa: E402


def _judge(folder, weight):
    """A reward model whose head has one weight everywhere."""
    small_llama().save_pretrained(folder / "base")
    word_tokenizer().save_pretrained(folder / "base")
    model, tokenizer = load_model(str(folder / "base"), rewards=True)
    torch.nn.init.constant_(model.score.weight, weight)
    model.save_pretrained(folder / "rewards")
    tokenizer.save_pretrained(folder / "rewards")
    return RewardJudge(folder / "rewards")


def test_a_score_that_is_no_finite_number_is_none(tmp_path):
    judge = _judge(tmp_path, float("nan"))
    assert judge(["w1"], ["w2"], ["w3"]) == ([None], [None])
    (said,) = told(judge)
    assert said.startswith("the judge said nothing of 2 of 2 answers; the first time: a judge must return a finite")
    assert said.endswith(", and returned nan for 'w2'")
    with pytest.raises(ValueError, match="the judge nan said nothing of answers from before training: a judge must"):
        tried(judge, "nan", ["w1"], ["w2"])


def test_the_higher_score_is_the_better_answer(tmp_path):
    judge = _judge(tmp_path, 1.0)
    (win,), ((one, other),) = judge(["w1"], ["w2 w3"], ["w4"])
    assert win == (one > other)
    assert told(judge) == []
