"""SPO's mean policy comes to the minimax winner of preferences without an order; a reward model does not.

The paper (Swamy et al. 2024): self-play needs no reward model and no adversary, and converges to the minimax winner at
the rate of the learner's regret, also with intransitive and with noisy preferences. Ours, on games of 3 and 5 options
without a Condorcet winner:

- the duality gap of the mean of 16,000 policies is below 0.02 in every game (below 0.0143 by the theorem);
- greedy on the rewards of Bradley and Terry's model, exact, the gap is above 0.2 on average on random games, and on
  circles in every game (there each option is beaten by 0.1 or more, so that no single option can do better);
- from single comparisons, by a queue, most of the first policy's gap is closed, with 20 % of the labels flipped as
  well, where a reward model from as many comparisons is exploited more than the first policy.

What does not hold: 0.2 for crowds of judges, whose cycles are weak: there the reward model's gap is about 0.1. And a
reward model need not be followed greedily: with the best temperature of 25 its gap is 0.04 to 0.2, because the uniform
policy is hard to exploit in a circle.

Control: pendulums are swung up (`tasks/pendulum.py`) by evolution strategies on four weights. Of two trajectories the
one with the higher return is preferred, and every label may be flipped. A run arrives where the mean policy has 90 % of
what learning from true returns gains. SPO compares each trajectory with one before; the reward model is Bradley and
Terry's, linear in a trajectory's first and second moments, fitted to all comparisons so far, four for a batch of 16.

- SPO arrives, with 20 % of the labels flipped as well: at least 7 and 6 runs of 8.
- What was asked does not hold: SPO does not need fewer comparisons than the reward model, but more, in the median of 8
  runs and at the better of two settings; the reward model keeps what it was told, SPO asks anew of each trajectory.

Both had some eight settings of batch, comparisons of each and step, on seeds 100 to 102. "SPO, fast" has the fewest
comparisons, and does not stay where it arrived if labels are flipped; "SPO" does better. Hopper was not tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error
from backchannel.parts.logit import logit
from backchannel.parts.nash import averages, bradley_terry_rewards, even, exploitability, normalised, solve
from backchannel.parts.preferences import condorcet_winner
from backchannel.rl.selfplay_spo import WinRateRewards, gap_bound, self_play, selfplay_spo
from backchannel.tasks.pendulum import SPEED, TORQUE, WEIGHTS, rollout, starts, torques
from backchannel.tasks.preference_matrices import games

HORIZON, SIZES = 16_000, (3, 5)
TEMPERATURES = np.geomspace(0.01, 100, 25)
RUNS, FLIPS, SPREAD, RIDGE, SHARE = 8, 0.2, 2.0, 1.0, 0.9  # of pendulums
LOOKS, SEEN = 4, 24  # rounds between looks, trajectories of a look

Beats = Callable[[np.ndarray, np.ndarray], float]


def claim(seed: int, full: bool) -> Evidence:
    """Tables, then queues, then pendulums; `full` takes five times as many games and runs of pendulums."""
    count = 100 if full else 20
    rows, ours, greedy, lines = [], [], {}, {}
    for kind in ("random", "cyclic", "mixture"):
        for options in SIZES:
            matrix = _without_a_winner(kind, options, count, seed)
            policies = averages(solve(selfplay_spo(options, HORIZON), matrix, even(len(matrix), options), HORIZON - 1))
            times = np.unique(np.geomspace(1, HORIZON, 60).astype(int))
            gaps = np.array([2 * exploitability(matrix, np.log(policies[t - 1])) for t in times])
            lines[kind, options] = gaps.mean(1)
            rewards = bradley_terry_rewards(matrix, even(len(matrix), options))
            first = 2 * exploitability(matrix, normalised(1e4 * rewards))
            soft = min(2 * exploitability(matrix, normalised(rewards / t)).mean() for t in TEMPERATURES)
            ours.append(float(gaps[-1].max()))
            greedy[kind, options] = first
            mean, error = mean_and_error(first)
            rows.append(
                [
                    kind,
                    options,
                    f"{gaps[-1].max():.4f}",
                    f"{mean:.3f} +- {error:.3f}",
                    f"{first.min():.3f}",
                    f"{soft:.3f}",
                ]
            )
    sampled, noisy_rows = {}, []
    for flips in (0.0, 0.2):
        by_queue, by_model, begin = (np.array(x) for x in zip(*_compared(seed, flips), strict=True))
        sampled[flips] = float(by_queue.mean() / begin.mean()), float(by_model.mean() / begin.mean())
        cells = [f"{m:.3f} +- {e:.3f}" for m, e in map(mean_and_error, (begin, by_queue, by_model))]
        noisy_rows.append([flips, *cells])
    swung, level = _pendulums(seed, 5 * RUNS if full else RUNS)
    arrived = {name: _arrived(each, level) for name, each in swung.items()}
    needed = {name: float(np.median(each)) for name, each in arrived.items()}
    least, flipped = (min(needed["SPO" + more], needed["SPO, fast" + more]) for more in ("", ", flips"))
    there = {name: float(np.isfinite(each).mean()) for name, each in arrived.items()}
    swings = [
        [
            name,
            f"{there[name]:.0%}",
            f"{needed[name]:.0f}" if each.comparisons[-1] else "-",
            f"{needed[name] * each.trajectories[-1] / each.comparisons[-1]:.0f}" if each.comparisons[-1] else "-",
            "{:.0f} +- {:.0f}".format(*mean_and_error(each.returns[-3:].mean(0))),
        ]
        for name, each in swung.items()
    ]

    def draw(figure: Any) -> None:
        axes, control = figure.subplots(1, 2)
        for (kind, options), line in lines.items():
            axes.plot(times, line, label=f"{kind}, {options}")
        axes.plot(times, 0.02 + 0 * times, "k:", label="0.02")
        axes.set(xscale="log", yscale="log", xlabel="policies averaged", ylabel="duality gap, mean over games")
        axes.set_title("Games without a winner")
        axes.legend(fontsize=8)
        for name, each in swung.items():
            if each.comparisons[-1]:
                control.plot(1 + each.comparisons, each.returns.mean(1), label=name)
        control.axhline(level, color="0.5", linestyle=":")
        control.set(xscale="log", xlabel="comparisons", ylabel="mean return", title="Pendulums")
        control.legend(fontsize=8)

    return Evidence(
        statement="Self-play has a gap below 0.02 on cycles; on pendulums a reward model needs fewer comparisons.",
        checks=[
            at_most("largest duality gap of the mean policy", max(ours), 0.02, "proved"),
            at_most("the same / its bound", max(ours) / gap_bound(5, HORIZON), 1.0, "proved"),
            at_least("reward model, greedy: least gap on circles", _least(greedy, "cyclic"), 0.2, "exact"),
            at_least("reward model, greedy: mean gap on random games", _mean(greedy, "random"), 0.2, "below 1e-3"),
            at_most("from single comparisons: gap / first policy's", sampled[0.0][0], 0.3, "unknown"),
            at_most("the same with 20% of labels flipped", sampled[0.2][0], 0.4, "unknown"),
            at_least("reward model from as many, 20% flipped: gap / first's", sampled[0.2][1], 1.0, "unknown"),
            at_least("pendulum: share of SPO's runs that arrive", there["SPO"], 0.8, "unknown"),
            at_least("pendulum: the same, 20% flipped", there["SPO, flips"], 0.7, "unknown"),
            at_most("pendulum: comparisons needed, reward model / SPO", needed["model"] / least, 1.0, "unknown"),
            at_most("the same, 20% flipped", needed["model, flips"] / flipped, 1.0, "unknown"),
            at_most("pendulum: SPO / reward model, as asked", least / needed["model"], 1.0, "unknown", headline=False),
            at_least("reward model: mean gap, crowds", _mean(greedy, "mixture"), 0.2, "unknown", headline=False),
        ],
        tables=[
            Table(
                "duality gaps, games without a Condorcet winner",
                ["games", "options", "SPO, largest", "rewards, greedy", "least", "rewards, best temperature"],
                rows,
            ),
            Table(
                "from 102,400 single comparisons, circles of 5",
                ["flipped", "first policy", "SPO with a queue", "reward model"],
                noisy_rows,
            ),
            Table(
                f"pendulums: to a mean return of {level:.0f}",
                ["learns from", "runs that arrive", "comparisons, median", "trajectories", "last return"],
                swings,
            ),
        ],
        draw=draw,
    )


def _least(gaps: dict[tuple[str, int], np.ndarray], kind: str) -> float:
    return float(min(gaps[kind, options].min() for options in SIZES))


def _mean(gaps: dict[tuple[str, int], np.ndarray], kind: str) -> float:
    return float(np.mean([gaps[kind, options].mean() for options in SIZES]))


def _without_a_winner(kind: str, options: int, count: int, seed: int) -> np.ndarray:
    some = games(kind, options, 40 * count, seed)
    return some[[condorcet_winner(each) is None for each in some]][:count]


def _compared(seed: int, flips: float, rounds: int = 400, size: int = 16) -> list[tuple[float, float, float]]:
    """Of each of 12 circles the gaps of SPO from single comparisons, of a reward model from as many, and at first."""
    found = []
    for i, matrix in enumerate(games("cyclic", 5, 12, seed + 1)):
        rng = np.random.default_rng([seed, i, int(10 * flips)])
        seen = flips + (1 - 2 * flips) * matrix
        begin = np.log([0.6, 0.1, 0.1, 0.1, 0.1])
        logits, played = begin.copy(), list[np.ndarray]()

        def sample(n: int, rng: np.random.Generator = rng, logits: np.ndarray = logits) -> list[int]:
            return list(rng.choice(5, n, p=np.exp(normalised(logits))))

        def learn(options: list[int], rewards: np.ndarray, logits: np.ndarray = logits, played: Any = played) -> None:
            p = np.exp(normalised(logits))
            played.append(p)
            for option, reward in zip(options, rewards - 0.5, strict=True):  # Hedge on importance-weighted rewards
                logits[option] += 0.2 * reward / (len(options) * max(p[option], 0.02))

        def beats(one: int, other: int, rng: np.random.Generator = rng, seen: np.ndarray = seen) -> float:
            return float(rng.random() < seen[one, other])

        comparisons = self_play(sample, learn, beats, rounds, size, size)
        pairs = rng.integers(0, 5, (comparisons, 2))
        won = rng.random(comparisons) < seen[pairs[:, 0], pairs[:, 1]]
        wins, met = np.zeros((5, 5)), np.full((5, 5), 1e-9)
        np.add.at(wins, (pairs[:, 0], pairs[:, 1]), won)
        np.add.at(met, (pairs[:, 0], pairs[:, 1]), 1)
        shares = (wins + (met - wins).T + 1) / (met + met.T + 2)
        rewards = bradley_terry_rewards(shares, even(5))
        policies = [np.log(np.mean(played, 0)), normalised(1e4 * rewards), begin]
        found.append(tuple(2 * float(exploitability(matrix, policy)) for policy in policies))
    return [(a, b, c) for a, b, c in found]


class _Oracle:
    """The true return of each trajectory."""

    comparisons = 0

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return np.asarray(batch[:, 0])


class _RewardModel:
    """Bradley and Terry's model of all comparisons so far; each batch is compared with itself and the last one."""

    def __init__(self, beats: Beats, asked: int, rng: np.random.Generator):
        self.beats, self.asked, self.rng, self.comparisons = beats, asked, rng, 0
        self.last, self.ahead, self.won = np.empty((0, 0)), list[np.ndarray](), list[float]()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        pool = np.concatenate([batch, self.last.reshape(-1, batch.shape[1])])
        for _ in range(self.asked):
            i = self.rng.integers(len(batch))
            j = (i + 1 + self.rng.integers(len(pool) - 1)) % len(pool)
            self.ahead.append(pool[i, 1:] - pool[j, 1:])
            self.won.append(self.beats(pool[i], pool[j]))
        self.comparisons, self.last = len(self.won), batch
        fitted = logit(np.array(self.ahead), np.array(self.won), ridge=RIDGE / len(self.won))
        return np.asarray(batch[:, 1:] @ fitted.theta)


class _Swings(NamedTuple):
    """How several runs went; looks are at the mean policies."""

    comparisons: np.ndarray  # int64[looks]: of each run
    trajectories: np.ndarray  # int64[looks]
    returns: np.ndarray  # float64[looks, runs]


def _pendulums(seed: int, runs: int) -> tuple[dict[str, _Swings], float]:
    """All learners, and the return at which a run has arrived."""

    def beats(run: int, flips: float) -> Beats:
        rng = np.random.default_rng([seed, run, 1])

        def prefers(x: np.ndarray, y: np.ndarray) -> float:
            won = 0.5 + 0.5 * float(np.sign(x[0] - y[0]))
            return 1 - won if rng.random() < flips else won

        return prefers

    both = [0.0] * runs + [FLIPS] * runs
    oracle = _swung([_Oracle() for _ in range(runs)], 32, 2.0, 60, seed)
    level = oracle.returns[0].mean() * (1 - SHARE) + oracle.returns[-5:].mean() * SHARE
    first = _rows(np.zeros((2 * runs, WEIGHTS)), *starts(2 * runs, np.random.default_rng([seed, 9])))
    settings = {"SPO": (16, 1.0, 150), "SPO, fast": (8, 2.0, 200)}
    rngs = [np.random.default_rng([seed, i, 2]) for i in range(2 * runs)]
    ours = {
        name: _swung([WinRateRewards(beats(i, f), [first[i]]) for i, f in enumerate(both)], *each, seed)
        for name, each in settings.items()
    }
    model = _swung([_RewardModel(beats(i, f), 4, rngs[i]) for i, f in enumerate(both)], 16, 1.0, 100, seed)
    found = {"true returns": oracle}
    for name, each in (*ours.items(), ("model", model)):
        found[name] = each._replace(returns=each.returns[:, :runs])
        found[f"{name}, flips"] = each._replace(returns=each.returns[:, runs:])
    return found, float(level)


def _swung(judges: Sequence[Any], batch: int, rate: float, rounds: int, seed: int) -> _Swings:
    """Evolution strategies, a run for each judge: the mean of a normal policy goes where rewards are above average."""
    runs, rng = len(judges), np.random.default_rng([seed, 7])
    shown = [np.tile(each, runs) for each in starts(SEEN, np.random.default_rng([seed, 8]))]
    mean, looks = np.zeros((runs, WEIGHTS)), []
    for t in range(rounds + 1):
        if t % LOOKS == 0:
            returns = rollout(torques(np.repeat(mean, SEEN, 0)), *shown).returns.reshape(runs, SEEN).mean(1)
            looks.append((judges[0].comparisons, t * batch, returns))
        luck = rng.normal(size=(runs, batch, WEIGHTS))
        weights = (mean[:, None] + SPREAD * luck).reshape(-1, WEIGHTS)
        rows = _rows(weights, *starts(runs * batch, rng)).reshape(runs, batch, -1)
        rewards = np.stack([judge(each) for judge, each in zip(judges, rows, strict=True)])
        rewards = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, keepdims=True) + 1e-9)
        mean += rate * (rewards[:, :, None] * luck).mean(1)
    comparisons, trajectories, returns = zip(*looks, strict=True)
    return _Swings(np.array(comparisons), np.array(trajectories), np.array(returns))


def _rows(weights: np.ndarray, angle: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Of each trajectory its return and ten times its first and second moments: float64[n, 15]."""
    went = rollout(torques(weights), angle, speed)
    points = np.concatenate([went.observations / [1, 1, SPEED], went.torques[:, :, None] / TORQUE], 2)
    first, second = np.triu_indices(points.shape[2])
    squares = (points.transpose(0, 2, 1) @ points)[:, first, second] / points.shape[1]
    return np.concatenate([went.returns[:, None], 10 * points.mean(1), 10 * squares], 1)


def _arrived(swings: _Swings, level: float) -> np.ndarray:
    """Comparisons of each run at its first look at or above the level, inf where there is none: float64[runs]."""
    above = swings.returns >= level
    return np.where(above.any(0), swings.comparisons[above.argmax(0)], np.inf)
