"""A classifier asked of texts: `minitinybert.Classifier`, against the model's own forward pass, worked out by hand."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small_mlm

from minitinybert import Answer, Bert, Classifier, Config, InputError, predict

TEXTS = ["the film is good", "a very dull story of love and war, it was", "", "she"]
PAIRS = [("the film is good", "it was dull"), ("war", "the plot and the story of a film")]


def make(directory, labels=("no", "yes", "perhaps"), **more):
    """A saved classifier of random weights, large enough for what it says to depend on the text."""
    directory.mkdir(parents=True)
    small_mlm.tokenizer(directory / "vocabulary")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.5}
    names = {"vocab_size": len(small_mlm.PIECES), "id2label": dict(enumerate(labels)), "max_position_embeddings": 64}
    config = Config(**{"head": "classifier", "pooler": True, **names, **sizes, **more})
    made = Bert.new(config, 3)
    made.tokenizer_files = {"vocab.txt": directory / "vocabulary" / "vocab.txt"}
    made.save(directory / "model")
    return str(directory / "model")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make(tmp_path_factory.mktemp("texts") / "made")


@pytest.fixture(scope="module")
def classify(model):
    return Classifier(model, threads=2)


def ids_of(model, text):
    """[CLS] A [SEP], or [CLS] A [SEP] B [SEP], by hand: whole words and marks are pieces of their own."""
    halves = [text] if isinstance(text, str) else text
    words = [half.replace(",", " ,").split() for half in halves]
    pieces = ["[CLS]", *(piece for own in words for piece in [*own, "[SEP]"])]
    types = [0] * (len(words[0]) + 2) + [1] * (len(pieces) - len(words[0]) - 2)
    return pieces, np.array([[small_mlm.PIECES.index(piece) for piece in pieces]]), np.array([types])


@pytest.mark.parametrize("texts", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_answers_are_the_model_s(classify, model, texts):
    own = Bert.load(model)
    logits, answers = classify.logits(texts), classify(texts)
    assert logits.shape == (len(texts), 3) and logits.dtype == np.float32 and classify.labels == ["no", "yes", "perhaps"]
    for text, row, answer in zip(texts, logits, answers, strict=True):
        pieces, ids, types = ids_of(model, text)
        trace, _ = own.forward(ids, token_type_ids=types)
        np.testing.assert_allclose(row, trace.logits[0], rtol=1e-4, atol=1e-5)
        shares = np.exp(trace.logits[0].astype(float))
        shares /= shares.sum()
        np.testing.assert_allclose(list(answer.probabilities.values()), shares, rtol=1e-4)
        assert (answer.label, answer.labels) == (classify.labels[shares.argmax()], (classify.labels[shares.argmax()],))
        assert answer.probability == max(answer.probabilities.values()) and answer.score is None and answer.text == text
        assert classify.tokens(text) == pieces
        seen = classify.attentions(text)
        assert seen.shape == (2, 2, len(pieces), len(pieces))
        for maps, scores in zip(seen, trace.scores, strict=True):
            weights = np.exp(scores[0].astype(float))
            np.testing.assert_allclose(maps, weights / weights.sum(axis=-1, keepdims=True), rtol=1e-4, atol=1e-6)
    assert np.ptp(logits, axis=0).min() > 0.01  # it does depend on the text


def test_a_trace_of_several_texts_is_each_one_s_padded_behind(classify):
    together = classify.trace(TEXTS)
    lengths = [len(classify.tokens(text)) for text in TEXTS]
    assert len(together.hidden) == 3 and together.hidden[2].shape == (4, max(lengths), 24)
    assert [scores.shape for scores in together.scores] == [(4, 2, max(lengths), max(lengths))] * 2
    for i, (text, length) in enumerate(zip(TEXTS, lengths, strict=True)):
        alone = classify.trace([text])
        for all_, one in zip([*together.hidden, together.embedding], [*alone.hidden, alone.embedding], strict=True):
            np.testing.assert_allclose(all_[i, :length], one[0], rtol=1e-3, atol=1e-4)
        for all_, one in zip(together.scores, alone.scores, strict=True):
            np.testing.assert_allclose(all_[i, :, :length, :length], one[0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(together.pooled[i], alone.pooled[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(together.logits[i], classify.logits(text)[0], rtol=1e-3, atol=1e-4)


def test_what_is_a_text(classify, monkeypatch):
    """A string alone is one text; so is whatever gives strings. The model is not loaded again."""
    monkeypatch.setattr(Bert, "load", None)
    one = classify("the film is good")
    assert len(one) == 1 and one == classify(["the film is good"]) == classify(iter(np.array(["the film is good"])))
    assert classify([["war", "love"]]) == classify([("war", "love")]) != classify(["war", "love"])
    assert classify([]) == [] and classify.logits([]).shape == (0, 3)
    assert classify(["the ||| film"])[0].text == "the ||| film"  # bars divide a pair on the command line alone
    many = classify(TEXTS * 50)
    assert [answer.label for answer in many] == [answer.label for answer in classify(TEXTS)] * 50
    with ThreadPoolExecutor(4) as pool:
        assert len(set(map(repr, pool.map(classify, ["the film is good"] * 20)))) == 1


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["a", ("b", "c")], "some texts are pairs and some are not"),
        (["a", None], "text 1 is None; a string is needed"),
        ([("a", "b", "c")], "text 0 is ('a', 'b', 'c'); a string is needed, or for a pair a tuple of two"),
        ([b"a"], "text 0 is b'a'"),
        ([float("nan")], "text 0 is nan"),
        (3, "3: a list of texts is needed"),
        (None, "None: a list of texts is needed"),
        (["\udce9"], "not valid Unicode"),
    ],
)
def test_what_is_none_is_refused_in_a_line(classify, texts, says):
    for ask in (classify, classify.logits, classify.trace):
        with pytest.raises(InputError) as error:
            ask(texts)
        assert says in str(error.value)


def test_a_multi_label_model_and_a_regression(tmp_path):
    several = Classifier(make(tmp_path / "several", problem_type="multi_label_classification"))
    for z, answer in zip(several.logits(TEXTS), several(TEXTS), strict=True):
        shares = 1 / (1 + np.exp(-z.astype(float)))
        np.testing.assert_allclose(list(answer.probabilities.values()), shares, rtol=1e-6)
        assert answer.labels == tuple(np.array(several.labels)[z > 0]) and answer.label == several.labels[z.argmax()]
    number = Classifier(make(tmp_path / "number", labels=["score"]))
    answers = number(TEXTS)
    assert [answer.score for answer in answers] == number.logits(TEXTS)[:, 0].tolist()
    assert {(answer.label, answer.probability, len(answer.probabilities)) for answer in answers} == {(None, None, 0)}
    assert repr(answers[0]) == f"Answer(score={answers[0].score:.4f})" and "a number" in repr(number)


def test_other_models_are_refused_with_who_asks_them(tmp_path):
    words = make(tmp_path / "words", head="tokens", pooler=False)
    with pytest.raises(InputError, match="a model of tokens, not of whole texts; ask it by minitinybert.predict$"):
        Classifier(words)
    (answer,) = predict(model=words, text="the film", max_length=16).answers
    assert answer["words"] == ["the", "film"]
    with pytest.raises(InputError, match="has no classifier; fine-tune or distil it"):
        Classifier(make(tmp_path / "none", head="none"))
    with pytest.raises(InputError, match=r"^max_length=65: a number from 3 to the model's 64 positions$"):
        Classifier(make(tmp_path / "short"), max_length=65)
    with pytest.raises(InputError, match=r"^device=tpu: choose cpu, cuda or cuda:N$"):
        Classifier(tmp_path / "short" / "model", device="tpu")


def test_texts_are_cut_to_max_length(model):
    short = Classifier(model, max_length=4)
    assert short.tokens("the film is good") == ["[CLS]", "the", "film", "[SEP]"]
    assert repr(short("the film is good")) == repr(short("the film"))


def test_how_it_is_shown(classify, model):
    assert repr(classify) == f"Classifier('{model}': label no, yes, perhaps; 2L-24D-2H-32F)"
    assert repr(Answer("yes", 0.75, {"no": 0.25, "yes": 0.75})) == "Answer('yes', 0.7500, {'no': 0.2500, 'yes': 0.7500})"
