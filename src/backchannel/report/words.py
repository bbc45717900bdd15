"""Numbers and sentences of the page: as many digits as the data carry, and no more claims than they allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from backchannel.decide.result import Against, Estimate, Learned, PolicyResult, Told

NOTHING = "–"
_ESTIMATORS = {
    "replay": "Replay (matching rows only)",
    "ips": "IPS: inverse propensities",
    "self_normalised_ips": "Self-normalised IPS",
    "direct": "Direct: the reward model alone",
    "doubly_robust": "Doubly robust",
    "self_normalised_doubly_robust": "Self-normalised doubly robust",
    "switch_doubly_robust": "SWITCH doubly robust",
    "shrunk_doubly_robust": "Doubly robust, shrunk weights",
    "sub_gaussian_ips": "IPS, sub-Gaussian weights",
    "sub_gaussian_doubly_robust": "Doubly robust, sub-Gaussian weights",
    "doubly_robust, empirical Bernstein": "Doubly robust, empirical Bernstein interval",
}


class Numbers(NamedTuple):
    """How values are written on one page: all with the same number of decimals."""

    decimals: int

    def say(self, x: float | None, sign: bool = False) -> str:
        """The value; a dash for what is no number."""
        if x is None or not math.isfinite(x):
            return NOTHING
        x = round(x, self.decimals) + 0.0
        return f"{x:{'+' if sign and x else ''},.{self.decimals}f}".replace("-", "−")

    def span(self, found: Estimate | None, sign: bool = False) -> str:
        """The interval; empty where it has no ends."""
        if found is None or not (math.isfinite(found.low) and math.isfinite(found.high)):
            return ""
        if found.low == found.high:
            return "no interval"  # all rewards alike: resampling shows no spread, which is no certainty
        return f"{self.say(found.low, sign)} to {self.say(found.high, sign)}"

    def full(self, found: Estimate | None, sign: bool = False) -> str:
        """The value with its interval in brackets."""
        if found is None:
            return NOTHING
        span = self.span(found, sign)
        return self.say(found.value, sign) + (f" ({span})" if span else "")


def numbers(learned: Learned) -> Numbers:
    """Two digits of the width of what the log's own policy earned; without a width, three of its value."""
    earned = learned.log.earned
    width, size = earned.high - earned.low, abs(earned.value)
    if math.isfinite(width) and width > 0:
        return Numbers(min(max(1 - math.floor(math.log10(width)), 0), 9))
    if math.isfinite(size) and size > 0:
        return Numbers(min(max(2 - math.floor(math.log10(size)), 0), 9))
    return Numbers(3)


def about(count: float | None) -> str:
    """A large number of rows as people say it: 184,000 or 40.3 million."""
    if count is None or not math.isfinite(count):
        return NOTHING
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if count >= size:
            return f"{count / size:,.3g} {unit}" if count / size < 1000 else f"{count / size:,.0f} {unit}"
    digits = max(len(str(int(count))) - 3, 0)
    return f"{round(int(count), -digits):,}"


def many(x: float, noun: str, plural: str = "") -> str:
    """A count with its noun: 1 row, 1,797 rows, 3.2 rows."""
    said = count(x)
    return f"{said} {noun if said == '1' else plural or noun + 's'}"


def count(x: float) -> str:
    """A count that need not be whole: effective rows, weights."""
    if not math.isfinite(x):
        return NOTHING
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def few(effective_rows: float) -> str:
    """Why a log cannot answer."""
    said = many(effective_rows, "effective row")
    return f"{said} {'is' if said.startswith('1 ') else 'are'} too few"


def share(x: float) -> str:
    """A share as a percentage that never rounds something to nothing or a part to the whole."""
    if not math.isfinite(x):
        return NOTHING
    if 0 < x < 0.001:
        return "< 0.1 %"
    if 0.999 < x < 1:
        return "> 99.9 %"
    return f"{100 * x:.1f} %" if x not in (0.0, 1.0) else f"{100 * x:.0f} %"


def estimator(key: str) -> str:
    """An estimator's name in words."""
    return _ESTIMATORS.get(key, key.replace("_", " "))


def moment(seconds: float) -> str:
    """A time of the log: a date where it can be one, else the number."""
    if not math.isfinite(seconds):
        return NOTHING
    if 1e8 < seconds < 1e10:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{seconds:,.6g}"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def answered(learned: Learned) -> list[PolicyResult]:
    """The policies of which the log says something, best first."""
    return [p for p in learned.policies if p.answered and told(p.value) and told(p.lift)]


def told(found: Estimate | None) -> bool:
    """Whether value and interval are all numbers."""
    return found is not None and all(math.isfinite(x) for x in (found.value, found.low, found.high))


def doubted(policy: PolicyResult) -> bool:
    """Whether the verdict raises a doubt, instead of only saying where the interval lies."""
    return not policy.verdict.startswith(("Better than the log", "Worse than the log", "Cannot be told apart"))


def verdict(p: PolicyResult) -> str:
    """The verdict in a word or two."""
    if not p.answered:
        return "cannot say"
    if doubted(p):
        return "doubtful"
    if p.lift is None or p.lift.low <= 0 <= p.lift.high:
        return "not told apart"
    return "better" if p.lift.low > 0 else "worse"


def warnings(learned: Learned) -> list[str]:
    """The warnings, but for the one that says once more what the headline says: that no policy can be told apart."""
    first = headline(learned)[0].split(" on these ")[0]
    return [text for text in learned.warnings if text.split(" on these ")[0] != first]


def headline(learned: Learned) -> tuple[str, str]:
    """One sentence that answers what the reader asks first, and one that says how sure that is."""
    say, rows = numbers(learned), f"{learned.log.with_feedback:,}"
    earned = learned.log.earned
    own = f"The log's own policy earned {say.say(earned.value)} a decision"
    own += f" (95 % interval {say.span(earned)})." if told(earned) else "."
    heard = answered(learned)
    if not learned.policies:
        return "No policy was learned from this log.", own
    if not heard:
        names = listed([p.name for p in learned.policies])
        return f"This log cannot answer for {names}.", f"Their choices were logged too rarely. {own}"
    better = [p for p in heard if p.lift is not None and p.lift.low > 0]
    if better:
        best = better[0]
        assert best.value is not None
        assert best.lift is not None
        first = (
            f"{best.name} would have earned {say.say(best.value.value)} a decision, "
            f"{say.say(best.lift.value)} more than the log's own policy"
        )
        second = f"With 95 % confidence it earns {say.span(best.lift)} more than the log's own {say.say(earned.value)}."
        if doubted(best):
            return f"{first}; but do not rely on it yet.", f"{second} {best.verdict}"
        return f"{first}.", second
    unsettled = [p for p in heard if p.lift is not None and (p.lift.high >= 0 or doubted(p))]
    needed = [p.rows_to_settle for p in unsettled if p.rows_to_settle is not None and not doubted(p)]
    if not unsettled:
        best = heard[0]
        assert best.lift is not None
        return (
            f"The log's own policy is better than every policy learned here; the nearest, {best.name}, would have "
            f"earned {say.say(-best.lift.value)} less a decision.",
            own,
        )
    more = f"; about {about(min(needed))} rows would settle the clearest difference" if needed else ""
    if len(unsettled) == len(heard):
        return f"No policy can be told apart from the log's own on these {rows} rows{more}.", own
    worse = listed([p.name for p in heard if p not in unsettled])
    return f"No policy is clearly better than the log's own on these {rows} rows{more}.", f"Worse: {worse}. {own}"


def stands_out(learned: Learned) -> bool:
    """Whether some option is better than the others by more than noise explains."""
    return learned.best_fixed is not None and learned.best_fixed.value > learned.log.earned.value


def hindsight(best: Estimate, learned: Learned) -> str:
    """What the best option, always taken, would have earned, and what regret means beside it."""
    say = numbers(learned)
    if not stands_out(learned):
        return (
            "Regret: this log was drawn uniformly, but cannot say which option is best: none stands out from the "
            f"noise. The best in hindsight, always taken, would have earned {say.span(best)}. A policy's regret, "
            "that less its value, is known as an interval alone."
        )
    return (
        "Regret: this log was drawn uniformly, and so shows what the best option in hindsight, always taken, would "
        f"have earned: {say.full(best)}. A policy's regret is that less its value, below 0 where it beats every fixed "
        "option. The options' means are drawn to the mean of all as far as noise explains their distance; the "
        "intervals take no option as known."
    )


def overlap(each: Against) -> str:
    """Whether what this log says of another log's policy agrees with what it earned there; empty if nothing is said."""
    if not (told(each.estimate) and told(each.earned)) or each.estimate is None:
        return ""
    meet = each.estimate.low <= each.earned.high and each.earned.low <= each.estimate.high
    return "The two intervals overlap." if meet else "The two intervals do not overlap: something is off."


def cost(found: Sequence[Told], names: dict[str, str], say: Numbers) -> str:
    """The dearest difference from hearing at once that the intervals tell apart, in words."""
    base = {each.policy: each.value for each in found if each.channel == "at once"}
    dearest: tuple[float, Told] | None = None
    for each in found:
        full = base.get(each.policy)
        if full is None or each.value is None or not (told(full) and told(each.value)):
            continue
        sure = each.value.low < each.value.high < full.low < full.high
        if sure and (dearest is None or full.value - each.value.value > dearest[0]):
            dearest = (full.value - each.value.value, each)
    if dearest is None:
        return "None of it costs so much that the intervals on these rows would tell it apart."
    loss, each = dearest
    return (
        f"The dearest: {names.get(each.policy, each.policy)} earns {say.say(loss)} less a decision with its feedback "
        f"\u201c{each.channel}\u201d than with all of it at once."
    )
