"""The picture of `train-apart`: the loss against seconds of training, and against megabytes sent by a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from backchannel.compare.apart import Link, Look
from backchannel.compare.standing import COLOURS, STYLES


def draw(path: Path, looks: dict[str, list[Look]], link: Link | None) -> None:
    """A line for each method; bytes are those of the interface where there is one. Without bytes, one panel."""
    sent = {
        name: [look for look in seen if look.megabytes > 0] if name != "none" else [] for name, seen in looks.items()
    }
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2 if any(sent.values()) else 1, sharey=True, squeeze=False)[0]
    for i, (name, seen) in enumerate(looks.items()):
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "label": f"{name}  {seen[-1].loss:.3f}"}
        style |= {
            "linestyle": STYLES[i // len(COLOURS) % len(STYLES)],
            "linewidth": 1.6,
            "marker": "o",
            "markersize": 3,
        }
        panels[0].plot([look.seconds for look in seen], [look.loss for look in seen], **style)
        for axes in panels[1:]:
            axes.plot([look.megabytes for look in sent[name]], [look.loss for look in sent[name]], **style)
    panels[0].set(xlabel="seconds of training", ylabel="loss on held-out text, nats a byte")
    panels[0].set_xlim(left=0)
    for axes in panels[1:]:
        axes.set(xlabel="megabytes sent by a worker", xscale="log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9, title="loss at the end")
    figure.suptitle(f"Training apart {_where(link)}", x=0.01, ha="left", fontsize=11)
    figure.savefig(path, dpi=110)


def _where(link: Link | None) -> str:
    if link is None:
        return "over loopback"
    rate = "any rate"
    for unit, written in (("kbit", "kbit/s"), ("mbit", "Mbit/s"), ("gbit", "Gbit/s")):
        if link.rate and link.rate.endswith(unit):
            rate = f"{link.rate.removesuffix(unit)} {written}"
    return f"over links of {rate}, {1000 * link.delay:g} ms one way"
