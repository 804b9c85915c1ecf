"""What a model costs, against transformers' own counts and PyTorch's count of multiplications."""

import json

import pytest

from minitinybert import Bert
from minitinybert.commands import info
from minitinybert.commands.cli import main
from minitinybert.model.config import HEADS, Config

BASE, TINY4, TINY6 = "12L-768D-12H-3072F", "4L-312D-12H-1200F", "6L-768D-12H-3072F"


@pytest.mark.parametrize(("shape", "count"), [(BASE, 109_482_240), (TINY4, 14_350_248), (TINY6, 66_955_008)])
def test_parameters_are_those_of_the_published_models(shape, count):
    parts = info.describe(shape, 128)["parameters"]
    assert parts["all"] == count
    assert parts["embeddings"] + parts["encoder"] + parts["head"] == count


@pytest.mark.parametrize(("shape", "billions"), [(BASE, 22.4), (TINY4, 1.25), (TINY6, 11.2)])
def test_flops_are_the_papers(shape, billions):
    assert info.describe(shape, 128)["flops"] / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize("head", ["none", "classifier", "mlm", "tokens", "spans"])
def test_flops_are_what_pytorch_counts(head, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    sizes = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
    labels = {0: "a", 1: "b", 2: "c"} if head != "spans" else {0: "LABEL_0", 1: "LABEL_1"}
    Bert.new(Config(**sizes, head=head, pooler=head in ("none", "classifier"), id2label=labels)).save(tmp_path)
    twin = getattr(transformers, HEADS[head]).from_pretrained(tmp_path, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(torch.arange(17)[None])
    assert info.describe(str(tmp_path), 17)["flops"] == counter.get_total_flops()
    assert info.describe(str(tmp_path), 17)["parameters"]["all"] == twin.num_parameters()


def test_beside_a_teacher(tmp_path, capsys):
    Bert.new(Config(50, 24, 2, 4, 48, head="classifier", id2label={0: "bad", 1: "good"})).save(tmp_path / "student")
    teacher = "4L-48D-4H-96F"
    beside = ["info", str(tmp_path / "student"), "--teacher", teacher]
    assert main([*beside, "--length", "16", "--measure", "--batch-size", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["labels"] == ["bad", "good"] and report["head"] == "classifier"
    assert report["files"]["model.safetensors"] == (tmp_path / "student/model.safetensors").stat().st_size
    assert report["times_smaller"]["encoder"] == report["teacher"]["parameters"]["encoder"] / report["parameters"]["encoder"]
    assert report["times_fewer_flops"] == pytest.approx(2 * 19968 / 5376, rel=0.01)  # the layers' by hand
    assert 0 < report["times_quicker"]["min"] <= report["times_quicker"]["median"] <= report["times_quicker"]["max"]
    assert main(beside) == 0
    table = capsys.readouterr().out
    assert "classifier (bad," in table and max(map(len, table.splitlines())) <= 80  # names as long as this directory's too


@pytest.mark.parametrize(
    ("arguments", "says"), [(["--measure"], "--teacher"), (["--length", "999"], "512 positions"), (["--teacher", "3L-5D"], "shape")]
)
def test_what_cannot_be_told_is_an_error(arguments, says, capsys):
    assert main(["info", TINY4, *arguments]) == 2
    assert says in capsys.readouterr().err
