"""The battery: what must hold for every learner. Public, for methods of one's own:

    from backchannel.testing.battery import CHECKS
    from backchannel.card import Method

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_method(check):
        check(Method("my_method", "online", my_module.CARD, my_module))

A check raises AssertionError. Statistical checks fail by bad luck less than once in 10,000 runs.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from backchannel.base import Learner
from backchannel.card import Method
from backchannel.channels.late import delay, fixed, uniform
from backchannel.engine import bind
from backchannel.live import distribution_of
from backchannel.loop import Run, copy_state, play
from backchannel.testing.arena import arena
from backchannel.testing.interpreted import interpreted, shown

Check = Callable[[Method], None]


def check_card(method: Method) -> None:
    """The file is a chapter: title, references, a card whose words fit, a factory with its name and types."""
    doc = method.module.__doc__ or ""
    assert re.match(r"\S.*: .+\.", doc), f"{method.key}: the docstring's first line must be 'Name: what it does.'"
    assert "References:" in doc, f"{method.key}: the docstring must name its references"
    assert "Deviations:" in doc, f"{method.key}: the docstring must tell its deviations, or 'none'"
    assert ">>>" in doc, f"{method.key}: the docstring must hold a short example"
    assert method.card.paper in doc, f"{method.key}: the docstring must cite {method.card.paper}"
    assert "\n" not in method.card.summary
    assert len(method.card.summary) <= 120
    assert method.card.strength in ("simple", "default", "strong")
    signature = inspect.signature(method.factory)
    unknown = set(method.card.example) - set(signature.parameters)
    assert not unknown, f"{method.key}: the card's example has arguments that the factory does not take: {unknown}"
    assert method.factory.__doc__


def check_state_is_arrays(method: Method) -> None:
    """A State is a flat NamedTuple of arrays; the factory gives a fresh one each time, and play leaves it alone."""
    learner = method.example()
    for name, value in learner.state._asdict().items():
        assert isinstance(value, np.ndarray), f"{method.key}: State.{name} is a {type(value).__name__}, not an array"
    other = method.example()
    shared = [a for a, b in zip(learner.state, other.state, strict=True) if a.size and np.shares_memory(a, b)]
    assert not shared, f"{method.key}: two learners share an array of their State"
    before = copy_state(learner.state)
    _run(method, learner, 50, seed=1)
    _assert_same(before, learner.state, f"{method.key}: a run changed the learner that it was given")


def check_probabilities(method: Method) -> None:
    """Probabilities are a distribution, and the propensity of a choice is the probability that it had."""
    learner = method.example()
    if learner.probabilities is None:
        return
    task, channel = arena(method.card)
    distribution, rng = distribution_of(learner), np.random.default_rng(0)
    run = Run(learner, task, 500, seed=3, channel=channel)
    context = bind(_CONTEXT, {"context": task.context}, (task.state,)).seen
    for t in range(60):
        out = np.full(task.arms, np.nan)
        distribution(run.state, context(run.task.state, t), rng, 1, out)
        assert (out >= 0).all(), f"{method.key}: negative or undefined probabilities {out}"
        assert abs(out.sum() - 1) < 1e-9, f"{method.key}: probabilities sum to {out.sum()}"
        run.advance(1)
        chosen, claimed = out[run.trace.actions[t]], run.trace.propensities[t]
        assert abs(chosen - claimed) < 1e-9, f"{method.key}: propensity {claimed}, but the probability was {chosen}"


def check_delay_zero(method: Method) -> None:
    """Feedback delayed by 0 rounds is immediate feedback, to the last bit."""
    task, channel = arena(method.card)
    at_once = Run(method.example(), task, 400, seed=5, channel=channel).advance()
    delayed = Run(method.example(), task, 400, seed=5, channel=delay(channel, fixed(0))).advance()
    _assert_same(at_once.state, delayed.state, f"{method.key}: delay 0 differs from no delay")
    np.testing.assert_array_equal(at_once.trace.actions, delayed.trace.actions)


def check_delayed_runs(method: Method) -> None:
    """Late and overtaking feedback, some of it lost after the end: the State stays finite."""
    task, channel = arena(method.card)
    run = Run(method.example(), task, 600, seed=6, channel=delay(channel, uniform(50))).advance()
    _assert_finite(run, method.key)


def check_own_propensity(method: Method) -> None:
    """Whoever weights by importance divides by the propensity it is handed: the decision's own, however old."""
    if "importance weighting" not in method.card.topics:
        return
    run = _run(method, method.example(), 50, seed=8)
    task = run.task
    told = np.full(run.channel.width, 1.0) if run.channel.width else 1.0
    call = bind(_ANSWER, {"update": run.learner.update, "context": task.context}, (run.state, task.state)).answer
    states = []
    for propensity in (0.5, 0.125):
        state = copy_state(run.state)
        call(state, task.state, 49, run.trace.actions[49], propensity, told)
        states.append(state)
    same = all(np.array_equal(a, b) for a, b in zip(*states, strict=True))
    assert not same, f"{method.key}: update ignores the propensity of the decision that is answered"


def check_resume(method: Method) -> None:
    """Killed and resumed from its file, a run equals the uninterrupted one to the last bit."""
    task, channel = arena(method.card)
    channel = delay(channel, uniform(20))
    whole = Run(method.example(), task, 300, seed=9, channel=channel).advance()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.npz"
        Run(method.example(), task, 300, seed=9, channel=channel).advance(137).save(path)
        resumed = Run.load(path, method.example(), task, channel).advance()
    _assert_same(whole.state, resumed.state, f"{method.key}: a resumed run differs")
    np.testing.assert_array_equal(whole.trace.actions, resumed.trace.actions)


def check_replicates(method: Method) -> None:
    """Replicates in threads are the runs one by one, and each has luck of its own."""
    task, channel = arena(method.card)
    arguments: dict[str, Any] = {"replicates": 4, "seed": 11, "channel": channel}
    together = play(method.example(), task, 200, **arguments, workers=2)
    alone = play(method.example(), task, 200, **arguments, workers=1)
    curve = next(iter(together.curves))  # the regret, or of points the loss
    np.testing.assert_array_equal(together.curves[curve], alone.curves[curve])
    learned = [b"".join(array.tobytes() for array in state) for state in together.final_states]
    curves = [values.tobytes() for values in together.curves[curve]]
    assert len(set(zip(curves, learned, strict=True))) > 1 or task.mean is task.loss


def check_no_recompiling(method: Method) -> None:
    """Other values of the parameters and another horizon compile nothing."""
    run = _run(method, method.example(), 20, seed=0)
    before = _signatures(run)
    changed = dict(method.card.example)
    for name, value in changed.items():
        if name in ("horizon", "budget", "extra") and isinstance(value, int):
            changed[name] = 2 * value
    other = _run(method, method.factory(**changed), 30, seed=1)
    assert other._advance is run._advance, f"{method.key}: another value of a parameter made another loop"
    assert _signatures(other) == before, f"{method.key}: another value of a parameter compiled the loop again"


def check_interpreted(method: Method) -> None:
    """Compiled and plain Python (NUMBA_DISABLE_JIT=1) do the same."""
    run = _run(method, method.example(), 60, seed=13)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "interpreted.npz"
        said = interpreted(method.family, method.key, str(path))
        assert not said, f"{method.key}: fails as plain Python:\n{said[-2000:]}"
        with np.load(path) as file:
            exact = run.trace.actions.dtype.kind == "i"  # points are numbers, as States are
            rtol, atol = (0.0, 0.0) if exact else (1e-6, 1e-9)
            np.testing.assert_allclose(run.trace.actions, file["actions"], rtol=rtol, atol=atol, err_msg=method.key)
            for name, value in run.state._asdict().items():
                np.testing.assert_allclose(value, file[name], rtol=1e-6, atol=1e-9, err_msg=f"{method.key}: {name}")


def check_docstring(method: Method) -> None:
    """What the docstring shows is so (as plain Python, which check_interpreted compares with what is compiled)."""
    said = shown(method.module.__name__)
    assert not said, f"{method.key}: its docstring shows what is not so:\n{said[-2000:]}"


def check_million_rounds(method: Method) -> None:
    """A million rounds without overflow or drift."""
    example = dict(method.card.example)
    rounds = 1_000_000
    if "horizon" in example:
        example["horizon"] = rounds
    run = _run(method, method.factory(**example), rounds, seed=17)
    _assert_finite(run, method.key)
    p = run.trace.propensities
    assert ((p > 0) & (p <= 1 + 1e-9) | np.isnan(p)).all(), f"{method.key}: a propensity outside (0, 1]"
    if run.learner.probabilities is not None:
        out = np.empty(run.task.arms)
        context = bind(_CONTEXT, {"context": run.task.context}, (run.task.state,)).seen(run.task.state, rounds)
        distribution_of(run.learner)(run.state, context, run.rng, 1, out)
        assert abs(out.sum() - 1) < 1e-9, f"{method.key}: after a million rounds probabilities sum to {out.sum()}"


def check_regret_bound(method: Method) -> None:
    """The mean regret stays under the method's theorem, on a clear gap and on the hardest one.

    `regret_bound` takes the example's arguments that it names. 64 runs; four standard errors of slack.
    """
    bound = getattr(method.module, "regret_bound", None)
    if bound is None:
        return
    named = inspect.signature(bound).parameters
    horizon = method.card.example.get("horizon", 1000)
    arguments = {"horizon": horizon, **method.card.example}
    most = bound(**{name: value for name, value in arguments.items() if name in named})
    arms = method.card.example.get("arms", 3)
    for gap in (0.6, min(0.6, float(np.sqrt(arms / horizon)))):
        task, channel = arena(method.card, gap)
        regret = play(method.example(), task, horizon, replicates=64, seed=19, channel=channel).final()
        error = regret.std(ddof=1) / 8
        assert regret.mean() <= most + 4 * error, f"{method.key}: regret {regret.mean():.1f} above its bound {most:.1f}"


CHECKS: list[Check] = [
    check_card,
    check_state_is_arrays,
    check_probabilities,
    check_delay_zero,
    check_delayed_runs,
    check_own_propensity,
    check_resume,
    check_replicates,
    check_no_recompiling,
    check_interpreted,
    check_docstring,
    check_million_rounds,
    check_regret_bound,
]

_CONTEXT = '''
@compiled
def seen(task, t):
    """What the task shows in round t."""
    return context(task, t)
'''

_ANSWER = '''
@compiled
def answer(learner, task, t, action, propensity, feedback):
    """One update."""
    update(learner, context(task, t), action, propensity, feedback)
'''


def _run(method: Method, learner: Learner, rounds: int, seed: int) -> Run:
    task, channel = arena(method.card)
    return Run(learner, task, rounds, seed=seed, channel=channel).advance()


def _signatures(run: Run) -> int:
    return len(getattr(run._advance, "signatures", ()))


def _assert_finite(run: Run, key: str) -> None:
    for name, value in run.state._asdict().items():
        bad = value.dtype.kind == "f" and not np.isfinite(value).all()
        assert not bad, f"{key}: State.{name} is no longer finite"


def _assert_same(a: Any, b: Any, message: str) -> None:
    for name, x, y in zip(a._fields, a, b, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=f"{message} (State.{name})")
