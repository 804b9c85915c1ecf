"""Models from Hugging Face by id, over plain HTTPS, kept in the user's cache.

HF_ENDPOINT names another server, as it does for huggingface_hub. A model in the cache is used
without asking the network; remove its directory there to fetch it anew.
"""

from __future__ import annotations

import os
import re
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import platformdirs
from tqdm import tqdm

from ..claims import claimed
from ..errors import InputError
from ..files import building, read_json
from .hf import is_plain_name
from .hf_tokenizer import TOKENIZER_FILES

_SINGLE = ("model.safetensors", "pytorch_model.bin")
_TIMEOUT = 30  # seconds without a byte


def is_id(text: str) -> bool:
    """`organisation/name`, and not a path into a directory that is here: then it is a slip of the pen. Or one of the first models'
    names, which have no organisation, such as bert-base-uncased."""
    if re.fullmatch(r"bert-[\w.-]+", text, re.ASCII):
        return True
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text, re.ASCII)) and not Path(text).parent.exists()


def fetch(model_id: str) -> Path:
    """The directory with a model's files, downloaded whole where the cache does not have it.
    InputError where that fails."""
    directory = Path(platformdirs.user_cache_dir("minitinybert")) / "models" / model_id.replace("/", "--")
    if directory.is_dir():
        return directory
    try:
        with claimed(directory, "cache", wait=True):
            if not directory.is_dir():  # nobody else finished it meanwhile
                with building(directory) as beside:
                    _fetch_files(model_id, beside)
    except InputError:
        if not directory.is_dir():  # nobody else did where there are no locks
            raise
    return directory


def _fetch_files(model_id: str, directory: Path) -> None:
    base = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{model_id}/resolve/main"
    if not _get(base, "config.json", directory):
        raise InputError(f"{model_id}: no such file or directory here, and no public model of that id with a config.json at {base}")
    if not any(_get(base, name, directory) or _fetch_shards(base, name, directory) for name in _SINGLE):
        raise InputError(f"{model_id}: {base} has neither {' nor '.join(_SINGLE)}; choose a model with PyTorch weights")
    for name in TOKENIZER_FILES:
        _get(base, name, directory)


def _fetch_shards(base: str, name: str, directory: Path) -> bool:
    index = name + ".index.json"
    if not _get(base, index, directory):
        return False
    weight_map = read_json(directory / index).get("weight_map")
    shards = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
    for shard in shards:
        if not is_plain_name(shard) or not _get(base, shard, directory):
            raise InputError(f"{base}/{index}: names the shard {shard!r}, which is not there")
    return True


def _get(base: str, name: str, directory: Path) -> bool:
    """Downloads one file; False where the server has none of that name."""
    url = f"{base}/{name}"
    try:
        request = Request(url, headers={"User-Agent": "minitinybert", "Accept-Encoding": "identity"})
        with urlopen(request, timeout=_TIMEOUT) as response, (directory / name).open("wb") as file:
            expected = int(response.headers["Content-Length"] or 0) or None
            # disable=None: a bar on a terminal, silence elsewhere
            with tqdm(total=expected, desc=name, unit="B", unit_scale=True, disable=None, leave=False) as bar:
                while chunk := response.read(1 << 20):
                    bar.update(file.write(chunk))
                received = file.tell()
    except HTTPError as error:
        if error.code in (401, 403, 404):  # 401 is also what the server says of ids that do not exist
            return False
        raise InputError(f"{url}: the server answers {error.code} {error.reason}; try again later") from None
    except (OSError, HTTPException, ValueError) as error:  # ValueError: HF_ENDPOINT is no address
        why = getattr(error, "reason", None) or error
        raise InputError(f"{url}: cannot be fetched ({why}); no such path is here either: check the name or the network") from None
    if expected not in (None, received):
        raise InputError(f"{url}: the download broke off after {received} of {expected} bytes; try again")
    return True
