"""The page in a real browser, headless: a copy of it, opened as a file, in which a script clicks and types, and writes down what it sees.
No error may reach the console; nothing may be wider than a phone."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from minitinybert.commands.cli import main

from .conftest import HOSTILE

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome here")

EARS, HANDS = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("ears.js", "hands.js"))


FRAME = """<pre id="seen"></pre><script>addEventListener("message", (event) => seen.textContent = event.data)</script>"""


def look(page, directory, width=1280, dark=False):
    """What the script saw in a window of that width. A phone's is narrower than Chromium's windows: a frame within one."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)  # which would not let this script run
    text = text.replace('<script type="application/json"', f'<script>{EARS}</script><script type="application/json"')
    text = text.replace("</body>", f"<script>{HANDS}</script></body>")
    driven = directory / f"driven-{width}-{dark}.html"
    driven.write_text(text, encoding="utf-8")
    opened = driven
    if width < 600:
        driven.write_text(text.replace("document.body.append(out)", "parent.postMessage(out.textContent, '*')"), encoding="utf-8")
        opened = directory / "frame.html"
        opened.write_text(f"{FRAME}<iframe src='{driven.name}' style='width:{width}px;height:800px;border:0'></iframe>")
    return dump(opened, directory, dark)


def browse(page, profile, *flags):
    """The browser's answer: on standard output what the page has become."""
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=20000"]
    common += ["--enable-logging=stderr"]
    command = [BROWSER, *common, f"--user-data-dir={profile}", *flags, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def dump(opened, directory, dark=False):
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    for _ in range(3):  # on a busy machine the browser may be done before the page is
        done = browse(opened, directory / f"profile-{dark}", scheme, "--window-size=1280,900")
        found = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.DOTALL)
        if found and "a chart was not drawn" not in found[1]:
            break
    assert found, f"the page's script did not come to its end: {done.stderr[-2000:]}"
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\\u00a0").replace("&amp;", "&"))


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("browser") / "report.html"
    runs = [str(made.here / name) for name in ("teacher", "general", "student", "baseline")]
    texts = ["--text", HOSTILE, "--text", "good film ||| bad plot"]
    assert main(["report", *runs, "--out", str(out), *texts, "--sentences", "3", "--no-speed"]) == 0
    return out


@pytest.fixture(scope="module")
def seen(page):
    return look(page, page.parent)


def test_nothing_goes_wrong_and_text_is_text(seen):
    assert seen["wrong"] == [] and seen["markup"] == 0
    assert seen["sentences"][0].startswith("the good < / [UNK] > < b > film") and seen["sentences"][1] == "good film ||| bad plot (--text)"
    assert len(seen["sentences"]) == 5


def test_attention_is_drawn(seen):
    assert seen["captions"] == ["Teacher, layer 2, mean of the heads", "student, prediction step, layer 1, mean of the heads"]
    assert seen["general"] == ["Teacher, layer 2, mean of the heads", "general, layer 1, mean of the heads"]
    tokens = len(seen["labels"]) // 2
    assert seen["labels"][:4] == ["[CLS]", "[CLS]", "the", "the"] and tokens > 10
    for opacities in seen["cells"]:  # rows of probabilities: the squares of what is drawn sum to one a row
        assert sum(p * p for p in opacities) == pytest.approx(tokens, rel=0.02)
    assert seen["readout"].startswith("From the, teacher (layer 2, mean of the heads): ")
    assert seen["hidden"] == ["teacher-head"]  # as many heads: one choice for both


def test_the_keyboard_moves_through_it(seen):
    assert seen["focused"] == "solid"
    captions, readout, head, layer, teacher_layer = seen["after"]
    assert captions == ["Teacher, layer 4, head 1", "general, layer 2, head 1"] and (head, layer, teacher_layer) == ("1", "2", "4")
    assert readout.startswith("From <, teacher (layer 4, head 1)")
    assert seen["ends"] == [["Teacher, layer 4, head 2", "general, layer 2, head 2"], "From [SEP]", 2]
    assert seen["home"] == "From [CLS]"


def test_choices(seen):
    captions, layers_student, blocks = seen["student"]
    assert captions == ["Teacher, layer 4, head 2", "student, prediction step, layer 2, head 2"] and (layers_student, blocks) == ("1 1", 1)
    captions, tokens = seen["pair"]
    assert captions == ["Teacher, layer 2, mean of the heads", "student, prediction step, layer 1, mean of the heads"]
    assert tokens == ["[CLS]", "good", "film", "[SEP]", "bad", "plot", "[SEP]"]
    assert seen["other"][0] == "Teacher, layer 1, mean of the heads" and seen["clicked"] == "From film"


def test_curves(seen):
    assert seen["titles"] == [
        "cross entropy", "embedding loss", "hidden loss", "attention loss", "prediction loss", "dev: accuracy", "learning rate",
    ]  # fmt: skip
    drawn = [[d for d in paths if "L" in d] for paths in seen["paths"]]
    assert [len(paths) for paths in drawn][1:4] == [2, 2, 2] and "NaN" not in json.dumps(seen["paths"])
    assert seen["log"] == seen["titles"][:5]
    assert re.fullmatch(r"epoch [\d.]+: (teacher|baseline) [\d.]+.*", seen["read"])
    assert seen["layers"] == [2, 2] and seen["readable"] == 2


def test_maps_and_answers(seen):
    width, height, colours = seen["canvas"]
    assert (width, height) == (8, 16) and colours > 20
    everybody, only_teacher = seen["parted"]
    assert len(everybody) > 2 and only_teacher == [who for who in everybody if who == "teacher"]
    assert seen["dots"] >= 3 and seen["unnamed"] == [] and seen["reached"]


def test_a_phone_in_the_dark(page, seen):
    phone = look(page, page.parent, width=390, dark=True)
    assert phone["wrong"] == [] and phone["width"][0] == 390
    assert all(scrolled <= window for window, scrolled in (phone["width"], seen["width"]))  # nothing is wider than the page
    light, dark = (sum(map(int, re.findall(r"\d+", own["dark"])[:3])) for own in (seen, phone))
    assert light > 600 and dark < 150
    assert phone["after"] == seen["after"]


def test_the_page_as_it_is_breaks_no_policy_of_its_own(page):
    """Unchanged, under its own content security policy: its script draws, and nothing is said on the console."""
    done = browse(page, page.parent / "plain")
    assert "CONSOLE" not in done.stderr and done.stdout.count('class="cell"') > 20
