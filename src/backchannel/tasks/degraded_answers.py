"""Questions with a good answer and three degraded ones, made from templates: who can tell which is the good one?

Of each question there are four answers of one to three sentences:

    good         says what was asked for
    irrelevant   the good answer to a question of another kind
    truncated    the good answer, cut off within a sentence after a quarter to seven tenths of its words
    wrong        the good answer with another value: another country's capital, another sum, other steps

Questions are of nine kinds (capitals, sums, opposites, young animals, colours, makers, tools, places, instructions),
each in several wordings. *Subjects*, not wordings, are split in three parts, always in the same way: what is learned or
chosen on "train" and "development" meets no subject of "test".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")
Part = Literal["train", "development", "test"]
DEGRADED = ("irrelevant", "truncated", "wrong")
SHARES = {"train": 0.35, "development": 0.15, "test": 0.5}


class Answered(NamedTuple):
    """A question, its kind, and four answers."""

    kind: str
    question: str
    good: str
    irrelevant: str
    truncated: str
    wrong: str


class Kind(NamedTuple):
    """Questions of a kind: what is asked of which subject, and how; {s} is the subject, {v} the value."""

    values: dict[str, str]
    questions: tuple[str, ...]
    answers: tuple[str, ...]


def _pairs(text: str) -> dict[str, str]:
    """ "a: b; c: d" as a dictionary."""
    return dict(each.strip().split(": ") for each in text.split(";"))


KINDS = {
    "capital": Kind(
        _pairs(
            "France: Paris; Italy: Rome; Spain: Madrid; Germany: Berlin; Japan: Tokyo; Egypt: Cairo; Russia: Moscow;"
            "China: Beijing; Greece: Athens; Portugal: Lisbon; Norway: Oslo; Sweden: Stockholm; Finland: Helsinki;"
            "Denmark: Copenhagen; Ireland: Dublin; Poland: Warsaw; Austria: Vienna; Hungary: Budapest; Cuba: Havana;"
            "Peru: Lima; Chile: Santiago; Kenya: Nairobi; India: New Delhi; Iran: Tehran; Iraq: Baghdad; Canada: Ottawa"
        ),
        ("What is the capital of {s}?", "Which city is the capital of {s}?", "Can you tell me the capital of {s}?"),
        (
            "The capital of {s} is {v}. Many visitors begin their journey through the country there.",
            "It is {v}. The government of {s} sits in {v}, and so do most of its ministries.",
            "{v} is the capital of {s}, and one of the best known cities of the country.",
        ),
    ),
    "opposite": Kind(
        _pairs(
            "hot: cold; big: small; fast: slow; happy: sad; young: old; early: late; rich: poor; hard: soft;"
            "high: low; light: dark; wet: dry; full: empty; open: closed; loud: quiet; strong: weak; clean: dirty;"
            "deep: shallow; thick: thin; long: short; near: far; sweet: sour; heavy: light; brave: cowardly"
        ),
        ("What is the opposite of {s}?", 'Which word means the opposite of "{s}"?', "Give me an antonym of {s}."),
        (
            "The opposite of {s} is {v}. Something that is not {s} at all can be called {v}.",
            '"{v}" is the opposite of "{s}". The two words are often learned together.',
        ),
    ),
    "sum": Kind(
        {f"{a} plus {b}": str(a + b) for a, b in zip(range(12, 60, 2), [*range(31, 7, -1)], strict=True)},
        ("What is {s}?", "How much is {s}?", "Please add these numbers: {s}."),
        ("{s} equals {v}. You can check it by counting up.", "The answer is {v}, because {s} makes {v}."),
    ),
    "young": Kind(
        _pairs(
            "dog: puppy; cat: kitten; cow: calf; horse: foal; sheep: lamb; goat: kid; pig: piglet; duck: duckling;"
            "hen: chick; bear: cub; kangaroo: joey; swan: cygnet; goose: gosling; deer: fawn; frog: tadpole; lion: cub"
        ),
        ("What is a young {s} called?", "What do you call the baby of a {s}?"),
        (
            "A young {s} is called a {v}. It stays close to its mother during the first weeks.",
            "The baby of a {s} is a {v}, and it grows up quickly.",
        ),
    ),
    "colour": Kind(
        _pairs(
            "banana: yellow; tomato: red; cucumber: green; carrot: orange; snowman: white; raven: black;"
            "flamingo: pink; plum: purple; lemon: yellow; cherry: red; frog: green; pumpkin: orange; polar bear: white;"
            "mouse: grey; bar of chocolate: brown; sunflower: yellow; fire engine: red; pea: green"
        ),
        ("What colour is a typical {s}?", "Which colour does a {s} usually have?"),
        (
            "A typical {s} is {v}. There may be exceptions, but {v} is what most people think of.",
            "Usually a {s} is {v}, so that it is easy to recognise.",
        ),
    ),
    "maker": Kind(
        _pairs(
            "bees: honey; bakers: bread; spiders: webs; hens: eggs; cows: milk; brewers: beer; carpenters: furniture;"
            "tailors: clothes; potters: bowls; cobblers: shoes; painters: pictures; authors: books; oysters: pearls;"
            "silkworms: silk; composers: music; jewellers: rings"
        ),
        ("What do {s} make?", "What are {s} known for producing?"),
        (
            "{s} make {v}. People have valued {v} for thousands of years.",
            "They make {v}. This is what {s} are known for all over the world.",
        ),
    ),
    "tool": Kind(
        _pairs(
            "hammer: driving nails into wood; saw: cutting wood; broom: sweeping the floor; kettle: boiling water;"
            "thermometer: measuring temperature; pencil: writing and drawing; raincoat: keeping dry in the rain;"
            "telescope: looking at the stars; shovel: digging holes; clock: telling the time; stove: cooking meals;"
            "needle: sewing clothes; ladder: climbing up to high places; camera: taking pictures; key: opening locks;"
            "scales: weighing things; lamp: lighting a room; fridge: keeping food cold"
        ),
        ("What is a {s} used for?", "Why would I need a {s}?"),
        (
            "A {s} is used for {v}. Most households have one somewhere.",
            "You need a {s} for {v}, and it is easy to use with a little practice.",
        ),
    ),
    "place": Kind(
        _pairs(
            "teacher: a school; nurse: a hospital; chef: a restaurant; judge: a court; pilot: an aeroplane;"
            "librarian: a library; farmer: a farm; sailor: a ship; dancer: a theatre; miner: a mine; priest: a church;"
            "cashier: a shop; banker: a bank; gardener: a garden; soldier: an army base; monk: a monastery"
        ),
        ("Where does a {s} work?", "At which place would I meet a {s} at work?"),
        (
            "A {s} works in {v}. That is where you are most likely to meet one.",
            "Usually in {v}. Nearly every {s} spends most of the day there.",
        ),
    ),
    "instruction": Kind(
        _pairs(
            "make tea: Boil some water, pour it over the tea leaves, and wait for four minutes;"
            "fry an egg: Heat some butter in a pan, crack the egg into it, and cook it until the white is firm;"
            "plant a tree: Dig a wide hole, set the roots into it, fill it with soil, and water it well;"
            "wash a car: Rinse off the dust, rub the paint with soapy water, and dry it with a soft cloth;"
            "send a letter: Write the address on the envelope, put a stamp on it, and drop it into a mailbox;"
            "brush my teeth: Put toothpaste on the brush, clean all sides of the teeth, and rinse your mouth;"
            "cook rice: Rinse the rice, add twice as much water, and simmer it until the water is gone;"
            "paint a wall: Cover the floor, stir the paint, and roll it on in two thin coats;"
            "change a light bulb: Switch off the power, unscrew the old bulb, and screw in the new one;"
            "wrap a present: Cut the paper to size, fold it around the box, and fix it with tape;"
            "iron a shirt: Fill the iron with water, begin with the collar, and then do the sleeves;"
            "train for a race: Run three times a week, add a little distance each week, and rest well;"
            "clean a window: Spray it with soapy water, wipe it from top to bottom, and polish it dry;"
            "bake a potato: Prick the potato with a fork, rub it with oil, and bake it for an hour;"
            "fall asleep faster: Turn off all screens early, keep the bedroom dark, and go to bed at the same hour;"
            "learn new words: Write each word on a card, look at ten cards a day, and repeat the hard ones"
        ),
        ("How do I {s}?", "Tell me how to {s}.", "What is the best way to {s}?"),
        ("To {s}, follow these steps. {v}.", "Here is how to {s}. {v}."),
    ),
}


def answered(n: int, part: Part, rng: np.random.Generator) -> list[Answered]:
    """`n` questions of a part, no two alike, each with four answers."""
    every = [(kind, s, q) for kind, s in subjects(part) for q in KINDS[kind].questions]
    if n > len(every):
        raise ValueError(f"n must be {len(every)} at most, the questions of the part {part!r}, not {n}")
    some = [every[i] for i in rng.permutation(len(every))[:n]]
    return [_answered(kind, subject, question, part, rng) for kind, subject, question in some]


def subjects(part: Part) -> list[tuple[str, str]]:
    """The kinds and subjects of a part."""
    if part not in SHARES:
        raise ValueError(f"part must be one of {', '.join(SHARES)}, not {part!r}")
    found = []
    first = sum(SHARES[each] for each in list(SHARES)[: list(SHARES).index(part)])
    for number, (kind, facts) in enumerate(KINDS.items()):
        order = np.random.default_rng(number).permutation(len(facts.values))
        low, high = (round(len(order) * share) for share in (first, first + SHARES[part]))
        found += [(kind, list(facts.values)[i]) for i in order[low:high]]
    return found


def _answered(kind: str, subject: str, question: str, part: Part, rng: np.random.Generator) -> Answered:
    facts = KINDS[kind]
    form = _one(facts.answers, rng)
    value = facts.values[subject]
    other = _one([each for each in facts.values.values() if each != value], rng)
    if kind == "sum":
        other = str(int(value) + int(rng.integers(1, 10)) * (1 if rng.random() < 0.5 else -1))
    good = _filled(form, subject, value)
    elsewhere = _one([each for each in subjects(part) if each[0] != kind], rng)
    foreign = KINDS[elsewhere[0]]
    return Answered(
        kind,
        question.format(s=subject),
        good,
        _filled(_one(foreign.answers, rng), elsewhere[1], foreign.values[elsewhere[1]]),
        _cut(good, rng),
        _filled(form, subject, other),
    )


def _filled(form: str, subject: str, value: str) -> str:
    text = form.format(s=subject, v=value).replace(" my ", " your ")
    return text[0].upper() + text[1:]


def _cut(text: str, rng: np.random.Generator) -> str:
    """The first words, never up to the end of a sentence."""
    words = text.split()
    lengths = [k for k in range(2, len(words)) if 0.25 <= k / len(words) <= 0.7 and words[k - 1][-1] not in ".,"]
    return " ".join(words[: int(rng.choice(lengths))])


def _one(some: Sequence[T], rng: np.random.Generator) -> T:
    return some[int(rng.integers(len(some)))]
