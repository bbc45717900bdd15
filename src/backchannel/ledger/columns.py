"""Which column of a table means what.

A table in the library's own layout needs no map: `action`, `reward`, `propensity`, `time`, `feedback_time`,
`position`, `options`, `id`, `policy`, `version`, `shown`, a column `context.<name>` for each thing known before the
choice (`category.<name>` if it is a category that looks like a number), and `option.<feature>.<option>` for a number
that one option had. Of any other table a `Columns` tells:

    >>> from backchannel.ledger.columns import Columns
    >>> map = Columns(action="item_id", reward="click", propensity="propensity_score", context=("user_feature_*",))
    >>> map.resolve(["item_id", "click", "propensity_score", "user_feature_0", "weather"], "log.csv").context
    {'user_feature_0': 'user_feature_0'}
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backchannel.ledger.problems import LogError, nearest

CONTEXT = "context."
CATEGORY = "category."
OPTION = "option."
OPTIONAL = ("reward", "propensity", "time", "feedback_time", "position", "options", "id", "policy", "version", "shown")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A column map.

    Attributes:
        action: what was chosen.
        reward: what came of it, higher is better; an empty cell means that no feedback came.
        propensity: probability of the choice under the policy that made it, in (0, 1].
        time: when: a number (seconds since 1970), ISO text or a timestamp; text without a zone is UTC.
        context: columns known before the choice, or patterns of them; `("*",)` means all that have no other meaning.
        categories: those of the context, or patterns, that are categories although they look like numbers.
        options: what could have been chosen: a list, a JSON list, or text with `|` between the options.
        option_features: {feature: pattern}, numbers that each option has in each row, a column for each option; what
            the one `*` of the pattern stands for is the option.
        position: the place in which it was shown, a whole number.
        feedback_time: when the reward came.
        id, policy, version, shown: as in `backchannel.feedback.Decision`; kept when a log is converted.
    """

    action: str
    reward: str | None = None
    propensity: str | None = None
    time: str | None = None
    context: Sequence[str] = ()
    categories: Sequence[str] = ()
    options: str | None = None
    option_features: Mapping[str, str] = field(default_factory=dict)
    position: str | None = None
    feedback_time: str | None = None
    id: str | None = None
    policy: str | None = None
    version: str | None = None
    shown: str | None = None

    def resolve(self, header: Sequence[str], file: str) -> Resolved:
        """The map against a file's own columns; LogError if one is missing."""
        single = {"action": self.action}
        single |= {name: getattr(self, name) for name in OPTIONAL if getattr(self, name) is not None}
        for meaning, column in single.items():
            if column not in header:
                raise LogError(f"{file} has no column {column!r} for the {meaning}; {nearest(column, header)}")
        taken = set(single.values())
        features: dict[str, dict[str, str]] = {}
        for feature, pattern in self.option_features.items():
            if pattern.count("*") != 1:
                raise LogError(f"the pattern of option feature {feature!r} must hold one '*', not {pattern!r}")
            before, after = pattern.split("*")
            found = {
                name[len(before) : len(name) - len(after)]: name
                for name in header
                if name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
            }
            if not found:
                raise LogError(f"{file} has no column like {pattern!r}; {nearest(pattern, header)}")
            features[feature] = found
            taken |= set(found.values())
        context: dict[str, str] = {}
        for pattern in self.context:
            names = matching(pattern, [name for name in header if name not in taken])
            if not names and pattern != "*":
                raise LogError(f"{file} has no column {pattern!r} for the context; {nearest(pattern, header)}")
            context |= {name: name for name in names}
        forced: set[str] = set()
        for pattern in self.categories:
            names = matching(pattern, list(context))
            if not names and pattern != "*":
                near = nearest(pattern, context)
                raise LogError(f"the context of {file} has no column {pattern!r} to be a category; {near}")
            forced |= set(names)
        return Resolved(single, context, features, frozenset(forced))


@dataclass(frozen=True)
class Resolved:
    """Meanings and the columns that have them, as they stand in one file."""

    single: dict[str, str]  # meaning -> column
    context: dict[str, str]  # name -> column
    option_features: dict[str, dict[str, str]]  # feature -> option -> column
    categories: frozenset[str]  # the context that was declared to be categories

    def unused(self, header: Sequence[str]) -> list[str]:
        """Columns without a meaning."""
        used = set(self.single.values()) | set(self.context.values())
        used |= {column for columns in self.option_features.values() for column in columns.values()}
        return [name for name in header if name and name not in used]


def own_layout(header: Sequence[str], file: str) -> Resolved:
    """The library's own layout, read from the header alone; LogError if it is not that."""
    if "action" not in header:
        raise LogError(
            f"{file} has no column 'action'; {nearest('action', header)}; say what its columns mean with a column map"
        )
    single = {"action": "action"} | {name: name for name in OPTIONAL if name in header}
    context = {name[len(CONTEXT) :]: name for name in header if name.startswith(CONTEXT)}
    categories = {name[len(CATEGORY) :]: name for name in header if name.startswith(CATEGORY)}
    both = sorted(context.keys() & categories.keys())
    if both:
        raise LogError(f"{file} has both the columns {CONTEXT + both[0]!r} and {CATEGORY + both[0]!r}")
    features: dict[str, dict[str, str]] = {}
    for name in header:
        if name.startswith(OPTION):
            feature, dot, option = name[len(OPTION) :].partition(".")
            if dot:
                feature = feature.replace("%2E", ".").replace("%25", "%")  # a dot of its own is written %2E
                features.setdefault(feature, {})[option] = name
    return Resolved(single, context | categories, features, frozenset(categories))


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that are `pattern`, or match it where it holds a `*` or a `?`."""
    if pattern in names:
        return [pattern]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)] if set(pattern) & set("*?") else []
