"""TextAttack itself: imported without flair, without its downloads, and without side effects in this process.

Its import requires flair, which tags parts of speech and needs transformers before version 5. It also downloads six
data sets of NLTK, disables every logger, and changes environment variables. Recipes that work offline need only NLTK's
stop words and WordNet, which come from registry packages here.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from offramp._core.errors import ConfigError, MissingExtraError
from offramp._core.files import cache_dir
from offramp._core.packages import fetch
from offramp._core.paths import user_path

INSTALL = "pip install --no-deps textattack==0.3.11"  # what the bridge is tested with
STOP_WORDS = "corpora/stopwords/english"
STOP_WORDS_SHA256 = {STOP_WORDS: "f6d005956f407dbc6ea32e5ff0c7e8e6f71488d3239b9023efdc7fc139d6375b"}
WORDNET = (
    *("lexnames", "index.sense", "cntlist.rev"),
    *(f"{kind}.{pos}" for kind in ("index", "data") for pos in ("adj", "adv", "noun", "verb")),
    *(f"{pos}.exc" for pos in ("adj", "adv", "noun", "verb")),
)
WORDNET_SHA256 = {
    "data.noun": "0be5cc3ab9bf4dc907652ab8f72500b53f66dacf42b89e2b04349a04226a7db2",
    "index.noun": "c9828ab17300e93ca1caef25960921f11401b619e030f3ed1cbcc6f8e537435d",
    "noun.exc": "2ee57b3eb38bc567aed55701afa7a79ce6ffac59c70392f3eb7db08bd9d890c1",
}


def load_textattack(*, wordnet: bool = False) -> ModuleType:
    """Import `textattack` on first use, and return it.

    Stop words (12 MB to download) and, on request, WordNet (31 MB) are fetched once from registry packages, unless NLTK
    has them already.

    Args:
        wordnet: whether NLTK's WordNet is needed too, as in PWWS.

    Raises:
        MissingExtraError: TextAttack, or a package that its import needs, is not installed.
        DataError: data that cannot be downloaded.
    """
    _provide("corpora/stopwords", _stop_words)
    if wordnet:
        _provide("corpora/wordnet", _wordnet)
    if sys.modules.get("textattack") is None:
        with _undisturbed(), quiet(), _flair():
            _choose_cache()
            try:
                import textattack  # noqa: F401
            except ModuleNotFoundError as error:
                _forget("textattack")
                raise MissingExtraError(str(error.name), "textattack", then=INSTALL) from error
    return sys.modules["textattack"]


def _forget(package: str) -> None:
    """Forget a half-imported package."""
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        del sys.modules[name]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence TextAttack's messages about unknown goals and downloads."""
    logger = logging.getLogger("textattack.shared.utils.install")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level or logging.INFO)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Restore environment variables and loggers."""
    environment = dict(os.environ)
    loggers = [n for n in logging.root.manager.loggerDict.values() if isinstance(n, logging.Logger)]
    disabled = [logger.disabled for logger in loggers]
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        for logger, before in zip(loggers, disabled, strict=True):
            logger.disabled = before


def _choose_cache() -> None:
    """Use TextAttack's own cache, or a new one that marks its downloads as done."""
    own_cache = user_path(os.environ.get("TA_CACHE_DIR") or "~/.cache/textattack", "$TA_CACHE_DIR")
    done = "post_install_check_3"  # the file that marks its downloads as done
    if not (own_cache / done).is_file():
        own = cache_dir() / "textattack"
        own.mkdir(parents=True, exist_ok=True)
        (own / done).touch()
        os.environ["TA_CACHE_DIR"] = str(own)


class NotHere:
    """Replaces flair's classes; using one raises an error."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ConfigError(
            "this TextAttack recipe tags parts of speech with flair, which does not run with transformers 5 and "
            "downloads its models: use a recipe without it, such as 'deepwordbug', 'pruthi' or 'pwws'"
        )

    @classmethod
    def load(cls, *_: Any, **__: Any) -> NotHere:
        """Replace the download of a tagger."""
        return cls()


@contextmanager
def _flair() -> Iterator[None]:
    """Import flair if possible, otherwise provide a stand-in during TextAttack's import."""
    try:
        import flair  # noqa: F401
    except ImportError:
        _forget("flair")
    else:
        yield
        return
    modules = {name: ModuleType(name) for name in ("flair", "flair.data", "flair.models")}
    flair_, data, models = (modules[name] for name in modules)
    flair_.__dict__.update(data=data, models=models)
    data.__dict__.update(Sentence=NotHere, Tokenizer=NotHere)
    models.__dict__.update(SequenceTagger=NotHere)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)


def _provide(resource: str, make: Any) -> None:
    """Add a folder with a resource that NLTK does not have."""
    try:
        import nltk
    except ModuleNotFoundError as error:
        raise MissingExtraError("nltk", "textattack", then=INSTALL) from error
    try:
        nltk.data.find(resource)
    except LookupError:
        try:
            nltk.data.find(f"{resource}.zip")  # NLTK's own downloader leaves some zipped
        except LookupError:
            nltk.data.path.append(str(make()))


def _stop_words() -> Path:
    member = f"llama_index/core/_static/nltk_cache/{STOP_WORDS}"
    return fetch(
        "llama-index-core", "0.14.25", {member: STOP_WORDS}, name="nltk-stopwords", sha256=STOP_WORDS_SHA256
    )


def _wordnet() -> Path:
    """WordNet 3.0 for NLTK: the package has Windows line ends, which shift all offsets."""
    members = {f"wn/data/wordnet-3.0/{name}": name for name in WORDNET}
    given = fetch("wn", "0.0.23", members, name="wordnet-3.0-crlf", sha256=WORDNET_SHA256)
    root = cache_dir() / "nltk-wordnet-3.0"
    if root.is_dir():
        return root
    with tempfile.TemporaryDirectory(prefix=".nltk-wordnet.", dir=cache_dir()) as scratch:
        folder = Path(scratch) / "data" / "corpora" / "wordnet"
        folder.mkdir(parents=True)
        for name in WORDNET:
            (folder / name).write_bytes((given / name).read_bytes().replace(b"\r\n", b"\n"))
        try:
            (Path(scratch) / "data").rename(root)
        except OSError:
            if not root.is_dir():  # otherwise another process was faster
                raise
    return root
