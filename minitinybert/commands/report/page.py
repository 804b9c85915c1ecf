"""The page of a report: tables as HTML that is there without a script, and the figures that
report.js draws and lets one look through.

Whatever comes from a file is text: escaped in the HTML, and in the JSON without a `<`. The page
loads nothing (its content security policy says so), and runs no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from ...files import json_text
from ..info import short

_WITHOUT_SCRIPT = "The curves and the attention need JavaScript; the tables do not."
_COLOURS = ("student", "orange", "berry", "blue", "violet", "olive", "grey")  # of runs that are no teacher of another, in report.css


def render(figures: Mapping[str, Any]) -> str:
    """The page as one text. figures: as `collect` gives them."""
    css, js = (resources.files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    colours = colours_of(figures)
    names = ", ".join(run["name"] for run in figures["runs"])
    parts = [part for part in _parts(figures, colours) if part[2]]
    drawn = {"runs": figures["runs"], "lessons": figures["lessons"], "maps": figures["maps"], "colours": colours}
    drawn["groups"] = [
        [{part: model[part] for part in ("name", "reliability", "scatter")} for model in group["models"]] for group in figures["groups"]
    ]
    allowed = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; img-src data:"
    links = "".join(f'<a href="#{place}">{title}</a>' for place, title, _ in parts)
    sections = "".join(f'<section id="{place}" aria-labelledby="{place}-title"><h2 id="{place}-title">{title}</h2>{body}</section>'
                       for place, title, body in parts)  # fmt: skip
    data = json_text(drawn).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f'<title>{escape(names)} – minitinybert</title>\n<link rel="icon" href="data:,">\n<style>\n{css}</style>\n</head>\n<body>\n'
        f'<header><p class="brand">minitinybert report</p><h1>{escape(names)}</h1><nav aria-label="Sections">{links}</nav></header>\n'
        f'<main>\n<noscript><p class="lead">{_WITHOUT_SCRIPT}</p></noscript>\n{sections}</main>\n'
        f'<script type="application/json" id="figures">{data}</script>\n<script>{js}</script>\n</body>\n</html>\n'
    )


def colours_of(figures: Mapping[str, Any]) -> dict[str, str]:
    """Of each model by its name: teachers have one colour, all others colours of their own, those that
    have learned from a teacher of the task the first."""
    teachers = [name for group in figures["groups"] for name in group["teachers"].values()]
    students = [name for group in figures["groups"] for name in group["teachers"]]
    names = dict.fromkeys([*students, *(run["name"] for run in figures["runs"]), *teachers])
    others = [name for name in names if name not in teachers]
    return {name: "teacher" if name in teachers else _COLOURS[others.index(name) % len(_COLOURS)] for name in names}


def _parts(figures: Mapping[str, Any], colours: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(place, title, HTML) of each section; one without anything to show is empty."""
    return [
        ("models", "Models", _models(figures, colours)),
        ("training", "Training", _training(figures)),
        ("attention", "Attention", _attention(figures["lessons"])),
        ("layers", "Layers", _layers(figures["lessons"])),
        ("maps", "Learned maps", _maps(figures["maps"])),
        ("answers", "Answers", "".join(_answers(i, group, colours) for i, group in enumerate(figures["groups"]))),
        ("notes", "What is left out", "".join(f"<p>{escape(note)}</p>" for note in figures["notes"])),
    ]


# ------------------------------------------------------------------------------------------------------------------- models


def _models(figures: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    scores = {model["name"]: (group, model["scores"]) for group in figures["groups"] for model in group["models"]}
    metrics = list(dict.fromkeys(group["metric"] for group in figures["groups"]))
    score = [_said(", ".join(metrics)).capitalize()] if metrics else []
    head = ["Model", *score, "Parameters", "In the encoder", "FLOPs", "Speed"]
    rows = []
    for model in figures["models"]:
        name, quicker = model["name"], model["quicker"]
        cells = [f"{_dot(colours.get(name, 'grey'))}<strong>{escape(name)}</strong><small>{escape(model['shape'])}</small>"]
        if metrics:
            cells.append(_whisker(*scores[name], colours.get(name, "grey")) if name in scores else "–")
        cells += [short(model["parameters"][part]) for part in ("all", "encoder")]
        cells += [f"{short(model['flops'])}<small>at {model['length']} tokens</small>"]
        span = quicker and f"{quicker['median']:.1f}×<small>{quicker['min']:.1f} – {quicker['max']:.1f}</small>"
        cells.append(span or "–")
        rows.append(cells)
    lead = "What each model scores and costs. Speed is measured on this machine, against the model’s own teacher, in batches of 8: "
    lead += "the median of seven rounds, the least and the most."
    sizes = "".join(_sample(group) for group in figures["groups"])
    tests = "".join(_tests(group) for group in figures["groups"])
    return f'<p class="lead">{lead}{sizes}</p>{_table(head, rows, "cards")}{tests}' if rows else ""


def _sample(group: Mapping[str, Any]) -> str:
    """What was judged."""
    what = {"tokens": "sentences", "squad": "questions"}.get(group["task"], "examples")
    part = f"the first {group['taken']:,} of {group['there']:,}" if group["taken"] < group["there"] else f"{group['there']:,}"
    return f" Scores are of {part} {what} of {escape(group['task'])}’s {escape(_said(group['split']))} file, with intervals of 95 %."


def _whisker(group: Mapping[str, Any], scores: Mapping[str, Sequence[float]], colour: str) -> str:
    """The main metric, its interval as a line on a scale that all models of the group share; then the
    other metrics."""
    all_bounds = [bound for model in group["models"] for bound in model["scores"][group["metric"]][1:]]
    least, most = min(all_bounds), max(all_bounds)
    place = lambda x: 6 + 128 * (x - least) / ((most - least) or 1)
    value, low, high = scores[group["metric"]]
    told = f"{value:.4f}, 95 % interval {low:.4f} to {high:.4f}"
    drawn = (
        f'<svg class="whisker" viewBox="0 0 140 16" role="img" aria-label="{told}"><line class="rule" x1="0" x2="140" y1="8" y2="8"/>'
        f'<line class="{colour}" x1="{place(low):.1f}" x2="{place(high):.1f}" y1="8" y2="8"/>'
        f'<circle class="{colour}" cx="{place(value):.1f}" cy="8" r="4.5"/></svg>'
    )
    others = [f"{_said(name)} {own[0]:.4f} ({own[1]:.3f} – {own[2]:.3f})" for name, own in scores.items() if name != group["metric"]]
    more = "".join(f"<small>{other}</small>" for other in others)
    return f'<span class="score"><b>{value:.4f}</b>{drawn}</span><small>{low:.3f} – {high:.3f}</small>{more}'


def _tests(group: Mapping[str, Any]) -> str:
    """Each pair of models in each metric."""
    rows = []
    for test in group["tests"]:
        how = "paired bootstrap"
        if test["only_a"] is not None:
            how = f"McNemar<small>only the first is right {test['only_a']} times, only the second {test['only_b']}</small>"
        difference = f"{test['difference']:+.4f}<small>{test['low']:+.3f} … {test['high']:+.3f}</small>".replace("-", "−")
        rows.append([f"{escape(test['a'])} − {escape(test['b'])}", _said(test["metric"]), difference, _p(test["p"]), how, _verdict(test)])
    return _table(["Difference", "Metric", "By", "p", "Test", "At p ≤ 0.05"], rows, "cards", "Is it chance?") if rows else ""


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _verdict(test: Mapping[str, Any]) -> str:
    if test["p"] > 0.05:
        return "not distinguishable"
    return f"{escape(test['a'] if test['difference'] > 0 else test['b'])} is better"


# ----------------------------------------------------------------------------------------------------------------- training


def _training(figures: Mapping[str, Any]) -> str:
    lead = "Means of each loss since the line before, the scores on dev, and the learning rate. Arrow keys read a curve’s values."
    layered = [(i, j, run, step) for i, run in enumerate(figures["runs"]) for j, step in enumerate(run["steps"]) if step["layers"]]
    choices = [(f"{i} {j}", _step_name(run, step)) for i, j, run, step in layered]
    by_layer = (
        f'<h3>By layer</h3><p class="lead">What the sums of the hidden and the attention loss are made of.</p>'
        f'<div class="controls">{_select("layered", "Run", choices)}</div><div class="charts" id="layer-curves"></div>'
    )
    settings = "".join(_settings(run, step) for run in figures["runs"] for step in run["steps"])
    return (
        f'<p class="lead">{lead}</p><div class="controls">'
        f"{_radio('axis', 'Along', [('steps', 'steps'), ('epochs', 'epochs'), ('share', 'share of the run')])}"
        f'{_radio("scale", "Losses", [("linear", "linear"), ("log", "logarithmic")])}</div><div class="charts" id="curves"></div>'
        f"{by_layer if layered else ''}{settings}"
    )


def _step_name(run: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    return run["name"] if len(run["steps"]) == 1 else f"{run['name']}, {step['name']}"


def _settings(run: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    if not step["settings"]:
        return ""
    pairs = "".join(f"<div><dt>{escape(_said(name))}</dt><dd>{escape(str(value))}</dd></div>" for name, value in step["settings"].items())
    return f"<details><summary>Settings of {escape(run['name'])}, {escape(step['name'])}</summary><dl>{pairs}</dl></details>"


# ----------------------------------------------------------------------------------------------------- attention, layers, maps


def _students(lessons: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(f"{i} {j}", student["name"]) for i, lesson in enumerate(lessons) for j, student in enumerate(lesson["students"])]


def _attention(lessons: Sequence[Mapping[str, Any]]) -> str:
    if not lessons:
        return ""
    lead = (
        "Whom each word piece (a row) attends to: softmax of the scores A that the attention loss (equation 7) compares. The teacher’s "
        "layer is the one that the student’s learned from. In the maps ↑ ↓ choose a piece, ← → a head, Page Up and Page Down a layer."
    )
    figure = lambda who: f'<figure class="map" id="{who}-map"><figcaption></figcaption><svg aria-hidden="true"></svg></figure>'
    return (
        f'<p class="lead">{lead}</p><div class="controls">{_select("student", "Student", _students(lessons))}'
        f"{_select('sentence', 'Sentence', [])}{_select('layer', 'Student’s layer', [])}{_select('teacher-layer', 'Teacher’s layer', [])}"
        f"{_select('head', 'Head', [])}{_select('teacher-head', 'Teacher’s head', [])}</div>"
        f'<div class="maps" id="maps-view" tabindex="0" role="group" aria-label="Attention of teacher and student. Arrow keys: up and down '
        f'choose a word piece, left and right a head; Page Up and Page Down a layer.">{figure("teacher")}{figure("student")}</div>'
        f'<div class="scale" aria-hidden="true"></div><div class="readings" id="readings"></div>'
        f'<p class="readout" id="attention-readout" aria-live="polite"></p>'
    )


def _layers(lessons: Sequence[Mapping[str, Any]]) -> str:
    if not lessons:
        return ""
    lead = (
        "How far each layer of the student (rows) is from each of the teacher’s (columns), 0 the embeddings. Framed: the pairs that were "
        "learned. Linear CKA is 1 where one layer is the other, turned and scaled; it needs no learned map."
    )
    last = len(lessons) - 1, len(lessons[-1]["students"]) - 1  # what is shown first
    blocks = "".join(
        f'<div class="of-student" data-student="{i} {j}"{"" if (i, j) == last else " hidden"}>{_pair(lesson, student)}</div>'
        for i, lesson in enumerate(lessons)
        for j, student in enumerate(lesson["students"])
    )
    return f'<p class="lead">{lead}</p><div class="controls">{_select("layers-student", "Student", _students(lessons))}</div>{blocks}'


def _pair(lesson: Mapping[str, Any], student: Mapping[str, Any]) -> str:
    learned = {(0, 0), *((m, n) for m, n in enumerate(student["map"], 1))}
    sentences, tokens = lesson["compared"]
    over = f"over {tokens:,} word pieces of {sentences:,} sentences"
    parts = []
    if any(value is not None for row in student["distances"] for value in row):
        title = f"Hidden loss, MSE(H Wₕ, Hᵀ) (equations 8 and 9), {over}. "
        title += "The stronger the shade the nearer, each row on its own scale; bold is the nearest"
        parts.append(_heat(title, student["distances"], [_nearness(row) for row in student["distances"]], learned, nearest=min))
    title = f"Linear CKA, {over}. The stronger the shade the more alike; bold is the most alike"
    parts.append(_heat(title, student["cka"], _shades(student["cka"]), learned, nearest=max))
    return f'<div class="heats">{"".join(parts)}</div>'


def _shades(values: Sequence[Sequence[float]]) -> list[list[float]]:
    """From 0.06 to 1, from the least to the most of a table."""
    least, most = (which(value for row in values for value in row) for which in (min, max))
    return [[0.06 + 0.94 * (value - least) / ((most - least) or 1) for value in row] for row in values]


def _nearness(row: Sequence[float | None]) -> list[float | None]:
    """0 … 1 of a row of distances, 1 the smallest."""
    known = [value for value in row if value is not None]
    least, most = min(known, default=0.0), max(known, default=0.0)
    return [None if value is None else 1 - (value - least) / ((most - least) or 1) for value in row]


_Grid = Sequence[Sequence[float | None]]


def _heat(title: str, values: _Grid, shades: _Grid, framed: set[tuple[int, int]], nearest: Any) -> str:
    """A table whose cells are shaded, rows the student's layers, columns the teacher's."""
    head = "".join(f'<th scope="col">{n}</th>' for n in range(len(values[0])))
    rows = []
    for m, (row, shade) in enumerate(zip(values, shades, strict=True)):
        best = nearest((value for value in row if value is not None), default=None)
        cells = "".join(
            f'<td style="--v:{0 if v is None else max(v, 0):.3f}" class="{"framed" if (m, n) in framed else ""}'
            f'{" best" if value is not None and value == best else ""}">{_digits(value)}</td>'
            for n, (value, v) in enumerate(zip(row, shade, strict=True))
        )
        rows.append(f'<tr><th scope="row">{m}</th>{cells}</tr>')
    return (
        f'<figure class="heat" tabindex="0" role="group" aria-label="{escape(title)}"><table><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table><figcaption>{escape(title)}.</figcaption></figure>"
    )


def _digits(value: float | None) -> str:
    """Two significant ones, without a leading 0."""
    if value is None:
        return ""
    text = f"{value:.2f}" if value < 9.95 else f"{value:.0f}"
    return text.removeprefix("0") if value < 0.995 else text


def _maps(maps: Sequence[Mapping[str, Any]]) -> str:
    if not maps:
        return ""
    lead = (
        "The linear maps that carry the student’s width to the teacher’s: Wₑ under the embedding loss, Wₕ under the hidden loss "
        "(equations 8 and 9). A singular value says by how much a direction is stretched; a picture shows the entries, "
        "a row for each of the teacher’s width."
    )
    figures = "".join(
        f'<figure class="learned"><figcaption><strong>{escape(_map_name(own["name"]))}</strong> of {escape(own["of"])}, '
        f"{own['shape'][0]} × {own['shape'][1]}, largest entry {own['largest']:.3g}</figcaption>"
        f'<div class="both"><canvas data-map="{i}" role="img" aria-label="Its entries"></canvas>'
        f'<div data-values="{i}"></div></div></figure>'
        for i, own in enumerate(maps)
    )
    return f'<p class="lead">{lead}</p><div class="learned-maps">{figures}</div>'


def _map_name(name: str) -> str:
    return {"fit_dense_embedding": "Wₑ", "fit_dense_hidden": "Wₕ", "fit_dense": "W"}.get(name, name.replace("fit_denses.", "W of layer "))


# ---------------------------------------------------------------------------------------------------------------- answers


def _answers(number: int, group: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    models = group["models"]
    confusions = "".join(_confusion(model, group["names"], colours) for model in models if model["confusion"])
    parts = []
    if confusions:
        lead = "How often each class (a row) was answered as which. Shaded by the share of its row."
        parts.append(f'<h3>Confusion</h3><p class="lead">{lead}</p><div class="heats confusions">{confusions}</div>')
    if any(model["scatter"] for model in models):
        lead = "What each model answers (up) to what is right (along)."
        parts.append(f'<h3>Predictions</h3><p class="lead">{lead}</p><div class="charts" data-scatter="{number}"></div>')
    if any(model["reliability"] for model in models):
        errors = ", ".join(f"{escape(m['name'])} {m['reliability']['error']:.3f}" for m in models if m["reliability"])
        lead = (
            "How often an answer is right (up) that a model takes to be so probable (along), in tenths; dots are as large as they hold "
            f"many answers. On the line a model knows how sure to be. Expected calibration error: {errors}."
        )
        parts.append(f'<h3>Calibration</h3><p class="lead">{lead}</p><div class="charts" data-reliability="{number}"></div>')
    parts += [_parted(number, i, own) for i, own in enumerate(group["parted"]) if own["rows"]]
    title = f"<h3 class='task'>{escape(group['task'])}</h3>"
    return title + "".join(parts)


def _confusion(model: Mapping[str, Any], names: Sequence[str], colours: Mapping[str, str]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = ""
    for name, counts in zip(names, model["confusion"], strict=True):
        total = sum(counts) or 1
        cells = "".join(f'<td style="--v:{count / total:.3f}">{count}</td>' for count in counts)
        rows += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    title = f"Confusion of {escape(model['name'])}"
    return (
        f'<figure class="heat wide" tabindex="0" role="group" aria-label="{title}"><figcaption>{_dot(colours.get(model["name"], "grey"))}'
        f"{escape(model['name'])}</figcaption><table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></figure>"
    )


_WHO = [("all", "all"), ("student", "only the student is right"), ("teacher", "only the teacher is right"), ("neither", "neither is")]


def _parted(number: int, place: int, own: Mapping[str, Any]) -> str:
    """The examples on which student and teacher part."""
    student, teacher, count = escape(own["student"]), escape(own["teacher"]), own["count"]
    shown = len(own["rows"])
    if count is None:
        lead, filters = f"The {shown} examples on which {student} and {teacher} are furthest apart.", ""
    else:
        most = f"; the {shown} of which both are surest are shown" if shown < count else ", where both are surest first"
        lead = f"{student} and {teacher} answer {count:,} examples otherwise{most}."
        filters = f'<div class="controls">{_radio(f"who-{number}-{place}", "Show", _WHO)}</div>'
    items = "".join(_example(row, count is not None) for row in own["rows"])
    return f'<h3>Where {student} and {teacher} part</h3><p class="lead">{lead}</p>{filters}<ol class="parted">{items}</ol>'


def _example(row: Mapping[str, Any], classes: bool) -> str:
    rights = [row[who] == row["right"] for who in ("student", "teacher")]
    who = "student" if rights[0] and not rights[1] else "teacher" if rights[1] and not rights[0] else "neither"
    said = []
    for whose, right, sure in zip(("student", "teacher"), rights, row["sure"], strict=True):
        mark = f' <span class="{"yes" if right else "no"}">{"right" if right else "wrong"}</span>' if classes else ""
        sureness = "" if sure is None else f" {sure:.2f}"
        said.append(f"<div><dt>{_dot(whose)}{whose}</dt><dd>{escape(row[whose])}{sureness}{mark}</dd></div>")
    texts = "".join(f"<p>{escape(part.strip())}</p>" for part in row["text"].split("|||", 1))
    return f'<li data-who="{who}">{texts}<dl><div><dt>in the data</dt><dd>{escape(row["right"])}</dd></div>{"".join(said)}</dl></li>'


# ------------------------------------------------------------------------------------------------------------------- pieces


_NONE = ' class="none"'


def _said(name: str) -> str:
    return name.replace("_", " ")


def _dot(colour: str) -> str:
    return f'<i class="dot {colour}"></i>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str, caption: str = "") -> str:
    """A table that becomes a card a row where there is no room. head: text; rows: HTML."""
    columns = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = ""
    for first, *rest in rows:
        cells = "".join(
            f'<td data-label="{escape(title)}"{_NONE if cell == "–" else ""}>{cell}</td>'
            for title, cell in zip(head[1:], rest, strict=True)
        )
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<table class="{kind}">{title}<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>'


def _select(place: str, label: str, choices: Sequence[tuple[str, str]]) -> str:
    options = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in choices)
    return f'<label class="choice">{escape(label)}<select id="{place}">{options}</select></label>'


def _radio(name: str, label: str, choices: Sequence[tuple[str, str]]) -> str:
    buttons = "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{" checked" if i == 0 else ""}><span>{escape(text)}</span></label>'
        for i, (value, text) in enumerate(choices)
    )
    return f'<fieldset class="choice"><legend>{escape(label)}</legend><span class="segments">{buttons}</span></fieldset>'
