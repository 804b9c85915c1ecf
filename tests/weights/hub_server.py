"""A hub on 127.0.0.1 that answers as huggingface.co does, as far as huggingface_hub's client asks: HEAD and GET of
/ORGANISATION/NAME/resolve/REVISION/FILE, with the commit, entity tags, lengths, ranges, and its own codes of errors."""

import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT, EARLIER = "c" * 40, "b" * 40


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        hub = self.server
        if "/resolve/" not in self.path:  # what the library asks for itself
            return self.refuse(404)
        hub.seen.append((self.command, self.path))
        hub.ranges += [asked for asked in [self.headers.get("Range")] if asked]
        if hub.status:
            return self.refuse(hub.status)
        repository, _, place = unquote(self.path).lstrip("/").partition("/resolve/")
        if repository.startswith("old/"):  # a model that was renamed: the hub sends its clients on, by a relative address
            self.send_response(307)
            self.send_header("Location", self.path.replace("/old/", "/org/"))
            return self.finish_headers(0)
        revision, _, name = place.partition("/")
        token = self.headers.get("Authorization")
        if token not in (None, "Bearer good"):
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        directory = hub.directory / repository
        if not directory.is_dir() or (repository in hub.private and not token):
            return self.refuse(401, "RepoNotFound")  # so that nobody learns which private ones there are
        if repository in hub.gated:
            return self.refuse(403 if token else 401, "GatedRepo")
        commit = hub.revisions.get(revision, revision)
        if commit not in hub.revisions.values():
            return self.refuse(404, "RevisionNotFound")
        file = directory / commit / name
        if not file.is_file():
            return self.refuse(404, "EntryNotFound", commit=commit)
        self.give(file.read_bytes(), commit, body)

    def give(self, content, commit, body):
        hub, start = self.server, 0
        tag = hashlib.sha256(content).hexdigest()
        if (asked := self.headers.get("Range")) and body:
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{tag}"')
        self.send_header("Accept-Ranges", "bytes")
        size = hub.pretended or len(content)
        self.finish_headers(size - start)
        if body:
            if hub.damaged:
                content = content[:-1] + bytes([content[-1] ^ 1])
            if hub.cuts:  # the connection breaks off amid the file
                hub.cuts -= 1
                self.wfile.write(content[start : (start + len(content)) // 2])
                self.close_connection = True
            else:
                self.wfile.write(content[start:])

    def refuse(self, status, code="", message="", commit=""):
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Error-Message", message), ("X-Repo-Commit", commit)):
            if value:
                self.send_header(name, value)
        self.finish_headers(0)

    def finish_headers(self, length):
        self.send_header("Content-Length", str(length))
        self.end_headers()


class Hub(ThreadingHTTPServer):
    """directory: ORGANISATION/NAME/COMMIT/FILE. seen: what was asked. status: what is answered to everything; cuts: how many downloads
    break off; damaged: the last byte of each comes wrong; pretended: the length that is told. ranges: what was asked of files in parts."""

    def __init__(self, directory: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.directory, self.revisions = directory, {"main": COMMIT, "v1.0": EARLIER}
        self.seen, self.ranges, self.private, self.gated = [], [], set(), set()
        self.status = self.cuts = self.pretended = 0
        self.damaged = False
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def files(self):
        """The files that were downloaded, in their order."""
        return [path.rsplit("/", 1)[1] for method, path in self.seen if method == "GET"]


@contextmanager
def serving(directory):
    with Hub(directory) as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
