"""OFS-DPO and COFS-DPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from torch import nn  # noqa: E402

from backchannel.card import Method  # noqa: E402
from backchannel.parts.objectives import Pairs, random_pairs  # noqa: E402
from backchannel.preference import ofs_dpo_cofs_dpo as module  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.ofs_dpo_cofs_dpo import (  # noqa: E402
    chased,
    coefficients,
    combined,
    ofs_dpo_cofs_dpo,
)
from backchannel.testing.battery import check_card  # noqa: E402


def test_card():
    check_card(Method("ofs_dpo_cofs_dpo", "preference", module.CARD, module))


def _two(seed=0):
    """The same pairs under two copies: one reference."""
    one, other = random_pairs(5, seed), random_pairs(5, seed + 1)
    return one, other._replace(reference_chosen=one.reference_chosen, reference_rejected=one.reference_rejected)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_step_losses_by_hand():
    one, other = _two()
    margins = [np.asarray(each.policy_chosen - each.policy_rejected) for each in (one, other)]
    reference = np.asarray(one.reference_chosen - one.reference_rejected)
    own = [-np.log(_sigmoid(0.2 * (m - reference))) for m in margins]
    for leader in (0, 1):
        chase = ofs_dpo_cofs_dpo(0.2, 0.7)
        chase.leader = leader
        between = -np.log(_sigmoid(0.2 * (margins[leader] - margins[1 - leader])))
        expected = [own[k] + (0.7 if k == leader else -0.7) * between for k in (0, 1)]
        for loss, each in zip(chase(one, other), expected, strict=True):
            np.testing.assert_allclose(loss, each, rtol=1e-9)


def test_step_each_loss_pulls_its_own_copy_alone():
    # Leader and follower: both margins are pulled up by beta (sigmoid(-h) + alpha sigmoid(beta (m_S - m_F))).
    one, other = _two(3)
    leaves = [each.policy_chosen.clone().requires_grad_() for each in (one, other)]
    pairs = [each._replace(policy_chosen=leaf) for each, leaf in zip((one, other), leaves, strict=True)]
    losses = ofs_dpo_cofs_dpo(0.2, 0.7)(*pairs)
    reference = one.reference_chosen - one.reference_rejected
    m = [each.policy_chosen - each.policy_rejected for each in (one, other)]
    for k in (0, 1):
        own, cross = torch.autograd.grad(losses[k].sum(), [leaves[k], leaves[1 - k]], allow_unused=True)
        assert cross is None
        pull = 0.2 * (torch.sigmoid(-0.2 * (m[k] - reference)) + 0.7 * torch.sigmoid(0.2 * (m[1] - m[0])))
        torch.testing.assert_close(own, -pull)


def test_step_who_leads_is_who_had_the_smaller_loss_of_late():
    chase = ofs_dpo_cofs_dpo(1.0, 0.1, every=2)
    low, high = (Pairs(torch.tensor([m]), *torch.zeros(3, 1)) for m in (0.0, 3.0))
    middle = Pairs(torch.tensor([1.0]), *torch.zeros(3, 1))
    seen = []
    for pair in ((low, high), (middle, low), (high, low), (low, low), (low, low), (low, low)):
        chase(*pair)
        seen.append(chase.leader)
    # Sums of DPO's loss: the second copy's 0.05 + 0.69 are below 0.69 + 0.31; then the first's 0.05 + 0.69 are below
    # 0.69 + 0.69; where both are alike the first leads.
    assert seen == [0, 1, 1, 0, 0, 0]
    # A batch counts once, whatever its size: means 0.05 + 0.69 are below 0.69 + 0.31, sums over pairs are not.
    chase = ofs_dpo_cofs_dpo(1.0, 0.1, every=2)
    chase(high, low)
    chase(*(Pairs(*(each.expand(3) for each in pair[:4])) for pair in (low, middle)))
    assert chase.leader == 0


class _Table(nn.Module):
    """Log-probabilities of answers as a table of logits."""

    def __init__(self, answers=6):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(answers, dtype=torch.float64))


def _pairs(model, batch):
    logs = torch.log_softmax(model.logits, 0)
    reference = torch.full((len(batch),), -float(np.log(6)), dtype=torch.float64)
    return Pairs(logs[batch[:, 0]], logs[batch[:, 1]], reference, reference)


def _stream(many=12):
    rng = torch.Generator().manual_seed(4)
    return [torch.rand(4, 6, generator=rng).argsort(1)[:, :2].sort(1)[0] for _ in range(many)]  # lower numbers win


def test_limit_without_the_chase_each_copy_is_dpo():
    model = _Table()
    stepper = torch.optim.Adam(model.parameters(), lr=0.05)
    for batch in _stream():
        stepper.zero_grad()
        dpo(0.5)(_pairs(model, batch))[0].mean().backward()
        stepper.step()
    found = chased(_Table(), _stream(), _pairs, ofs_dpo_cofs_dpo(0.5, 0.0), 0.05)
    torch.testing.assert_close(found.logits.detach(), model.logits.detach())
    assert not found.logits.requires_grad


def test_known_the_leader_at_the_end_is_returned():
    # A stream that turns round: the fast copy has gone further the wrong way, and the slow one leads.
    stream = _stream(8) + [batch.flip(1) for batch in _stream(1)]
    chase = ofs_dpo_cofs_dpo(0.5, 0.0, every=1)
    found = chased(_Table(), stream, _pairs, chase, 0.1, slow=0.2)
    assert chase.leader == 1
    alone = ofs_dpo_cofs_dpo(0.5, 0.0, every=100)
    fast = chased(_Table(), stream, _pairs, alone, 0.1, slow=0.2)
    assert float(found.logits.detach().abs().max()) < 0.5 * float(fast.logits.detach().abs().max())


def test_known_coefficients_solve_the_normal_equations():
    rng = np.random.default_rng(0)
    gains, domain = rng.normal(size=(3, 20)), np.arange(20) % 3
    target = gains[domain, np.arange(20)]
    expected = np.linalg.solve(gains @ gains.T, gains @ target)
    found = coefficients(torch.tensor(gains), torch.tensor(domain))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_known_leaders_that_do_not_meet_are_added_and_equal_ones_are_averaged():
    # Domain 0 moved margins of its own pairs alone, and so did domain 1: both whole. Equal leaders: halves.
    apart = torch.tensor([[2.0, 3.0, 0.0, 0.0], [0.0, 0.0, 1.0, 4.0]])
    domain = torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(coefficients(apart, domain), torch.ones(2, dtype=torch.float64))
    alike = torch.tensor([[2.0, 3.0, 1.0, 4.0]] * 2)
    assert float(coefficients(alike, domain).sum()) == pytest.approx(1)


def test_known_a_linear_model_does_in_each_domain_what_its_leader_does():
    # Margins are linear in the parameters and the domains' features orthogonal: the sum is exact, the average is half.
    start, leaders = nn.Linear(4, 1, bias=False).double(), []
    features = torch.eye(4, dtype=torch.float64)
    domain = torch.tensor([0, 0, 1, 1])
    for k in (0, 1):
        leader = nn.Linear(4, 1, bias=False).double()
        with torch.no_grad():
            leader.weight.copy_(start.weight)
            leader.weight[0, 2 * k : 2 * k + 2] += torch.tensor([1.0, 2.0]) * (k + 1)
        leaders.append(leader)
    gains = torch.stack([(each(features) - start(features))[:, 0].detach() for each in leaders])
    model = combined(start, leaders, coefficients(gains, domain))
    torch.testing.assert_close((model(features) - start(features))[:, 0].detach(), gains.sum(0))
    half = combined(start, leaders, [0.5, 0.5])
    torch.testing.assert_close((half(features) - start(features))[:, 0].detach(), gains.sum(0) / 2)
    assert model.weight is not start.weight


def test_contrast_dpos_pull_fades_and_the_leads_does_not():
    leaf = torch.tensor([60.0], requires_grad=True)
    pair = Pairs(leaf, *torch.zeros(3, 1))
    (alone,) = torch.autograd.grad(dpo(0.2)(pair)[0].sum(), leaf)
    (chased_by,) = torch.autograd.grad(ofs_dpo_cofs_dpo(0.2, 0.5)(pair, pair)[0].sum(), leaf)
    assert abs(float(alone)) < 1e-5
    assert float(chased_by - alone) == pytest.approx(-0.5 * 0.2 / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: ofs_dpo_cofs_dpo(0.0, 0.1), "beta"),
        (lambda: ofs_dpo_cofs_dpo(0.1, -1.0), "alpha"),
        (lambda: ofs_dpo_cofs_dpo(0.1, float("inf")), "alpha"),
        (lambda: coefficients(torch.ones(2), torch.zeros(2, dtype=torch.int64)), "gains must be"),
        (lambda: coefficients(torch.ones(2, 3), torch.tensor([0, 1, 2])), "every domain"),
        (lambda: ofs_dpo_cofs_dpo(0.1, 0.1, every=0), "every"),
        (lambda: chased(_Table(), [], _pairs, ofs_dpo_cofs_dpo(0.1, 0.1), 0.1, slow=0.0), "slow"),
        (lambda: coefficients(torch.ones(2, 3), torch.zeros(2, dtype=torch.int64)), "gains must be"),
        (lambda: coefficients(torch.ones(2, 3), torch.zeros(3, dtype=torch.int64)), "every domain"),
        (lambda: combined(_Table(), [_Table()], [1.0, 2.0]), "weight for each"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
