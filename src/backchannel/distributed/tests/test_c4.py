"""C4: proofs and contrast."""

import itertools

import numpy as np
import pytest

from backchannel.card import find
from backchannel.distributed.c4 import c4, diagnose, hung, plan, rebalance
from backchannel.parts.timings import Timings
from backchannel.tasks.leaf_spine import (
    Flows,
    Subflows,
    completion_time,
    congestion,
    ecmp,
    leaf_spine,
    leaves_of,
    loads,
    permutation,
)
from backchannel.tasks.rank_timings import Injected, rank_timings
from backchannel.testing.battery import check_card


def _no_links(rounds, ranks):
    return np.full((rounds, ranks, ranks), np.nan)


def _where(faults):
    return [fault.where for fault in faults]


def test_the_card_is_a_chapter():
    check_card(find("c4", "distributed"))


def test_step_excess_noise_and_count_by_hand():
    # Three ranks: the quartile is the smallest, 1. Rank 2: log 1.6, log 1.9, ...; jumps of rank 2 alone are not zero.
    computing = np.array([[1.0, 1.0, 1.6], [2.0, 2.0, 3.8], [1.0, 1.0, 1.4], [2.0, 2.0, 3.2], [3.0, 3.0, 6.0]])
    (fault,) = diagnose(computing, _no_links(5, 3))  # log 1.5 is passed in 4 of 5
    assert fault.where == ("slow rank", 2, -1)
    assert fault.factor == pytest.approx(1.6)
    assert fault.reason == "rank 2 computes 1.6 times as long as its peers, in 4 of 5 rounds"
    assert not diagnose(computing, _no_links(5, 3), needed=5)
    assert _where(diagnose(computing, _no_links(5, 3), tolerance=0.39, needed=5)) == [("slow rank", 2, -1)]
    assert not diagnose(computing[:3], _no_links(3, 3))
    # With 1.1 for all that is less, 1.6 is 1.45 times as long and 2 times less so; the factor is as it was measured.
    assert not diagnose(computing, _no_links(5, 3), least=1.1)
    (fault,) = diagnose(computing, _no_links(5, 3), least=1.05)
    assert fault.factor == pytest.approx(1.6)
    assert not diagnose(computing / 1e6, _no_links(5, 3))  # a microsecond is like another


def test_step_the_noise_is_the_median_jump():
    # Two entities, the quicker always 1: jumps are 0 and those of the other; half of each: the median is their middle.
    jumps = np.array([0.4, 0.3, 0.4, 0.3, 0.4])
    other = np.cumsum(np.concatenate([[1.0], jumps * [-1, 1, -1, 1, -1]]))
    computing = np.exp(np.stack([np.zeros(6), other], axis=1))
    sigma = 1.4826 / np.sqrt(2) * np.median(np.concatenate([jumps, np.zeros(5)]))
    low = np.sort(other[-5:])[1]  # the second least of the last five: 4 of 5 are at or above
    for deviations, named in ((low / sigma * 0.999, True), (low / sigma * 1.001, False)):
        found = diagnose(computing, _no_links(6, 2), tolerance=0.01, deviations=deviations)
        assert bool(found) == named


def test_known_rows_columns_and_cells_are_told_apart():
    # All single faults of 5 ranks, without noise: exactly the fault is named.
    clean, steady = np.ones((5, 5)), np.ones((5, 5, 5))
    steady[:, np.eye(5, dtype=bool)] = np.nan
    assert diagnose(clean, steady) == ()
    for rank in range(5):
        for kind, place, cell in (("sender", (rank, -1), np.s_[:, rank]), ("receiver", (-1, rank), np.s_[:, :, rank])):
            transfer = steady.copy()
            transfer[cell] *= 3
            (fault,) = diagnose(clean, transfer)
            assert fault.where == (f"slow {kind}", *place)
            assert fault.factor == pytest.approx(3.0)
        computing = clean.copy()
        computing[:, rank] *= 3
        assert _where(diagnose(computing, steady)) == [("slow rank", rank, -1)]
    for a, b in itertools.permutations(range(5), 2):
        transfer = steady.copy()
        transfer[:, a, b] *= 3
        (fault,) = diagnose(clean, transfer)
        assert fault.where == ("slow link", a, b)
        assert fault.reason == f"the link from {a} to {b} takes 3.0 times as long as others"
    transfer = steady.copy()
    transfer[:, 1] *= 3
    transfer[:, 3, 4] *= 5
    assert _where(diagnose(clean, transfer)) == [("slow sender", 1, -1), ("slow link", 3, 4)]
    transfer = steady.copy()
    transfer[:, 1, 2:4] *= 3  # half of the links of a sender are not more than half
    assert _where(diagnose(clean, transfer)) == [("slow link", 1, 2), ("slow link", 1, 3)]
    four, healthy = np.ones((5, 4)), np.ones((5, 4, 4))
    healthy[:, np.eye(4, dtype=bool)] = np.nan
    links = healthy.copy()
    links[:, :, 2:] *= 3  # two receivers: two of three links of the other senders are slow, too
    assert _where(diagnose(four, links)) == [("slow receiver", -1, 2), ("slow receiver", -1, 3)]
    links[:, 2] *= 3  # eight of twelve links: their median would be of no use
    links[:, 2, 3] /= 3
    named = _where(diagnose(four, links))
    assert named == [("slow sender", 2, -1), ("slow receiver", -1, 2), ("slow receiver", -1, 3)]
    rng = np.random.default_rng(9)
    links = healthy * np.exp(rng.uniform(-11, -5, (5, 4, 4)))  # all of them noise, but one
    links[:, 0, 3] = 0.3
    assert _where(diagnose(four, links)) == [("slow link", 0, 3)]
    ring = np.full((5, 5, 5), np.nan)
    ring[:, np.arange(5), (np.arange(5) + 1) % 5] = 1.0
    ring[:, 2, 3] = 2.0
    (fault,) = diagnose(clean, ring)
    assert fault.reason.endswith("from 2 to 3 takes 2.0 times as long as others (no other link of both was timed)")


def test_known_who_hangs():
    yes, no = np.ones(3, bool), np.array([True, False, False])
    assert _where(hung(no, no)) == [("absent", 1, -1), ("absent", 2, -1)]
    assert _where(hung(yes, no)) == [("stuck", 1, -1), ("stuck", 2, -1)]
    assert hung(yes, yes) == ()


def test_known_faults_are_named_within_five_rounds_and_nothing_else():
    # A factor of 3 at a noise of 0.1 is 10 deviations over: misses are rarer than 1e-6 a trial, false names than 1e-5.
    rng = np.random.default_rng(11)
    for ranks, kind, ring in itertools.product((4, 8), ("slow rank", "slow link", "slow sender"), (False, True)):
        if ring and kind == "slow sender":
            continue
        a = int(rng.integers(ranks))
        b = (a + 1) % ranks if kind == "slow link" else -1
        fault = Injected(kind, a, b, 4.0, 20)
        computing, transfer = rank_timings(ranks, 25, rng, fault, ring, hiccups=0.0)
        assert diagnose(computing[:20], transfer[:20]) == ()
        assert _where(diagnose(computing, transfer)) == [(kind, a, b)]


def _timings(computing, transfer=None, came=None, left=None):
    n = len(computing)
    yes = np.ones(n, bool)
    transfer = np.full((n, n), np.nan) if transfer is None else transfer
    return Timings(computing, np.full(n, 0.5), transfer, yes if came is None else came, yes if left is None else left)


def test_limit_the_monitor_is_the_function_over_its_memory():
    told = []
    computing, transfer = rank_timings(
        4, 50, np.random.default_rng(3), Injected("slow link", 2, 0, 4.0, 42), hiccups=0.0
    )
    monitor = c4(4, isolate=told.append)
    for t in range(50):
        found = monitor.record(_timings(computing[t], transfer[t]))
        assert found == diagnose(computing[max(0, t - 31) : t + 1], transfer[max(0, t - 31) : t + 1])
        assert monitor.faults == found
        assert monitor.limit == pytest.approx(10 * (computing[max(0, t - 31) : t + 1].max() + 0.5))
    assert _where(told) == [("slow link", 2, 0)]  # once, though it is there for many rounds
    some = np.array([True, True, False, True])
    assert _where(monitor.record(_timings(computing[0], transfer[0], some, some))) == [("absent", 2, -1)]
    assert _where(told) == [("slow link", 2, 0), ("absent", 2, -1)]


def test_limit_what_all_share_is_nobodys_fault():
    rng = np.random.default_rng(4)
    computing, transfer = rank_timings(8, 30, rng, hiccups=0.0)
    shared = np.exp(3 * rng.standard_normal(30))
    assert diagnose(computing * shared[:, None], transfer * shared[:, None, None]) == ()
    fault = Injected("slow rank", 5, -1, 5.0, 25)
    computing, transfer = rank_timings(8, 30, rng, fault, hiccups=0.0)
    assert _where(diagnose(computing * shared[:, None], transfer)) == [("slow rank", 5, -1)]


def test_contrast_a_z_score_cannot_see_one_of_eight():
    # The largest z-score of 8 numbers is 7 / sqrt(8) = 2.47, whatever the fault: 3 deviations are out of reach.
    computing = np.ones((5, 8))
    computing[:, 3] = 1000.0
    mean = computing.mean(0)
    z = (mean - mean.mean()) / mean.std(ddof=1)
    assert z.max() == pytest.approx(7 / np.sqrt(8))
    assert _where(diagnose(computing, _no_links(5, 8))) == [("slow rank", 3, -1)]
    # A single hiccup moves a mean of five rounds, and not four of five.
    computing = np.ones((5, 8))
    computing[2, 3] = 1000.0
    assert computing.mean(0)[3] > 100
    assert diagnose(computing, _no_links(5, 8)) == ()


def test_step_paths_by_hand():
    # Sizes 3, 2, 2 from leaf 0 over two spines: 3 on the first, both 2 on the other; then one link is halved.
    fabric = leaf_spine(3, 2, 3)
    flows = Flows(np.array([0, 1, 2]), np.array([3, 4, 6]), np.array([2.0, 3.0, 2.0]))
    planned = plan(fabric, flows)
    assert planned.spine.tolist() == [1, 0, 1]
    assert congestion(fabric, flows, planned) == 4.0
    halved = fabric._replace(up=np.array([[1.0, 0.5], [1, 1], [1, 1]]))
    again = rebalance(halved, flows, planned)
    assert congestion(halved, flows, planned) == 8.0
    assert (again.spine != planned.spine).sum() == 1
    assert congestion(halved, flows, again) == 5.0
    dead = fabric._replace(up=np.array([[1.0, 0.0], [1, 1], [1, 1]]))
    assert rebalance(dead, flows, planned).spine.tolist() == [0, 0, 0]


def test_step_a_plan_is_the_largest_first_and_then_mended():
    # Equation (6) in plain Python, on flows of many sizes.
    rng = np.random.default_rng(8)
    for _ in range(20):
        fabric = leaf_spine(3, 3, 6)
        fabric = fabric._replace(up=rng.uniform(0.5, 1, (3, 3)), down=rng.uniform(0.5, 1, (3, 3)))
        flows = Flows(rng.permutation(6), 6 + rng.permutation(12)[:6], rng.uniform(0.2, 2, 6))
        up, down, spine = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(6, int)
        for f in sorted(range(6), key=lambda f: -flows.size[f]):
            a, b, size = flows.source[f] // 6, flows.target[f] // 6, flows.size[f]
            costs = [
                max((up[a, s] + size) / fabric.up[a, s], (down[s, b] + size) / fabric.down[s, b]) for s in range(3)
            ]
            s = spine[f] = costs.index(min(costs))
            up[a, s] += size
            down[s, b] += size
        expected = rebalance(fabric, flows, Subflows(np.arange(6), spine, flows.size))
        assert plan(fabric, flows).spine.tolist() == expected.spine.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_known_plans_are_near_the_best_of_all_assignments(seed):
    # Greedy first and then mended: against every assignment of six flows to three spines.
    rng = np.random.default_rng(seed)
    fabric = leaf_spine(3, 3, 4)
    flows = Flows(rng.permutation(4), 4 + rng.permutation(8)[:4], rng.uniform(1, 2, 4))
    flows = Flows(*(np.concatenate([a, b]) for a, b in zip(flows, ([4, 5], [0, 8], rng.uniform(1, 2, 2)), strict=True)))
    best = min(
        congestion(fabric, flows, Subflows(np.arange(6), np.array(each), flows.size))
        for each in itertools.product(range(3), repeat=6)
    )
    assert congestion(fabric, flows, plan(fabric, flows)) <= 1.4 * best


def test_limit_a_balanced_plan_is_left_alone_and_spines_are_enough():
    rng = np.random.default_rng(6)
    fabric = leaf_spine(4, 8, 8)
    for _ in range(20):
        flows = permutation(np.arange(32), rng)
        planned = plan(fabric, flows)
        assert np.array_equal(rebalance(fabric, flows, planned).spine, planned.spine)
        source, target = leaves_of(fabric, flows)
        assert ((planned.spine == -1) == (source == target)).all()
        hashed = ecmp(fabric, flows, rng)
        mended = rebalance(fabric, flows, hashed)
        assert congestion(fabric, flows, mended) <= congestion(fabric, flows, hashed)
        up, _ = loads(fabric, flows, planned)
        assert up.max() <= 2  # at most 8 flows of a leaf over 8 spines
    within = Flows(np.array([0]), np.array([1]), np.array([1.0]))
    assert plan(fabric, within).spine.tolist() == [-1]


def test_contrast_hashing_collides_where_a_plan_does_not():
    # 16 flows of each leaf over 8 spines: 2 on a link would do. Hashing puts 4 or more on one of 128 links.
    rng, fabric = np.random.default_rng(7), leaf_spine(8, 8, 16)
    flows = Flows(np.arange(128), np.roll(np.arange(128), 16), np.ones(128))
    planned = completion_time(fabric, flows, plan(fabric, flows))
    assert planned == pytest.approx(2.0)  # what ports alone take
    assert np.mean([completion_time(fabric, flows, ecmp(fabric, flows, rng)) for _ in range(10)]) > 1.5 * planned


def test_wrong_arguments():
    with pytest.raises(ValueError, match="ranks must be at least 2, not 1"):
        c4(1)
    with pytest.raises(ValueError, match="1 <= needed <= window <= 32, not 6 and 5"):
        c4(4, needed=6)
    with pytest.raises(ValueError, match=r"tolerance, deviations and least must be positive, not 0, 4\.0"):
        c4(4, tolerance=0)
    with pytest.raises(ValueError, match="patience must be above 1 and first positive, not 1 and 300"):
        c4(4, patience=1)
    with pytest.raises(ValueError, match="timings must be of 4 ranks, not 2"):
        c4(4).record(_timings(np.ones(2)))
    with pytest.raises(ValueError, match="transfer must have the shape"):
        diagnose(np.ones((5, 4)), np.ones((5, 4)))
    for wrong in (0.0, np.inf):
        with pytest.raises(ValueError, match="times must be positive and finite"):
            diagnose(np.full((5, 4), wrong), _no_links(5, 4))


# ---- real processes


@pytest.fixture(scope="module")
def processes():
    """Four processes over gloo: a slow rank, a slow link, a rank that does not come; what each round's times were."""
    pytest.importorskip("torch", reason="processes speak over torch.distributed")
    from backchannel.testing.timed_processes import Trial, in_processes

    trials = [Trial("slow rank", 2, seconds=0.3), Trial("slow link", 1, 3, 0.3), Trial("absent", 1)]
    return in_processes(trials, rounds=6, onset=1)


@pytest.mark.parametrize(("trial", "fault"), [(0, ("slow rank", 2, -1)), (1, ("slow link", 1, 3))])
def test_known_a_slow_rank_and_a_slow_link_of_real_processes(processes, trial, fault):
    monitor = c4(4, least=0.05)
    for timings in processes[trial]:
        assert timings.left.all()
        found = monitor.record(timings)
    assert fault in _where(found)


def test_known_a_real_process_that_hangs_is_named(processes):
    first, last = processes[2][0], processes[2][-1]
    assert len(processes[2]) == 2
    assert c4(4).record(first) == ()
    (fault,) = c4(4).record(last)
    assert fault.where == ("absent", 1, -1)
    assert fault.reason == "rank 1 did not come to the collective"
