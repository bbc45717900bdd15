"""The loop: a gradient that does not know how a step was split, resuming, and what stops it."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="the loop is torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from torch.distributed.fsdp import fully_shard  # noqa: E402
from transformers import TrainerCallback, TrainingArguments  # noqa: E402

from backchannel.align.checkpoints import Whole, checkpoints, is_whole  # noqa: E402
from backchannel.align.examples import batch, examples, reads_field, weights  # noqa: E402
from backchannel.align.guards import PATIENCE, Guards  # noqa: E402
from backchannel.align.loop import Interrupt, Loop, Progress  # noqa: E402
from backchannel.align.model import Answers  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.rollouts import Critic  # noqa: E402
from backchannel.align.start import ready  # noqa: E402
from backchannel.align.tokens import Encoder  # noqa: E402
from backchannel.lm.answers import Preference, Ranked, Rated  # noqa: E402
from backchannel.parts.objectives import Info, Objective, Pairs, Rankings, Scores, Singles  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.kto import kto  # noqa: E402
from backchannel.testing.processes import run_processes  # noqa: E402
from backchannel.testing.small_models import small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`", "ignore:.*pin_memory")

TOKENS = Objective(
    lambda s: (-s.policy / s.length, Info(s.policy.detach())), Singles, False, lambda s: s.length.double()
)
"""A mean over tokens, as plain fine-tuning takes it."""
SOFT = Objective(lambda p: (p.strength * (p.policy_rejected - p.policy_chosen), Info(p.policy_chosen)), Pairs, False)
TIES = Objective(lambda s: (torch.where(s.tie, 0.0, s.rejected - s.chosen), Info(s.chosen)), Scores)


def _examples(objective, n=16):
    found, _ = examples(word_pairs(n), Encoder(word_tokenizer(), 64), objective)
    return [each._replace(before=(-20.0,) * len(each.answers)) for each in found]


def _args(folder, micro=4, steps=3, accumulate=1, **others):
    settings = {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": micro, "learning_rate": 1e-2,
        "gradient_accumulation_steps": accumulate, "report_to": [], "disable_tqdm": True, "logging_steps": 1,
        "save_strategy": "no", "lr_scheduler_type": "constant", "use_cpu": True, "dataloader_pin_memory": False,
        "optim": "sgd", "max_grad_norm": 0.0,
    }  # fmt: skip
    return TrainingArguments(**(settings | others))


def _loop(folder, objective, some=None, callbacks=(), **settings):
    model = small_llama(dtype="float64")
    answers = Answers(model.double())

    def logs(_, some):
        return answers([each.prompt for each in some], [each.answers for each in some]).sums()

    return Loop(model, _args(folder, **settings), some or _examples(objective), objective, logs, callbacks)


def _weights(loop):
    return torch.cat([each.detach().flatten() for each in loop.model.parameters()])


@pytest.mark.parametrize("objective", [dpo(0.1), TOKENS], ids=["dpo", "tokens"])
def test_however_a_step_is_split_it_is_the_same(tmp_path, objective):
    found = []
    for micro, accumulate in ((12, 1), (4, 3), (1, 12)):
        loop = _loop(tmp_path, objective, micro=micro, accumulate=accumulate)
        loop.train()
        found.append(_weights(loop))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-12)
    assert float((found[0] - _weights(_loop(tmp_path, objective))).abs().max()) > 1e-4  # and it moved


def test_a_mean_of_means_is_another_loss(tmp_path):
    # What the loop must not do: the mean of the parts' means counts tokens of short answers more.
    some = _examples(TOKENS)[:8]
    loop = _loop(tmp_path, TOKENS, some)
    whole = loop.compute_loss(loop.model, {"batch": _Batch(some)})
    parts = [some[:3], some[3:]]
    means = [loop.compute_loss(loop.model, {"batch": _Batch(part)}) for part in parts]
    weight = [float(weights(TOKENS, part).sum()) for part in parts]
    torch.testing.assert_close(whole, (means[0] * weight[0] + means[1] * weight[1]) / sum(weight))
    assert abs(float((means[0] + means[1]).detach()) / 2 - float(whole.detach())) > 1e-5


def test_two_processes_train_as_one_and_may_share_the_weights(tmp_path):
    loop = _loop(tmp_path, TOKENS, micro=4)
    loop.train()
    code = "import sys; from backchannel.align.tests.test_loop import one_of_two; one_of_two(*sys.argv[1:])"
    within = 300.0  # on a busy machine imports alone take a minute
    run_processes(code, lambda rank: [str(rank), str(tmp_path)], 2, tmp_path, within)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), _weights(loop), rtol=0, atol=1e-9)


def one_of_two(rank, folder):
    """A process of the test above: it has half of each step. They meet in a file: a port may be taken meanwhile."""
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=int(rank), world_size=2)
    loop = _loop(folder, TOKENS, micro=2, ddp_backend="gloo")
    loop.train()
    torch.save(_weights(loop), f"{folder}/{rank}.pt")
    _a_checkpoint_is_whole_when_all_have_written(int(rank), Path(folder) / "saved")
    _sharded_gradients_are_those_of_the_whole(int(rank))


def _a_checkpoint_is_whole_when_all_have_written(rank, folder):
    class Slow(Loop):
        def _save_rng_state(self, *given):
            time.sleep(0.5 * rank)
            super()._save_rng_state(*given)

    loop = _loop(folder, TOKENS, callbacks=[Whole()], micro=2, ddp_backend="gloo", save_strategy="steps", save_steps=1)
    loop.__class__ = Slow
    loop.train()
    torch.distributed.barrier()
    assert [is_whole(each) for each in checkpoints(folder)] == [True] * 2  # the last two of three


def _sharded_gradients_are_those_of_the_whole(rank):
    asked = [([3, 4, 5], [[7, 8, 1], [9]]), ([6], [[10, 1], [11, 12]]), ([5, 5], [[4, 4, 1]]), ([6, 2], [[1], [3, 2]])]
    models = [ready(small_llama(dtype="float64").double(), Settings(lora=4), rewards=False) for _ in range(2)]
    for model in models:
        model.load_state_dict({name: torch.full_like(each, 0.1) if "lora_" in name else each
                               for name, each in models[0].state_dict().items()})  # fmt: skip

    def found(model, some):
        critic = Critic(model)
        answers = Answers(model, critic)
        if len(some) < len(asked):  # each process has some of the examples, and its own part of all weights
            for layer in model.get_base_model().model.layers:
                fully_shard(layer)
            fully_shard(model)
        logs = answers([prompt for prompt, _ in some], [given for _, given in some])
        (logs.sums().sum() + logs.values.square().sum() + logs.values.sum()).backward()
        grads = {name: each.grad for name, each in model.named_parameters() if each.requires_grad}
        return {name: each.full_tensor() if hasattr(each, "full_tensor") else each for name, each in grads.items()}

    whole, parts = found(models[0], asked), found(models[1], asked[2 * rank : 2 * rank + 2])
    assert len(whole) > 10
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient / 2, rtol=0, atol=1e-12)  # processes are averaged


def test_resumed_is_as_if_never_stopped(tmp_path):
    how = {"steps": 6, "optim": "adamw_torch", "lr_scheduler_type": "linear", "save_strategy": "steps", "save_steps": 2}
    whole = _loop(tmp_path / "whole", dpo(0.1), **how)
    whole.train()
    stop = _StopAfter(4)
    first = _loop(tmp_path / "parts", dpo(0.1), callbacks=[stop], **how)
    first.train()
    assert first.state.global_step == 4
    second = _loop(tmp_path / "parts", dpo(0.1), **how)
    second.train(resume_from_checkpoint=True)
    assert torch.equal(_weights(second), _weights(whole))
    assert [each["loss"] for each in second.state.log_history if "loss" in each] == [
        each["loss"] for each in whole.state.log_history if "loss" in each
    ]


def test_a_checkpoint_for_which_there_is_no_room_is_one_sentence(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("basic_ios::clear: iostream error")

    loop = _loop(tmp_path, dpo(0.1), save_strategy="steps", save_steps=2)
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(ValueError, match=r"the checkpoint of step 2 cannot be written to .*: basic_ios"):
        loop.train()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(ValueError, match=r"the checkpoint of step 2 cannot be written to .*: the disk is full"):
        loop.train()


def test_a_loss_that_is_no_number_stops_before_anything_moves(tmp_path):
    some = _examples(dpo(0.1))
    some[5] = some[5]._replace(before=(float("nan"), -3.0))
    loop = _loop(tmp_path, dpo(0.1), some, micro=16)
    before = _weights(loop)
    with pytest.raises(
        FloatingPointError, match=r"the loss is not finite at the record with the id 'p5': nothing was changed"
    ):
        loop.train()
    assert torch.equal(_weights(loop), before)


def test_a_gradient_that_is_no_number_stops_before_anything_moves(tmp_path):
    calls = []

    def steep(pairs):  # its third value is a number, with a slope that is none
        each, info = dpo(0.1)(pairs)
        calls.append(True)
        return each + (0 * each).abs().sqrt() if len(calls) == 3 else each, info

    found, clipped = [], {"max_grad_norm": 1.0, "micro": 16}
    for steps in (2, 4):
        calls.clear()
        loop = _loop(tmp_path, Objective(steep, Pairs), _examples(dpo(0.1)), steps=steps, **clipped)
        if steps == 4:
            with pytest.raises(FloatingPointError, match="the gradient of step 3 is not finite: nothing was changed"):
                loop.train()
        else:
            loop.train()
        found.append(_weights(loop))
    assert torch.equal(*found)


def test_no_step_has_a_learning_rate_of_0(tmp_path):
    loop = _loop(tmp_path, dpo(0.1), steps=4, lr_scheduler_type="linear", warmup_steps=0.5)
    loop.train()
    found = [each["learning_rate"] for each in loop.state.log_history if "loss" in each]
    assert found == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2, 5e-3])


def test_ctrl_c_ends_the_step_and_saves(tmp_path):
    interrupt, earlier = Interrupt(), signal.getsignal(signal.SIGINT)
    told = []
    loop = _loop(
        tmp_path, dpo(0.1), callbacks=[_Press(2), interrupt, Progress(lambda *said: told.append(said))], steps=5
    )
    with interrupt.listening():
        loop.train()
    assert interrupt.asked
    assert loop.state.global_step == 2
    assert (tmp_path / "checkpoint-2" / "optimizer.pt").is_file()
    assert told[-1][1] == 2 / 5
    assert signal.getsignal(signal.SIGINT) is earlier


def test_signals_that_are_ignored_stay_ignored():
    interrupt, earlier = Interrupt(), signal.signal(signal.SIGINT, signal.SIG_IGN)  # as behind `command &` in a script
    try:
        with interrupt.listening():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert not interrupt.asked


def test_the_log_holds_means_over_the_whole_step(tmp_path):
    loop = _loop(tmp_path, dpo(0.1), micro=4, accumulate=3, steps=1)
    loop.train()
    said = next(each for each in loop.state.log_history if "loss" in each)
    fresh = _loop(tmp_path, dpo(0.1))
    order = [each for step in fresh.get_train_dataloader() for each in step["batch"].examples][:12]
    answers = Answers(fresh.model)
    sums = answers([each.prompt for each in order], [each.answers for each in order]).sums()
    loss, info = dpo(0.1)(batch(dpo(0.1), order, sums))
    assert said["loss"] == pytest.approx(float(loss.detach().mean()))
    assert said["margin"] == pytest.approx(float(info.margin.mean()))
    assert said["accuracy"] == pytest.approx(float((info.margin > 0).double().mean()))
    assert said["chosen_gain"] == pytest.approx(float(sums.detach()[0::2].mean()) + 20)


def test_batches_hold_what_records_say():
    encoder = Encoder(word_tokenizer(), 64)
    records = [
        Preference("w1", " w2 w3", " w4", strength=0.8, gap=2.0),
        Preference("w5", " w6", " w7 w8", strength=0.6, gap=1.0),
    ]
    found, _ = examples(records, encoder, SOFT)
    read = batch(dpo(0.1), found, torch.arange(4.0), torch.arange(4.0) - 10)
    assert read.policy_chosen.tolist() == [0, 2]
    assert read.policy_rejected.tolist() == [1, 3]
    assert read.reference_rejected.tolist() == [-9, -7]
    assert read.chosen_length.tolist() == [3, 2]  # with its end
    assert read.rejected_length.tolist() == [2, 3]
    assert read.strength.tolist() == pytest.approx([0.8, 0.6])
    assert read.gap.tolist() == [2, 1]
    objective = Objective(lambda each: (each.policy.sum(1), Info(each.policy)), Rankings, False)
    ranked, _ = examples([Ranked("w1", [" w2", " w3", " w4"], [3, 2, 1])], encoder, objective)
    read = batch(objective, ranked, torch.arange(3.0))
    assert read.policy.tolist() == [[0, 1, 2]]
    assert read.score.tolist() == [[3, 2, 1]]
    rated, notes = examples([*records, Rated("w1", " w9", good=True)], encoder, kto(0.1))
    read = batch(kto(0.1), rated, torch.zeros(5), torch.zeros(5))
    assert read.good.tolist() == [True, False, True, False, True]
    assert notes[:2] == ["left out: strengths (2)", "left out: gaps (2)"]


def test_an_objective_that_never_asks_who_is_good_is_shown_good_answers_alone():
    encoder = Encoder(word_tokenizer(), 64)
    records = [Preference("w1", " w2", " w3"), Rated("w1", " w4", good=False), Rated("w1", " w5", good=True)]
    found, notes = examples(records, encoder, TOKENS)
    assert [each.record.answer for each in found] == [" w2", " w5"]
    assert notes[0] == "left out: answers that are bad (1)"


def test_what_records_cannot_be():
    encoder = Encoder(word_tokenizer(), 64)
    with pytest.raises(ValueError, match="1 of 2 records say their strength: either all must, or none"):
        examples([Preference("w1", " w2", " w3"), Preference("w1", " w2", " w4", strength=0.7)], encoder, SOFT)
    ranked = Objective(lambda each: (each.policy.sum(1), Info(each.policy)), Rankings, False)
    with pytest.raises(ValueError, match="there are some of 2 and of 3"):
        examples([Ranked("w1", [" w2", " w3"]), Ranked("w1", [" w2", " w3", " w4"])], encoder, ranked)
    with pytest.raises(ValueError, match="no record can be used as pairs; left out: demonstrations"):
        examples([Rated("w1", " w2")], encoder, SOFT)


def test_strengths_and_ties_go_where_they_are_read_and_nowhere_else():
    encoder = Encoder(word_tokenizer(), 64)
    records = [
        Preference("w1", " w2", " w3", strength=0.9, gap=3.0),
        Preference("w1", " w2", " w4", strength=0.5, gap=0.0),
        Preference("w1", " w2", " w5", strength=0.2, gap=-1.0),
    ]
    soft, _ = examples(records[:2], encoder, SOFT)
    assert [each.facts["strength"] for each in soft] == [0.9, 0.5]
    plain, notes = examples(records, encoder, dpo(0.1))
    assert notes[:2] == ["left out: strengths, which this objective does not read (2)", "left out: ties (1)"]
    assert [each.record.chosen for each in plain] == [" w2", " w5"]  # the last was the wrong way round
    assert plain[1].facts == {"gap": 1.0, "tie": False}
    tied, _ = examples([records[1], Preference("w1", " w2", " w3", gap=1.0)], encoder, TIES)
    assert [each.facts["tie"] for each in tied] == [True, False]
    assert all("strength" not in each.facts for each in tied)
    assert batch(TIES, tied, torch.zeros(4)).tie.tolist() == [True, False]
    assert reads_field(SOFT, "strength")
    assert not reads_field(dpo(0.1), "strength")


class _State:
    def __init__(self, step):
        self.global_step = step


def _watch(*logs):
    guards = Guards()
    for step, each in enumerate(logs, 1):
        guards.on_log(None, _State(step), None, each)
    return guards.notes


def test_guards_speak_once_and_only_where_something_is_wrong():
    healthy = [{"loss": 0.69 - 0.01 * i, "accuracy": 0.5 + 0.005 * i, "chosen_gain": -0.1 * i} for i in range(60)]
    assert _watch(*healthy) == []
    (note,) = _watch(*[{"loss": 0.693147, "accuracy": 0.5}] * 60)
    assert note.startswith(f"the loss has stayed at 0.6931, where it began, for {PATIENCE} steps")
    (note,) = _watch(*[{"loss": 0.5 - 0.001 * i, "chosen_gain": -1.0 * i} for i in range(40)])
    assert note.startswith("chosen answers are 21 nats less likely")
    (note,) = _watch(*[{"loss": 0.7 + 0.01 * i, "accuracy": 0.5 - 0.005 * i} for i in range(60)])
    assert "most rejected answers gained more" in note
    (note,) = _watch(*[{"loss": 0.7 - 0.01 * i, "grad_norm": 0.0} for i in range(5)])
    assert "the gradient is 0" in note


class _Batch(list):
    @property
    def examples(self):
        return list(self)


class _StopAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **given):
        control.should_training_stop = state.global_step >= self.step


class _Press(TrainerCallback):
    """Ctrl-C in the midst of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **given):
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGINT)
