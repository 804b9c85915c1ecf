"""What a run says of itself: the task that comes of its record is the task that it had."""

import json
from dataclasses import replace

import pytest

from minitinybert.commands.record import about_task, task_of
from minitinybert.data.glue import TASKS, custom_task
from minitinybert.data.squad import squad_task
from minitinybert.data.tagging import tagging_task
from minitinybert.errors import InputError

MADE = {
    **TASKS,
    "labels": custom_task("", ["a", "b"], "kind", ["no", "yes"]),
    "numbers": custom_task("", ["a"], "how much", regression=True),
    "squad": squad_task(True, doc_stride=7, null_threshold=-1.5),
    "squad-1": squad_task(),
    "places": tagging_task("", "2", "4", ["O", "B-X", "I-X"]),
    "names": tagging_task("", "tokens", None, ["NOUN", "VERB"]),
}


@pytest.mark.parametrize("task", MADE.values(), ids=MADE)
def test_the_task_of_a_record(task):
    written = json.loads(json.dumps(about_task(task, "some/where", 99)))
    assert (written["data"], written["max_length"]) == ("some/where", 99)
    found = task_of(written["task"], "metrics.jsonl")
    assert found == replace(task, unlabelled="drop") and type(found) is type(task)


@pytest.mark.parametrize(
    "record",
    [
        None, [], "sst-2", {}, {"name": "sst-3", "labels": None}, {"name": ["sst-2"], "labels": None}, {"name": "squad", "labels": None},
        {"name": "custom", "labels": ["a", 3], "columns": [["x", None], ["y", None]]}, {"name": "custom", "labels": None, "columns": []},
        {"name": "tokens", "labels": ["a", "b"], "columns": [["x", "one"], ["y", 0]]},
        {**about_task(squad_task(), "", 9)["task"], "doc_stride": -1}, {**about_task(squad_task(), "", 9)["task"], "doc_stride": []},
    ],
)  # fmt: skip
def test_anything_else_is_one_line(record):
    with pytest.raises(InputError, match="^somewhere: the run's task is not what training writes there"):
        task_of(record, "somewhere")
