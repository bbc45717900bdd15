"""The page of `align`: what became of a model, in one HTML file that loads nothing and runs nothing."""

from __future__ import annotations

import math
import os

from backchannel.align.result import Entangled, HeldOut, Sample, Tuned
from backchannel.report import words
from backchannel.report.document import document, write
from backchannel.report.lines import histogram, line, track
from backchannel.report.markup import Child, Markup, tag
from backchannel.report.pieces import scroll, section

SHOWN = 12  # samples
LEVEL = 1e-3  # margins that are none

CURVES = {
    "loss": "The loss of the training examples in each step. It should fall; where it stays, nothing is learned.",
    "margin": "How much more the chosen answer gained than the rejected one, in the objective's own unit.",
    "accuracy": "How often the chosen answer gained more, in the examples of a step.",
    "chosen_gain": "How much likelier chosen answers became than under the reference, in nats. Far below 0, the model "
    "unlearns good answers together with bad ones.",
    "rejected_gain": "The same of rejected answers.",
    "grad_norm": "The length of the gradient, before it is cut to 1.",
}
NAMES = {
    "loss": "Loss",
    "margin": "Margin",
    "accuracy": "Accuracy",
    "chosen_gain": "Chosen answers",
    "rejected_gain": "Rejected answers",
    "grad_norm": "Gradient",
}


def write_page(tuned: Tuned, path: str | os.PathLike[str]) -> None:
    """Write the page to `path`, whole or not at all."""
    write(page(tuned), path)


def page(tuned: Tuned) -> str:
    """The page as text."""
    parts = [each(tuned) for each in (_head, _judged, _samples, _held, _rounds, _curves, _how, _limits)]
    return document(f"{tuned.method}: {headline(tuned)}", *parts)


def headline(tuned: Tuned) -> str:
    """What came of it, in a sentence."""
    drawn = tuned.drawn
    if drawn and drawn.wins is not None:
        if all(each.win in (None, 0.5) for each in drawn.samples):
            return "by the judge no answer from after training is better or worse than that from before"
        judged = f"{words.share(drawn.wins)} of the answers from after training are better than those from before"
        if drawn.interval and drawn.interval[0] <= 0.5 <= drawn.interval[1]:
            return judged + ", which may be chance"
        return judged
    if tuned.after and tuned.before and tuned.after.accuracy is not None:
        return f"on held-out pairs {_told_apart(tuned.before, tuned.after)}"
    if tuned.after and tuned.before:
        return f"on held-out examples the loss went from {tuned.before.loss:.4g} to {tuned.after.loss:.4g}"
    return "tuned, and not judged"


def _told_apart(before: HeldOut, after: HeldOut) -> str:
    """How often the chosen answer is ahead."""
    assert after.accuracy is not None
    if before.accuracy is None or level(before):
        return f"the chosen answer gained more in {words.share(after.accuracy)}"
    return f"the chosen answer is ahead in {words.share(after.accuracy)}, and was in {words.share(before.accuracy)}"


def level(found: HeldOut) -> bool:
    """Whether no pair has a margin, but for rounding: what is measured against a reference begins so."""
    return max(map(abs, found.margins), default=0.0) < LEVEL


def _head(tuned: Tuned) -> Markup:
    facts: list[tuple[str, str, str]] = [
        ("Method", tuned.method, ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                                           for name, value in tuned.arguments.items())),
        ("Trained on", f"{tuned.trained_on:,}", f"of {tuned.records:,} examples"),
        ("Steps", f"{tuned.steps:,}", "" if tuned.finished else "stopped before the end"),
        ("Weights trained", f"{tuned.trainable:,}", f"of {tuned.parameters:,}"),
        ("Training took", words_of(tuned.seconds), f"{tuned.memory / 1e9:.1f} GB at most"),
    ]  # fmt: skip
    drawn = tuned.drawn
    if drawn and drawn.divergence is not None:
        facts.append(
            (distance(tuned).capitalize(), f"{drawn.divergence:.1f} nats", "of an answer, from the model before")
        )
    cells = [tag("div", tag("dt", k), tag("dd", v, tag("small", s) if s else None)) for k, v, s in facts]
    warned = [tag("p", tag("strong", "Note. "), note, class_="warning", role="note") for note in tuned.notes]
    said = headline(tuned)
    return tag(
        "header",
        tag("p", tuned.model.rpartition("/")[2] if tuned.model.startswith("/") else tuned.model, class_="kicker"),
        tag("h1", said[0].upper() + said[1:] + "."),
        *warned,
        tag("dl", *cells, class_="facts"),
    )


def _judged(tuned: Tuned) -> Markup | None:
    drawn = tuned.drawn
    if drawn is None:
        return None
    rows = [("Tokens of an answer", f"{drawn.lengths[0]:.1f}", f"{drawn.lengths[1]:.1f}")]
    rows.append(("Answers without an end", words.share(drawn.endless[0]), words.share(drawn.endless[1])))
    if drawn.scores is not None:
        rows.insert(0, ("Score by the judge", f"{drawn.scores[0]:.3g}", f"{drawn.scores[1]:.3g}"))
    said = f"{len(drawn.samples):,} held-out prompts were answered before and after."
    if drawn.wins is not None:
        low, high = drawn.interval or (math.nan, math.nan)
        said += (
            f" The judge, {drawn.judge}, preferred the answer from after in {words.share(drawn.wins)} (95 % interval "
            f"{words.share(low)} to {words.share(high)}; ties count half)."
        )
    elif drawn.judge:
        said += f" The judge, {drawn.judge}, answered none."
    else:
        said += " Nobody judged them: read them below, or name a judge."
    if drawn.silent:
        said += f" It said nothing usable of {drawn.silent:,}; they are left out."
    head = tag("thead", tag("tr", tag("th", ""), tag("th", "before"), tag("th", "after")))
    body = [tag("tr", tag("th", name), tag("td", one), tag("td", other)) for name, one, other in rows]
    return section("Before and after", said, scroll("Before and after", head, tag("tbody", *body)))


def _samples(tuned: Tuned) -> Markup | None:
    if tuned.drawn is None or not tuned.drawn.samples:
        return None
    shown = tuned.drawn.samples[:SHOWN]
    head = tag("thead", tag("tr", *[tag("th", each, class_="text") for each in ("prompt", "before", "after")]))
    rows = [tag("tr", tag("th", sample.prompt), _answer(sample, 0), _answer(sample, 1)) for sample in shown]
    said = "The first held-out prompts, chosen by nobody, with an answer each."
    return section("Answers side by side", said, scroll("Answers", head, tag("tbody", *rows), cards=True))


def _answer(sample: Sample, side: int) -> Markup:
    text = sample.after if side else sample.before
    better = sample.win is not None and sample.win == side and sample.win != 0.5
    parts: list[Child] = [tag("strong", text) if better else text]
    when = "after" if side else "before"
    parts.append(tag("small", when if sample.scores is None else f"{when}: score {sample.scores[side]:.3g}"))
    return tag("td", *parts, class_="text")


def _held(tuned: Tuned) -> Markup | None:
    after, before = tuned.after, tuned.before
    if after is None or before is None:
        return None
    said = (
        f"{after.count:,} examples with prompts of which none was trained on: the loss went from {before.loss:.4g} to "
    )
    said += f"{after.loss:.4g}."
    if after.accuracy is None:
        return section("Held-out examples", said)
    said += f" Of the pairs {_told_apart(before, after)}."
    if tuned.entangled is not None:
        said += _pulled(tuned.entangled)
    figure = tag(
        "figure",
        histogram(after.margins, f"Margins of {after.count} held-out pairs"),
        tag("figcaption", "Margins of held-out pairs after training; left of the line the rejected answer is ahead."),
    )
    return section("Held-out pairs", said, figure)


def _pulled(found: Entangled) -> str:
    return (
        f" The gradients of a pair's two answers have a cosine of {found.cosine:.2f} on average ({found.count} pairs): "
        "near 1 both move together. One more step on a pair alone would make its chosen answer likelier in "
        f"{words.share(found.rises)} and its rejected answer less likely in {words.share(found.falls)} of them."
    )


def _curves(tuned: Tuned) -> Markup | None:
    panels = []
    for name, said in CURVES.items():
        seen = [(each.get("step", i), each[name]) for i, each in enumerate(tuned.history, 1) if name in each]
        if len(seen) < 2:
            continue
        steps, values = zip(*seen, strict=True)
        level = {"margin": 0.0, "accuracy": 0.5, "chosen_gain": 0.0, "rejected_gain": 0.0}.get(name)
        label = f"{NAMES[name]}: {values[0]:.3g} in the first step, {values[-1]:.3g} in the last"
        figure = tag("figure", line(steps, values, label, level), tag("figcaption", said))
        panels.append(tag("div", tag("h3", NAMES[name]), figure, class_="panel"))
    return section("Training, step by step", "", tag("div", *panels, class_="panels wide")) if panels else None


def distance(tuned: Tuned) -> str:
    """What the mean log-ratio of drawn answers to the model before is: at temperature 1 alone a divergence."""
    temperature = tuned.settings.temperature
    return "divergence" if temperature == 1 else f"log-ratio at temperature {temperature:g}"


def _rounds(tuned: Tuned) -> Markup | None:
    """Score against divergence: what was bought, and at what price."""
    if len(tuned.rounds) < 2:
        return None
    scores, distances = zip(*tuned.rounds, strict=True)
    label = f"Score {scores[0]:.3g} at {distances[0]:.2g} nats, {scores[-1]:.3g} at {distances[-1]:.2g}"
    figure = tag(
        "figure",
        track(distances, scores, label),
        tag(
            "figcaption", "The mean score of a round's answers against their divergence from the model before, in nats."
        ),
    )
    said = (
        "A round is drawn from the model as it is, and judged. Where the score rises no more and the divergence does, "
        "the model learns to please the judge."
    )
    return section("Score against divergence, round by round", said, figure)


def _how(tuned: Tuned) -> Markup:
    s = tuned.settings
    rises = f"rises over {words.share(s.warmup)} of the steps and " if s.warmup else ""
    falls = "falls to 0" + (" in each round" if tuned.played else "")
    share = tuned.played.get("share", 1.0)
    reference = "the model as it was given" if share == 1 else "the model of the round before"
    if 0 < share < 1:
        reference = f"a mixture of the model as it was given ({words.share(share)}) and that of the round before"
    sentences = (
        f"AdamW, a learning rate of {s.rate:g} that {rises}{falls}; {s.batch} examples a step; "
        + (f"an adapter of rank {s.lora} on all linear layers" if s.lora else "all weights")
        + f"; prompt and answer have at most {s.limit:,} tokens. The reference is {reference}."
    )
    parts: list[Child] = [tag("p", sentences)]
    if tuned.command:
        parts.append(tag("p", tag("code", tuned.command)))
    parts.append(
        tag("p", ", ".join(f"{name} {version}" for name, version in tuned.versions.items()) + ".", class_="small")
    )
    return tag("section", tag("h2", "How this was computed"), *parts, class_="method")


def _limits(tuned: Tuned) -> Markup:
    limits = [
        "Whether people agree. A rule or a model that judges has its own taste, and training learns to please it.",
        "Other prompts. Held-out prompts are like those that were trained on.",
    ]
    if tuned.drawn and tuned.drawn.wins is not None:
        limits.append("One answer a prompt. Each was drawn once; the interval is over prompts.")
    return tag("section", tag("h2", "What this cannot tell"), tag("ul", *[tag("li", each) for each in limits]))


def words_of(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
