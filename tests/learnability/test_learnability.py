"""Learnability against known answers, plain loops and its own laws."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from prunecli.errors import InputError, PruneError
from prunecli.learnability import (
    Record,
    agreement,
    compare_records,
    continued,
    curriculum_rows,
    forgetting_events,
    hardest,
    importance_weights,
    learnability,
    likely_label_errors,
    read_record,
    unlike_runs,
    write_record,
)
from prunecli.learnability.compare import overlap

A = np.array([[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]], bool)
B = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 1, 1]], bool)


def record(hits, *, paths=None, labels=None):
    names = paths or [f"{at}.png" for at in range(len(hits))]
    known = np.zeros(len(hits), np.int64) if labels is None else np.asarray(labels)
    return Record(
        tuple(names), known, ("a", "b"), np.asarray(hits, bool), "evaluation", {"seed": 3}
    )


def test_learnability_and_its_correlations_are_the_known_ones():
    assert learnability(A).tolist() == [1, 0.75, 0.5, 0, 0.5]
    assert learnability(B).tolist() == [1, 1, 0.25, 0.25, 0.75]
    found = agreement(record(A), record(B))
    assert found.pearson == pytest.approx(0.822425, abs=1e-6)
    assert found.spearman == pytest.approx(0.892218, abs=1e-6)


def test_equal_hits_agree_wholly_and_constant_ones_have_no_correlation():
    found = agreement(record(A), record(A))
    assert (found.pearson, found.spearman) == pytest.approx((1, 1))
    assert math.isnan(agreement(record(A), record(np.ones_like(A))).pearson)


def test_forgetting_is_counted_by_image():
    assert forgetting_events(A).tolist() == [0, 0, 0, 0, 1]
    assert forgetting_events(np.array([[1, 0, 1, 0, 0, 1]], bool)).tolist() == [2]


def test_images_that_are_always_right_can_be_left_out():
    found = agreement(record(A), record(B))
    assert found.always_right == 1
    a, b = learnability(A)[1:], learnability(B)[1:]
    assert found.pearson_wrong == pytest.approx(stats.pearsonr(a, b)[0])
    assert found.spearman_wrong == pytest.approx(stats.spearmanr(a, b)[0])


def test_images_are_matched_by_path():
    paths = [f"{at}.png" for at in range(5)]
    turned = record(B[::-1], paths=paths[::-1])
    assert agreement(record(A), turned) == agreement(record(A), record(B))
    with pytest.raises(InputError, match="no image in common"):
        agreement(record(A), record(B, paths=[f"x{at}" for at in range(5)]))


def test_images_are_matched_however_their_folder_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    near = [f"images/{at}.png" for at in range(5)]
    far = [str(tmp_path / name) for name in near]
    assert agreement(record(A, paths=near), record(B, paths=far)) == agreement(record(A), record(B))
    assert likely_label_errors([record(A, paths=near), record(A, paths=far)], 5) == [
        ("images/3.png", 0.0)
    ]
    first, second = record(A, paths=near), replace(record(B, paths=far), facts={"seed": 4})
    joined = continued(first, second, where=tmp_path)
    assert joined.paths == tuple(near)
    np.testing.assert_array_equal(joined.hits, np.hstack([A, B]))


def test_images_that_go_by_one_number_in_two_data_sets_are_not_compared():
    numbers = [f"#{at}" for at in range(5)]
    first = record(A, paths=numbers, labels=[0, 1, 0, 1, 0])
    agreement(first, record(B, paths=numbers, labels=[0, 1, 0, 1, 1]))
    with pytest.raises(InputError, match="4 of 5 images are in another class") as caught:
        agreement(first, record(B, paths=numbers, labels=[1, 0, 1, 0, 0]))
    assert caught.value.code == "OTHER_LABELS"


def test_records_of_one_name_are_told_apart_by_their_folders(tmp_path):
    files = [tmp_path / name / "learn.parquet" for name in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        write_record(record(A), file)
    assert [run.name for run in compare_records(files).runs] == ["one/learn", "two/learn"]
    again = [run.name for run in compare_records([files[0], files[0]]).runs]
    assert len(set(again)) == 1


def test_runs_that_were_recorded_in_different_ways_are_said(tmp_path):
    files = [tmp_path / f"{name}.parquet" for name in "ab"]
    write_record(record(A), files[0])
    write_record(replace(record(A[:, :2]), scored="training"), files[1])
    modes, lengths = unlike_runs(compare_records(files).runs)
    assert "a evaluation mode, b training mode" in modes
    assert "a 4 epochs, b 2 epochs" in lengths
    assert unlike_runs(compare_records(files[:1]).runs) == []


def test_a_record_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(InputError, match="no such record") as caught:
        read_record(tmp_path / "run.parquet")
    assert caught.value.code == "NO_RECORD"


def test_the_overlap_of_the_hardest_is_one_for_equal_and_the_share_for_constant_networks():
    values = np.random.default_rng(0).random(50)
    assert overlap(values, values, share=0.1) == pytest.approx(1)
    assert overlap(values, -values, share=0.1) == 0
    assert overlap(np.ones(50), np.ones(50), share=0.1) == pytest.approx(0.1)


def test_the_hardest_are_those_that_were_least_often_right():
    assert hardest(record(A), 3).tolist() == [3, 2, 4]


def test_likely_label_errors_were_wrong_to_the_end_in_every_network():
    late = np.array([[0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    other = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]], bool)
    found = likely_label_errors([record(late), record(other)], 5)
    assert found == [("1.png", 0.0), ("2.png", 0.5)]


@pytest.mark.parametrize("epochs", [1, 7, 8, 9, 30])
def test_a_record_comes_back_as_it_was_written(tmp_path, epochs):
    hits = np.random.default_rng(0).random((20, epochs)) < 0.5
    written = record(hits, labels=np.arange(20) % 2)
    write_record(written, tmp_path / "run.parquet")
    found = read_record(tmp_path / "run.parquet")
    assert np.array_equal(found.hits, hits)
    assert np.array_equal(found.labels, written.labels)
    assert (found.paths, found.classes) == (written.paths, written.classes)
    assert (found.scored, found.facts) == ("evaluation", {"seed": 3})


def test_a_record_keeps_names_of_files_that_are_no_utf8(tmp_path):
    names = [*(f"{at}.png" for at in range(4)), os.fsdecode(b"caf\xe9.png")]
    write_record(record(A, paths=names), tmp_path / "run.parquet")
    assert read_record(tmp_path / "run.parquet").paths == tuple(names)


def test_a_file_that_is_no_record_is_refused(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "text.parquet").write_text("no")
    parquet.write_table(pa.table({"path": ["a"]}), tmp_path / "other.parquet")
    for name in ("text.parquet", "other.parquet", "none.parquet"):
        with pytest.raises(PruneError) as caught:
            read_record(tmp_path / name)
        assert caught.value.code == "NO_RECORD"


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["path"]),
        lambda table: table.set_column(0, "path", [list(range(len(table)))]),
        lambda table: table.set_column(0, "path", [[None] * len(table)]),
        lambda table: table.set_column(1, "label", [[2] * len(table)]),
        lambda table: table.set_column(1, "label", [[-1] * len(table)]),
    ],
)
def test_a_record_that_was_tampered_with_is_refused(tmp_path, change):
    from pyarrow import parquet

    path = tmp_path / "run.parquet"
    write_record(record(A), path)
    parquet.write_table(change(parquet.read_table(path)), path)
    with pytest.raises(PruneError) as caught:
        read_record(path)
    assert caught.value.code == "NO_RECORD"


def test_a_curriculum_takes_the_easiest_of_every_class():
    easiness = np.array([0.9, 0.1, 0.5, 0.7, 0.2, 0.3])
    labels = np.array([0, 0, 0, 0, 1, 1])
    assert curriculum_rows(easiness, labels, 0.5).tolist() == [0, 3, 5]
    assert curriculum_rows(easiness, labels, 1.0).tolist() == list(range(6))
    assert curriculum_rows(easiness, labels, 0.01).tolist() == [0, 5]


def test_importance_weights_keep_the_expected_loss():
    easiness = np.random.default_rng(0).random(40)
    chances, weights = importance_weights(easiness)
    losses = np.random.default_rng(1).random(40)
    assert chances.sum() == pytest.approx(1)
    assert (chances * weights * losses).sum() == pytest.approx(losses.mean())
    assert chances[easiness.argmin()] == chances.max()
    assert importance_weights(np.ones(4))[1].tolist() == pytest.approx([1] * 4)


@pytest.mark.parametrize("seed", range(5))
def test_correlations_and_overlap_are_those_of_scipy_and_of_counting(seed):
    random = np.random.default_rng(seed)
    chance = random.random((300, 1))
    one, two = random.random((2, 300, 12)) < chance
    found = agreement(record(one), record(two))
    a, b = one.mean(1), two.mean(1)
    assert found.pearson == pytest.approx(stats.pearsonr(a, b)[0])
    assert found.spearman == pytest.approx(stats.spearmanr(a, b)[0])
    kept = [at for at in range(300) if not (one[at].all() and two[at].all())]
    assert found.always_right == 300 - len(kept)
    assert found.pearson_wrong == pytest.approx(stats.pearsonr(a[kept], b[kept])[0])
    assert found.spearman_wrong == pytest.approx(stats.spearmanr(a[kept], b[kept])[0])
    # Ties at the border of the hardest tenth go to whoever a fair draw picks: the mean over draws.
    draws = []
    for _ in range(3000):
        lots = random.random((2, 300))
        tenths = [set(np.lexsort((lot, values))[:30].tolist())
                  for lot, values in zip(lots, (a, b), strict=True)]  # fmt: skip
        draws.append(len(tenths[0] & tenths[1]) / 30)
    assert found.overlap == pytest.approx(np.mean(draws), abs=0.01)


@pytest.mark.parametrize("epochs", [1, 2, 9, 40])
def test_forgetting_is_that_of_a_plain_loop(epochs):
    hits = np.random.default_rng(epochs).random((50, epochs)) < 0.4
    for at, row in enumerate(hits.tolist()):
        forgotten = sum(before and not after for before, after in itertools.pairwise(row))
        assert forgetting_events(hits)[at] == forgotten
