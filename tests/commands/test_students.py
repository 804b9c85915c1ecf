"""What a model starts from where there is no checkpoint of it."""

import json

import numpy as np
import pytest

from minitinybert.commands.classifiers import load_student
from minitinybert.commands.students import is_checkpoint, is_of_teacher, maps_at_start, maps_from, new_student, random_model
from minitinybert.data.batching import EncodedExamples
from minitinybert.data.glue import TASKS
from minitinybert.distillation.recipes import DEFAULT, RECIPES, Recipe
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "good"]


@pytest.fixture
def teacher():
    model = Bert.new(Config(7, 8, 4, 2, 12, max_position_embeddings=9, head="classifier"), 3)
    rng = np.random.default_rng(0)
    model.parameters.flat[...] = rng.standard_normal(model.parameters.flat.shape)
    return model


def test_which_is_which():
    assert not is_checkpoint("4L-8D-2H-16F") and not is_checkpoint("teacher:1,2")
    assert is_checkpoint("a/directory") and is_checkpoint("organisation/name")
    assert is_of_teacher("teacher:4") and not is_of_teacher("teacher")


@pytest.mark.parametrize("changes", [{}, {"head": "none", "pooler": False}])
@pytest.mark.parametrize("reading", [False, True])
def test_layers_of_the_teacher(teacher, changes, reading):
    student = new_student("teacher:2, 4", teacher.for_reading() if reading else teacher, 0, **changes)
    assert student.config.num_hidden_layers == 2 and student.config.hidden_size == 8
    for name in student.parameters:
        own = name.replace("layer.1.", "layer.3.").replace("layer.0.", "layer.1.")
        np.testing.assert_array_equal(student.parameters[name], teacher.parameters[own])
    assert ("classifier.weight" in student.parameters) == (not changes)


def test_a_student_of_all_layers_answers_as_its_teacher(teacher):
    ids = np.array([[2, 5, 6, 3]])
    own, copied = (model.forward(ids)[0].logits for model in (teacher, new_student("teacher:1,2,3,4", teacher, 0)))
    np.testing.assert_array_equal(own, copied)
    part = new_student("teacher:1,2", teacher, 0).forward(ids)[0]
    np.testing.assert_allclose(part.hidden[2], teacher.forward(ids)[0].hidden[2], rtol=1e-6)


@pytest.mark.parametrize("wrong", ["teacher:", "teacher:0", "teacher:5", "teacher:1,,2", "teacher:-1", "teacher:one"])
def test_layers_that_are_not_there(teacher, wrong):
    with pytest.raises(InputError, match="1 to 4, such as teacher:1,4"):
        new_student(wrong, teacher, 0)


def test_random_weights_need_a_vocabulary(tmp_path):
    with pytest.raises(InputError, match="2L-8D-2H-8F: random weights need a vocabulary; give --tokenizer"):
        random_model("2L-8D-2H-8F", None, 0)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    model = random_model("2L-8D-2H-8F", tmp_path, 0, head="mlm", pooler=False)
    assert model.config.vocab_size == 7 and set(model.tokenizer_files) >= {"vocab.txt"} and model.config.head == "mlm"


WORD = "embeddings.word_embeddings.weight"
SPLIT, BY_LAYER = ["fit_dense_embedding", "fit_dense_hidden"], [f"fit_denses.{m}" for m in range(3)]


def started(student, teacher, recipe):
    ids = [np.array([2, word, 3], np.int32) for word in (5, 6, 4)]
    made = new_student(student, teacher, 0)
    examples = EncodedExamples(ids, [np.zeros(3, np.int32)] * 3)
    return made, maps_at_start(student, made, teacher, recipe, examples, 0), Bert.new(made.config, 0).parameters


@pytest.mark.parametrize("recipe, names", [(DEFAULT, SPLIT), (Recipe(projection="layer"), BY_LAYER)])
def test_a_shape_starts_near_its_teacher(teacher, recipe, names):
    """It gets the embeddings nearest to its teacher's, and all of the recipe's maps begin as W_e."""
    made, maps, random = started("2L-6D-2H-8F", teacher, recipe)
    assert sorted(maps) == [f"{name}.weight" for name in names] and all(W.shape == (8, 6) for W in maps.values())
    assert not np.array_equal(made.parameters[WORD], random[WORD])
    assert np.array_equal(made.parameters["encoder.layer.1.output.dense.weight"], random["encoder.layer.1.output.dense.weight"])


@pytest.mark.parametrize("student, recipe", [("2L-6D-2H-8F", RECIPES["paper"]), ("teacher:1,2", DEFAULT), ("2L-10D-2H-8F", DEFAULT)])
def test_what_starts_as_it_is(teacher, student, recipe, capsys):
    made, maps, random = started(student, teacher, recipe)
    assert maps == {} and ("teacher" in student or (made.parameters.flat == random.flat).all())
    assert ("2L-10D-2H-8F: wider than its teacher" in capsys.readouterr().err) == ("10D" in student)


def test_a_general_student_of_the_authors(teacher, tmp_path):
    """huawei-noah/TinyBERT_General_4L_312D's layout: a pickled file with both heads of pre-training and one map, `fit_dense`, for all
    hidden states; a config that names no head. Its encoder, and its map as W_e and W_h, are what distillation goes on with."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    made = Bert.new(Config(7, 6, 2, 2, 10, max_position_embeddings=9, head="mlm"), 1)
    tensors = {name: rng.standard_normal(value.shape, np.float32) for name, value in made.parameters.items()}
    tensors |= {"fit_dense.weight": np.float32(rng.standard_normal((8, 6))), "fit_dense.bias": np.float32(rng.standard_normal(8))}
    tensors |= {"cls.predictions.decoder.weight": tensors["bert." + WORD], "cls.seq_relationship.weight": np.zeros((2, 6), np.float32)}
    tensors |= {"cls.seq_relationship.bias": np.zeros(2, np.float32), "bert.pooler.dense.weight": np.eye(6, dtype=np.float32)}
    tensors |= {"bert.pooler.dense.bias": np.zeros(6, np.float32)}
    torch.save({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}, tmp_path / "pytorch_model.bin")
    sizes = {"vocab_size": 7, "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 10}
    says = {"cell": {}, "structure": [], "pre_trained": "", "emb_size": 6, "hidden_act": "gelu", "max_position_embeddings": 9}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, **says}))
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    pupil = load_student(str(tmp_path), teacher, TASKS["sst-2"], 0)
    for name in pupil.parameters:
        if "encoder" in name or "embeddings" in name:
            np.testing.assert_array_equal(pupil.parameters[name], tensors[name])
    find = lambda **recipe: maps_at_start(str(tmp_path), pupil, teacher, Recipe(**recipe), None, 0)
    for recipe, names in (({}, SPLIT), ({"projection": "shared"}, ["fit_dense"]), ({"projection": "layer"}, BY_LAYER)):
        maps = find(**recipe)
        assert set(maps) == {name + ending for name in names for ending in (".weight", ".bias")}
        assert all((maps[name + ".weight"] == tensors["fit_dense.weight"]).all() for name in names)
    assert find(projection="none") == {} == find(carry_projections=False)


def test_maps_of_another_kind():
    """A map that stands for several begins as their mean."""
    W = {f"fit_denses.{m}.weight": np.full((2, 2), value, np.float32) for m, value in enumerate((5, 1, 3))}
    maps = maps_from(W, "split", 2)
    assert (maps["fit_dense_embedding.weight"] == 5).all() and (maps["fit_dense_hidden.weight"] == 2).all()
    assert (maps_from(W, "shared", 2)["fit_dense.weight"] == 3).all() and maps_from(W, "layer", 2).keys() == W.keys()
    assert maps_from(W, "split", 3) == {} == maps_from({}, "split", 2)
