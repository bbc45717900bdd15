"""What is wrong with a file that says what to serve: one sentence, with the file and the key."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from backchannel.decide import learn as job
from backchannel.ledger.read import open_log
from backchannel.serve.config import AppConfig, Config, ServiceConfig, read_config
from backchannel.serve.guards import Guards, Rule
from backchannel.serve.service import Service

HASH = "ab" * 32
APP = '[app.shop]\npolicy = "p.policy"\n'
TOKEN = '[[token]]\nname = "{}"\nsha256 = "{}"\nscopes = ["decide"]\n'

WRONG = {
    "": "app: a file names one application or more",
    "app = 3": "app: a file names one application or more",
    "[app.shop]\npolicy =": "is no TOML",
    "\xff": "is no TOML",
    "[app.shop]": "app.shop: Object missing required field `policy`",
    "[app.Shop]\npolicy = 'p.policy'": "app.Shop: Expected `str` matching regex",
    '[app."shop\\n"]\npolicy = "p.policy"': "Expected `str` matching regex",
    APP + "mode = 'lern'": "app.shop.mode: Invalid enum value 'lern'",
    APP + "moed = 'learn'": "app.shop: Object contains unknown field `moed`",
    APP + "reward = {window = 0}": "app.shop.reward.window: Expected `float` > 0",
    APP + "reward = {window = inf}": "app.shop.reward.window: a number must be finite, not inf",
    APP + "reward = {reactions = {up = nan}}": "app.shop.reward.reactions.up: a number must be finite, not nan",
    APP + "reward = {low = 2}": "app.shop.reward: low must be below high",
    APP + "guards = {floor = 2}": "app.shop.guards.floor: Expected `float` <= 1",
    APP + "guards = {change = 0}": "app.shop.guards.change: Expected `float` >= 0.01",
    APP + "guards = {rules = [{when = {a = [1]}}]}": "app.shop.guards.rules[0].when[...]: Expected",
    APP + "seed = 99999999999999999999": "app.shop.seed: Expected `int` <=",
    "[app.shop]\npolicy = 'none.policy'": "app.shop.policy: there is no file",
    "[app.shop]\npolicy = '.'": "app.shop.policy: there is no file",
    APP + "candidates = ['p.policy', 'q.policy']": "app.shop.candidates[1]: there is no file",
    APP + "[service]\nport = '80'": "service.port: Expected `int`, got `str`",
    APP + "[service]\nport = 70000": "service.port: Expected `int` <= 65535",
    APP + "[service]\nlag = nan": "service.lag: a number must be finite",
    APP + "[servise]\nport = 1": "servise: there is no such key",
    "token = 3\n" + APP: "token: each token is one [[token]]",
    APP + TOKEN.format("a", "xy"): "token[0].sha256: Expected `str` matching regex",
    APP + TOKEN.format("a", HASH) + TOKEN.format("a", "cd" * 32): "token[1].name: another token has the same, 'a'",
    APP + TOKEN.format("a", HASH) + TOKEN.format("b", HASH): "token[1].sha256: another token has the same",
    APP + TOKEN.format("a", HASH).replace("decide", "root"): "token[0].scopes[0]: Invalid enum value 'root'",
    APP + TOKEN.format("a", HASH).replace('"decide"', ""): "token[0].scopes: Expected `array` of length >= 1",
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_said_with_file_and_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.policy").write_bytes(b"")
    path = tmp_path / "app.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=re.escape(WRONG[text])) as found:
        read_config(path)
    assert str(found.value).startswith(str(path))
    assert "\n" not in str(found.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"app\.toml cannot be read: No such file"):
        read_config(tmp_path / "app.toml")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "p.policy").write_bytes(b"")
    text = APP + "candidates = ['p.policy']\n[service]\nport = 1\n" + TOKEN.format("a", HASH)
    (tmp_path / "app.toml").write_text(text)
    config = read_config(tmp_path / "app.toml")
    assert config.app["shop"].policy == config.app["shop"].candidates[0] == str(tmp_path / "p.policy")
    assert (config.service.port, config.token[0].name) == (1, "a")


def test_a_file_that_is_no_policy_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.policy").write_bytes(b"no policy")
    (tmp_path / "app.toml").write_text(APP + f"[service]\nstore = 'sqlite:{tmp_path}/x.db'")
    with pytest.raises(ValueError, match=r"p\.policy is not a file that backchannel wrote"):
        Service(read_config(tmp_path / "app.toml"))
    Service(Config(app={}, service=ServiceConfig(store=f"sqlite:{tmp_path}/x.db"))).stop()  # the store was given back


def test_candidates_must_choose_among_the_same_options(make: Callable[..., Service], tmp_path: Path) -> None:
    rows = "".join(f"{'abd'[i % 3]},{i % 2},0.5,{i % 7}\n" for i in range(200))
    (tmp_path / "log.csv").write_text("action,reward,propensity,context.size\n" + rows)
    _, learned = job.learn(open_log(tmp_path / "log.csv"), ["epsilon_greedy"])
    learned[0].save(tmp_path / "other.policy")
    with pytest.raises(ValueError, match="'other' and 'lin_ucb' choose among different options: c, d"):
        make("lin_ucb", candidates=[str(tmp_path / "other.policy")])


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule(forbid=["z"]), r"app\.shop\.guards\.rules\[0\]\.forbid: the policy has no option 'z'"),
        (Rule(force="z"), r"app\.shop\.guards\.rules\[0\]\.force: the policy has no option 'z'"),
        (Rule({"sise": 1.0}, force="a"), r"guards\.rules\[0\]\.when: the policy has no context column 'sise'"),
        (Rule({"size": 1.0}), r"app\.shop\.guards\.rules\[0\] neither forces nor forbids"),
    ],
)
def test_rules_that_could_never_hold_are_refused(make: Callable[..., Service], rule: Rule, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make("lin_ucb", guards=Guards(rules=[rule]))


def test_two_policies_of_one_name(make: Callable[..., Service], policies: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="two policies called 'lin_ucb'"):
        make("lin_ucb", candidates=[str(policies["lin_ucb"])])
    assert AppConfig(policy="x").candidates == []
