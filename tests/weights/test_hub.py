"""Models by their ids, through huggingface_hub itself: from a hub on this machine, and from the cache as transformers leaves it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download, utils
from safetensors.numpy import save_file

from minitinybert import weights
from minitinybert.errors import InputError
from minitinybert.weights import hub

from .helpers import assert_same
from .hub_server import COMMIT, EARLIER, serving


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub of our own, on which a test puts files; the cache is empty, and so is the working directory."""
    for name in ("www", "work"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "www") as hub_here:
        at(monkeypatch, hub_here.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses"), raising=False)  # which it fetches once a day
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.chdir(tmp_path / "work")
        yield hub_here


def at(monkeypatch, url):
    """As HF_ENDPOINT has it, which the library reads when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    for module in (constants, file_download):  # the second until 0.26
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}", raising=False)


@pytest.fixture
def model(server, tensors, config):
    """The directory served as org/tiny-1.0, with files that nobody here needs beside it."""
    directory = server.directory / "org" / "tiny-1.0" / COMMIT
    weights.write(directory, config, tensors, {})
    for name in ("vocab.txt", "README.md", "tf_model.h5", "pytorch_model.bin"):
        (directory / name).write_text("[PAD]\n")
    return directory


def saved(tmp_path):
    """What an unlucky download leaves: nothing of the model but its small files."""
    return sorted(path.name for path in (tmp_path / "cache").rglob("snapshots/*/*"))


@pytest.mark.parametrize("organisation", ["org", "old"])
def test_a_model_by_its_id(server, model, tmp_path, tensors, config, organisation):
    checkpoint = weights.read(f"{organisation}/tiny-1.0")
    assert_same(checkpoint.tensors, tensors)
    assert checkpoint.config == config
    assert list(checkpoint.tokenizer_files) == ["vocab.txt"]
    assert checkpoint.tokenizer_files["vocab.txt"].is_relative_to(tmp_path / "cache" / f"models--{organisation}--tiny-1.0")
    assert server.files == ["config.json", "model.safetensors", "vocab.txt"]  # and no other
    server.seen.clear()
    assert_same(weights.read(f"{organisation}/tiny-1.0").tensors, tensors)
    assert {path.rsplit("/", 1)[1] for _, path in server.seen} == {"config.json"}  # whether main has moved; the rest from the cache


def test_transformers_finds_what_was_fetched(server, model, tensors):
    """The cache is the one of huggingface_hub: by the same id, without the network."""
    weights.read("org/tiny-1.0")
    found = huggingface_hub.hf_hub_download("org/tiny-1.0", "model.safetensors", local_files_only=True)
    assert found == huggingface_hub.hf_hub_download("org/tiny-1.0", "model.safetensors", revision=COMMIT, local_files_only=True)


def test_a_branch_that_has_moved(server, model, tensors):
    weights.read("org/tiny-1.0")
    server.revisions["main"] = "d" * 40
    moved = shutil.copytree(model, model.parent / ("d" * 40))
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1}, moved / "model.safetensors")
    assert_same(weights.read("org/tiny-1.0").tensors, {**tensors, name: tensors[name] + 1})


def test_a_revision(server, model, tensors):
    name = next(iter(tensors))
    earlier = shutil.copytree(model, model.parent / EARLIER)
    save_file({**tensors, name: tensors[name] - 1}, earlier / "model.safetensors")
    for revision in ("v1.0", EARLIER):
        assert_same(weights.read(f"org/tiny-1.0@{revision}").tensors, {**tensors, name: tensors[name] - 1})
    server.seen.clear()
    weights.read(f"org/tiny-1.0@{EARLIER}")
    assert server.seen == []  # a commit does not move
    assert_same(weights.read("org/tiny-1.0@main").tensors, tensors)
    with pytest.raises(InputError, match=r"^org/tiny-1\.0@v9: the model has no revision v9; give a branch, a tag or a commit$"):
        weights.read("org/tiny-1.0@v9")


def test_nobody_answers_and_the_cache_has_it(server, model, monkeypatch, tensors, capsys):
    weights.read("org/tiny-1.0")
    at(monkeypatch, "http://127.0.0.1:9")
    assert_same(weights.read("org/tiny-1.0").tensors, tensors)
    assert "the copy in the cache is used" in capsys.readouterr().err


def by_huggingface_hub(cache, files, tag=""):
    """A cache as huggingface_hub's documentation lays it out, made without it: blobs, links to them, what `main` is."""
    place = cache / "models--org--tiny-1.0"
    for directory in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (place / directory).mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    for i, file in enumerate(sorted(files)):
        (place / "blobs" / f"{i:040x}").write_bytes(file.read_bytes())
        (place / "snapshots" / COMMIT / file.name).symlink_to(f"../../blobs/{i:040x}")
    return cache


@pytest.mark.parametrize("id", ["org/tiny-1.0", "org/tiny-1.0@main", f"org/tiny-1.0@{COMMIT}"])
def test_what_transformers_opens_offline_opens_here(tmp_path, tensors, config, id):
    """By the environment, in a process of its own; safetensors and the one tokenizer's file are all there is."""
    weights.write(tmp_path / "model", config, tensors, {})
    (tmp_path / "model" / "vocab.txt").write_text("[PAD]\n")
    by_huggingface_hub(tmp_path / "home" / "hub", list((tmp_path / "model").iterdir()))
    code = f"from minitinybert import weights; print(*sorted(weights.read({id!r}).tensors))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == sorted(tensors), done.stderr
    assert done.stderr == ""


def test_offline_without_it_by_the_command_line(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "minitinybert", "info", "org/tiny-1.0@v1.0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    wanted = f"minitinybert: org/tiny-1.0@v1.0: no such file or directory here, nor in the cache ({tmp_path / 'hub'}), and HF_HUB_OFFLINE "
    assert done.stderr == wanted + "is set; unset it to ask the hub\n"


def test_offline_and_the_weights_are_not_in_the_cache(server, model, tmp_path, monkeypatch):
    by_huggingface_hub(tmp_path / "cache", [model / "config.json"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"^org/tiny-1\.0: has no model\.safetensors and no pytorch_model\.bin in the cache \(.*not asked"):
        weights.read("org/tiny-1.0")


def shards(model, tensors, **maps):
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    for i, part in enumerate((names[:2], names[2:])):
        save_file({name: tensors[name] for name in part}, model / f"model-{i}.safetensors")
    weight_map = {name: f"model-{int(i >= 2)}.safetensors" for i, name in enumerate(names)}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards(server, model, tensors):
    shards(model, tensors)
    assert_same(weights.read("org/tiny-1.0").tensors, tensors)
    assert "pytorch_model.bin" not in server.files


def test_shards_of_which_one_is_missing_in_the_cache(server, model, tmp_path, tensors):
    """As a download that was killed leaves it."""
    shards(model, tensors)
    weights.read("org/tiny-1.0")
    (tmp_path / "cache" / "models--org--tiny-1.0" / "snapshots" / COMMIT / "model-1.safetensors").unlink()
    assert_same(weights.read("org/tiny-1.0").tensors, tensors)


@pytest.mark.parametrize("shard", ["model-0.safetensors", "../../../../../secret", 4])
def test_a_shard_that_is_not_there(server, model, tensors, shard):
    (model / "model.safetensors").unlink()
    (server.directory / "secret").write_text("")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(tensors, shard)}))
    with pytest.raises(InputError, match="names the shard .* which is not there"):
        weights.read("org/tiny-1.0")


def test_a_pytorch_file(server, model, tensors):
    torch = pytest.importorskip("torch")
    (model / "model.safetensors").unlink()
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, model / "pytorch_model.bin")
    assert_same(weights.read("org/tiny-1.0").tensors, tensors)


def test_no_such_model(server, model):
    with pytest.raises(InputError, match=r"^org/other: no such file or directory here, and no model of that id at .*set HF_TOKEN"):
        weights.read("org/other")
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors and no pytorch_model\.bin; choose a model with PyTorch weights"):
        weights.read("org/tiny-1.0")
    (model / "config.json").unlink()
    with pytest.raises(InputError, match=r"^org/tiny-1\.0@main2: has no config\.json at http"):
        server.revisions["main2"] = COMMIT
        weights.read("org/tiny-1.0@main2")


def test_tokens(server, model, tmp_path, tensors, monkeypatch):
    server.private.add("org/tiny-1.0")
    with pytest.raises(InputError, match=r"a private one: set HF_TOKEN \(or `hf auth login`\)$"):
        weights.read("org/tiny-1.0")
    monkeypatch.setenv("HF_TOKEN", "bad")
    with pytest.raises(InputError, match=r"^org/tiny-1\.0: http\S+ answers 401 Unauthorized; the token is not valid; renew it"):
        weights.read("org/tiny-1.0")
    monkeypatch.setenv("HF_TOKEN", "good")
    with pytest.raises(InputError, match=r"no model of that id at http\S+, or the token may not read it$"):
        weights.read("org/other")
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text("good\n")  # as `hf auth login` leaves it
    assert_same(weights.read("org/tiny-1.0").tensors, tensors)


def test_a_gated_model(server, model, monkeypatch):
    server.gated.add("org/tiny-1.0")
    page = rf"ask for it at {server.url}/org/tiny-1\.0"
    with pytest.raises(InputError, match=rf"^org/tiny-1\.0: gated, and who asks without a token has no access; {page}, and set HF_TOKEN"):
        weights.read("org/tiny-1.0")
    monkeypatch.setenv("HF_TOKEN", "good")
    with pytest.raises(InputError, match=rf"^org/tiny-1\.0: gated, and the token's account has no access; {page}$"):
        weights.read("org/tiny-1.0")


def test_a_download_that_breaks_off_goes_on(server, model, tensors, monkeypatch):
    """From where it broke off: the library asks for the rest, by itself or, before its 1.0, when it is called again."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 64)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.cuts = 1
    with suppress(InputError):
        weights.read("org/tiny-1.0")
    assert_same(weights.read("org/tiny-1.0").tensors, tensors)
    (asked,) = server.ranges
    assert 0 < int(asked.removeprefix("bytes=").removesuffix("-")) < (model / "config.json").stat().st_size


def test_a_download_that_breaks_off_for_good(server, model, tmp_path, monkeypatch):
    weights.read("org/tiny-1.0")
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.pretended = 10**6  # the connection ends before
    server.cuts = 1000
    with pytest.raises(InputError, match=r"^org/tiny-1\.0: cannot be fetched from http"):
        weights.read("org/tiny-1.0")
    assert saved(tmp_path) == []
    server.pretended = server.cuts = 0
    weights.read("org/tiny-1.0")


def test_a_byte_that_comes_wrong(server, model, tmp_path):
    server.damaged = True
    with pytest.raises(InputError, match=r"^org/tiny-1\.0: model\.safetensors came with SHA-256 [0-9a-f]{64}, [0-9a-f]{64} was expected"):
        weights.read("org/tiny-1.0")
    assert "model.safetensors" not in saved(tmp_path)


def test_weights_that_are_too_large(server, model, monkeypatch, tensors):
    size = (model / "model.safetensors").stat().st_size
    monkeypatch.setattr(hub, "LARGEST", size - 1)
    with pytest.raises(InputError, match=r"^org/tiny-1\.0: model\.safetensors brings its weights to .* GB, more than the .* fetched"):
        weights.read("org/tiny-1.0")
    assert "model.safetensors" not in server.files
    shards(model, tensors)
    monkeypatch.setattr(hub, "LARGEST", (model / "model-1.safetensors").stat().st_size)  # each fits, both do not
    with pytest.raises(InputError, match=r"^org/tiny-1\.0: model-1\.safetensors brings its weights to"):
        weights.read("org/tiny-1.0")


def test_a_download_is_told_and_silence_is_silent(server, model, monkeypatch, capsys):
    monkeypatch.setattr(hub, "_TOLD", 1)
    weights.read("org/tiny-1.0")
    assert capsys.readouterr().err == "org/tiny-1.0: fetching model.safetensors, 0 MB\n"
    shutil.rmtree(constants.HF_HUB_CACHE)
    monkeypatch.setenv("MINITINYBERT_QUIET", "1")
    weights.read("org/tiny-1.0")
    assert capsys.readouterr().err == "" and not utils.are_progress_bars_disabled()


def test_a_disk_that_is_full(server, model, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)
    with pytest.raises(InputError, match=r"^\S+: cannot be written \(No space left on device\); make room there"):
        weights.read("org/tiny-1.0")


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_in_trouble(server, model, status):
    server.status = status
    with pytest.raises(InputError, match=rf"^org/tiny-1\.0: http\S+ answers {status} .*; try again later$"):
        weights.read("org/tiny-1.0")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid", "not an address"])
def test_no_network(server, monkeypatch, endpoint):
    at(monkeypatch, endpoint)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(InputError, match=rf"^org/tiny-1\.0: cannot be fetched from {endpoint} \(.*check name and network$"):
        weights.read("org/tiny-1.0")


def test_a_server_that_is_no_hub(server, monkeypatch):
    (server.directory / "org" / "plain" / "x").mkdir(parents=True)
    (server.directory / "org" / "plain" / "x" / "config.json").write_text("{}")
    server.revisions["main"] = "x"
    server.RequestHandlerClass = type("Plain", (server.RequestHandlerClass,), {"send_header": without("X-Repo-Commit")})
    with pytest.raises(InputError, match=r"^org/plain: http\S+ is no hub \(its answer has no commit"):
        weights.read("org/plain")


def without(name):
    from http.server import BaseHTTPRequestHandler

    return lambda self, header, value: header == name or BaseHTTPRequestHandler.send_header(self, header, value)


def test_a_slip_in_a_path_asks_nobody(server, tmp_path):
    (tmp_path / "work/org").mkdir()
    for path in ("org/tiny-1.0", "./runs/teacher", "a/b/c", "teacher", "../x/y", "org/tiny-1.0@main"):
        with pytest.raises(InputError, match="no such file or directory"):
            weights.read(path)
    assert server.seen == []


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [(name, name, "main") for name in ("org/name", "google-bert/bert-base-uncased", "o.r_g/4L-312D", "bert-base-uncased")]
    + [("org/name@v1.0", "org/name", "v1.0"), ("bert-base-cased@refs/pr/1", "bert-base-cased", "refs/pr/1")]
    + [(text, None, None) for text in ("name", "a/b/c", "/a/b", "../b", "a/..", "~/b", "a b/c", "a/b\n", "", "ä/b", "./b")]
    + [(text, None, None) for text in ("org/name@", "org/name@../../x", "org/name@/x", "name@v1", "org/name@a b")],
)
def test_what_is_an_id(text, repository, revision, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = hub.parse(text)
    assert found == (repository and (repository, revision))


def test_an_id_that_the_hub_would_not_have(server):
    with pytest.raises(InputError, match=r"^org/a--b: "):
        weights.read("org/a--b")
    assert server.seen == []
