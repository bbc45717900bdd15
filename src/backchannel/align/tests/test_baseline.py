"""The point that counts as neither good nor bad: what it is measured on, and that it is the same for a whole step."""

import pytest

torch = pytest.importorskip("torch", reason="objectives are torch's")
pytest.importorskip("transformers", reason="the loop is that of transformers")

from transformers import TrainingArguments  # noqa: E402

from backchannel.align.baseline import Yardstick, alternating, mismatched  # noqa: E402
from backchannel.align.examples import Example, batch  # noqa: E402
from backchannel.align.loop import Loop  # noqa: E402
from backchannel.align.model import Answers  # noqa: E402
from backchannel.lm.answers import Rated  # noqa: E402
from backchannel.preference.bco import bco, middle  # noqa: E402
from backchannel.preference.kto import kto, reference_point  # noqa: E402
from backchannel.testing.small_models import small_llama  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory")


def _some(n=6, before=-5.0):
    return [
        Example(Rated(f"w{i}", " w1"), [3 + i], [[4 + i, 5 + i, 1]], {"good": i % 3 == 0}, (before - i,))
        for i in range(n)
    ]


def _rated(*said):
    """An example for each (prompt, good): no two answers are the same."""
    return [
        Example(Rated(f"w{prompt}", " w1"), [prompt], [[10 + i, 1]], {"good": good}, (-1.0,))
        for i, (prompt, good) in enumerate(said)
    ]


ORDERS = {
    "pairs": [(p, good) for p in range(12) for good in (True, False)],
    "good, then bad, of each prompt": [(p, good) for p in range(8) for good in (True, True, False, False)],
    "all good, then all bad": [(p, good) for good in (True, False) for p in range(12)],
    "uneven": [(p, good) for p in range(8) for good in (True,) * (p % 3) + (False,) * (1 + p % 2)],
    "three of four are good": [(p, i < 3) for p in range(6) for i in range(4)],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_answers_to_other_prompts_are_good_and_bad_as_in_the_data(order):
    some = _rated(*order)
    found, of = mismatched(some), {each.answers[0][0]: each for each in some}
    assert found == mismatched(some)
    assert sorted(each.prompt for each in found) == sorted(each.prompt for each in some)
    assert sorted(each.answers for each in found) == sorted(each.answers for each in some)  # each is used once
    for each in found:
        asked = of[each.answers[0][0]]
        assert asked.prompt != each.prompt
        assert asked.facts == each.facts
        assert each.before == ()
    share = sum(each.facts["good"] for each in some) / len(some)
    for start in range(len(found) - 8):  # whatever a step sees
        assert abs(sum(each.facts["good"] for each in found[start : start + 8]) - 8 * share) <= 1


def test_of_a_prompt_with_most_of_the_answers_all_are_compared_with_others():
    some = _rated(*[(0, i < 6) for i in range(12)], (1, True), (2, False))
    found, of = mismatched(some), {each.answers[0][0]: each for each in some}
    assert sorted(each.prompt for each in found) == sorted(each.prompt for each in some)
    assert all(of[each.answers[0][0]].prompt != each.prompt for each in found)
    assert sum(each.facts["good"] for each in found) == 7
    notes = []
    mismatched(some, notes)
    assert notes == [
        "one prompt has 12 of 14 answers: there are few to others to compare with, good and bad in shares of their own"
    ]
    with pytest.raises(ValueError, match="one prompt alone"):
        mismatched(some[:12])


def test_an_answer_to_another_prompt_is_no_longer_than_what_the_model_reads():
    some = [
        Example(Rated("w1", " w1"), [3], [[*range(4, 12), 1]], {"good": True}, (-1.0,)),
        Example(Rated("w2", " w1"), [5] * 8, [[4, 1]], {"good": False}, (-1.0,)),
    ]
    notes = []
    assert [(len(each.prompt), each.answers) for each in mismatched(some, notes)] == [(8, [[4, 5]]), (1, [[4, 1]])]
    assert notes == [
        "to be compared with, 1 answer was cut behind another prompt, where both are longer than any example"
    ]
    mismatched(_rated(*ORDERS["pairs"]), notes)
    assert len(notes) == 1


def test_good_and_bad_in_turns():
    some = _some(6)
    found = alternating(some)
    assert [each.facts["good"] for each in found] == [True, False] * 4
    assert [each.prompt for each in found] == [[3], [4], [6], [5], [3], [7], [6], [8]]
    for good, word in ((True, "good"), (False, "bad")):
        with pytest.raises(ValueError, match=f"all are {word}"):
            alternating([each for each in some if each.facts["good"] == good])


def test_values_take_turns_from_step_to_step():
    some, now = _some(6), torch.tensor([-4.0, -9.0, -3.0, -2.0, -12.0, -9.0])

    def logs(asked):
        return torch.stack([now[each.prompt[0] - 3] for each in asked])

    ratios = now - torch.tensor([each.before[0] for each in some])
    point = Yardstick(kto(0.1).baseline, some, 4)
    assert point(logs, 0) == pytest.approx(float(reference_point(ratios[:4], torch.zeros(4))))
    assert point(logs, 1) == pytest.approx(max(0.0, float(ratios[[4, 5, 0, 1]].mean())))
    good = torch.tensor([each.facts["good"] for each in some])
    shift = Yardstick(bco(0.1).baseline, some, 6)
    assert shift(logs, 0) == pytest.approx(float(middle(ratios, good)))


def test_the_batch_carries_it():
    some = _some(2)
    read = batch(kto(0.1), some, torch.tensor([-1.0, -2.0]), baseline=0.7)
    assert read.baseline.tolist() == pytest.approx([0.7, 0.7])
    assert batch(kto(0.1), some, torch.tensor([-1.0, -2.0])).baseline is None


@pytest.mark.parametrize("objective", [kto(1.0), bco(1.0)], ids=["kto", "bco"])
def test_however_a_step_is_split_it_is_the_same(tmp_path, objective):
    found, points = [], []
    some = [each._replace(before=(-9.0,)) for each in _some(12)]
    others = [each._replace(before=(-11.0,)) for each in mismatched(some)]
    yard = others if objective.baseline.of == "mismatched" else alternating(some)
    for micro, accumulate in ((12, 1), (4, 3), (1, 12)):
        answers = Answers(small_llama(dtype="float64").double())

        def logs(_, some, answers=answers):
            return answers([each.prompt for each in some], [each.answers for each in some]).sums()

        args = TrainingArguments(
            output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=micro, learning_rate=1e-2,
            gradient_accumulation_steps=accumulate, report_to=[], disable_tqdm=True, save_strategy="no",
            lr_scheduler_type="constant", use_cpu=True, dataloader_pin_memory=False, optim="sgd", max_grad_norm=0.0,
        )  # fmt: skip
        loop = Loop(answers.model, args, some, objective, logs, yardstick=Yardstick(objective.baseline, yard, 8))
        loop.train()
        found.append(torch.cat([each.detach().flatten() for each in loop.model.parameters()]))
        points.append(loop.baseline)
    assert abs(points[0]) > 1e-3
    for weights, point in zip(found[1:], points[1:], strict=True):
        torch.testing.assert_close(weights, found[0], rtol=0, atol=1e-12)
        assert point == pytest.approx(points[0], abs=1e-12)
