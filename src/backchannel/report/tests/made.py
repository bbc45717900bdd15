"""Results made by hand, and a reader of pages, for the tests."""

from html.parser import HTMLParser

from backchannel.decide import summary
from backchannel.decide.result import (
    Against,
    Bars,
    Calibration,
    Curve,
    Estimate,
    Learned,
    LogFacts,
    Monitor,
    PolicyResult,
    Told,
)

EVIL = '<script>alert(\'x\')</script>" onload="boom" & 名前 ' + "long" * 200


def lift(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high)


WIN, DRAW, LOSS = lift(0.1, 0.3), lift(-0.1, 0.2), lift(-0.3, -0.1)


def policy(key: str = "a", gain: Estimate | None = None, **changed: object) -> PolicyResult:
    gain = gain or lift(0.1, 0.3)
    said = {
        "key": key,
        "name": key.upper(),
        "value": Estimate(0.4 + gain.value, 0.4 + gain.low, 0.4 + gain.high),
        "lift": gain,
        "estimates": {"ips": Estimate(0.123456, 0.1, 0.2), "self_normalised_doubly_robust": Estimate(0.6, 0.5, 0.7)},
        "effective_rows": 214.4,
        "largest_weight": 20.0,
        "mean_weight": 0.94,
        "unsupported": 0.64,
        "true_value": 0.5551,
        "rows_to_settle": 184_491 if gain.low <= 0 <= gain.high else None,
        "regret": Estimate(0.0, -0.1, 0.1),
        "shares": [0.25, 0.75],
        "weights": Bars([0.0, 0.01, 1.0, 100.0], [900.0, 90.0, 10.0]),
        "curve": Curve("at once", [20, 500, 1000], [0.1, 0.2, 0.3], [0.0, 0.15, 0.28], [0.2, 0.25, 0.32]),
        "answered": True,
        "verdict": summary._verdict(gain),
    }
    return PolicyResult(**{**said, **changed})  # type: ignore[arg-type]


def log(**changed: object) -> LogFacts:
    said = {
        "name": "shop",
        "rows": 1000,
        "with_feedback": 1000,
        "actions": ["red", "blue"],
        "contexts": ["age"],
        "ragged": False,
        "reward_low": 0.0,
        "reward_high": 1.0,
        "earned": Estimate(0.4, 0.38, 0.42),
        "first_time": None,
        "last_time": None,
        "shares": [0.5, 0.5],
        "propensities": "logged",
        "notes": ["data by someone"],
    }
    return LogFacts(**{**said, **changed})  # type: ignore[arg-type]


def learned(*policies: PolicyResult, facts: LogFacts | None = None, **changed: object) -> Learned:
    said = {
        "version": "0.1.0",
        "log": facts or log(),
        "estimator": "self_normalised_doubly_robust",
        "policies": list(policies),
        "warnings": [],
        "against": [Against("other", Estimate(0.5, 0.4, 0.6), 250.0, Estimate(0.45, 0.44, 0.46), True, "")],
        "told": [
            Told("at once", "a", 1000, Estimate(0.6, 0.58, 0.62)),
            Told("50% lost", "a", 500, Estimate(0.41, 0.4, 0.42)),
        ],
        "calibration": Calibration([0.1, 0.9], [0.2, 0.8], [500, 500]),
        "seconds": 3.25,
        "command": "backchannel learn shop.csv",
    }
    return Learned(**{**said, **changed})  # type: ignore[arg-type]


def watch(key: str = "a", told_after: int | None = 640, tried: int = 3) -> Monitor:
    value = Curve(key, [1, 500, 1000], [0.9, 0.5, 0.6], [0.0, 0.3, 0.4], [1.0, 0.9, 0.8])
    own = Curve("own", [1, 500, 1000], [0.1, 0.35, 0.4], [0.0, 0.3, 0.35], [1.0, 0.5, 0.45])
    return Monitor(key, tried, value, own, told_after, 0.05 if told_after else -0.05, 0.5)


class Tree(HTMLParser):
    """Checks that every element is closed in its turn; keeps elements, attributes and text."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())
