from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import platformdirs
import pytest
from safetensors.numpy import save_file

from minitinybert import weights
from minitinybert.errors import InputError
from minitinybert.weights import hub

from .helpers import assert_same


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.seen.append(self.path)
        if self.path.startswith("/old/"):  # a model that was renamed: the hub sends its clients on, by a relative address
            self.send_response(307)
            self.send_header("Location", self.path.replace("/old/", "/org/"))
            self.end_headers()
        elif self.server.cut and self.path.endswith(self.server.cut):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"only this")
        elif self.server.status:
            self.send_error(self.server.status)
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub of our own, on which a test puts files; the cache is empty, and so is the working directory."""
    (tmp_path / "www").mkdir()
    (tmp_path / "work").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "www"))) as httpd:
        httpd.seen, httpd.cut, httpd.status = [], "", 0
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{httpd.server_address[1]}/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache" / name))
        monkeypatch.chdir(tmp_path / "work")
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.fixture
def model(server, tmp_path, tensors, config):
    """The directory served as org/tiny-1.0."""
    directory = tmp_path / "www/org/tiny-1.0/resolve/main"
    weights.write(directory, config, tensors, {})
    (directory / "vocab.txt").write_text("[PAD]\n")
    return directory


def no_leftovers(tmp_path):
    cache = tmp_path / "cache"
    return not cache.exists() or not [p for p in cache.rglob("*") if p.is_file()]


@pytest.mark.parametrize("organisation", ["org", "old"])
def test_a_model_by_its_id(server, model, tmp_path, tensors, config, organisation):
    checkpoint = weights.read(f"{organisation}/tiny-1.0")
    assert_same(checkpoint.tensors, tensors)
    assert checkpoint.config == config
    assert list(checkpoint.tokenizer_files) == ["vocab.txt"]
    assert checkpoint.tokenizer_files["vocab.txt"].is_relative_to(tmp_path / "cache" / "minitinybert")
    asked = len(server.seen)
    assert_same(weights.read(f"{organisation}/tiny-1.0").tensors, tensors)
    assert len(server.seen) == asked  # from the cache


def test_shards(server, model, tensors):
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    for i, part in enumerate((names[:2], names[2:])):
        save_file({name: tensors[name] for name in part}, model / f"model-{i}.safetensors")
    weight_map = {name: f"model-{int(i >= 2)}.safetensors" for i, name in enumerate(names)}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_same(weights.read("org/tiny-1.0").tensors, tensors)


@pytest.mark.parametrize("shard", ["model-0.safetensors", "../../../../../secret", 4])
def test_a_shard_that_is_not_there(server, model, tmp_path, tensors, shard):
    (model / "model.safetensors").unlink()
    (tmp_path / "www/secret").write_text("")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(tensors, shard)}))
    with pytest.raises(InputError, match="names the shard .* which is not there"):
        weights.read("org/tiny-1.0")
    assert no_leftovers(tmp_path)


def test_a_pytorch_file(server, model, tensors):
    torch = pytest.importorskip("torch")
    (model / "model.safetensors").unlink()
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, model / "pytorch_model.bin")
    assert_same(weights.read("org/tiny-1.0").tensors, tensors)


def test_no_such_model(server, model, tmp_path):
    with pytest.raises(InputError, match=r"^org/other: no such file or directory here, and no public model of that id"):
        weights.read("org/other")
    (model / "model.safetensors").rename(model / "tf_model.h5")
    with pytest.raises(InputError, match=r"has neither model\.safetensors nor pytorch_model\.bin"):
        weights.read("org/tiny-1.0")
    server.status = 401  # the hub's answer for what does not exist or is private
    with pytest.raises(InputError, match="no public model of that id"):
        weights.read("org/tiny-1.0")
    assert no_leftovers(tmp_path)


def test_a_download_that_breaks_off(server, model, tmp_path, tensors):
    server.cut = "/model.safetensors"
    with pytest.raises(InputError, match=r"model\.safetensors: the download broke off after 9 of 1000000 bytes; try again"):
        weights.read("org/tiny-1.0")
    assert no_leftovers(tmp_path)
    server.cut = ""
    assert_same(weights.read("org/tiny-1.0").tensors, tensors)


def test_a_server_in_trouble(server, model, tmp_path):
    server.status = 503
    with pytest.raises(InputError, match="the server answers 503"):
        weights.read("org/tiny-1.0")
    assert no_leftovers(tmp_path)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid", "not an address"])
def test_no_network(server, tmp_path, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(InputError, match=r"org/tiny-1\.0/resolve/main/config\.json: cannot be fetched \(.*check the name or the network"):
        weights.read("org/tiny-1.0")
    assert no_leftovers(tmp_path)


def test_a_slip_in_a_path_asks_nobody(server, tmp_path):
    (tmp_path / "work/org").mkdir()
    for path in ("org/tiny-1.0", "./runs/teacher", "a/b/c", "teacher", "../x/y"):
        with pytest.raises(InputError, match="no such file or directory"):
            weights.read(path)
    assert server.seen == []


@pytest.mark.parametrize(
    ("text", "is_id"),
    [("org/name", True), ("google-bert/bert-base-uncased", True), ("o.r_g/4L-312D", True), ("bert-base-uncased", True)]
    + [(text, False) for text in ("name", "a/b/c", "/a/b", "../b", "a/..", "~/b", "a b/c", "a/b\n", "", "ä/b", "./b")],
)
def test_is_id(text, is_id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub.is_id(text) is is_id


def test_two_at_once(server, model, tmp_path, tensors, monkeypatch):
    """The other one is first: its files stay, ours go."""
    fetch_files = hub._fetch_files

    def slow(model_id, directory):
        fetch_files(model_id, directory)
        weights.write(directory.parent / "org--tiny-1.0", {}, {"bert.x": np.ones(1)}, {})

    monkeypatch.setattr(hub, "_fetch_files", slow)
    assert list(weights.read("org/tiny-1.0").tensors) == ["bert.x"]
    assert [p.name for p in (tmp_path / "cache/minitinybert/models").iterdir()] == ["org--tiny-1.0"]
