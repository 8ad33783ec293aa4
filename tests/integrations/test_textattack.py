"""The bridge to TextAttack, against the installed library where there is one: see `make textattack`."""

from __future__ import annotations

import csv
import importlib.util
import json
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from offramp._core.errors import ConfigError, MissingExtraError
from offramp._core.files import cache_dir
from offramp.attacks import EngineVictim, FunctionVictim, WhiteBoxVictim, attack
from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.objectives.same import Same
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import Answer
from offramp.inference.engine import Engine
from offramp.inference.tracing import trace

FAST: dict[str, Any] = {"top_n": 8, "beam": 2, "rounds": 2, "similarity": "none", "progress": False}
CACHE = cache_dir()
installed = pytest.mark.skipif(
    importlib.util.find_spec("textattack") is None, reason="TextAttack is not installed: make textattack"
)
# Of the library itself, where nothing succeeded, and on each goal that it does not know.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]


@pytest.fixture
def same_library() -> Iterator[None]:
    """Puts back every module of TextAttack: two copies of the library do not know each other's classes."""

    def ours() -> dict[str, Any]:
        return {
            name: module for name, module in sys.modules.items() if name.partition(".")[0] == "textattack"
        }

    before = ours()
    yield
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.usefixtures("same_library")
@pytest.mark.parametrize("missing", ["nltk", "textattack"])
def test_without_the_library_both_install_lines_are_said(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from offramp.integrations.textattack import load_textattack

    if missing == "textattack" and importlib.util.find_spec("nltk") is None:
        pytest.skip("NLTK is not installed: make textattack")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        MissingExtraError, match=r"offramp\[textattack\]' && pip install --no-deps textattack=="
    ):
        load_textattack()


def test_an_unknown_name_is_an_attribute_error() -> None:
    from offramp.integrations import textattack

    with pytest.raises(AttributeError, match="nonsense"):
        textattack.nonsense  # noqa: B018


@pytest.fixture(scope="module")
def bridge(stop_words: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The bridge with a few stop words instead of NLTK's, and nothing downloaded."""
    from offramp.integrations import textattack

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFRAMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        textattack.load_textattack()
        yield textattack


@pytest.fixture
def wrapper(bridge: Any, victim: WhiteBoxVictim) -> Any:
    return bridge.VictimWrapper(victim)


@installed
@pytest.mark.usefixtures("same_library")
def test_the_import_leaves_no_trace(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "textattack"]:
        monkeypatch.delitem(sys.modules, name)
    ours = logging.getLogger("offramp.attacks.made_up")
    environment = dict(os.environ)
    library = bridge.load_textattack()
    assert library is sys.modules["textattack"]
    assert not ours.disabled
    assert dict(os.environ) == environment
    assert "flair" not in sys.modules
    with pytest.raises(ConfigError, match="tags parts of speech with flair.*'deepwordbug'"):
        library.constraints.grammaticality.PartOfSpeech(tagger_type="flair")


@installed
def test_the_wrapper_gives_what_the_deployed_exit_says(wrapper: Any, sentences: Any) -> None:
    victim = wrapper.victim
    found = trace(victim.model, sentences)
    taken = victim.policy.decide(found).exit
    assert len(set(taken)) > 1
    logits = found.logits[np.arange(len(taken)), taken].astype(float)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(wrapper(list(sentences["text"])).numpy(), expected, atol=1e-5)


@installed
def test_the_wrapper_of_a_regression_and_of_a_black_box(
    bridge: Any, make_model: Any, policy_for: Any, sentences: Any
) -> None:
    model = make_model(kind="regression")
    values = bridge.VictimWrapper(model, policy_for(model, "patience", 1))(["good film", "bad"])
    assert values.shape == (2, 1)
    box = bridge.VictimWrapper(FunctionVictim(by_letters, (1, 2, 4)))
    assert [answer.layer for answer in box.answers(["e", "eee", ("eee", "eee")])] == [1, 2, 4]
    with pytest.raises(ConfigError, match="a black box shows none: use EfficiencyGoal"):
        box(["e"])


def by_letters(text: str, pair: str = "") -> tuple[int, int]:
    """Leaves late where there are many e's: a model of which nothing is known."""
    return int("good" in text), (1, 2, 4)[min(2, (text + pair).count("e") // 3)]


def answer(exit: int, logits: Any) -> Answer:
    return Answer(np.asarray(logits, np.float32), exit, exit + 1, 0, 3.0 * (exit + 1), 12.0)


@installed
def test_the_score_goes_by_the_exit_first_and_then_by_the_loss(bridge: Any) -> None:
    from offramp.integrations.textattack.attack import depth_score

    sure, unsure = np.array([[4.0, -4.0]] * 4), np.array([[0.2, -0.2]] * 4)
    assert depth_score(answer(1, sure), ExitDepth()) == 0.5
    assert depth_score(answer(3, sure), ExitDepth()) == 1
    loss = Same().value(sure[None], np.array([1]))[0]
    assert depth_score(answer(1, sure), Same()) == pytest.approx((1 + 1 / (1 + loss)) / 4)
    assert depth_score(answer(1, unsure), Same()) > depth_score(answer(1, sure), Same())
    assert depth_score(answer(2, sure), Same()) > depth_score(answer(1, unsure), Same())
    seconds = Answer(np.empty((0, 0), np.float32), -1, 0, 0, 0.25, float("nan"))
    assert depth_score(seconds, ExitDepth()) == 0.25


def layer(victim: Any, text: Any) -> int:
    """The exit layer of a text as TextAttack holds it."""
    given = text.tokenizer_input
    texts = [AttackedText.of(*([given] if isinstance(given, str) else given))]
    return int(victim.query_many([(victim.budget(), texts)])[0][0].layer)


def run_attack(bridge: Any, built: Any, data: Any) -> list[Any]:
    """TextAttack's own run of an attack, without logs."""
    library = bridge.load_textattack()
    arguments = library.AttackArgs(num_examples=-1, disable_stdout=True, silent=True)
    return list(library.Attacker(built, bridge.as_dataset(data), arguments).attack_dataset())


@installed
@pytest.mark.parametrize("recipe", ["deepwordbug", "pruthi"])
@pytest.mark.parametrize("data", ["sentences", "pairs"])
def test_recipes_attack_by_exit(
    recipe: str, data: str, bridge: Any, wrapper: Any, request: pytest.FixtureRequest
) -> None:
    rows = request.getfixturevalue(data).select(range(4))
    results = run_attack(bridge, bridge.efficiency_attack(recipe, wrapper), rows)
    assert len(results) == len(rows)
    deeper = 0
    for result in results:
        before, after = result.original_result, result.perturbed_result
        for one in (before, after):
            assert one.raw_output.layer == layer(wrapper.victim, one.attacked_text)
            assert one.output == f"{one.raw_output.prediction} at layer {one.raw_output.layer}"
        assert after.score >= before.score
        assert after.raw_output.layer >= before.raw_output.layer
        kind = type(result).__name__
        assert (kind == "SkippedAttackResult") == before.raw_output.last
        assert (kind == "SuccessfulAttackResult") == (after.raw_output.last and not before.raw_output.last)
        deeper += after.raw_output.layer > before.raw_output.layer
        if data == "pairs":
            assert isinstance(after.attacked_text.tokenizer_input, tuple)
    assert deeper or recipe == "pruthi"  # which changes one word only


@installed
def test_an_engine_and_a_function_are_attacked(bridge: Any, victim: WhiteBoxVictim, sentences: Any) -> None:
    rows = sentences.select(range(3))
    engine = EngineVictim(Engine(victim.model, victim.policy))
    deployed = bridge.efficiency_attack("pruthi", bridge.VictimWrapper(engine))
    for result in run_attack(bridge, deployed, rows):
        assert result.perturbed_result.raw_output.layer == layer(
            victim, result.perturbed_result.attacked_text
        )
    box = bridge.VictimWrapper(FunctionVictim(lambda text: (0, 0.01 * len(text))))
    for result in run_attack(bridge, bridge.efficiency_attack("deepwordbug", box), rows):
        assert type(result).__name__ == "FailedAttackResult"  # nothing says that the last exit is reached
        assert len(result.perturbed_result.attacked_text.text) > len(
            result.original_result.attacked_text.text
        )
        assert result.perturbed_result.output.endswith(" s")


@installed
def test_cost_as_the_measure_and_the_victims_budget(
    bridge: Any, victim: WhiteBoxVictim, sentences: Any
) -> None:
    limited = WhiteBoxVictim(victim.model, victim.policy, max_forward=7)
    goal = bridge.EfficiencyGoal(bridge.VictimWrapper(limited), measure="cost")
    result, _ = goal.init_attack_example(bridge.load_textattack().shared.AttackedText("a good film"), 1)
    assert result.score == pytest.approx(result.raw_output.spent / result.raw_output.full_spent)
    built = bridge.efficiency_attack("deepwordbug", bridge.VictimWrapper(limited))
    assert {r.num_queries <= 7 for r in run_attack(bridge, built, sentences.select(range(4)))} == {True}


@installed
def test_the_librarys_own_accuracy_attack_runs_on_the_wrapper(
    bridge: Any, wrapper: Any, sentences: Any, recwarn: pytest.WarningsRecorder
) -> None:
    library = bridge.load_textattack()
    with pytest.warns(DeprecationWarning, match="warn"):
        built = library.attack_recipes.DeepWordBugGao2018.build(wrapper)
    result = built.attack(sentences[0]["text"], int(wrapper([sentences[0]["text"]])[0].argmax()))
    assert 0 <= result.perturbed_result.score <= 1


@installed
def test_names_that_there_are_not(bridge: Any, wrapper: Any) -> None:
    with pytest.raises(
        ConfigError, match="unknown TextAttack recipe 'deepwordbugg'. Did you mean 'deepwordbug'"
    ):
        bridge.efficiency_attack("deepwordbugg", wrapper)
    with pytest.raises(ConfigError, match="unknown measure 'depth'"):
        bridge.EfficiencyGoal(wrapper, measure="depth")


@installed
def test_data_sets_without_labels_and_with_values(bridge: Any, pairs: Any) -> None:
    texts = Dataset.from_dict({"text": ["a film"]})
    assert bridge.as_dataset(texts)[0] == (OrderedDict(text="a film"), "None")
    rated = bridge.as_dataset(Dataset.from_dict({"text": ["a"], "text_pair": ["b"], "label": [2.5]}))
    assert rated[0] == (OrderedDict(premise="a", hypothesis="b"), "2.5")
    assert bridge.as_dataset(pairs, ["no", "yes"]).label_names == ["no", "yes"]


def logged(bridge: Any, results: list[Any], folder: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """What TextAttack's log manager writes: the rows of the CSV file, and the summary."""
    from textattack.loggers import AttackLogManager

    manager = AttackLogManager(None)
    manager.add_output_csv(str(folder / "log.csv"), "file")
    manager.add_output_summary_json(str(folder / "log.json"))
    manager.log_results(results)
    manager.flush()
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file)), json.loads((folder / "log.json").read_text())["Attack Results"]


@installed
@pytest.mark.parametrize("data", ["sentences", "pairs"])
def test_our_results_are_logged_their_way(
    data: str, bridge: Any, victim: WhiteBoxVictim, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    result = attack(victim, request.getfixturevalue(data), recipe="same-word", **FAST)
    rows, summary = logged(bridge, bridge.logged_results(result), tmp_path)
    skipped = sum(row["clean_exit"] == 2 for row in result.rows)
    reached = sum(row["reached_last"] and row["clean_exit"] < 2 for row in result.rows)
    assert skipped + reached < len(rows) == len(result)
    assert summary["Number of successful attacks:"] == reached
    assert summary["Number of skipped attacks:"] == skipped
    assert summary["Number of failed attacks:"] == len(rows) - reached - skipped
    for ours, theirs in zip(result.rows, rows, strict=True):
        assert theirs["original_output"].endswith(f"at layer {ours['clean_layer']}")
        assert theirs["ground_truth_output"] == str(ours["label"])
        assert float(theirs["original_score"]) == pytest.approx((ours["clean_exit"] + 1) / 3)
        if theirs["result_type"] != "Skipped":
            assert theirs["perturbed_output"].endswith(f"at layer {ours['adversarial_layer']}")
            assert int(theirs["num_queries"]) == ours["forward_queries"]
            plain = theirs["perturbed_text"].replace("[[", "").replace("]]", "")
            assert ours["adversarial_text"] in plain.replace("<SPLIT>", "\n")
            assert theirs["perturbed_text"].count("[[") >= ours["words_changed"]


@installed
def test_success_may_mean_a_later_exit(bridge: Any, victim: WhiteBoxVictim, sentences: Any) -> None:
    result = attack(victim, sentences, recipe="same-word", **FAST)
    found = [type(one).__name__ for one in bridge.logged_results(result, success="later")]
    last = [row["clean_exit"] == 2 for row in result.rows]
    assert [name == "SkippedAttackResult" for name in found] == last
    assert [name == "SuccessfulAttackResult" for name in found] == [row["success"] for row in result.rows]
    with pytest.raises(ConfigError, match="unknown kind of success 'deeper'"):
        bridge.logged_results(result, success="deeper")


@installed
def test_times_and_texts_without_letters_are_logged(bridge: Any, lexicon: str, tmp_path: Path) -> None:
    data = Dataset.from_dict({"text": ["10/10", "", "a film", "映画 は 面白い"]})
    victim = FunctionVictim(lambda text: (0, 0.01 * (1 + len(text))))
    result = attack(victim, data, recipe="slowbert-time", lexicon=lexicon, **FAST)
    rows, _ = logged(bridge, bridge.logged_results(result, success="later"), tmp_path)
    assert [row["original_text"].replace("[[", "").replace("]]", "") for row in rows] == data["text"]
    assert {row["original_output"].endswith(" s") for row in rows} == {True}


@installed
def test_a_trigger_in_front_is_logged_in_its_place(
    bridge: Any, victim: WhiteBoxVictim, sentences: Any, tmp_path: Path
) -> None:
    result = attack(victim, sentences, recipe="waffle-universal", trigger="quite never", **FAST)
    rows, _ = logged(bridge, bridge.logged_results(result, success="later"), tmp_path)
    texts = [row["perturbed_text"] for row in rows if row["result_type"] == "Successful"]
    assert texts
    for text in texts:
        assert text.startswith("[[quite]] [[never]] ")
        assert text.count("[[") == 2


@installed
@pytest.mark.parametrize(
    ("before", "after", "places"),
    [
        ("a b c", "a x c", [0, 1, 2]),
        ("a b c", "x y a b c", [2, 3, 4]),
        ("a b c", "a c", [0, -1, 1]),
        ("a b c", "a x y c", [0, 1, 3]),
        ("", "x", []),
    ],
)
def test_where_words_went(before: str, after: str, places: list[int], bridge: Any) -> None:
    from offramp.integrations.textattack.logs import word_map

    assert word_map(before.split(), after.split()).tolist() == places


@installed
@pytest.mark.slow
def test_pwws_with_the_real_wordnet(wrapper: Any, bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFRAMP_CACHE", str(CACHE))
    data = Dataset.from_dict({"text": ["a great film and a very good story"], "label": [1]})
    built = bridge.efficiency_attack("pwws", wrapper)
    assert {"movie", "picture"} <= set(built.transformation._get_replacement_words("film"))
    assert "well" in built.transformation._get_replacement_words("better")  # an irregular form is known
    (result,) = run_attack(bridge, built, data)
    assert result.perturbed_result.raw_output.layer >= result.original_result.raw_output.layer
