"""Reference numbers of the Open Bandit Pipeline (obp), kept in `obp_numbers.json` beside this file.

obp needs old NumPy and pandas, so it runs in an environment of its own (Python 3.11):

    python3.11 -m venv /tmp/obpenv
    /tmp/obpenv/bin/pip install 'numpy<2' 'pandas<2' 'scikit-learn<1.4' 'scipy<1.12' pyyaml tqdm mypy_extensions
    /tmp/obpenv/bin/pip install --no-deps obp==0.4.1
    git clone https://github.com/st-tech/zr-obp && git -C zr-obp checkout 8cbd5fa4558b7ad2ba4781546d6604e4cc3e07c4
    /tmp/obpenv/bin/python tests/oracles/obp_numbers.py zr-obp

The wheel 0.4.1 gives the estimators, and the value of Bernoulli Thompson sampling on its small Open Bandit log.
The checkout gives what is newer than the wheel: clipping, balanced and sub-Gaussian weights, tuning. torch and the
plotting libraries are not needed for any of this and are replaced by an empty stub.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
import warnings
from pathlib import Path

import numpy as np

SEED = 20211


def load(root: str, *modules: str) -> list[types.ModuleType]:
    """The named modules of the obp below `root`, without running the packages' own `__init__`."""
    for name in [name for name in sys.modules if name.split(".")[0] == "obp"]:
        del sys.modules[name]
    torch = types.ModuleType("torch")
    torch.Tensor = torch.tensor = type("Tensor", (), {})
    sys.modules["torch"] = torch
    sys.modules["obp.types"] = types.ModuleType("obp.types")
    sys.modules["obp.types"].BanditFeedback = dict
    for package in ("obp", "obp.ope", "obp.dataset", "obp.policy"):
        stub = types.ModuleType(package)
        stub.__path__ = [str(Path(root, *package.split(".")))]
        sys.modules[package] = stub
    return [importlib.import_module(name) for name in modules]


def inputs(rows: int, options: int, positions: int, spread: float) -> dict[str, np.ndarray]:
    """A log of a softmax policy, another softmax policy to evaluate, and a model of the reward that is a bit wrong."""
    rng = np.random.default_rng([SEED, rows, options, positions])

    def softmax(scores: np.ndarray) -> np.ndarray:
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p = np.round(p / p.sum(axis=1, keepdims=True), 4)
        p[:, 0] += 1.0 - p.sum(axis=1)
        return p

    scores = rng.normal(size=(rows, options, positions))
    logged = softmax(spread * scores)
    evaluated = softmax(spread * rng.normal(size=scores.shape))
    position = rng.integers(positions, size=rows)
    row = np.arange(rows)
    action = np.array([rng.choice(options, p=logged[i, :, position[i]] / logged[i, :, position[i]].sum()) for i in row])
    mean = 1 / (1 + np.exp(-scores + rng.normal(size=(1, options, 1))))
    return {
        "action": action,
        "position": position,
        "reward": (rng.random(rows) < mean[row, action, position]).astype(float),
        "propensity": logged[row, action, position],
        "evaluated": evaluated,
        "greedy": (evaluated == evaluated.max(axis=1, keepdims=True)).astype(float),
        "q_hat": np.round(np.clip(mean + 0.2 * rng.normal(size=mean.shape), 0, 1), 4),
        "estimated_weight": np.round(
            evaluated[row, action, position] / logged[row, action, position] * rng.uniform(0.7, 1.3, rows), 6
        ),
    }


def plain(a: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arguments as obp names them."""
    return {
        "reward": a["reward"],
        "action": a["action"],
        "position": a["position"],
        "pscore": a["propensity"],
        "action_dist": a["evaluated"],
        "estimated_rewards_by_reg_model": a["q_hat"],
    }


def of_wheel(old: types.ModuleType, a: dict[str, np.ndarray]) -> dict[str, float]:
    k = plain(a)
    estimators = {
        "ips": old.InverseProbabilityWeighting(),
        "self_normalised_ips": old.SelfNormalizedInverseProbabilityWeighting(),
        "direct": old.DirectMethod(),
        "doubly_robust": old.DoublyRobust(),
        "self_normalised_doubly_robust": old.SelfNormalizedDoublyRobust(),
        "switch 1": old.SwitchDoublyRobust(tau=1.0),
        "switch 3": old.SwitchDoublyRobust(tau=3.0),
        "shrink 0.5": old.DoublyRobustWithShrinkage(lambda_=0.5),
        "shrink 20": old.DoublyRobustWithShrinkage(lambda_=20.0),
    }
    values = {name: float(estimator.estimate_policy_value(**k)) for name, estimator in estimators.items()}
    values["replay"] = float(old.ReplayMethod().estimate_policy_value(**{**k, "action_dist": a["greedy"]}))
    return values


def of_checkout(new: types.ModuleType, tuning: types.ModuleType, a: dict[str, np.ndarray]) -> dict[str, object]:
    k = plain(a)
    values = {
        "clipped_ips 2": new.InverseProbabilityWeighting(lambda_=2.0),
        "clipped_doubly_robust 2": new.DoublyRobust(lambda_=2.0),
        "sub_gaussian_ips 0.3": new.SubGaussianInverseProbabilityWeighting(lambda_=0.3),
        "sub_gaussian_doubly_robust 0.3": new.SubGaussianDoublyRobust(lambda_=0.3),
    }
    out: dict[str, object] = {name: float(each.estimate_policy_value(**k)) for name, each in values.items()}
    for clip in (np.inf, 2.0):
        balanced = new.BalancedInverseProbabilityWeighting(lambda_=clip)
        out[f"balanced_ips {clip:g}"] = float(
            balanced.estimate_policy_value(**k, estimated_importance_weights=a["estimated_weight"])
        )
    wide = [float("inf"), 64.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.5]  # from the least bias to the most
    unit = [0.0, 0.001, 0.01, 0.05, 0.1, 0.3, 0.6, 1.0]
    families = {
        "clip ips": (tuning.InverseProbabilityWeightingTuning, wide),
        "clip doubly_robust": (tuning.DoublyRobustTuning, wide),
        "switch doubly_robust": (tuning.SwitchDoublyRobustTuning, wide),
        "shrink doubly_robust": (tuning.DoublyRobustWithShrinkageTuning, wide),
        "sub_gaussian ips": (tuning.SubGaussianInverseProbabilityWeightingTuning, unit),
        "sub_gaussian doubly_robust": (tuning.SubGaussianDoublyRobustTuning, unit),
    }
    rules: dict[str, object] = {}
    for name, (kind, candidates) in families.items():
        entry: dict[str, object] = {"candidates": candidates}
        for rule, bound in (("slope", True), ("mse", True), ("mse", False)):
            tuned = kind(lambdas=list(candidates), tuning_method=rule, use_bias_upper_bound=bound, delta=0.1)
            value = float(tuned.estimate_policy_value_with_tuning(**k))
            label = rule if rule == "slope" else ("mse with bound" if bound else "mse")
            entry[label] = {"chosen": tuned.best_hyperparam, "value": value}
            if rule == "mse":
                scores = tuned.estimated_mse_score_dict
                entry[label]["scores"] = [float(scores[c]) for c in candidates]
        rules[name] = entry
    out["tuning"] = rules
    return out


def open_bandit(old: types.ModuleType, real: types.ModuleType, contextfree: types.ModuleType) -> dict[str, object]:
    """Bernoulli Thompson sampling, as obp replays it, evaluated on the uniform random log of campaign "all"."""
    log = real.OpenBanditDataset(behavior_policy="random", campaign="all").obtain_batch_bandit_feedback()
    policy = contextfree.BernoulliTS(
        n_actions=log["n_actions"], len_list=3, is_zozotown_prior=True, campaign="all", random_state=12345
    )
    table = policy.compute_batch_action_dist(n_sim=100_000, n_rounds=log["n_rounds"])
    k = {
        "reward": log["reward"],
        "action": log["action"],
        "position": log["position"],
        "pscore": log["pscore"],
        "action_dist": table,
    }
    estimator = old.SelfNormalizedInverseProbabilityWeighting()
    interval = estimator.estimate_interval(**k, n_bootstrap_samples=2000, random_state=12345)
    weight = table[np.arange(log["n_rounds"]), log["action"], log["position"]] / log["pscore"]
    return {
        "policy": "Bernoulli TS with obp's ZOZOTOWN prior, 100000 simulations, random_state 12345",
        "log": "small Open Bandit log in the wheel: behaviour policy random, campaign all",
        "probability[item][position]": np.round(table[0], 6).tolist(),
        "rows": int(log["n_rounds"]),
        "clicks": int(log["reward"].sum()),
        "sum of weights": float(weight.sum()),
        "sum of squared weights": float((weight**2).sum()),
        "sum of weight * reward": float((weight * log["reward"]).sum()),
        "largest weight": float(weight.max()),
        "weights of clicked rows, sorted": np.sort(weight[log["reward"] == 1]).tolist(),
        "ips": float(old.InverseProbabilityWeighting().estimate_policy_value(**k)),
        "self_normalised_ips": float(estimator.estimate_policy_value(**k)),
        "bootstrap, 2000 resamples, 95 %": [float(interval[key]) for key in interval if "CI" in key],
        "click rate of the log of Bernoulli TS": float(
            real.OpenBanditDataset.calc_on_policy_policy_value_estimate("bts", "all")
        ),
    }


def main(checkout: str) -> None:
    warnings.simplefilter("ignore")
    site = next(p for p in sys.path if Path(p, "obp", "version.py").exists())
    cases = [inputs(200, 5, 1, 1.0), inputs(80, 4, 3, 1.5)]
    old, real, contextfree = load(site, "obp.ope.estimators", "obp.dataset.real", "obp.policy.contextfree")
    out: dict[str, object] = {"seed": SEED, "cases": [{"inputs": {n: v.tolist() for n, v in a.items()}} for a in cases]}
    for case, a in zip(out["cases"], cases, strict=True):
        case["obp 0.4.1"] = of_wheel(old, a)
    out["open bandit"] = open_bandit(old, real, contextfree)
    new, tuning = load(checkout, "obp.ope.estimators", "obp.ope.estimators_tuning")
    for case, a in zip(out["cases"], cases, strict=True):
        case["obp master 8cbd5fa"] = of_checkout(new, tuning, a)
    Path(__file__).with_name("obp_numbers.json").write_text(json.dumps(out, indent=None) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
