"""What is handed over by mistake is one sentence, said before anything is trained."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="objectives are torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from transformers import LlamaForSequenceClassification  # noqa: E402

from backchannel.align.checks import check_objective  # noqa: E402
from backchannel.align.judges import Scored  # noqa: E402
from backchannel.align.online import improve  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.tune import tune  # noqa: E402
from backchannel.parts.objectives import Info, Objective, Pairs, margin  # noqa: E402
from backchannel.preference.bradley_terry import bradley_terry  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.oaif import oaif  # noqa: E402
from backchannel.testing.small_models import small_llama, word_pairs, word_tokenizer  # noqa: E402

JUDGE = Scored(lambda prompt, answer: float(len(answer)), "long")


def _loss(pairs):
    return -torch.nn.functional.logsigmoid(margin(pairs, 0.1))


def _in_place(pairs):
    weight = torch.tensor(np.clip(pairs.strength.clamp_(0.6, 0.9).numpy(), 0.7, 1.0))
    gap = pairs.policy_chosen
    gap -= pairs.policy_rejected
    return -weight * gap, Info(gap.detach())


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda p: (_loss(p).mean()[None], Info(_loss(p).detach())), r"of 8 examples this .* has the shape \[1\]"),
        (lambda p: (_loss(p).mean(), Info(_loss(p).detach())), r"of 8 examples this one's loss has the shape \[\]"),
        (lambda p: (_loss(p)[:, None], Info(_loss(p).detach())), r"this one's loss has the shape \[8, 1\]"),
        (_loss, r"\[n\] to log; this one returned a tensor of shape \[8\]"),
        (lambda p: (_loss(p), {"margin": _loss(p)}), "what this one logs is dict "),
        (lambda p: (_loss(p), None), "what this one logs is NoneType None"),
        (lambda p: (_loss(p), Info(_loss(p).mean())), r"of 8 examples its margin is a tensor of shape \[\]"),
        (lambda p: (p.strength * p.reference_chosen, Info(_loss(p).detach())), "loss has no gradient: was it detached"),
        (lambda p: (_loss(p).detach(), Info(_loss(p).detach())), "loss has no gradient: was it detached"),
    ],
)  # fmt: skip
def test_an_objective_returns_one_loss_for_each_example(tmp_path, loss, sentence):
    with pytest.raises(ValueError, match=sentence):
        tune(small_llama(), word_tokenizer(), word_pairs(9), Objective(loss, Pairs), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    check_objective(Objective(lambda p: (_loss(p), Info(_loss(p).detach())), Pairs))
    check_objective(Objective(_in_place, Pairs))
    check_objective(Objective(lambda p: (-p.policy_rejected.exp().log1p(), Info(_loss(p).detach())), Pairs))


def _classifier():
    return LlamaForSequenceClassification(small_llama().config)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"objective": dpo}, "expected an objective, such as .*, not function <function dpo"),
        ({"objective": oaif()}, "expected an objective, such as .*, not Recipe"),
        ({"objective": bradley_terry()}, r"a reward model .* load_model\(name, rewards=True\)"),
        ({"model": _classifier}, "LlamaForSequenceClassification scores, and is no language"),
        ({"records": [{"prompt": "w1", "chosen": "w2", "rejected": "w3"}]}, "records must be .*, not dict {'p"),
        ({"records": "prefs.jsonl"}, "records must be those of backchannel.align.read.read, not str 'p'"),
        ({"records": [*word_pairs(9), None]}, "records must be those of .*, not NoneType"),
        ({"judge": lambda prompt, answer: 1.0}, r"function .* does not: put .* into .*Scored"),
        ({"settings": {"lora": 0}, "frozen": True}, "no weight of the model is trainable"),
        ({"settings": {"seed": 2**32}}, r"seed must be below 2\^32, not 4294967296"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*pin_memory")
def test_what_tune_cannot_take(tmp_path, change, sentence):
    given = {"records": word_pairs(9), "objective": dpo(0.1), "model": small_llama, "judge": None} | change
    model = given["model"]()
    model.requires_grad_(not given.get("frozen"))
    with pytest.raises(ValueError, match=sentence):
        tune(
            model, word_tokenizer(), given["records"], given["objective"], str(tmp_path / "out"),
            Settings(**given.get("settings", {})), judge=given["judge"],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"recipe": dpo(0.1)}, r"expected a recipe, such as oaif\(\), not Objective; objectives are for tune"),
        ({"recipe": oaif}, "expected a recipe, such as .*, not function"),
        ({"judge": lambda prompt, answer: 1.0}, r"a judge takes prompts, first and second answers, and function"),
        ({"judge": None}, "a judge takes prompts, .* and NoneType None does not"),
        ({"records": [{"prompt": "w1"}]}, "records must be those of backchannel.align.read.read, not dict"),
        ({"model": _classifier}, "LlamaForSequenceClassification scores, and is no language"),
    ],
)
def test_what_improve_cannot_take(tmp_path, change, sentence):
    given = {"records": word_pairs(9), "recipe": oaif(), "model": small_llama, "judge": JUDGE} | change
    with pytest.raises(ValueError, match=sentence):
        improve(
            given["model"](), word_tokenizer(), given["records"], given["recipe"], given["judge"], str(tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()
