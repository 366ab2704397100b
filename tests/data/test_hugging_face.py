"""Data sets of the Hugging Face library: what it saves is what we read, and nothing runs."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from prunecli.analysis.dataset import analyze_dataset
from prunecli.architectures.reference import InputSpec
from prunecli.data import load_split, open_source
from prunecli.data.splits import available_splits, choose
from prunecli.data.survey.survey import survey
from prunecli.errors import InputError, PruneError
from prunecli.files import limited
from prunecli.options import ComplexityOptions
from prunecli_cli.main import main

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

SPEC = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)
NAMES = ("cat", "dog", "emu")


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, "PNG")
    return file.getvalue()


def write_stream(path, table):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for start in range(0, len(table), 4):
            writer.write_table(table.slice(start, 4))


def write(folder, seeds, labels, *, features=None, indices=None, images=None):
    """Write what `save_to_disk` writes, with pyarrow alone: two record batches, state and info."""
    folder.mkdir(parents=True, exist_ok=True)
    if images is None:
        images = [{"bytes": encoded(seed), "path": None} for seed in seeds]
    table = pa.table({"image": images, "label": labels})
    write_stream(folder / "data-00000-of-00001.arrow", table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
    if indices is not None:
        order = pa.table({"indices": pa.array(indices, pa.uint64())})
        write_stream(folder / "indices.arrow", order)
        state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    if features is None:
        features = {
            "image": {"_type": "Image"},
            "label": {"names": list(NAMES), "_type": "ClassLabel"},
        }
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def write_dictionary(folder, **splits):
    for at, (name, count) in enumerate(splits.items()):
        seeds = range(100 * at, 100 * at + count)
        write(folder / name, seeds, [number % 3 for number in range(count)])
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def test_splits_classes_and_pixels_are_those_that_were_saved(tmp_path):
    source = open_source(write_dictionary(tmp_path, train=10, validation=3, test=6))
    assert (source.format, source.classes, source.problems) == ("hugging-face", NAMES, ())
    assert {name: len(split) for name, split in source.splits.items()} == {
        "train": 10,
        "val": 3,
        "test": 6,
    }
    images = load_split(source, "train", input=SPEC)
    assert images.labels.tolist() == [number % 3 for number in range(10)]
    for row in (0, 3, 4, 9):  # in both record batches
        assert np.array_equal(images.images[row].numpy().transpose(1, 2, 0), picture(row))
    assert images.paths[:2] == ("#0", "#1")
    everything = load_split(source, "all", input=SPEC)
    assert np.array_equal(everything.images[-1].numpy().transpose(1, 2, 0), picture(205))
    streamed = load_split(source, "train", input=SPEC, memory_limit=1)
    assert np.array_equal(streamed.images.numpy(), images.images.numpy())


@pytest.mark.parametrize("labels", [["cat", "dog"], [0.5, 1.0], [None, None]])
def test_labels_that_are_no_numbers_of_their_names_are_refused(tmp_path, labels):
    folder = write(tmp_path, range(2), [0, 1])
    (file,) = folder.glob("*.arrow")
    with pa.ipc.open_stream(str(file)) as stream:
        table = stream.read_all()
    wrong = table.set_column(table.schema.get_field_index("label"), "label", pa.array(labels))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, wrong.schema) as writer:
        writer.write_table(wrong)
    with pytest.raises(PruneError) as caught:
        open_source(folder)
    assert caught.value.exit_code == 4


def test_an_image_keeps_its_name_whatever_is_chosen_with_it(tmp_path):
    source = open_source(write(tmp_path, range(20), [at % 2 for at in range(20)]))
    assert available_splits(source) == ("train", "held_out", "test", "all")
    images = load_split(source, "test", input=SPEC)
    for name, pixels in zip(images.paths, images.images.numpy(), strict=True):
        assert np.array_equal(pixels.transpose(1, 2, 0), picture(int(name.removeprefix("#"))))


def test_the_order_of_a_shuffled_data_set_is_kept(tmp_path):
    order = [5, 0, 3, 3]
    source = open_source(write(tmp_path, range(6), [0, 1, 2, 0, 1, 2], indices=order))
    images = load_split(source, "all", input=SPEC)
    assert images.labels.tolist() == [2, 0, 0, 0]
    for row, seed in enumerate(order):
        assert np.array_equal(images.images[row].numpy().transpose(1, 2, 0), picture(seed))


def test_images_may_be_plain_bytes_or_files_beside_the_data(tmp_path):
    (tmp_path / "3.png").write_bytes(encoded(3))
    images = [{"bytes": None, "path": "3.png"}, {"bytes": encoded(4), "path": "gone.png"}]
    source = open_source(write(tmp_path / "a", (), [0, 1], images=images))
    (tmp_path / "a" / "3.png").write_bytes(encoded(3))
    assert len(load_split(source, "all", input=SPEC)) == 2
    features = {"image": {"dtype": "binary", "_type": "Value"}, "label": {"dtype": "int64"}}
    plain = write(tmp_path / "b", (), [7, 3], images=[encoded(1), encoded(2)], features=features)
    source = open_source(plain)
    assert source.classes == ("3", "7")
    assert load_split(source, "all", input=SPEC).labels.tolist() == [1, 0]


def test_names_as_labels_are_the_classes(tmp_path):
    features = {"image": {"_type": "Image"}, "label": {"dtype": "string", "_type": "Value"}}
    source = open_source(write(tmp_path, range(3), ["emu", "cat", None], features=features))
    assert source.classes == ("cat", "emu")
    assert source.splits["all"].labels.tolist() == [1, 0]
    assert source.problems == ("1 image of all has no label and is left out",)


def test_hidden_labels_are_counted_and_left_out(tmp_path):
    write_dictionary(tmp_path, train=6)
    write(tmp_path / "test", range(4), [-1, -1, -1, -1])
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test", "unsupervised"]}')
    source = open_source(tmp_path)
    assert set(source.splits) == {"train"}
    assert any("4 images of test have no label" in problem for problem in source.problems)
    assert any("1 split is neither" in problem for problem in source.problems)


def test_a_survey_opens_the_images_and_finds_equal_and_broken_ones(tmp_path):
    images = [{"bytes": encoded(seed), "path": None} for seed in (0, 1, 2, 1)]
    images += [{"bytes": b"", "path": None}, {"bytes": b"x", "path": None}, {"path": None}]
    found = survey(open_source(write(tmp_path, (), [0, 1, 2, 0, 1, 2, 0], images=images)))
    assert found.duplicates == (("all#1", "all#3"),)
    assert found.kinds == {"empty": 1, "damaged": 1, "missing": 1}
    assert found.unreadable == ("all#4", "all#5", "all#6")


LABEL = {"names": list(NAMES), "_type": "ClassLabel"}
IMAGE = {"_type": "Image"}


@pytest.mark.parametrize(
    ("features", "code"),
    [
        ({"image": IMAGE, "label": LABEL, "photo": IMAGE}, None),
        ({"image": IMAGE, "label": LABEL, "coarse": LABEL}, None),
        ({"photo": IMAGE, "scan": IMAGE, "label": LABEL}, "AMBIGUOUS_COLUMNS"),
        ({"image": IMAGE, "label": LABEL, "class": LABEL}, "AMBIGUOUS_COLUMNS"),
        ({"text": {"dtype": "string"}, "label": LABEL}, "NO_IMAGES"),
        ({"image": IMAGE, "caption": {"dtype": "string"}}, "NO_CLASSES"),
        ({"image": IMAGE, "label": {"names": ["cat"], "_type": "ClassLabel"}}, "CORRUPT_DATA"),
        ({}, "CORRUPT_DATA"),
    ],
)
def test_the_columns_are_found_by_type_and_name_or_it_is_said_which_there_are(
    tmp_path, features, code
):
    write(tmp_path, range(3), [0, 1, 2], features=features)
    if code is None:
        assert len(open_source(tmp_path).splits["all"]) == 3
        return
    with pytest.raises(PruneError) as caught:
        open_source(tmp_path)
    assert caught.value.code == code
    assert caught.value.hint


def write_without_labels(folder):
    write(folder, range(2), [-1, -1])


def write_other_classes(folder):
    write_dictionary(folder, train=3, test=3)
    info = {
        "features": {"image": IMAGE, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    }
    (folder / "test" / "dataset_info.json").write_text(json.dumps(info))


def write_outside(folder):
    write(folder, range(2), [0, 1])
    state = {"_data_files": [{"filename": "../../secret.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))


def write_split_elsewhere(folder):
    write(folder.parent / "secret", range(2), [0, 1])
    folder.mkdir()
    (folder / "dataset_dict.json").write_text('{"splits": ["../secret"]}')


def write_wild_split(folder):
    write(folder, range(2), [0, 1])
    (folder / "state.json").unlink()
    (folder / "dataset_info.json").write_text('{"splits": {"**": {}, "[": {}}}')


def write_unnamed_splits(folder):
    write_wild_split(folder)
    (folder / "dataset_info.json").write_text('{"splits": [{}]}')


def write_far_indices(folder):
    write(folder, range(2), [0, 1], indices=[0, 5])


def write_same_split(folder):
    write_dictionary(folder, val=2, validation=2)


def write_unknown_splits(folder):
    write_dictionary(folder, one=2, two=2)


def write_parquet(folder):
    folder.mkdir(exist_ok=True)
    (folder / "train.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (write_without_labels, "no image of the data set has a label"),
        (write_other_classes, "not those of the other splits"),
        (write_outside, "no file of the folder"),
        (write_split_elsewhere, "no name of a split"),
        (write_wild_split, "none is called train or test"),
        (write_unnamed_splits, "go by no names"),
        (write_far_indices, "beyond its rows"),
        (write_same_split, "same name"),
        (write_unknown_splits, "none is called train or test"),
        (write_parquet, "Parquet"),
    ],
)
def test_a_folder_that_makes_no_sense_is_refused(tmp_path, make, words):
    make(tmp_path / "data")
    with pytest.raises(PruneError, match=words) as caught:
        open_source(tmp_path / "data")
    assert caught.value.hint


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"_data_files": 3}', '{"features": [1]}', "\0"])
def test_damaged_descriptions_are_refused(tmp_path, name, text):
    write(tmp_path, range(2), [0, 1])
    (tmp_path / name).write_text(text)
    with pytest.raises(PruneError):
        open_source(tmp_path)


FUZZ = """
import sys
from pathlib import Path
import numpy as np
from prunecli.data import open_source, labels_of
from prunecli.data.survey.survey import survey
from prunecli.errors import InputError, PruneError
folder, random = Path(sys.argv[1]), np.random.default_rng(0)
file = folder / "data-00000-of-00001.arrow"
whole = file.read_bytes()
refused = 0
for trial in range(400):
    damaged = bytearray(whole)
    if trial % 2:
        damaged = damaged[: random.integers(0, len(whole))]
    else:
        for place in random.integers(0, len(whole), random.integers(1, 20)):
            damaged[place] = random.integers(0, 256)
    file.write_bytes(bytes(damaged))
    try:
        survey(open_source(folder))
    except PruneError:
        refused += 1
print(refused)
"""


def test_garbled_arrow_files_are_refused_and_never_end_the_process(tmp_path):
    write(tmp_path, range(12), [at % 3 for at in range(12)])
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 150 < int(done.stdout) < 400


# The library itself ------------------------------------------------------------------------------


@pytest.fixture
def library():
    return pytest.importorskip("datasets", reason="the library `datasets` is not installed")


def make_dataset(library, count, *, offset=0):
    features = library.Features(
        {"img": library.Image(), "label": library.ClassLabel(names=list(NAMES))}
    )
    content = {
        "img": [Image.fromarray(picture(seed + offset)) for seed in range(count)],
        "label": [(7 * seed) % 3 for seed in range(count)],
    }
    return library.Dataset.from_dict(content, features=features)


def test_what_the_library_saves_is_read_as_the_library_reads_it(library, tmp_path):
    parts = {"train": make_dataset(library, 11), "test": make_dataset(library, 4, offset=50)}
    library.DatasetDict(parts).save_to_disk(tmp_path / "d", num_shards={"train": 3, "test": 1})
    source = open_source(tmp_path / "d")
    assert source.classes == NAMES
    for name, dataset in library.load_from_disk(str(tmp_path / "d")).items():
        images = load_split(source, name, input=SPEC, held_out=0.0)
        assert images.labels.tolist() == dataset["label"][:]
        for row, pixels in zip(dataset, images.images.numpy(), strict=True):
            assert np.array_equal(np.asarray(row["img"]), pixels.transpose(1, 2, 0))


@pytest.mark.parametrize("change", ["shuffle", "select", "filter"])
def test_what_was_shuffled_or_chosen_before_it_was_saved_is_read_so(library, tmp_path, change):
    made = make_dataset(library, 12)
    changed = {
        "shuffle": lambda: made.shuffle(seed=3),
        "select": lambda: made.select([7, 1, 4]),
        "filter": lambda: made.filter(lambda row: row["label"] != 1),
    }[change]()
    changed.save_to_disk(tmp_path / "d")
    images = load_split(open_source(tmp_path / "d"), "all", input=SPEC)
    assert images.labels.tolist() == changed["label"][:]
    for row, pixels in zip(changed, images.images.numpy(), strict=True):
        assert np.array_equal(np.asarray(row["img"]), pixels.transpose(1, 2, 0))


def test_the_library_s_own_cache_of_an_image_folder_is_read(library, tmp_path):
    for seed in range(12):
        place = tmp_path / "raw" / ("train", "test")[seed % 2] / NAMES[seed % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed)).save(place / f"{seed}.png")
    made = library.load_dataset("imagefolder", data_dir=str(tmp_path / "raw"),
                                cache_dir=str(tmp_path / "cache"))  # fmt: skip
    (info,) = (tmp_path / "cache").rglob("dataset_info.json")
    source = open_source(info.parent)
    assert source.classes == NAMES
    with pytest.raises(InputError, match="none of the") as caught:
        load_split(source, "test", input=SPEC)  # the files lie where they were, not in the cache
    assert "--allow-outside" in caught.value.hint
    with limited(outside=True):
        images = load_split(source, "test", input=SPEC)
    for row, pixels in zip(made["test"], images.images.numpy(), strict=True):
        assert np.array_equal(np.asarray(row["image"]), pixels.transpose(1, 2, 0))


# Every verb --------------------------------------------------------------------------------------


def digits_folder(folder, *, rows=400):
    """Save the digits as the library would."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for name, start, stop in (("train", 0, rows), ("test", rows, rows + 100)):
        images = []
        for pixels in bunch.images[start:stop]:
            file = io.BytesIO()
            Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(file, "PNG")
            images.append({"bytes": file.getvalue(), "path": None})
        features = {
            "image": IMAGE,
            "label": {"names": list("0123456789"), "_type": "ClassLabel"},
        }
        labels = bunch.target[start:stop].tolist()
        write(folder / name, (), labels, images=images, features=features)
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return folder


def test_every_verb_that_takes_data_takes_such_a_folder(tmp_path, capsys, monkeypatch,
                                                        digits_checkpoint):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    folder = str(digits_folder(tmp_path / "digits_hf"))
    model = str(digits_checkpoint)

    def run(*words):
        code = main([*words, "--json"])
        answer = json.loads(capsys.readouterr().out)
        assert code == 0, answer
        return answer["data"]

    assert run("analyze", folder)["dataset"]["format"] == "hugging-face"
    cut = run("prune", model, "--flops", "0.7", "--signal", "taylor", "--data", folder)["output"]
    tuned = run("finetune", cut, "--data", folder, "--epochs", "1", "--limit", "100")["output"]
    assert 0 <= run("evaluate", tuned, "--data", folder)["accuracy"] <= 1


def test_a_part_of_it_cannot_be_links_but_can_be_a_list(tmp_path):
    source = open_source(write(tmp_path / "data", range(24), [at % 3 for at in range(24)]))
    options = ComplexityOptions(repeats=2, subset=str(tmp_path / "part"), per_class=2)
    with pytest.raises(InputError, match="no files of their own"):
        analyze_dataset(source, options=options)
    shutil.rmtree(tmp_path / "part", ignore_errors=True)
    assert len(choose(source, "all")) == 24
