"""Agreement of outputs, against numpy and figures by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from prunecli.errors import InputError
from prunecli.evaluation.agreement import Agreements, overlap_parts, overlaps, paired_names
from prunecli.evaluation.output_kinds import EMBEDDING, MAP, SCORES, VALUES, kinds_of
from prunecli.processes import ALONE


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def agreement(own, reference, **known):
    kinds = kinds_of([(len(next(iter(reference.values()))), reference)], **known)
    found = Agreements(kinds)
    found.add(own, reference)
    return found


def kind_of(name, value, **known):
    (found,) = kinds_of([(len(value), {name: value})], **known)
    return found.kind


def test_kinds_are_told_by_names_heads_classes_and_lengths():
    rows, maps = drawn(4, 10), drawn(4, 10, 6, 6)
    assert kind_of("logits", rows) == VALUES  # the name that a lone output gets says nothing
    assert kind_of("logits", rows, classes=10) == SCORES
    assert kind_of("head.logits", rows) == SCORES
    assert kind_of("logits", functional.normalize(rows, dim=1)) == EMBEDDING
    assert kind_of("out", maps) == VALUES  # heat maps have as many channels as they please
    assert kind_of("out", maps, classes=10) == MAP
    classifier = nn.ModuleDict({"fc": nn.Linear(3, 10)})
    assert kind_of("logits", rows, model=classifier) == SCORES
    assert kind_of("logits", drawn(4, 9), model=classifier) == VALUES
    assert kind_of("out", maps, model=classifier) == VALUES
    assert kind_of("out", maps, model=nn.ModuleDict({"classifier": nn.Conv2d(3, 10, 1)})) == MAP
    assert kind_of("depth", drawn(4, 1, 6, 6), classes=1) == VALUES


def test_what_has_no_row_for_every_image_is_no_output():
    found = kinds_of([(4, {"anchors": drawn(7, 2), "boxes": drawn(4, 7, 2)})])
    assert [one.name for one in found] == ["boxes"]


def test_values_agree_by_the_variance_that_is_met_channel_by_channel():
    reference = drawn(40, 3, 5, 5) * torch.tensor([1.0, 100.0, 1e-2])[:, None, None] + 7
    own = reference + 0.3 * drawn(40, 3, 5, 5, seed=1)
    own[:, 2] = reference[:, 2] + 0.03 * drawn(40, 5, 5, seed=2)
    found = agreement({"map": own}, {"map": reference})
    true, other = reference.double().numpy(), own.double().numpy()
    floor = 1e-2 * np.median([true[:, c].var() for c in range(3)])
    met = [
        1 - ((other[:, c] - true[:, c]) ** 2).mean() / max(true[:, c].var(), floor)
        for c in range(3)
    ]
    assert found.outputs()[0].agreement == pytest.approx(max(0, np.mean(met)), rel=1e-4)
    assert float(found.parts().mean()) == pytest.approx(np.mean(met), rel=1e-4)


def test_a_constant_in_place_of_an_output_does_not_agree():
    reference = drawn(30, 4) + 100
    mean = reference.mean(0).expand_as(reference)
    (found,) = agreement({"v": mean}, {"v": reference}).outputs()
    assert found.agreement == pytest.approx(0, abs=1e-4)
    assert found.cosine > 0.999  # which would say that all is well


def test_class_scores_agree_by_their_largest():
    reference, own = drawn(50, 6), drawn(50, 6, seed=1)
    (found,) = agreement({"v": own}, {"v": reference}, classes=6).outputs()
    same = float((reference.argmax(1) == own.argmax(1)).double().mean())
    assert found.agreement == found.same_class == pytest.approx(same)
    one, two = own.double().numpy(), reference.double().numpy()
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    cosine = ((one * two).sum(1) / lengths).mean()
    assert found.cosine == pytest.approx(cosine, rel=1e-5)


def test_maps_agree_by_intersection_over_union_as_counted_by_hand():
    reference, own = drawn(9, 4, 8, 8), drawn(9, 4, 8, 8, seed=1)
    one, two = own.argmax(1), reference.argmax(1)
    each = [
        float(((one == k) & (two == k)).sum()) / float(((one == k) | (two == k)).sum())
        for k in range(4)
    ]
    found = agreement({"v": own}, {"v": reference}, classes=4)
    assert found.outputs()[0].iou == pytest.approx(np.mean(each))
    assert found.outputs()[0].agreement == pytest.approx(np.mean(each))
    assert found.outputs()[0].same_class == pytest.approx(float((one == two).double().mean()))


def test_parts_of_an_overlap_are_what_leaving_an_image_out_changes():
    own = torch.randint(0, 3, (60, 8, 8), generator=torch.Generator().manual_seed(0))
    true = torch.where(drawn(60, 8, 8) > 0, own, (own + 1) % 3)
    found = overlaps(own, true, 3)
    parts = overlap_parts(found["met"], found["union"])
    whole = float((found["met"].sum(0) / found["union"].sum(0)).mean())
    assert float(parts.mean()) == pytest.approx(whole)
    for left_out in (0, 17):
        kept = torch.arange(60) != left_out
        without = float((found["met"][kept].sum(0) / found["union"][kept].sum(0)).mean())
        assert float(parts[left_out]) - whole == pytest.approx(59 * (whole - without), rel=0.1)


def test_pixels_that_are_to_be_ignored_count_nowhere():
    own, true = torch.tensor([[[0, 1, 1, 0]]]), torch.tensor([[[0, 1, -1, -1]]])
    found = overlaps(own, true, 2)
    assert found["met"].tolist() == found["union"].tolist() == [[1, 1]]
    assert found["same"].tolist() == [1.0]


def test_batches_add_up():
    reference, own = drawn(30, 5), drawn(30, 5, seed=1)
    whole = agreement({"v": own}, {"v": reference})
    split = Agreements(whole.kinds)
    for at in (slice(0, 7), slice(7, 30)):
        split.add({"v": own[at]}, {"v": reference[at]})
    assert split.over(ALONE).outputs() == whole.outputs()


def test_outputs_are_paired_by_name_or_place_and_others_refused():
    one = {"logits": drawn(2, 3)}
    assert paired_names(one, {"out.0": drawn(2, 3)}) == {"out.0": "logits"}
    assert paired_names({**one, "aux": drawn(2, 3)}, one) == {"logits": "logits"}
    with pytest.raises(InputError, match=r"3 for logits, the reference 4"):
        paired_names(one, {"logits": drawn(2, 4)})
    with pytest.raises(InputError, match=r"logits.*reference boxes"):
        paired_names(one, {"boxes": drawn(2, 3), "scores": drawn(2, 3)})
