"""Packaged sets: readers on tiny files of the same layout; the real ones where downloads are wanted."""

import json
import logging

import pytest

from offramp._core.errors import DataError
from offramp.data import PACKAGED, load_data, overlap
from offramp.data import packaged as room


def test_sentiment_reader_drops_zeros_and_survives_bad_bytes(tmp_path):
    path = tmp_path / "movies.txt"
    path.write_bytes(b'id\tsentiment\ttext\r\n1\t2.5\tfine "one"\r\n2\t0.0\tso so\r\n3\t-0.1\tna\xefve\tfilm')
    rows = room._read_hutto(path)
    assert rows.text == ['fine "one"', "na\ufffdve\tfilm"]
    assert rows.label == ["positive", "negative"]
    assert list(rows.numbers or ()) == [0, 2]


def test_question_reader_takes_the_coarse_type(tmp_path):
    path = tmp_path / "trec.txt"
    path.write_bytes("NUM:date When ?\nLOC:other Where is the caf\xe9 ?\n".encode("latin-1"))
    rows = room._read_trec(path)
    assert (rows.text, rows.label) == (["When ?", "Where is the café ?"], ["NUM", "LOC"])


def test_spam_reader_knows_quotes(tmp_path):
    path = tmp_path / "sms.csv"
    path.write_text(',spam,text\n0,0,"ok, then"\n1,1,"win\nnow"\n')
    rows = room._read_spam(path)
    assert (rows.text, rows.label) == (["ok, then", "win\nnow"], ["0", "1"])


def test_topic_reader_skips_header_and_empty_rows(tmp_path):
    path = tmp_path / "topics.tab"
    path.write_text("Category\tText\nd\tstring\nclass\t\n\t\nearn\tprofits up\nacq\tbought \n")
    rows = room._read_orange(path)
    assert (rows.text, rows.label) == (["profits up", "bought"], ["earn", "acq"])


def test_fact_reader_groups_by_page(tmp_path):
    path = tmp_path / "task.json"
    scores = {"True": 0, "False": 1, "Neither": 0}
    example = {"input": "Page: It is so: yes .\nClaim: It is not .", "target_scores": scores}
    path.write_text(json.dumps({"examples": [example]}))
    rows = room._read_vitaminc(path)
    assert (rows.text, rows.pair) == (["Page: It is so: yes ."], ["It is not ."])
    assert (rows.label, rows.group) == (["False"], ["Page"])


def test_copies_of_a_text_are_dropped_and_numbers_kept():
    rows = room.Rows(["a", "b", "a", "c"], ["x", "y", "z", "x"], "toy", numbers=[0, 2, 3, 5])
    kept = room._first_of_each(rows)
    assert (kept.text, kept.label, list(kept.numbers or ())) == (["a", "b", "c"], ["x", "y", "x"], [0, 2, 5])


def test_every_set_is_described():
    for name, entry in PACKAGED.items():
        assert entry.about
        assert entry.task.name == name
        members = set(entry.archive.members.values())
        assert set(entry.files.values()) <= members
        assert entry.archive.sha256.keys() == members
        assert {len(digits) for digits in entry.archive.sha256.values()} == {64}


def test_fixed_columns_cannot_be_chosen():
    with pytest.raises(DataError, match="'movies' has fixed columns and labels"):
        load_data("movies", label="stars")


SIZES = {
    "movies": (8568, 1000, 1000),
    "amazon": (2240, 360, 1000),
    "nyt": (3396, 488, 1000),
    "tweets": (2776, 420, 1000),
    "trec": (4305, 538, 538),
    "sms-spam": (3610, 451, 451),
    "vitaminc": (52668, 1000, 1000),
    "20newsgroups": (9286, 1000, 1000, 7528),
    "reuters-r8": (4384, 548, 548, 2189),
    "reuters-r52": (5218, 653, 653, 2568),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PACKAGED))
def test_real_sizes(name, caplog):
    with caplog.at_level(logging.WARNING):
        data = load_data(name)
    assert tuple(map(len, data.values())) == SIZES[name]
    assert not [record for record in caplog.records if record.name.startswith("offramp")]
    splits = list(data.values())
    assert all(overlap(splits[0], other) == overlap(splits[1], other) == 0 for other in splits[2:])
    assert overlap(splits[0], splits[1]) == 0
    assert set(data["train"]["label"]) == set(range(data.num_labels))


@pytest.mark.slow
def test_pages_do_not_part():
    data = load_data("vitaminc")
    pages = [{text.split(":")[0] for text in rows["text"]} for rows in data.values()]
    assert sum(map(len, pages)) == len(set.union(*pages))
