"""TRL's own loss code on made-up log-probabilities: an oracle for tests.

A trainer is replaced by a namespace with the settings that its loss reads, and a model by a function that returns given
log-probabilities, token by token. TRL returns the mean of a batch, so batches of one are asked for.
"""

from types import SimpleNamespace

import pytest
import torch


def trainer_class(path, name):
    """A class of TRL; the test is skipped where TRL is not installed."""
    pytest.importorskip("trl", reason="TRL is the oracle")
    return getattr(pytest.importorskip(f"trl.{path}"), name)


def accelerator():
    """One process."""

    def same(x, *rest, **options):
        return x

    return SimpleNamespace(
        device=torch.device("cpu"), gather=same, gather_for_metrics=same, reduce=same, num_processes=1
    )


def tuned():
    """The model that a trainer holds: of it only the mode is read, which is not training."""
    model = torch.nn.Module().eval()
    model.is_gradient_checkpointing = False
    return model


class Metrics(dict):
    """What TRL logs to; nobody reads it."""

    def __missing__(self, mode):
        self[mode] = _Lists()
        return self[mode]


class _Lists(dict):
    def __missing__(self, name):
        self[name] = []
        return self[name]


def spread(total, length, width):
    """Log-probabilities of tokens, [n, width]: `total` shared out evenly over the first `length` of them."""
    inside = torch.arange(width) < length[:, None]
    return torch.where(inside, (total / length)[:, None].expand(-1, width), torch.zeros((), dtype=total.dtype))


def outputs(tokens):
    """What TRL's models return, for log-probabilities [n, width]."""
    return SimpleNamespace(
        log_probs=tokens,
        entropy=torch.zeros_like(tokens),
        mean_logits=torch.zeros_like(tokens),
        is_top1=torch.zeros_like(tokens, dtype=torch.bool),
    )


def dpo_losses(loss_type, pairs, **settings):
    """The loss of each pair by `DPOTrainer._compute_loss`, [n]; `loss_type` may be a list, with `loss_weights`."""
    kind = trainer_class("trainer.dpo_trainer", "DPOTrainer")
    types = [loss_type] if isinstance(loss_type, str) else loss_type
    found = []
    for i in range(len(pairs.policy_chosen)):
        length = torch.stack([pairs.chosen_length[i], pairs.rejected_length[i]])
        width = int(length.max())
        policy = spread(torch.stack([pairs.policy_chosen[i], pairs.policy_rejected[i]]), length, width)
        reference = spread(torch.stack([pairs.reference_chosen[i], pairs.reference_rejected[i]]), length, width)
        mask = torch.arange(-1, width) < length[:, None]
        mask[:, 0] = False  # a prompt of one token
        inputs = {"input_ids": torch.ones(2, width + 1, dtype=torch.int64), "completion_mask": mask.long()}
        trainer = SimpleNamespace(
            model=tuned(), ref_model=_model(reference), accelerator=accelerator(),
            _metrics=Metrics(), _total_train_tokens=0, aux_loss_enabled=False, ld_alpha=None,
            precompute_ref_logps=False, f_divergence_type="reverse_kl", use_weighting=False,
            label_smoothing=settings.get("label_smoothing", 0.0),
            beta=settings["beta"], loss_types=types, loss_weights=settings.get("loss_weights", [1.0] * len(types)),
            args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        )  # fmt: skip
        found.append(kind._compute_loss(trainer, _model(policy), inputs, False))
    return torch.stack(found)


def kto_losses(singles, beta, desirable, undesirable, kl, loss_type="kto"):
    """The loss of each answer by `KTOTrainer._compute_loss`, [n], where the mismatched answers' log-ratio is `kl`."""
    kind = trainer_class("trainer.kto_trainer", "KTOTrainer")
    found = []
    for i in range(len(singles.policy)):
        length = singles.length[i : i + 1]
        width = int(length)
        mask = torch.ones(1, width + 1, dtype=torch.int64)
        mask[:, 0] = 0
        inputs = {
            "input_ids": torch.ones(1, width + 1, dtype=torch.int64),
            "completion_mask": mask,
            "attention_mask": torch.ones(1, width + 1, dtype=torch.int64),
            "label": singles.good[i : i + 1],
        }
        answers = iter([torch.tensor([kl], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
        trainer = SimpleNamespace(
            model=tuned(), accelerator=accelerator(), _metrics=Metrics(), _total_train_tokens=0,
            ref_model=_model(spread(singles.reference[i : i + 1], length, width)), aux_loss_enabled=False,
            precompute_ref_logps=False, calculate_KL=loss_type == "kto", loss_type=loss_type, beta=beta,
            desirable_weight=desirable, undesirable_weight=undesirable,
            _compute_kl_logps=lambda model, batch, answers=answers: next(answers),
            args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        )  # fmt: skip
        model = _model(spread(singles.policy[i : i + 1], length, width))
        found.append(kind._compute_loss(trainer, model, inputs, False))
    return torch.stack(found)


def cpo_losses(pairs, loss_type, beta, gamma=0.0):
    """The loss of each pair by `CPOTrainer.cpo_loss`, without its cross-entropy term: [n]."""
    kind = trainer_class("experimental.cpo.cpo_trainer", "CPOTrainer")
    trainer = SimpleNamespace(
        accelerator=accelerator(), alpha=0.0, beta=beta, simpo_gamma=gamma, label_smoothing=0.0, loss_type=loss_type
    )
    chosen, rejected = pairs.policy_chosen, pairs.policy_rejected
    if loss_type == "simpo":  # `concatenated_forward` hands averages on
        chosen, rejected = chosen / pairs.chosen_length, rejected / pairs.rejected_length
    return kind.cpo_loss(trainer, chosen, rejected)[0]


def odds_losses(pairs, beta):
    """lambda times the odds ratio's term by `ORPOTrainer.odds_ratio_loss`, which TRL takes off the rest: [n]."""
    kind = trainer_class("experimental.orpo.orpo_trainer", "ORPOTrainer")
    trainer = SimpleNamespace(accelerator=accelerator(), beta=beta)
    chosen, rejected = pairs.policy_chosen / pairs.chosen_length, pairs.policy_rejected / pairs.rejected_length
    return -kind.odds_ratio_loss(trainer, chosen, rejected)[0]


def reward_losses(scores, margin=None, center=None):
    """The loss of each pair by `RewardTrainer.compute_loss`: [n]."""
    kind = trainer_class("trainer.reward_trainer", "RewardTrainer")
    found = []
    for i in range(len(scores.chosen)):
        rewards = torch.stack([scores.chosen[i], scores.rejected[i]])[:, None]
        inputs = {} if margin is None else {"margin": margin[i : i + 1]}
        trainer = SimpleNamespace(
            model=tuned(), accelerator=accelerator(), _metrics=Metrics(), _total_train_tokens=0,
            args=SimpleNamespace(center_rewards_coefficient=center),
        )  # fmt: skip
        found.append(kind.compute_loss(trainer, lambda rewards=rewards, **_: SimpleNamespace(logits=rewards), inputs))
    return torch.stack(found)


def rollout_losses(trainer_name, rollouts, **settings):
    """The loss of each answer by `GRPOTrainer._compute_loss` or `RLOOTrainer._compute_loss`: [n]."""
    kind = trainer_class(f"trainer.{trainer_name.lower()}_trainer", f"{trainer_name}Trainer")
    found = []
    for i in range(len(rollouts.policy)):
        policy, sampled, reference, mask, advantage = (x[i : i + 1] for x in rollouts[:5])
        ids = torch.ones_like(mask, dtype=torch.int64)
        inputs = {
            "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids, "completion_mask": mask.long(),
            "advantages": advantage[:, 0], "old_per_token_logps": sampled, "ref_per_token_logps": reference,
            "old_logps": (sampled * mask).sum(1), "num_items_in_batch": mask.sum(),
        }  # fmt: skip
        trainer = SimpleNamespace(
            model=tuned(), accelerator=accelerator(), _metrics=Metrics(),
            _get_per_token_logps_and_entropies=lambda *_, policy=policy, **__: (policy, torch.zeros_like(policy), None),
            aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False,
            importance_sampling_level="token", beta=settings.get("beta", 0.0), epsilon_low=settings["low"],
            epsilon_high=settings.get("high", settings["low"]), loss_type=settings.get("loss_type", "grpo"),
            max_completion_length=settings.get("longest"), _entropy_bonus_enabled=False,
            current_gradient_accumulation_steps=1,
            args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        )  # fmt: skip
        found.append(kind._compute_loss(trainer, None, inputs))
    return torch.stack(found)


def _model(tokens):
    def model(**_):
        return outputs(tokens)

    return model
