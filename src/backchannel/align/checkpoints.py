"""Checkpoints: which are there, which were written to their end, and which may go.

What a checkpoint holds is written down in it, behind its last file. One without that, or with files of other sizes, was
cut off and does not count; earlier ones go only when a later one counts, so that a run never has less than one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch.distributed
from transformers import TrainerCallback

from backchannel.ledger.convert import beside

WHOLE = "whole.json"
KEPT = 2


def checkpoints(folder: Path) -> list[Path]:
    """Folders that are named as checkpoints are, the oldest first."""
    found = {
        int(match[1]): each for each in folder.glob("*") if (match := re.fullmatch(r"checkpoint-(\d+)", each.name))
    }
    return [found[step] for step in sorted(found) if found[step].is_dir() and not found[step].is_symlink()]


def remove(folders: Iterable[Path]) -> None:
    """Take checkpoints away."""
    for each in folders:
        shutil.rmtree(each, ignore_errors=True)


class Whole(TrainerCallback):
    """Writes down, behind the last file of a checkpoint, what there is in it; only then earlier ones may go."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Save as often as is asked for now: a checkpoint remembers how often it was before."""
        state.save_steps = args.save_steps

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """After a checkpoint was written, by all processes."""
        if args.world_size > 1:
            torch.distributed.barrier()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            with beside(folder / WHOLE) as made:
                made.write_text(json.dumps(_sizes(folder)))
            remove(checkpoints(folder.parent)[:-KEPT])


def _sizes(folder: Path) -> dict[str, int]:
    files = (each for each in sorted(folder.rglob("*")) if each.is_file() and not each.name.startswith("."))
    return {str(each.relative_to(folder)): each.stat().st_size for each in files if each.name != WHOLE}


def is_whole(folder: Path) -> bool:
    """Whether all that was written down of a checkpoint is there, as long as it was."""
    try:
        return bool(json.loads((folder / WHOLE).read_text()) == _sizes(folder))
    except (OSError, ValueError):
        return False
