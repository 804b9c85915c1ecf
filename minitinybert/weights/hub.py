"""Models from Hugging Face by id, through huggingface_hub: its cache (HF_HOME), its token, its
switches (HF_HUB_OFFLINE, HF_ENDPOINT …) hold here as they do for transformers.

    organisation/name@revision ─▶ config.json, which settles the commit ─▶ the weights, one kind of them ─▶ the tokenizer's files

What the cache has of a commit is not asked for again; whether a branch has moved is, in one request,
unless nobody answers. The library is imported when an id is met, as it takes a third of a second.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..files import cause, read_json, unwritable
from ..progress import is_quiet, log
from ..version import __version__
from .hf import is_plain_name
from .hf_tokenizer import TOKENIZER_FILES

LARGEST = 10**10  # bytes of weights: BERT-large in float32 has 1.3e9
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_TOLD = 10**7  # bytes from which a download is told before it begins
_ID = re.compile(r"(?P<repository>bert-[\w.-]+|[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>(?!.*\.\.)\w[\w./-]*))?", re.ASCII)


class Id(NamedTuple):
    """A repository on the hub, and a branch, tag or commit of it; `main` where none is given."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return self.repository if self.revision == "main" else f"{self.repository}@{self.revision}"


def parse(text: str) -> Id | None:
    """What `organisation/name` or `organisation/name@revision` means; None where it is no id, or a
    path into a directory that is here: then it is a slip of the pen. The first models' names have
    no organisation, such as bert-base-uncased."""
    found = _ID.fullmatch(text)
    if found is None or ("/" in found["repository"] and Path(found["repository"]).parent.exists()):
        return None
    return Id(found["repository"], found["revision"] or "main")


def fetch(model: Id) -> Path:
    """The directory with the files of a model, in huggingface_hub's cache; what is not there yet is
    downloaded: config.json, one kind of weights (safetensors where there are any), the tokenizer's.

    InputError, in one line, where that fails: no such model or revision, a gated or private one, a
    wrong token, no network, a full disk, weights above LARGEST bytes.
    """
    with _in_one_line(model), _as_quiet_as_we():
        return _Snapshot(model).fill()


class _Snapshot:
    """The files of one commit."""

    def __init__(self, model: Id):
        """Settles the commit: the one that the hub has now; the cache's where that cannot be asked."""
        import huggingface_hub as hub
        from huggingface_hub import constants

        self.model, self.hub, self.constants = model, hub, constants
        self.asks = not constants.HF_HUB_OFFLINE
        cached = self._cached("config.json", model.revision)
        self.directory = Path(cached).parent if isinstance(cached, str) else Path()
        if self.directory.name != model.revision:  # else a commit, which does not move
            try:
                commit = self._ask("config.json", model.revision).commit_hash
            except Exception as error:  # see _in_one_line
                if not isinstance(cached, str):
                    raise
                if self.asks:
                    log(f"warning: {_explained(error, model)}; the copy in the cache is used")
                self.asks = False
            else:
                if commit != self.directory.name:
                    config = hub.hf_hub_download(model.repository, "config.json", revision=model.revision, **_us())
                    self.directory = Path(config).parent

    def fill(self) -> Path:
        there = (name for name in _WEIGHTS if (self.directory / name).is_file())
        weights = next(there, None) or next(filter(self._get_weights, _WEIGHTS), None)
        if weights is None:
            raise InputError(f"{self.model}: has no {' and no '.join(_WEIGHTS[::2])}{self._where()}; choose a model with PyTorch weights")
        if weights.endswith(".index.json"):
            self._get_shards(weights)
        for name in TOKENIZER_FILES:
            self._get(name)
        return self.directory

    def _get_shards(self, index: str) -> None:
        weight_map = read_json(self.directory / index).get("weight_map")
        total = 0
        for shard in sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else ():
            if not is_plain_name(shard) or not self._get_weights(shard, total):
                raise InputError(f"{self.model}: {index} names the shard {shard!r}, which is not there{self._where()}")
            total += (self.directory / shard).stat().st_size

    def _get_weights(self, name: str, before: int = 0) -> bool:
        """As `_get`, and the file is held against its digest. before: bytes of weights that are
        there already."""
        from huggingface_hub.errors import EntryNotFoundError

        if not self.asks or isinstance(self._cached(name, self.directory.name), str):
            return self._get(name)
        try:
            file = self._ask(name, self.directory.name)
        except EntryNotFoundError:
            return False
        size = file.size or 0
        if before + size > LARGEST:
            raise InputError(
                f"{self.model}: {name} brings its weights to {(before + size) / 1e9:.1f} GB, more than the {LARGEST / 1e9:.0f} GB that are "
                "fetched; download it yourself, and give the directory"
            )
        if size >= _TOLD:
            log(f"{self.model}: fetching {name}, {size / 1e6:,.0f} MB")
        there = self._get(name)
        _check_digest(self.directory / name, file.etag, f"{self.model}: {name}")
        return there

    def _get(self, name: str) -> bool:
        """A file of the commit, whole; False where there is none of that name, or none in the cache
        and nobody is asked."""
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        cached = self._cached(name, self.directory.name)
        if cached is not None or not self.asks:
            return isinstance(cached, str)  # or what the hub has said before: that there is none
        try:
            self.hub.hf_hub_download(self.model.repository, name, revision=self.directory.name, **_us())
        except LocalEntryNotFoundError:  # nobody answers
            raise
        except EntryNotFoundError:
            return False
        return True

    def _cached(self, name: str, revision: str) -> Any:
        """The path; the library's mark where it is known that there is none; None."""
        return self.hub.try_to_load_from_cache(self.model.repository, name, revision=revision)

    def _ask(self, name: str, revision: str) -> Any:
        """What the hub says of a file: commit_hash, etag, size. One request; hf_hub_download would try
        again for half a minute."""
        url = self.hub.hf_hub_url(self.model.repository, name, revision=revision)
        return self.hub.get_hf_file_metadata(url, timeout=self.constants.HF_HUB_ETAG_TIMEOUT, **_us())

    def _where(self) -> str:
        return "" if self.asks else f" in the cache ({self.constants.HF_HUB_CACHE}), and the hub was not asked"


def _us() -> dict[str, Any]:
    return {"library_name": "minitinybert", "library_version": __version__}


def _check_digest(path: Path, etag: str | None, what: str) -> None:
    """InputError, and the file leaves the cache, where its SHA-256 is another than the hub's: the
    entity tag of a large file is that."""
    if not re.fullmatch(r"[0-9a-f]{64}", etag or ""):
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != etag:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise InputError(f"{what} came with SHA-256 {digest.hexdigest()}, {etag} was expected; try again")


# --------------------------------------------------------------------------------------------------------------------- errors


@contextmanager
def _in_one_line(model: Id) -> Iterator[None]:
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # of three HTTP libraries, by huggingface_hub's version; of Xet's, in Rust
        raise _explained(error, model) from None


def _explained(error: Exception, model: Id) -> InputError:
    from huggingface_hub import constants, errors, get_token

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    here = f"{model}: no such file or directory here"
    with_token = bool(get_token())
    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
        return InputError(f"{here}, nor in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set; unset it to ask the hub")
    if isinstance(error, errors.GatedRepoError):
        who = "the token's account" if with_token else "who asks without a token"
        how = "" if with_token else ", and set HF_TOKEN (or `hf auth login`)"
        page = f"{constants.ENDPOINT}/{model.repository}"
        return InputError(f"{model}: gated, and {who} has no access; ask for it at {page}{how}")
    if isinstance(error, errors.RepositoryNotFoundError):
        private = "or the token may not read it" if with_token else "or a private one: set HF_TOKEN (or `hf auth login`)"
        return InputError(f"{here}, and no model of that id at {constants.ENDPOINT}, {private}")
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{model}: the model has no revision {model.revision}; give a branch, a tag or a commit")
    if isinstance(error, errors.EntryNotFoundError):
        return InputError(f"{model}: has no config.json at {constants.ENDPOINT}; choose a model of transformers")
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        return _of_status(error.response.status_code, model, with_token)
    if isinstance(error, errors.FileMetadataError):
        return InputError(f"{model}: {constants.ENDPOINT} is no hub (its answer has no commit or entity tag); look at HF_ENDPOINT")
    if isinstance(error, OSError) and error.errno and not isinstance(error, (ConnectionError, TimeoutError)):
        return unwritable(Path(error.filename or constants.HF_HUB_CACHE), error)
    why = cause(error) or type(error).__name__
    return InputError(f"{model}: cannot be fetched from {constants.ENDPOINT} ({why}); no such path is here either: check name and network")


def _of_status(status: int, model: Id, with_token: bool) -> InputError:
    from http.client import responses

    from huggingface_hub import constants

    answer = f"{constants.ENDPOINT} answers {status} {responses.get(status, '')}".rstrip()
    if status == 401:
        what = "the token is not valid; renew it (HF_TOKEN, or `hf auth login`)" if with_token else "set HF_TOKEN (or `hf auth login`)"
    elif status == 403:
        what = "the token may not read it" if with_token else "set HF_TOKEN (or `hf auth login`)"
    else:
        what = "try again later"
    return InputError(f"{model}: {answer}; {what}")


@contextmanager
def _as_quiet_as_we() -> Iterator[None]:
    """The library's bars are ours, silent with MINITINYBERT_QUIET; what it warns of is told in our
    errors, or is its own affair (a failed try of several)."""
    from huggingface_hub import utils
    from huggingface_hub.utils import logging as told

    verbosity, bars = told.get_verbosity(), not utils.are_progress_bars_disabled()
    if verbosity == logging.WARNING:  # and not what HF_HUB_VERBOSITY asks for
        told.set_verbosity_error()
    if is_quiet() and bars:
        utils.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        told.set_verbosity(verbosity)
        if is_quiet() and bars:
            utils.enable_progress_bars()
