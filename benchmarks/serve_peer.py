"""The peer of benchmarks/serve.py: FastAPI with River's Thompson sampling, in memory, nothing durable.

uvicorn --app-dir benchmarks serve_peer:app --port 8499
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from river import bandit, proba

app = FastAPI()
ARMS = [str(arm) for arm in range(10)]
policy = bandit.ThompsonSampling(reward_obj=proba.Beta(), seed=0)
decisions: dict[str, str] = {}


class Decide(BaseModel):
    """One question."""

    id: str
    context: dict[str, float | str | bool | None] = {}


class Told(BaseModel):
    """One reward."""

    decision: str
    id: str
    value: float


@app.post("/v1/default/decide")
async def decide(request: Decide) -> dict[str, Any]:
    """Choose an arm."""
    arm = decisions[request.id] = policy.pull(ARMS)
    return {"id": request.id, "action": arm}


@app.post("/v1/default/feedback")
async def feedback(request: Told) -> dict[str, str]:
    """Learn from a reward."""
    arm = decisions.pop(request.decision, None)
    if arm is not None:  # it may come before its decision, on another connection: lost here
        policy.update(arm, bool(request.value))
    return {"id": request.id, "status": "kept"}
