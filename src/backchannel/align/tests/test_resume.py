"""What is resumed is the run that was begun: no step more, the same numbers, the same warnings."""

import shutil

import pytest

torch = pytest.importorskip("torch", reason="tuning is torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from safetensors.torch import load_file  # noqa: E402

from backchannel.align.checkpoints import Whole  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.start import losses  # noqa: E402
from backchannel.align.tune import tune  # noqa: E402
from backchannel.parts.objectives import Objective, Pairs  # noqa: E402
from backchannel.preference.bco import bco  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.ipo import ipo  # noqa: E402
from backchannel.preference.kto import kto  # noqa: E402
from backchannel.testing.small_models import small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`", "ignore:.*pin_memory")
torch.set_num_threads(1)


def _tune(folder, objective, resume=False, tell=lambda what, share: None, **settings):
    quick = {"steps": 7, "batch": 4, "micro": 4, "lora": 2, "learning_rate": 5e-2, "answers": 0, "save": 3}
    return tune(
        small_llama(initializer_range=0.3), word_tokenizer(), word_pairs(60), objective, folder,
        Settings(**(quick | settings)), resume=resume, tell=tell,
    )  # fmt: skip


def _weights(folder):
    return load_file(folder / "model" / "adapter_model.safetensors")


@pytest.mark.parametrize("objective", [dpo(0.1), bco(0.1)], ids=["dpo", "bco"])
@pytest.mark.parametrize("last", [7, 6])
def test_a_run_that_was_cut_off_behind_a_checkpoint_ends_as_the_whole_run(tmp_path, objective, last):
    whole = _tune(tmp_path, objective)
    weights = _weights(tmp_path)
    shutil.rmtree(tmp_path / "model")  # as if killed while it was written
    if last == 6:
        shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-7")
    found = _tune(tmp_path, objective, resume=True)
    assert (found.steps, found.finished, len(found.history)) == (7, True, 7)
    assert [each["loss"] for each in found.history] == [each["loss"] for each in whole.history]
    assert found.after == whole.after
    assert f"resumed at checkpoint-{last}: the time is that of the steps since" in found.notes
    assert all(torch.equal(weights[name], each) for name, each in _weights(tmp_path).items())
    assert not (tmp_path / "checkpoints" / "checkpoint-8").exists()


def test_the_point_between_good_and_bad_is_that_of_the_model_that_is_judged(tmp_path):
    still = _tune(tmp_path / "still", kto(0.1), learning_rate=1e-12)
    assert still.after.loss == pytest.approx(still.before.loss, abs=1e-6)


def test_a_loss_that_is_no_number_from_the_first_step_on_leaves_no_model(tmp_path):
    def nothing(pairs):
        each, info = dpo(0.1).loss(pairs)
        return each * float("nan"), info

    wrong = Objective(nothing, Pairs)
    with pytest.raises(FloatingPointError, match=r"nothing was changed in this step$"):
        _tune(tmp_path, wrong)
    assert not (tmp_path / "model").exists()
    assert _tune(tmp_path, dpo(0.1)).steps == 7  # the folder is free


def test_warnings_from_before_are_said_again(tmp_path):
    settings = {"learning_rate": 1e-12, "steps": 24, "save": 22, "epochs": 9}
    whole = _tune(tmp_path, dpo(0.1), **settings)
    assert "nothing is learned" in whole.notes[0]
    shutil.rmtree(tmp_path / "model")
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-24")
    assert _tune(tmp_path, dpo(0.1), resume=True, **settings).notes[1:] == whole.notes


def test_another_loss_is_another_run(tmp_path):
    _tune(tmp_path, dpo(0.1))
    for other in (dpo(0.9), ipo(0.1)):
        with pytest.raises(ValueError, match=r"was begun with another loss$"):
            _tune(tmp_path, other, resume=True)
    assert losses(dpo(0.1)) == losses(dpo(0.1)) != losses(dpo(0.9))


def _steps(folder):
    return sorted(int(each.name.split("-")[1]) for each in (folder / "checkpoints").glob("checkpoint-*"))


def test_a_whole_checkpoint_stays_until_another_is_whole(tmp_path, monkeypatch):
    whole = _tune(tmp_path, dpo(0.1))
    assert _steps(tmp_path) == [6, 7]
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "checkpoints" / "checkpoint-7" / "optimizer.pt").unlink()
    began = []

    def cut_off(self, args, state, control, **given):
        began.append((state.global_step, _steps(tmp_path)))
        raise KeyboardInterrupt  # as if killed when the checkpoint is written, and not yet said to be whole

    with monkeypatch.context() as patch:
        patch.setattr(Whole, "on_save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            _tune(tmp_path, dpo(0.1), resume=True)
    assert began == [(7, [6, 7])]
    found = _tune(tmp_path, dpo(0.1), resume=True)
    assert found.after == whole.after
    assert "resumed at checkpoint-6: the time is that of the steps since" in found.notes


def test_a_resumed_run_takes_torn_checkpoints_away_and_saves_as_often_as_is_asked_now(tmp_path):
    def cut(what, share):
        if share > 4 / 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _tune(tmp_path, dpo(0.1), tell=cut)
    assert _steps(tmp_path) == [3]
    (tmp_path / "checkpoints" / "checkpoint-5").mkdir()
    with pytest.raises(ValueError, match="steps was 7 and is 9"):
        _tune(tmp_path, dpo(0.1), resume=True, steps=9)
    assert _steps(tmp_path) == [3, 5]  # what is refused changes nothing
    seen = []
    _tune(tmp_path, dpo(0.1), resume=True, save=1, tell=lambda what, share: seen.append(_steps(tmp_path)))
    assert [each for each in ([3], [3, 4], [4, 5], [5, 6]) if each not in seen] == []
    assert _steps(tmp_path) == [6, 7]
