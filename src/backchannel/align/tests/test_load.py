"""Loading: each sort of model in its own place, from any folder that `align` wrote; and reward models as judges."""

import json
import warnings

import pytest

torch = pytest.importorskip("torch", reason="models are torch's")
pytest.importorskip("peft", reason="adapters are those of peft")

from backchannel.align.examples import Example  # noqa: E402
from backchannel.align.judges import tried  # noqa: E402
from backchannel.align.load import check_tokenizer, how_used, load_model, load_rewards, note_use  # noqa: E402
from backchannel.align.result import Settings  # noqa: E402
from backchannel.align.rewards import RewardJudge, reward_scores  # noqa: E402
from backchannel.align.start import ready  # noqa: E402
from backchannel.align.tune import tune  # noqa: E402
from backchannel.lm.protocol import user  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.testing.small_models import small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`", "ignore:.*pin_memory")
torch.set_num_threads(1)
TEMPLATE = "{% for m in messages %}{{ m.role == 'user' and 'w0 ' or 'w1 ' }}{{ m.content }} {% endfor %}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Models of each sort, whole and as adapters."""
    folder = tmp_path_factory.mktemp("models")
    for name, rewards in (("words", False), ("scores", True)):
        small_llama(rewards=rewards).save_pretrained(folder / name)
        word_tokenizer(TEMPLATE).save_pretrained(folder / name)
        base, _ = load_model(str(folder / "words"), rewards=rewards)
        adapted = ready(base, Settings(lora=2), rewards=rewards)
        adapted.save_pretrained(str(folder / f"{name} adapter" / "model"))
        word_tokenizer(TEMPLATE).save_pretrained(folder / f"{name} adapter" / "model")
    return folder


def test_each_sort_is_refused_in_the_place_of_the_other(place):
    for name, rewards, said in [
        ("scores", False, "holds a reward model, which writes no answers"),
        ("scores adapter", False, "holds the adapter of a reward model, which writes no answers"),
        ("words adapter", True, "holds the adapter of a language model, and that of a reward model is needed"),
    ]:
        with pytest.raises(ValueError, match=said):
            load_model(str(place / name), rewards=rewards)
    assert load_model(str(place / "words"), rewards=True)[0].score.weight.shape == (1, 32)  # to be trained


def test_a_new_head_is_the_same_each_time_so_that_its_training_can_be_resumed(place):
    torch.manual_seed(1)
    first, _ = load_model(str(place / "words"), rewards=True)
    then = torch.rand(3)
    torch.manual_seed(1)
    torch.testing.assert_close(torch.rand(3), then, rtol=0, atol=0)  # no other random number is changed by it
    again, _ = load_model(str(place / "words"), rewards=True)
    assert first.score.weight.any()
    assert torch.equal(first.score.weight, again.score.weight)


def test_a_judge_is_a_trained_reward_model(place, tmp_path):
    with pytest.raises(ValueError, match=r"words holds a language model, without a reward model's head \(`align"):
        load_rewards(place / "words")
    with pytest.raises(ValueError, match="holds the adapter of a language model"):
        RewardJudge(place / "words adapter")
    two = small_llama(rewards=True, num_labels=2)
    two.save_pretrained(tmp_path / "two")
    word_tokenizer().save_pretrained(tmp_path / "two")
    with pytest.raises(ValueError, match=r"a head of one output, and that of .*two has 2"):
        RewardJudge(tmp_path / "two")
    small_llama().save_pretrained(tmp_path / "bare")
    word_tokenizer().save_pretrained(tmp_path / "bare")
    config = json.loads((tmp_path / "bare" / "config.json").read_text())
    changed = config | {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    (tmp_path / "bare" / "config.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"the weights in .*bare are without a reward model's head"):
        RewardJudge(tmp_path / "bare")


def test_the_folder_of_a_run_and_the_model_within_are_one(place):
    outer, inner = (RewardJudge(place / "scores adapter" / each) for each in ("", "model"))
    pair = ["w1 w2"], ["w3"], ["w4 w5"]
    assert outer(*pair) == inner(*pair)
    assert outer(*pair).scores is not None
    model, _ = load_model(str(place / "words adapter"))
    assert any("lora" in name for name, _ in model.named_parameters())


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    small_llama(vocab_size=20).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"tokens up to number 32, and .* has embeddings up to 19: is it"):
        load_model(str(tmp_path))
    with pytest.raises(ValueError, match="tokens up to number 32, and the model has embeddings up to 19"):
        tune(small_llama(vocab_size=20), word_tokenizer(), word_pairs(10), dpo(0.1), tmp_path / "out")
    small_llama().save_pretrained(tmp_path)
    added = word_tokenizer()
    added.add_special_tokens({"additional_special_tokens": ["<image>"]})
    added.save_pretrained(tmp_path)
    assert len(load_model(str(tmp_path))[1]) == 34  # one that no text holds does no harm
    added.add_special_tokens({"eos_token": "<end>"})
    added.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"tokens up to number 34, and .* has embeddings up to 32"):
        load_model(str(tmp_path))
    bare = word_tokenizer()
    bare.bos_token = bare.eos_token = None
    check_tokenizer(small_llama(), bare)


def test_an_adapter_is_loaded_without_a_warning(place):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        load_model(str(place / "words adapter"))
    assert not [each for each in heard if "is_gradient_checkpointing" in str(each.message)]


def test_what_is_no_model_is_said_in_a_whole_sentence(place, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no model: config\.json or adapter_config\.json should be there"):
        load_model(str(tmp_path / "empty"))
    small_llama().save_pretrained(tmp_path / "untold")
    with pytest.raises(ValueError, match=r"no model could be loaded from .*untold: .*\w$"):
        load_model(str(tmp_path / "untold"))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "empty" / name).write_bytes((place / "words" / name).read_bytes())
    (tmp_path / "empty" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"no model could be loaded from .*empty: "):
        load_model(str(tmp_path / "empty"))


def test_a_reward_model_reads_what_it_was_trained_on(place, tmp_path):
    small_llama(rewards=True).save_pretrained(tmp_path)
    word_tokenizer(TEMPLATE).save_pretrained(tmp_path)
    plain = RewardJudge(tmp_path)
    assert how_used(tmp_path) == {}
    note_use(tmp_path, chat=True)
    chat = RewardJudge(tmp_path)
    pair = ["w4 w5"], ["w6"], ["w7 w8"]
    assert chat(*pair) != plain(*pair)
    assert chat(*pair) == chat([[user("w4 w5")]], *pair[1:]) == plain([[user("w4 w5")]], *pair[1:])


def test_long_prompts_are_cut_to_what_a_reward_model_reads(place):
    judge = RewardJudge(place / "scores")
    long = " ".join(f"w{i % 30}" for i in range(200))
    verdict = judge([long], ["w1 w2"], ["w3"])
    assert verdict.wins[0] in (0.0, 1.0)
    assert judge.notes == ["the reward model read some answers cut to its limit"]
    ids = judge.encoder.tokenizer(f"{long} w1 w2 <eos>")["input_ids"][-64:]
    with torch.no_grad():
        hidden = judge.model.model(torch.tensor([ids]))[0][0, -1]
        assert verdict.scores[0][0] == pytest.approx(float(judge.model.score(hidden)), abs=1e-5)
    assert judge(["w1"], ["  "], ["w3"]) == ([None], [None])
    tried(RewardJudge(place / "scores"), "rewards", ["w1"], ["  "])  # an empty answer is no fault of the judge
    assert RewardJudge(place / "scores")(["w1"], ["w2"], ["w3"]).wins[0] is not None


def test_the_head_of_a_model_that_classifies_has_one_output():
    model = small_llama(rewards=True, num_labels=2)
    with pytest.raises(ValueError, match="this one has 2"):
        reward_scores(model, [Example(None, [3], [[4]], {})])
