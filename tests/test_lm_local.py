"""A language model on this machine: a tiny one with random weights, made here; its tokens are words."""

import math

import pytest

from backchannel.lm import local
from backchannel.lm.budget import Budget
from backchannel.lm.local import SMOLLM2, Local, load_gguf, shares, smollm2, smollm2_file
from backchannel.lm.protocol import LanguageModel, system, user, wait

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

WORDS = ["<end>", "a", "b", "c", "d", "red", "green", "blue", "user", "assistant", "system", ":", "?"]
TEMPLATE = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}assistant :"


@pytest.fixture(scope="module")
def lm():
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = transformers.LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=128,
            initializer_range=0.7,
            bos_token_id=0,
            eos_token_id=0,
        )
        model = transformers.LlamaForCausalLM(config)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<end>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", chat_template=TEMPLATE)
    return Local(model, tokenizer, "tiny")


def plain(lm, tokens):
    """Log-probabilities after each token, in one pass without a cache."""
    with torch.inference_mode():
        return torch.log_softmax(lm.model(torch.tensor([tokens])).logits[0], 1)


def test_it_is_a_language_model_that_a_budget_can_meter(lm):
    assert isinstance(lm, LanguageModel)
    budget = Budget()
    reply = wait(budget.meter(lm).complete([user("a b")], max_tokens=5))
    assert budget.spent.tokens == reply.tokens_in + reply.tokens_out
    assert reply.tokens_in == 6  # user : a b assistant :


def test_greedy_answers_are_the_likeliest_tokens_whatever_was_asked_before(lm):
    prompts = [[user("a b c")], [user("a b d ?")], [system("red"), user("a")], [user("a b c")]]
    for messages in prompts:
        tokens, expected = lm.tokens(messages), []
        for _ in range(6):
            following = int(plain(lm, tokens + expected)[-1].argmax())
            if following == 0:
                break
            expected.append(following)
        reply = wait(lm.complete(messages, max_tokens=6))
        assert reply.text == " ".join(WORDS[i] for i in expected)
        assert reply.ended == ("stop" if len(expected) < 6 else "length")


def test_scores_are_the_log_probabilities_of_whole_answers(lm):
    messages = [user("a ? b")]
    answers = ["red", "green blue", "green blue red", "red"]
    prompt = lm.tokens(messages)
    for text, found in zip(answers, lm.score(messages, answers), strict=True):
        tokens = [WORDS.index(word) for word in text.split()]
        logs = plain(lm, prompt + tokens)
        expected = sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(tokens))
        assert found == pytest.approx(expected, abs=1e-4)


def test_samples_repeat_with_their_seed_and_follow_the_probabilities(lm):
    messages = [user("a")]
    first = [wait(lm.complete(messages, max_tokens=1, temperature=1.0, seed=i)) for i in range(400)]
    again = [wait(lm.complete(messages, max_tokens=1, temperature=1.0, seed=i)) for i in range(20)]
    assert first[:20] == again
    logs = plain(lm, lm.tokens(messages))[-1].exp().numpy()
    for i, word in enumerate(WORDS[1:], 1):
        share = sum(reply.text == word for reply in first) / 400
        # Five standard errors of a binomial share: below 1e-5 in all twelve.
        assert abs(share - logs[i]) <= 5 * math.sqrt(logs[i] * (1 - logs[i]) / 400) + 0.005


def test_a_stop_text_ends_the_answer_and_is_left_out(lm):
    replies = [wait(lm.complete([user("a b c")], max_tokens=8, temperature=2.0, seed=i)) for i in range(30)]
    seed, whole = next((i, reply.text.split()) for i, reply in enumerate(replies) if len(set(reply.text.split())) > 4)
    cut = wait(lm.complete([user("a b c")], max_tokens=8, temperature=2.0, seed=seed, stop=[whole[-1]]))
    assert cut.text.split() == whole[: whole.index(whole[-1])]
    assert cut.ended == "stop"
    assert cut.tokens_out == whole.index(whole[-1]) + 1


def test_only_what_is_new_is_computed(lm):
    read = []
    hook = lm.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    lm.score([user("a b c d")], ["red"])
    read.clear()
    lm.score([user("a b c d a")], ["red", "blue"])
    hook.remove()
    assert read == [3]  # a, assistant, ":"; one look at the prompt serves all answers of one token


def test_answers_without_tokens_and_files_that_are_not_there(lm, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="token"):
        lm.score([user("a")], [""])
    with pytest.raises(ValueError, match="GGUF"):
        load_gguf(tmp_path / "none.gguf")
    monkeypatch.setenv(SMOLLM2, str(tmp_path / "none.gguf"))
    with pytest.raises(ValueError, match="GGUF"):
        smollm2()


def test_where_the_file_of_smollm2_is(monkeypatch, tmp_path):
    monkeypatch.delenv(SMOLLM2, raising=False)
    monkeypatch.setattr(local, "PACKAGE", "no_package_of_this_name")
    assert smollm2_file() is None
    assert smollm2() is None
    (tmp_path / "made_up_weights.py").touch()
    monkeypatch.setattr(local, "PACKAGE", "made_up_weights")
    monkeypatch.syspath_prepend(tmp_path)
    assert smollm2_file() == tmp_path / local.FILE
    monkeypatch.setenv(SMOLLM2, "elsewhere.gguf")
    assert str(smollm2_file()) == "elsewhere.gguf"


def test_a_prompt_without_a_template_is_the_texts_of_its_messages(lm):
    bare = transformers.PreTrainedTokenizerFast(
        tokenizer_object=lm.tokenizer.backend_tokenizer, eos_token="<end>", chat_template=None
    )
    assert Local(lm.model, bare, "bare").tokens([system("a"), user("b c")]) == [1, 2, 3]


def test_shares_sum_to_one():
    assert shares([-1000.0, -1000.0 + math.log(3)]) == pytest.approx([0.25, 0.75])
