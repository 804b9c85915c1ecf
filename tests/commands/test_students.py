"""What a model starts from where there is no checkpoint of it."""

import numpy as np
import pytest

from minitinybert.commands.students import is_checkpoint, is_of_teacher, new_student, random_model
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
