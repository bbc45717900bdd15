"""SFT: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, Singles, random_batch  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.sft import sft  # noqa: E402
from backchannel.preference.tests.trl_oracle import dpo_losses  # noqa: E402


def _mean(batch):
    objective = sft()
    loss, weight = objective(batch)[0], objective.weight(batch)
    return (loss * weight).sum() / weight.sum()


def test_step_mean_over_tokens():
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 1, 2], [6, 0, 0, 0, 0]])
    length = torch.tensor([3, 5, 1])
    logs, rows = logits - logits.exp().sum(-1, keepdim=True).log(), []
    for i in range(3):
        rows.append([float(logs[i, t, tokens[i, t]]) for t in range(length[i])])
    total = torch.tensor([sum(row) for row in rows], dtype=torch.float64)
    loss, info = sft()(Singles(total, total, length))
    np.testing.assert_allclose(loss, [-np.mean(row) for row in rows], rtol=1e-12)
    tokens_alike = -np.mean([x for row in rows for x in row])
    assert float(_mean(Singles(total, total, length))) == pytest.approx(tokens_alike, rel=1e-12)
    torch.testing.assert_close(info.log_probability, total, rtol=0, atol=0)


def test_known_trl():
    # TRL's DPO trainer has it as a loss type: the mean over the tokens of the chosen answers of one small batch. With
    # gradient accumulation TRL averages those means, so that its loss depends on how the batch is split; ours does not.
    pairs = random_batch(Pairs, 5, seed=2)
    singles = Singles(pairs.policy_chosen, pairs.reference_chosen, pairs.chosen_length)
    torch.testing.assert_close(sft()(singles)[0], dpo_losses("sft", pairs, beta=0.3), rtol=0, atol=1e-6)


def test_known_minimiser_is_the_share_of_each_answer():
    share = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    logits = share.log().clone().requires_grad_()
    logs = torch.log_softmax(logits, 0)
    one = torch.ones(3, dtype=torch.int64)
    loss = (share * sft()(Singles(logs, logs.detach(), one))[0]).sum()
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], torch.zeros(3, dtype=torch.float64))


def test_limit_any_split_of_the_batch_gives_the_same_mean():
    batch = random_batch(Singles, 12, seed=4)
    halves = [Singles(*(x[i::2] for x in batch)) for i in (0, 1)]
    tokens = [half.length.sum() for half in halves]
    both = sum(_mean(half) * count for half, count in zip(halves, tokens, strict=True)) / sum(tokens)
    torch.testing.assert_close(both, _mean(batch))


def test_contrast_what_was_worse_is_seen_by_dpo_alone():
    pairs = random_batch(Pairs, 4, seed=5)
    worse = pairs._replace(policy_rejected=pairs.policy_rejected + 5)
    for batch in (pairs, worse):
        singles = Singles(batch.policy_chosen, batch.reference_chosen, batch.chosen_length)
        torch.testing.assert_close(sft()(singles)[0], -pairs.policy_chosen / pairs.chosen_length, rtol=0, atol=0)
    assert bool((dpo(0.1)(worse)[0] > dpo(0.1)(pairs)[0]).all())


def test_lengths_are_needed():
    with pytest.raises(ValueError, match="needs the length"):
        sft()(Singles(torch.zeros(2), torch.zeros(2)))
