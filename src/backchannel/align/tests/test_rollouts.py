"""Policy gradients on a small model: what is credited with what, and that it improves."""

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="rollouts are torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from safetensors.torch import load_file  # noqa: E402

from backchannel.align import rounds  # noqa: E402
from backchannel.align.examples import batch  # noqa: E402
from backchannel.align.judges import Scored  # noqa: E402
from backchannel.align.model import Answers  # noqa: E402
from backchannel.align.online import improve  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.rollouts import Critic, PolicyGradient, rolled, token_logs  # noqa: E402
from backchannel.align.start import ready  # noqa: E402
from backchannel.align.tests.tiny_models import adapted  # noqa: E402
from backchannel.preference.grpo import grpo  # noqa: E402
from backchannel.preference.ppo import ppo  # noqa: E402
from backchannel.preference.reinforce import reinforce  # noqa: E402
from backchannel.preference.rloo import leave_one_out, rloo  # noqa: E402
from backchannel.testing.small_models import good_words, small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`", "ignore:.*pin_memory")
PROMPTS = [("p", [3, 4, 5]), ("q", [6])]
DRAWN = [[[7, 8, 1], [9]], [[10, 1], [11, 12]]]
SCORES = torch.tensor([[1.0, 0.0], [0.5, 2.0]])


def _by_hand(answers, prompt, answer):
    seen = torch.tensor([prompt + answer])
    with torch.no_grad():
        logs = torch.log_softmax(answers.model(seen).logits[0].float(), -1)
    return [float(logs[len(prompt) + i - 1, token]) for i, token in enumerate(answer)]


def test_tokens_are_known_as_of_now_and_under_the_reference():
    answers = adapted()
    some = rolled(answers, PolicyGradient(grpo(0.2, 0.04), 2), PROMPTS, DRAWN, SCORES)
    assert [each.answers for each in some] == [[answer] for row in DRAWN for answer in row]
    read = batch(grpo(0.2, 0.04), some, token_logs(answers)(answers.model, some))
    assert read.mask.sum(1).tolist() == [3, 1, 2, 2]
    for i, each in enumerate(some):
        (answer,), many = each.answers, len(each.answers[0])
        now = _by_hand(answers, each.prompt, answer)
        with answers.model.disable_adapter():
            before = _by_hand(answers, each.prompt, answer)
        assert now != pytest.approx(before, abs=1e-2)
        assert read.policy[i, :many].tolist() == pytest.approx(now, abs=1e-5)
        assert read.sampled[i, :many].tolist() == pytest.approx(now, abs=1e-5)
        assert read.reference[i, :many].tolist() == pytest.approx(before, abs=1e-5)
    centred = (SCORES - SCORES.mean(1, keepdim=True)) / (SCORES.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(read.advantage, centred.reshape(-1, 1) * read.mask)
    assert read.value is None
    assert read.returns is None


def test_who_leaves_the_reference_pays():
    answers = adapted()
    free = rolled(answers, PolicyGradient(rloo(0.2), 2), PROMPTS, DRAWN, SCORES)
    assert all(set(each.facts["reference"]) == {0.0} for each in free)  # nothing was asked of it
    paid = rolled(answers, PolicyGradient(rloo(0.2), 2, price=0.7), PROMPTS, DRAWN, SCORES)
    away = torch.tensor([sum(each.facts["sampled"]) - sum(each.facts["reference"]) for each in paid]).reshape(2, 2)
    expected = leave_one_out(SCORES - 0.7 * away)
    assert _advantages(paid) == pytest.approx(expected.flatten().tolist(), abs=1e-5)
    same = rolled(adapted(moved=False), PolicyGradient(rloo(0.2), 2, price=0.7), PROMPTS, DRAWN, SCORES)
    assert _advantages(same) == pytest.approx([1.0, -1.0, -1.5, 1.5], abs=1e-5)


def test_plain_rewards_are_centred_over_a_round():
    some = rolled(adapted(), PolicyGradient(reinforce(), 2), PROMPTS, DRAWN, SCORES)
    assert _advantages(some) == pytest.approx([0.125, -0.875, -0.375, 1.125])


def _advantages(some):
    """Of each answer; all of its tokens have the same."""
    assert all(len(set(each.facts["advantage"])) == 1 for each in some)
    return [each.facts["advantage"][0] for each in some]


def test_a_critic_credits_each_token_by_hand():
    answers = adapted()
    critic = Critic(answers.model)
    with torch.no_grad():
        critic.weight.copy_(torch.linspace(-0.5, 0.5, critic.in_features))
        critic.bias.fill_(0.3)
    answers = Answers(answers.model, critic)
    price, trace = 0.7, 0.6
    some = rolled(answers, PolicyGradient(ppo(0.2, 0.1, trace), 2, price), PROMPTS, DRAWN, SCORES)
    read = batch(ppo(0.2, 0.1), some, token_logs(answers)(answers.model, some))
    for i, (each, score) in enumerate(zip(some, SCORES.flatten().tolist(), strict=True)):
        (answer,), many = each.answers, len(each.answers[0])
        with torch.no_grad():
            hidden = answers.model(torch.tensor([each.prompt + answer]), output_hidden_states=True).hidden_states[-1][0]
            value = critic(hidden[len(each.prompt) - 1 : -1])[:, 0].tolist()
        now = _by_hand(answers, each.prompt, answer)
        with answers.model.disable_adapter():
            before = _by_hand(answers, each.prompt, answer)
        rewards = [-price * (a - b) for a, b in zip(now, before, strict=True)]
        rewards[-1] += score
        ahead, following, advantage = 0.0, 0.0, []
        for reward, expected in zip(rewards[::-1], value[::-1], strict=True):
            ahead = reward + following - expected + trace * ahead
            following = expected
            advantage.insert(0, ahead)
        assert read.value[i, :many].tolist() == pytest.approx(value, abs=1e-5)
        assert read.advantage[i, :many].tolist() == pytest.approx(advantage, abs=1e-4)
        assert read.returns[i, :many].tolist() == pytest.approx(
            [a + v for a, v in zip(advantage, value, strict=True)], abs=1e-4
        )
    assert read.value.requires_grad
    unit = rolled(answers, PolicyGradient(ppo(0.2, 0.1, 1.0), 2, price), PROMPTS, DRAWN, SCORES, (0.5, 4.0))
    for each, score in zip(unit, SCORES.flatten().tolist(), strict=True):
        (answer,) = each.answers
        with answers.model.disable_adapter():
            before = _by_hand(answers, each.prompt, answer)
        paid = price * (sum(_by_hand(answers, each.prompt, answer)) - sum(before))
        assert each.facts["returns"][0] == pytest.approx((score - 0.5 - paid) / 4, abs=1e-4)  # with a trace of 1


def test_a_critic_needs_hidden_states(monkeypatch):
    model = ready(small_llama(), Settings(lora=4), rewards=False)
    monkeypatch.setattr(Answers, "_check", lambda self: None)  # as of a model with a head of its own kind
    with pytest.raises(ValueError, match="a critic reads a model's last hidden states"):
        Answers(model, Critic(model))


def test_ppo_learns_what_to_expect_and_leaves_no_critic_behind(tmp_path, monkeypatch):
    # A judge that counts from 100 teaches what one that counts from 0 does.
    critics = []
    monkeypatch.setattr(rounds, "Critic", lambda model: critics.append(Critic(model)) or critics[0])
    units = []
    monkeypatch.setattr(rounds, "rolled", lambda *given: units.append((given[-1], given[-2])) or rolled(*given))
    found = improve(
        small_llama(initializer_range=0.3), word_tokenizer(), word_pairs(80), PolicyGradient(ppo(0.2, 0.5), 4),
        Scored(lambda prompt, answer: good_words(prompt, answer) + 100, "good_words"), tmp_path,
        Settings(batch=16, micro=8, learning_rate=1e-2, epochs=2, most=6, answers=20, held_out=0.25),
        rounds=4, prompts=32,
    )  # fmt: skip
    assert found.played == {"rounds": 4, "prompts": 32, "group": 4, "price": 0.0, "share": 1.0}
    assert found.trainable < 17 * 2**10  # the adapter's, without the critic's
    scores = units[0][1]
    assert [unit for unit, _ in units] == [(float(scores.mean()), float(scores.std()))] * 4  # the first round's
    (critic,) = critics
    assert critic.bias.item() > 0.02  # answers are better than in the first round
    assert found.drawn.scores[1] > found.drawn.scores[0] + 0.5
    assert not any("critic" in name for name in load_file(tmp_path / "model" / "adapter_model.safetensors"))


def test_a_model_improves_by_policy_gradients(tmp_path):
    found = improve(
        small_llama(initializer_range=0.3), word_tokenizer(), word_pairs(80), PolicyGradient(rloo(0.2), 4),
        Scored(good_words, "good_words"), tmp_path,
        Settings(batch=16, micro=8, learning_rate=1e-2, epochs=2, most=6, answers=20, held_out=0.25),
        rounds=4, prompts=32,
    )  # fmt: skip
    assert found.drawn.scores[1] > found.drawn.scores[0] + 0.5
    assert found.steps == 4 * 2 * 8
    assert found.drawn.divergence > 0.1


def test_what_cannot_be():
    with pytest.raises(ValueError, match="no credit and no critic"):
        PolicyGradient(dataclasses.replace(ppo(0.2, 0.1), critic=None))
    with pytest.raises(ValueError, match="answers must be 2 or more"):
        PolicyGradient(rloo(0.2), 1)
    with pytest.raises(ValueError, match="price of leaving the reference"):
        PolicyGradient(rloo(0.2), 2, price=-1.0)
