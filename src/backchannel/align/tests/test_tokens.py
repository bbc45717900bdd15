"""Tokens: each rule of the encoder, beside what goes wrong without it."""

import pytest

transformers = pytest.importorskip("transformers", reason="tokenizers are those of transformers")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers are built in memory")

from backchannel.align.template import RecordError  # noqa: E402
from backchannel.align.tokens import Encoded, Encoder  # noqa: E402
from backchannel.ledger.problems import LogError  # noqa: E402
from backchannel.lm.answers import Preference, Ranked, Rated  # noqa: E402
from backchannel.lm.protocol import assistant, system, user  # noqa: E402

MARKS = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>", "<|eot|>", "<turn>", "</turn>"]
CORPUS = [
    "the sky is blue and the grass is green",
    "is the sky blue? yes, the sky is blue.",
    "user assistant system model\n\nhello there\n",
    "answers continue answers",
]
GENERATION = "{% if add_generation_prompt %}"
TEMPLATES = {
    "llama": "{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>"
    "{% endfor %}" + GENERATION + "<|head|>assistant<|/head|>\n\n{% endif %}",
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + GENERATION
    + "<|im_start|>assistant\n{% endif %}",
    "mistral": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
    "gemma": "{{ bos_token }}{% for m in messages %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}</turn>\n{% endfor %}" + GENERATION + "<turn>model\n{% endif %}",
}
# Without a generation prompt; with one that opens a thought; one that takes thoughts out.
BARE = TEMPLATES["chatml"].split(GENERATION)[0]
OPENS = TEMPLATES["chatml"].replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")
FORGETS = TEMPLATES["chatml"].replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" + GENERATION + "assistant:{% endif %}"
ASKED = [user("is the sky blue?")]


def tokenizer(template=None, bos=True, prefix=False, **changes):
    """Byte pairs, learned from a few words; with `bos` the tokenizer puts one before a text."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=MARKS, initial_alphabet=alphabet)
    inner.train_from_iterator(CORPUS, trainer)
    if bos:
        inner.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
        )
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | changes
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    found.chat_template = TEMPLATES.get(template, template)
    return found


def ids_of(found, text, **how):
    return list(found(text, add_special_tokens=False, **how)["input_ids"])


def pair(prompt=ASKED, chosen="yes, the sky is blue.", rejected="the grass is green", **more):
    return Preference(prompt, chosen, rejected, **more)


def ends(found, name):
    return found.convert_tokens_to_ids(name)


END = {"llama": "<|eot|>", "chatml": "<|im_end|>", "mistral": "</s>", "gemma": "</turn>"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_generation_sees_the_same_prompt_and_the_template_the_same_whole(name):
    own = tokenizer(name)
    encoder = Encoder(own, 200)
    record = pair()
    found = encoder(record)
    told = [{"role": "user", "content": ASKED[0].content}]
    seen = own.apply_chat_template(told, add_generation_prompt=True, tokenize=True)["input_ids"]
    assert found.prompt == list(seen) == encoder.prompt(ASKED)
    for answer, text in zip(found.answers, (record.chosen, record.rejected), strict=True):
        whole = own.apply_chat_template([*told, {"role": "assistant", "content": text}], tokenize=True)["input_ids"]
        ids = found.prompt + answer
        assert list(whole)[: len(ids)] == ids
        assert not own.decode(list(whole)[len(ids) :]).strip()  # a line end at most, which is never generated
        assert answer[-1] == ends(own, END[name])
        assert answer.count(answer[-1]) == 1
        assert own.decode(answer[:-1]).strip() == text
    assert encoder.ends == sorted({ends(own, "</s>"), ends(own, END[name])})
    assert encoder.report.sentences() == []
    assert encoder.report.records == 1


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma"])
def test_no_second_bos(name):
    own = tokenizer(name)
    told = [{"role": "user", "content": ASKED[0].content}]
    naive = own(own.apply_chat_template(told, add_generation_prompt=True, tokenize=False))["input_ids"]
    assert list(naive[:2]) == [own.bos_token_id] * 2  # what goes wrong: text with a BOS, tokenised with another
    assert Encoder(own, 200)(pair()).prompt.count(own.bos_token_id) == 1
    twice = Encoder(own, 200, template="<s>" + TEMPLATES[name])  # a template that is wrong itself
    assert twice(pair()).prompt.count(own.bos_token_id) == 1
    assert twice.report.sentences() == ["1 second BOS was left out"]


def test_plain_text_gets_what_the_tokenizer_puts_before_it_and_nothing_behind():
    own = tokenizer("llama")
    inner = own.backend_tokenizer
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(mark, inner.token_to_id(mark)) for mark in ("<s>", "</s>")]
    )
    prompt, answer = "is the sky blue?", " yes"
    assert own(prompt)["input_ids"][-1] == own.eos_token_id  # what goes wrong: the prompt has ended
    encoder = Encoder(own, 100)
    found = encoder(Preference(prompt, answer, " no"))
    assert found.prompt == [own.bos_token_id, *ids_of(own, prompt)]
    assert found.answers[0] == [*ids_of(own, answer), own.eos_token_id]
    marked = encoder(Preference("<s>" + prompt, answer, " no"))
    assert marked.prompt == found.prompt
    assert encoder.report.second_bos == 1


def test_the_template_is_for_conversations_unless_asked():
    own = tokenizer("chatml")
    plain = Preference("is the sky blue?", "yes", "no")
    assert ends(own, "<|im_start|>") not in Encoder(own, 100)(plain).prompt
    asked = Encoder(own, 100, chat=True)
    assert asked(plain) == Encoder(own, 100)(Preference(ASKED, "yes", "no"))
    assert asked.prompt("is the sky blue?") == asked(plain).prompt


def test_a_template_applied_before_is_spoken_of():
    own = tokenizer("chatml")
    encoder = Encoder(own, 200)
    twice = encoder.template.prompt(ASKED, False)
    encoder(pair(prompt=[user(twice)]))
    assert encoder.report.marked == 1
    assert "was a template applied before?" in encoder.report.sentences()[0]


def test_the_end_stands_once():
    own = tokenizer("llama")
    for answer in ("yes", "yes</s>", "yes</s></s>"):
        encoder = Encoder(own, 100)
        found = encoder(Rated("is the sky blue?", answer))
        assert found.answers[0] == [*ids_of(own, "yes"), own.eos_token_id]
        assert encoder.report.inner_ends == 0
    naive = [*ids_of(own, "yes</s>"), own.eos_token_id]
    assert naive.count(own.eos_token_id) == 2  # what goes wrong
    found = encoder(Rated(ASKED, "yes<|eot|>"))
    assert found.answers[0] == [*ids_of(own, "yes"), ends(own, "<|eot|>")]
    encoder(Rated("is the sky blue?", "yes</s>no"))
    assert encoder.report.sentences()[-1] == "1 answer holds an end of turn within"


def test_a_prompt_that_answers_say_again_is_told_of():
    encoder = Encoder(tokenizer(), 200)
    encoder(Preference("is the sky blue? ", "is the sky blue? yes", "is the sky blue? no"))
    encoder(Preference("is the sky blue? ", "is the sky blue? yes", "no"))
    encoder(Preference("", "yes", "no"))
    assert encoder.report.repeated == 1
    assert "1 record's answers begin with its whole prompt" in encoder.report.sentences()[-1]


def test_a_real_end_is_kept_where_eos_is_the_padding():
    own = tokenizer(pad_token="</s>")
    encoder = Encoder(own, 100)
    ids, mask = encoder(Rated("is the sky blue?", "yes")).sequence(0)
    assert ids[-1] == encoder.pad == own.eos_token_id
    assert mask[-1]
    assert mask == [False] * (len(ids) - 1 - len(ids_of(own, "yes"))) + [True] * (1 + len(ids_of(own, "yes")))
    naive = [token != own.pad_token_id for token in ids]
    assert not naive[-1]  # what goes wrong: a mask made of ids, and no model learns to stop
    without = Encoder(tokenizer(pad_token=None), 100)
    assert without.pad == without.eos
    assert without.report.sentences() == [
        "the tokenizer has no padding token: EOS fills up, and counts only within answers"
    ]


def test_a_token_may_not_span_the_border():
    own = tokenizer(bos=False)
    prompt, answer = "the gr", "ass is green"
    alone, whole = ids_of(own, prompt), ids_of(own, prompt + answer)
    assert whole[: len(alone)] != alone  # what goes wrong: cut at len(alone), the answer loses its beginning
    encoder = Encoder(own, 100)
    found = encoder(Rated(prompt, answer))
    assert found.prompt == alone == encoder.prompt(prompt)
    assert own.decode(found.answers[0][:-1]) == answer
    assert encoder.report.sentences() == ["1 answer would share a token with its prompt"]
    # Where nothing spans it, the tokens are those of the whole.
    natural = Encoder(own, 100)(Rated("the grass", " is green"))
    assert natural.prompt + natural.answers[0] == [*ids_of(own, "the grass is green"), own.eos_token_id]


def test_a_space_that_a_tokenizer_puts_before_a_text_is_not_the_answers():
    own = tokenizer(bos=False, prefix=True)
    prompt, answer = "the gr", "ass is green"
    assert own.decode(ids_of(own, answer)) == " ass is green"  # what goes wrong
    found = Encoder(own, 100)(Rated(prompt, answer))
    assert own.decode(found.answers[0][:-1]) == answer


def test_a_template_without_generation_prompt():
    own = tokenizer(BARE)
    encoder = Encoder(own, 200)
    found = encoder(pair())
    frame = ids_of(own, "<|im_start|>assistant\n")
    assert found.prompt[-len(frame) :] == frame
    assert own.decode(found.answers[0]) == "yes, the sky is blue.<|im_end|>"
    assert found == Encoder(tokenizer("chatml"), 200)(pair())
    assert encoder.report.sentences() == [
        "the template has no generation prompt: prompts end with '<|im_start|>assistant\\n'"
    ]


def test_a_conversation_that_does_not_go_on_from_the_generation_prompt():
    own = tokenizer(OPENS)
    encoder = Encoder(own, 200)
    found = encoder(pair())
    told = own.apply_chat_template(
        [{"role": "user", "content": ASKED[0].content}], add_generation_prompt=True, tokenize=False
    )
    assert own.decode(found.prompt) == told.removesuffix("<think>\n")
    whole = own.decode(found.prompt + found.answers[1])
    assert whole == own.decode(found.prompt) + "the grass is green<|im_end|>"
    assert encoder.report.parted == 2
    # What goes wrong: cut where the prompt's tokens end, and the answer has lost its beginning.
    cut = own.decode((found.prompt + found.answers[0])[len(ids_of(own, told)) :])
    assert not cut.startswith("yes")


def test_templates_that_change_answers_are_spoken_of():
    encoder = Encoder(tokenizer("gemma"), 200)
    assert encoder.tokenizer.decode(encoder(Rated(ASKED, "yes \n")).answers[0]) == "yes</turn>"
    assert encoder.report.changed == 1
    forgets = Encoder(tokenizer(FORGETS), 200)
    found = forgets(Rated(ASKED, "<think>is it?</think>yes"))
    assert forgets.tokenizer.decode(found.answers[0]) == "yes<|im_end|>"
    assert "takes out thoughts" in forgets.report.sentences()[0]
    with pytest.raises(RecordError, match="leaves nothing of an answer"):
        forgets(Rated(ASKED, "<think>is it?</think>"))
    with pytest.raises(RecordError, match="answers 1 and 2 are the same in tokens"):
        encoder(Preference(ASKED, "yes", "yes "))
    assert encoder.report.refused == 1


def test_a_template_without_an_end_of_turn_gets_eos():
    own = tokenizer(PLAIN)
    found = Encoder(own, 100)(Rated(ASKED, "yes"))
    assert own.decode(found.prompt) == "user: is the sky blue?\nassistant:"
    assert found.answers[0] == [*ids_of(own, " yes"), own.eos_token_id]


def test_what_a_template_writes_before_the_end_of_turn_is_the_answers():
    for template, end in (
        (TEMPLATES["chatml"].replace("}}<|im_end|>", "}} .<|im_end|>"), "<|im_end|>"),
        (PLAIN, "</s>"),
    ):
        own = tokenizer(template.replace("m.content }}\n", "m.content }} .\n"))
        found = Encoder(own, 100)(Rated(ASKED, "yes"))
        assert own.decode(found.answers[0]).strip() == f"yes .{end}"


def test_an_answer_that_continues_a_message():
    own = tokenizer("chatml")
    encoder = Encoder(own, 100)
    found = encoder(Preference([*ASKED, assistant("yes, the")], " sky is blue.", " grass.", continues=True))
    assert own.decode(found.prompt).endswith("<|im_start|>assistant\nyes, the")
    assert own.decode(found.answers[0]) == " sky is blue.<|im_end|>"
    assert encoder.prompt([*ASKED, assistant("yes, the")], continues=True) == found.prompt


def numbered(own, prompt, answer, letter="the"):
    return Rated(" ".join([letter] * prompt), " ".join(["", *[letter] * answer]))


def test_the_prompt_gives_way_and_the_answer_does_not():
    own = tokenizer()
    word = ids_of(own, " the")
    assert len(word) == 1
    encoder = Encoder(own, 20)
    found = encoder(numbered(own, 15, 9))  # 1 + 15 + 9 + 1: six too many
    assert (len(found.prompt), len(found.answers[0])) == (10, 10)
    assert found.prompt == [own.bos_token_id, *word * 9]
    assert found.answers[0] == [*word * 9, own.eos_token_id]
    assert (encoder.report.prompts_cut, encoder.report.prompt_tokens_cut) == (1, 6)
    # What goes wrong: prompt and answer in one, cut on the right, and most of the answer is gone.
    whole = [*encoder.prompt(" ".join(["the"] * 19)), *found.answers[0]][:20]
    assert own.eos_token_id not in whole
    assert encoder.report.sentences() == [
        "1 prompt was cut on its left",
        "6 tokens of prompts and 0 of answers were cut",
    ]


def test_below_half_of_the_limit_the_answer_gives_way_and_loses_its_end():
    own = tokenizer()
    encoder = Encoder(own, 20)
    found = encoder(numbered(own, 15, 40))
    assert (len(found.prompt), len(found.answers[0])) == (10, 10)
    assert own.eos_token_id not in found.answers[0]
    assert (encoder.report.answers_cut, encoder.report.answer_tokens_cut) == (1, 31)
    short = encoder(numbered(own, 3, 40))
    assert (len(short.prompt), len(short.answers[0])) == (4, 16)
    limited = Encoder(own, 20, answer_limit=5)(numbered(own, 12, 40))
    assert (len(limited.prompt), len(limited.answers[0])) == (13, 5)


def test_a_prompt_without_room_for_an_answer_is_refused_with_its_row():
    own = tokenizer()
    encoder = Encoder(own, 20)
    good, bad = numbered(own, 3, 3), numbered(own, 30, 3)
    bad.id = "b7"
    with pytest.raises(LogError, match=r"record 2 \(id 'b7'\): the prompt has 31 tokens and leaves no room"):
        list(encoder.each([good, bad], encoder))
    bad.id = None
    with pytest.raises(LogError, match=r"record 1 \(prompt 'the the .*\.\.\.\): the prompt has 31 tokens"):
        list(encoder.each([bad], encoder))
    encoder = Encoder(own, 20)
    assert len(list(encoder.each([good, bad, good], encoder, skip_bad_rows=1))) == 2
    assert encoder.report.records == 2
    assert encoder.report.sentences()[0].startswith("1 bad row was skipped; the first: record 2")
    cut = Encoder(own, 20, prompt_limit=6)(bad)
    assert (len(cut.prompt), cut.prompt[0]) == (6, own.bos_token_id)
    assert len(cut.answers[0]) == 4


def test_a_question_that_the_template_does_not_take_is_refused_with_its_row():
    encoder = Encoder(tokenizer("mistral"), 100)
    good, bad = Rated(ASKED, "yes"), Rated([system("be brief"), *ASKED], "yes", id="b7")

    def asked(record, name):
        return encoder.asked(record.prompt, record.continues, name)

    said = r"record 2 \(id 'b7'\): the chat template takes no such conversation: Only user"
    with pytest.raises(LogError, match=said):
        list(encoder.each([good, bad], asked))
    assert list(encoder.each([good, bad, good], asked, skip_bad_rows=1)) == [encoder.prompt(ASKED)] * 2
    assert encoder.report.notes[-1].startswith(
        "1 bad row was skipped; the first: record 2 (id 'b7'): the chat template"
    )
    with pytest.raises(RecordError, match="the record: the chat template takes no such conversation"):
        encoder.asked(bad.prompt)


def test_answers_that_differ_only_where_they_are_cut_are_refused():
    own = tokenizer()
    long = " the" * 12
    with pytest.raises(RecordError, match="answers 1 and 2 are the same once they are cut to 5 tokens"):
        Encoder(own, 30, answer_limit=5)(Preference("is", long + " sky", long + " grass"))
    found = Encoder(own, 30)(Preference("is", long + " sky", long + " grass"))
    assert found.answers[0] != found.answers[1]


def test_all_answers_of_a_ranking_share_the_prompt_that_the_longest_leaves():
    own = tokenizer()
    encoder = Encoder(own, 20)
    found = encoder(Ranked(" ".join(["the"] * 15), [" sky", " the" * 8, " grass"]))
    assert [len(answer) for answer in found.answers] == [2, 9, 2]
    assert len(found.prompt) == 11
    assert all(answer[-1] == own.eos_token_id for answer in found.answers)


def test_a_prompt_without_a_token_is_refused():
    with pytest.raises(RecordError, match="the prompt has no token"):
        Encoder(tokenizer(bos=False), 20)(Rated("", "yes"))
    assert Encoder(tokenizer(), 20)(Rated("", "yes")).prompt == [tokenizer().bos_token_id]


def test_an_answer_that_is_only_an_end_is_refused():
    encoder = Encoder(tokenizer("chatml"), 20)
    for prompt, answer in (("is", "</s>"), (ASKED, "<|im_end|>")):
        with pytest.raises(RecordError, match="an answer has no token but its end"):
            encoder(Rated(prompt, answer))


def test_what_a_tokenizer_lacks_is_said():
    with pytest.raises(ValueError, match="no EOS token"):
        Encoder(tokenizer(eos_token=None), 20)
    encoder = Encoder(tokenizer(), 100)
    with pytest.raises(ValueError, match="no chat template, and the data are conversations"):
        encoder(pair())
    with pytest.raises(ValueError, match="a chat template is asked for, for plain prompts, and the tokenizer has none"):
        Encoder(tokenizer(), 100, chat=True)
    given = Encoder(tokenizer(), 100, template=TEMPLATES["chatml"])
    assert given(pair()) == Encoder(tokenizer("chatml"), 100)(pair())
    with pytest.raises(RecordError, match="no such conversation: Only user and assistant roles"):
        Encoder(tokenizer("mistral"), 100)(pair(prompt=[system("be brief"), *ASKED]))
    with pytest.raises(ValueError, match="does not write what the assistant says"):
        Encoder(tokenizer("{% for m in messages %}{{ m.role }}{% endfor %}"), 20)


@pytest.mark.parametrize(("limits", "words"), [
    ((1,), "limit must be 2 or more, not 1"),
    ((20, 20), "prompt_limit must be below the limit of 20"),
    ((20, 0), "prompt_limit must be 1 or more, not 0"),
    ((20, None, 0), "answer_limit must be 1 or more, not 0"),
])  # fmt: skip
def test_limits_that_make_no_sense(limits, words):
    names = ("limit", "prompt_limit", "answer_limit")
    with pytest.raises(ValueError, match=words):
        Encoder(tokenizer(), **dict(zip(names, limits, strict=False)))


def test_smollm2(smollm2):
    own = transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    encoder = Encoder(own, 200)
    found = encoder(pair())
    assert isinstance(found, Encoded)
    told = [{"role": "user", "content": ASKED[0].content}]
    assert found.prompt == list(own.apply_chat_template(told, add_generation_prompt=True, tokenize=True)["input_ids"])
    assert own.decode(found.prompt).endswith("<|im_start|>assistant\n")
    assert own.decode(found.answers[0]) == "yes, the sky is blue.<|im_end|>"
    assert own.decode([found.answers[0][-1]]) == "<|im_end|>"
    assert encoder.report.second_bos == encoder.report.merged == encoder.report.parted == 0


def test_of_two_marks_behind_an_answer_the_first_ends_the_turn():
    own = tokenizer(TEMPLATES["chatml"].replace("}}<|im_end|>", "}}<|im_end|></s>"))
    assert own.decode(Encoder(own, 100)(Rated(ASKED, "yes")).answers[0]) == "yes<|im_end|>"
