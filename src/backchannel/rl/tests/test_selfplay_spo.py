"""SPO, self-play: proofs and contrast."""

import numpy as np
import pytest

from backchannel.parts.nash import averages, bradley_terry_rewards, even, exploitability, normalised, solve
from backchannel.parts.preferences import bradley_terry, von_neumann_winner
from backchannel.rl.selfplay_spo import WinRateRewards, gap_bound, self_play, selfplay_spo, win_shares
from backchannel.tasks.preference_matrices import games, random_game, rock_paper_scissors


def test_step_two_by_hand():
    matrix, p = random_game(4, 0), np.array([0.1, 0.2, 0.3, 0.4])
    policies = solve(selfplay_spo(4, horizon=8), matrix, np.log(p), 2)
    eta = np.sqrt(8 * np.log(4) / 8)
    for t in range(2):
        p = p * np.exp(eta * np.array([sum(matrix[a, b] * p[b] for b in range(4)) for a in range(4)]))
        p /= p.sum()
        np.testing.assert_allclose(np.exp(policies[t + 1]), p, rtol=1e-12)


def test_step_shares_of_wins_by_hand():
    shares = win_shares(lambda x, y: float(x > y), [1, 5, 3], [2, 4, 0, 3])
    np.testing.assert_array_equal(shares, [0.25, 1.0, 0.5])


def test_step_the_queue_keeps_the_last_and_nobody_meets_himself():
    met, told = [], []
    numbers = iter(range(100))

    def beats(x, y):
        met.append((x, y))
        return x > y

    count = self_play(
        lambda n: [next(numbers) for _ in range(n)], lambda *both: told.append(both), beats, rounds=3, batch=2, queue=4
    )
    assert count == len(met) == 3 * 2 * 4
    assert [y for x, y in met if x == 4] == [0, 1, 2, 3]
    assert [y for x, y in met if x == 8] == [4, 5, 6, 7]
    assert told[1][0] == [6, 7]
    np.testing.assert_array_equal(told[1][1], [1.0, 1.0])


def test_step_rewards_of_three_batches_by_hand():
    # The queue holds three: 2, 4, 6, then 6, 5, 1, then 1, 9, 4. A tie is half a win.
    rewards = WinRateRewards(lambda x, y: 0.5 if x == y else float(x > y), first=iter([2, 4, 6]))
    np.testing.assert_allclose(rewards([5, 1]), [2 / 3, 0])
    assert list(rewards.queue) == [6, 5, 1]
    np.testing.assert_allclose(rewards([9, 4]), [1, 1 / 3])
    np.testing.assert_allclose(rewards([1, 4, 9, 0]), [1 / 6, 1.5 / 3, 2.5 / 3, 0])
    assert list(rewards.queue) == [4, 9, 0]
    assert rewards.comparisons == 3 * (2 + 2 + 4)


def test_known_rewards_of_a_batch_against_itself_are_half_on_average():
    # P(x > y) + P(y > x) = 1: whatever is preferred, a batch that meets itself wins half; so does a tie of all.
    game = random_game(6, 5)
    batch = [0, 3, 3, 1, 5, 2, 4, 0]
    rewards = WinRateRewards(lambda x, y: float(game[x, y]), first=batch)(batch)
    assert rewards.mean() == pytest.approx(0.5)
    np.testing.assert_allclose(rewards, game[np.ix_(batch, batch)].mean(1))
    np.testing.assert_array_equal(WinRateRewards(lambda x, y: 0.5, first=[1, 2])([7, 8, 9]), 0.5)


def test_limit_a_queue_of_one_says_won_or_lost_and_a_long_one_the_rank():
    one = WinRateRewards(lambda x, y: float(x > y), first=[2.5])
    np.testing.assert_array_equal(one([1, 4, 3]), [0, 1, 1])
    assert list(one.queue) == [3]
    everybody = WinRateRewards(lambda x, y: float(x > y), first=np.arange(1000) / 1000)
    np.testing.assert_allclose(everybody([0.25, 0.9, 2.0]), [0.25, 0.9, 1.0], atol=1e-12)


def test_limit_flipped_labels_shrink_rewards_towards_a_half():
    # 40,000 labels of each, flipped with probability 0.2: standard error 0.002; 5 of them.
    rng, queue = np.random.default_rng(0), list(np.linspace(0, 1, 40_000))
    clean = WinRateRewards(lambda x, y: float(x > y), first=queue)([0.2, 0.7])
    noisy = WinRateRewards(lambda x, y: float((x > y) != (rng.random() < 0.2)), first=queue)([0.2, 0.7])
    np.testing.assert_allclose(noisy - 0.5, 0.6 * (clean - 0.5), atol=0.01)


@pytest.mark.parametrize("kind", ["random", "cyclic", "mixture"])
def test_known_the_mean_policy_is_within_the_bound(kind):
    matrix = games(kind, 5, 20, seed=1)
    for horizon in (10, 100, 1000):
        mean = averages(solve(selfplay_spo(5, horizon), matrix, even(20, 5), horizon - 1))[-1]
        assert (2 * exploitability(matrix, np.log(mean)) <= gap_bound(5, horizon)).all()
    eta = np.sqrt(8 * np.log(5) / 100)
    assert gap_bound(5, 100) == pytest.approx(2 * (np.log(5) / (eta * 100) + eta / 8))


def test_known_the_mean_policy_tends_to_the_von_neumann_winner():
    matrix = random_game(5, 3)
    mean = averages(solve(selfplay_spo(5, 40_000), matrix, even(5), 39_999))[-1]
    np.testing.assert_allclose(mean, von_neumann_winner(matrix), atol=0.05)


def test_limit_of_one_judge_is_her_favourite():
    matrix = bradley_terry([0.0, 1.0, 3.0, 2.0])
    last = solve(selfplay_spo(4, 100, step_size=1.0), matrix, even(4), 100)[-1]
    assert np.exp(last[2]) > 1 - 1e-6


def test_limit_noise_that_flips_labels_leaves_the_winner_and_scales_the_step():
    # P' = eps + (1 - 2 eps) P: the same policies with a step that is 1 - 2 eps of it.
    matrix = random_game(5, 4)
    noisy = 0.2 + 0.6 * matrix
    one = solve(selfplay_spo(5, 50, step_size=0.5), noisy, even(5), 50)
    other = solve(selfplay_spo(5, 50, step_size=0.3), matrix, even(5), 50)
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_contrast_a_reward_model_breaks_the_cycle_at_will():
    # Stakes differ around the circle: rewards order what has no order, and the best of them is beaten for certain.
    game = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 1.0], [0.8, 0.0, 0.5]])
    rewards = bradley_terry_rewards(game, even(3))
    model = normalised(rewards / 0.1)
    ours = np.log(averages(solve(selfplay_spo(3, 4000), game, even(3), 3999))[-1])
    assert 2 * exploitability(game, model) > 0.2
    assert 2 * exploitability(game, ours) < 0.02


def test_contrast_the_last_policy_is_no_answer():
    game, start = rock_paper_scissors(), np.log([0.4, 0.3, 0.3])
    policies = solve(selfplay_spo(3, 3000, step_size=0.2), game, even(3), 2999, start)
    assert (exploitability(game, policies[-30:]) > 0.2).all()
    assert exploitability(game, np.log(averages(policies)[-1])) < 0.02


def test_known_queue_learns_the_winner_from_single_comparisons():
    # Softmax policy, gradient steps on centred shares of wins. Rock, paper, scissors with a fourth answer that loses
    # to all: the mean policy hardly plays it. Over 150 seeds 0.010 +- 0.002, at most 0.019; it began with 0.25.
    game = np.full((4, 4), 0.9)
    game[:3, :3], game[3], game[3, 3] = rock_paper_scissors(), 0.1, 0.5
    rng, logits, played = np.random.default_rng(0), np.zeros(4), []

    def sample(n):
        return rng.choice(4, n, p=np.exp(normalised(logits)))

    def learn(actions, rewards):
        played.append(np.exp(normalised(logits)))
        for action, reward in zip(actions, rewards - rewards.mean(), strict=True):
            logits[:] += 0.1 * reward * ((np.arange(4) == action) - played[-1])

    self_play(sample, learn, lambda a, b: float(rng.random() < game[a, b]), rounds=300, batch=8, queue=8)
    assert np.mean(played[150:], 0)[3] < 0.05


def test_wrong_arguments():
    with pytest.raises(ValueError, match="actions"):
        selfplay_spo(1, 10)
    with pytest.raises(ValueError, match="queue is empty"):
        win_shares(lambda x, y: 1.0, [1], [])
    with pytest.raises(ValueError, match="first must hold at least one"):
        WinRateRewards(lambda x, y: 1.0, first=[])
    with pytest.raises(ValueError, match=r"beats must say 1, 0 or a probability in between, not -1\.0"):
        WinRateRewards(lambda x, y: -1.0, first=[1])([2])
