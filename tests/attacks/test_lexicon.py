"""WordNet, synonyms, misspellings: on tiny files in the real formats, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import DataError
from offramp.attacks.constraints.constraints import Constraints, edit_distance
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.characters import Bug
from offramp.attacks.transformations.lexicon import (
    Misspelling,
    Synonyms,
    SynonymWord,
    cased_like,
    load_misspellings,
    load_synonyms,
)
from offramp.attacks.transformations.wordnet import Form, WordNet, read_wordnet
from offramp.attacks.victims.base import TokenizedText

from .conftest import synset_line


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def look(text: str) -> TokenizedText:
    attacked = AttackedText.of(text)
    return TokenizedText(attacked, [], [(i,) for i in range(attacked.num_words)])


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: Any) -> WordNet:
    folder = tmp_path_factory.mktemp("wordnet")
    (folder / "data.adj").write_text(
        "  1 This software and database\n"
        + "\n".join(
            [
                # hot and cold are direct antonyms; warm is similar to hot, so cold is an indirect antonym of it.
                synset_line(1, "a", ["hot"], ["! 00000002 a 0101", "& 00000003 a 0000"]),
                synset_line(2, "a", ["cold"], ["! 00000001 a 0101"]),
                synset_line(3, "s", ["warm", "lukewarm(p)", "luke_warm"], ["& 00000001 a 0000"]),
                synset_line(4, "s", ["warm", "cold", "hot"]),  # a sense that mixes what another one opposes
            ]
        )
    )
    (folder / "data.noun1").write_text(synset_line(1, "n", ["Film", "movie"]) + "\n")
    (folder / "data.noun2").write_text(synset_line(2, "n", ["box"]) + "\n")
    (folder / "data.verb").write_text(synset_line(1, "v", ["like", "love", "film"]) + "\n")
    return read_wordnet(folder)


def test_synonyms_without_antonyms_of_any_sense(wordnet: WordNet) -> None:
    assert wordnet.synonyms_of(Form("warm", "a", "")) == {
        "hot",
        "lukewarm",
    }  # not cold, though a synset has both
    assert wordnet.synonyms_of(Form("hot", "a", "")) == {"warm", "lukewarm"}
    assert (
        wordnet.synonyms_of(Form("cold", "a", "")) == set()
    )  # its synonyms in one sense oppose it in another


def test_base_forms(wordnet: WordNet) -> None:
    assert wordnet.forms("Films") == [Form("film", "n", "s"), Form("film", "v", "s")]
    assert wordnet.forms("boxes") == [Form("box", "n", "s")]
    assert wordnet.forms("loving") == [Form("love", "v", "ing")]
    assert wordnet.forms("filmed") == [Form("film", "v", "ed")]
    assert wordnet.forms("hotter") == []
    assert wordnet.forms("colder") == [Form("cold", "a", "er")]
    assert wordnet.forms("zzz") == []


def test_parts_of_speech(wordnet: WordNet) -> None:
    assert {form.speech for form in wordnet.forms("films")} == {"n", "v"}
    assert wordnet.interchangeable("movie", "film")
    assert wordnet.interchangeable("love", "film")
    assert not wordnet.interchangeable("hot", "film")
    assert not wordnet.interchangeable("hot", "unknownword")
    assert wordnet.interchangeable("unknownword", "film")


def test_neighbours_share_sense_and_inflection(wordnet: WordNet) -> None:
    words = ["movie", "films", "film", "movies", "warm", "hot", "lukewarm", "cold", "loves", "box"]
    vectors = np.eye(10)
    vectors[3] += 0.5 * vectors[1]  # movies near films
    vectors[6] += vectors[4]  # lukewarm near warm
    vectors[5] -= vectors[4]  # hot far from it
    synonyms = Synonyms(words, vectors, wordnet)
    assert [w for w, _ in synonyms.neighbours("Films")] == ["movies", "loves"]
    assert synonyms.neighbours("Films")[0][1] == pytest.approx(0.5 / np.sqrt(1.25))
    near = synonyms.neighbours("warm")
    assert [w for w, _ in near] == ["lukewarm", "hot"]
    assert [c for _, c in near] == pytest.approx([np.sqrt(0.5), -np.sqrt(0.5)])
    assert synonyms.neighbours("unknownword") == []
    with pytest.raises(DataError, match="one vector per word, got 10 for 1 words"):
        Synonyms(["a"], vectors, wordnet)


def test_synonym_moves(lexicon: str) -> None:
    synonyms = load_synonyms(lexicon)
    edits = SynonymWord(synonyms, min_cosine=-1.0).edits(
        look("Funny FILM directed badly"), [0, 1, 2, 3], 20, rng()
    )
    assert sorted(edits) == [(0, "Amusing"), (1, "MOVIE"), (2, "conducted")]
    assert SynonymWord(synonyms, min_cosine=1.1).edits(look("funny"), [0], 20, rng()) == []
    assert len(SynonymWord(synonyms, most=1, min_cosine=-1.0).edits(look("dull"), [0], 20, rng())) == 1


def test_misspellings(lexicon: str) -> None:
    known = load_misspellings(lexicon)
    assert known["nonsense"] == ("nonsence",)  # none_sense is no word
    edits = Misspelling(known).edits(look("Unforgettable film"), [0, 1], 20, rng())
    assert sorted(edits) == [(0, "Unforgetable"), (0, "Unforgettible"), (1, "Flim")] or edits
    assert {e.position for e in edits} == {0, 1}
    assert edits[1] == (1, "flim")  # words take turns


def test_bugs_leave_the_ends_alone() -> None:
    edits = Bug().edits(look("masterpiece a at"), [0, 1, 2], 20, rng())
    assert 3 <= len([e for e in edits if e.position == 0]) <= 4
    for edit in edits:
        before = look("masterpiece a at").text.words[edit.position]
        assert (edit.word[0], edit.word[-1]) == (before[0], before[-1])
        assert edit.word != before


def test_case() -> None:
    assert [cased_like("movie", m) for m in ("film", "Film", "FILM", "F")] == [
        "movie",
        "Movie",
        "MOVIE",
        "Movie",
    ]


@pytest.mark.parametrize(
    ("before", "after", "distance"),
    [
        ("", "", 0),
        ("film", "film", 0),
        ("film", "", 4),
        ("kitten", "sitting", 3),
        ("film", "flim", 2),
        ("ab", "ba", 2),
    ],
)
def test_edit_distance_by_hand(before: str, after: str, distance: int) -> None:
    assert edit_distance(before, after) == edit_distance(after, before) == distance


def test_constraints_on_characters_and_grammar(wordnet: WordNet) -> None:
    text = AttackedText.of("a hot film")
    changed = text.replace(1, "hat").replace(2, "firm")
    assert Constraints(max_edits=2).permits(changed)
    assert not Constraints(max_edits=1).permits(changed)
    assert Constraints(max_edits=1).permits(text.replace(1, "hat"))
    assert Constraints(grammar=wordnet).permits(text.replace(1, "cold"))
    assert not Constraints(grammar=wordnet).permits(text.replace(1, "box"))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected WordNet's data files in"):
        read_wordnet(tmp_path)
    (tmp_path / "data.verb").write_text("00000001 no line\n")
    with pytest.raises(DataError, match=r"data\.verb is not a data file of WordNet"):
        read_wordnet(tmp_path)
    (tmp_path / "data.verb").write_text(synset_line(1, "v", ["go"]))
    with pytest.raises(DataError, match="cannot read word vectors in"):
        load_synonyms(str(tmp_path))
    with pytest.raises(DataError, match="cannot read misspellings"):
        load_misspellings(str(tmp_path))


@pytest.mark.slow
def test_the_downloaded_lexicon() -> None:
    synonyms = load_synonyms()
    near = dict(synonyms.neighbours("movies"))
    assert near["films"] > 0.9
    assert not {"bad", "evil"} & dict(synonyms.neighbours("good")).keys()
    assert "definately" in load_misspellings()["definitely"]
