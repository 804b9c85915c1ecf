"""docs/tutorial.ipynb, run in a kernel of its own as a reader would run it, and as it is shown."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the tutorial needs a notebook's kernel: pip install -e '.[docs]'")
nbclient = pytest.importorskip("nbclient", reason="the tutorial needs a notebook's kernel: pip install -e '.[docs]'")
pytest.importorskip("ipykernel", reason="the tutorial needs a notebook's kernel: pip install -e '.[docs]'")

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def printed(notebook):
    """What each cell of code prints or is, as text."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            outputs = [o.text if o.output_type == "stream" else o.get("data", {}).get("text/plain", "") for o in cell.outputs]
            texts.append("".join(outputs))
    return texts


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))


@pytest.fixture(scope="module")
def read():
    return nbformat.read(TUTORIAL, as_version=4)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The notebook after a run, in which a cell that raises ends the test."""
    place = tmp_path_factory.mktemp("tutorial")
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(place)}}).execute()
    assert list(place.iterdir()) == []  # nothing is left where it is read
    return notebook


def test_a_right_gradient_holds_and_a_wrong_one_is_seen(walked):
    errors = [float(found) for text in printed(walked) for found in re.findall(r"relative error (\S+)\)", text)]
    assert len(errors) == 2 and errors[0] < 1e-6 and errors[1] > 0.1
    measured, derived = next(re.search(r"measured (\S+), derived (\S+)", text).groups() for text in printed(walked) if "measured" in text)
    assert float(measured) == pytest.approx(float(derived), abs=1e-6)


def test_the_student_has_learned_and_what_is_shown_is_what_comes_out(walked):
    text = "\n".join(printed(walked))
    right = {name: float(share) for name, share in re.findall(r"^(teacher|student): .* accuracy (\S+) on dev$", text, re.MULTILINE)}
    assert right.keys() == {"teacher", "student"} and min(right.values()) > 0.9
    assert re.findall(r"Answer\('(\w+)'", text) == ["positive", "negative", "positive"]
    assert pictures(walked) == 2
    assert re.search(r"finetune custom: +\d+%\|", text) and ": step " not in text.split("Answer")[0]  # a bar, not a log's lines


def test_what_is_shown_was_run_from_top_to_bottom(read):
    """On a page that shows notebooks a reader sees every output, and no error; prose is as narrow as other pages'."""
    code = [cell for cell in read.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)) and pictures(read) == 2
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    assert re.findall(r"Answer\('(\w+)'", "\n".join(printed(read))) == ["positive", "negative", "positive"]
    for cell in read.cells:
        assert all(len(line) <= 100 for line in cell.source.splitlines()), cell.source
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", cell.source if cell.cell_type == "markdown" else ""):
            assert (TUTORIAL.parent / target).exists(), target
    assert TUTORIAL.stat().st_size < 300_000 and read.metadata.keys() == {"kernelspec", "language_info"}  # of no machine
