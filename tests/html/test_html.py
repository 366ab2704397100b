"""Pages: well made, self-contained, described in words, and deaf to what names hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunecli.errors import InputError
from prunecli.html import (
    Bar,
    Drawing,
    Facts,
    Folded,
    Grid,
    Numbers,
    Section,
    Thumbnails,
    Tile,
    data_uri,
    page,
    write_page,
)
from prunecli.html.words import place_text
from prunecli.pictures import Picture
from prunecli.pictures.style import COLOURS, new_figure, short
from prunecli.preflight.outputs import check_page
from tests.support import browser, html_checks
from tests.support.hostile import HOSTILE


def picture(name: str = "cat") -> Picture:
    figure, (axes,) = new_figure(4.8, 3.0)
    axes.plot([0, 1], [0, 1], color=COLOURS[0], marker="o", label=short(name))
    axes.imshow(np.eye(2), extent=(0, 1, 0, 1))
    axes.legend()
    return Picture(figure, f"How {name} is", f"{name} goes up.")


def tile(name: str = "cat") -> Tile:
    return Tile(data_uri(Image.new("RGB", (32, 32), "red")), name, name, name)


def whole_page(name: str = "cat") -> str:
    parts = (
        Numbers((("3.45", name, "higher is harder"),)),
        Facts({name: name}),
        Grid((name, ">n"), ((name, Bar(0.5, name)),), name),
        Drawing(picture(name), name),
        Drawing(picture(name)),
        Thumbnails(((tile(name), Tile("", f"{name} cannot be read")),), name),
        Folded(name, (Facts({"a": name}),)),
    )
    return page(name, (Section(name, f"{name}\n\n{name}", parts), Section("Rest")), made_by=name)


def test_a_page_is_well_made_and_loads_nothing():
    reader = html_checks.read(whole_page())
    tags = [tag for tag, _ in reader.elements]
    assert tags.count("svg") == 2
    assert tags.count("h2") == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_and_never_obeyed(name):
    reader = html_checks.read(whole_page(name))
    harmless = html_checks.read(whole_page())
    # The marks of ticks depend on the width of the name, and so do the places to break it.
    tags, usual = (
        [tag for tag, _ in each.elements if tag not in {"g", "path", "use", "text", "wbr", "defs"}]
        for each in (reader, harmless)
    )
    assert tags == usual
    shown = name.replace("\udce9", "\\udce9").replace("\x07", "\\x07").replace("\u202e", "\\u202e")
    assert reader.words.count(shown) >= 9


def test_the_contents_name_the_six_sections_that_a_page_is_most_about():
    sections = [Section(f"Part {at}", "", (), rank=1 + at % 3) for at in range(9)]
    reader = html_checks.read(page("A", sections, made_by="B"))
    links = [attributes["href"] for tag, attributes in reader.elements if tag == "a"]
    assert links == [f"#section-{at + 1}" for at in range(9) if at % 3 < 2]


def test_a_picture_for_a_phone_takes_the_place_of_the_wide_one(tmp_path):
    wide, narrow = picture("wide"), picture("narrow")
    text = page("A", [Section("B", "", (Drawing(wide, narrow=narrow),))], made_by="C")
    html_checks.read(text)
    target = tmp_path / "page.html"
    target.write_text(text, encoding="utf-8")
    for width, shown in ((360, "narrow"), (1200, "wide")):
        (name,) = browser.look(target, tmp_path, width=width)["drawn"]
        assert name.startswith(f"How {shown} is")


def test_the_leading_figures_are_set_in_the_largest_type():
    numbers = Numbers((("Verified", "equals", ""), ("50 %", "kept", "")), leading=1)
    reader = html_checks.read(page("A", [Section("B", "", (numbers,))], made_by="C"))
    kinds = [attributes.get("class") for tag, attributes in reader.elements if tag == "div"]
    assert kinds == ["parts", "leading", None]


def test_a_path_is_told_as_seen_from_where_the_command_ran(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_text(tmp_path / "runs" / "slim.pt") == str(Path("runs", "slim.pt"))
    assert place_text(tmp_path.parent / "slim.pt") == str(Path("..", "slim.pt"))
    assert place_text("slim.pt") == "slim.pt"
    assert place_text("digits") == "digits"
    far = Path(tmp_path.anchor, "data", "images")
    assert place_text(far) == str(far)


def test_a_column_in_which_no_row_says_anything_is_left_out():
    grid = Grid(("layer", "why", ">n"), (("conv1", "", "3"), ("conv2", "", "0")), "two layers")
    reader = html_checks.read(page("A", (Section("B", "", (grid,)),), made_by="C"))
    assert "layer n conv1 3 conv2 0" in " ".join(word for word in reader.words if word.strip())


def test_the_same_parts_give_the_same_bytes():
    assert whole_page() == whole_page()


def test_ids_differ_between_pictures_that_are_drawn_alike():
    reader = html_checks.read(whole_page())
    clips = [a["clip-path"] for _, a in reader.elements if "clip-path" in a]
    assert len(set(clips)) == 2
    assert {clip.rpartition("-")[0] for clip in clips} == {"url(#picture-1", "url(#picture-2"}


def test_the_colours_of_pictures_follow_the_page():
    text = whole_page()
    assert "var(--colour-0)" in text
    assert "#000000" not in text
    assert "DejaVu" not in text


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "LA", "F"])
def test_thumbnails_are_small_and_come_from_images_of_any_kind(mode):
    for side in (20, 700):
        address = data_uri(Image.new(mode, (side, side // 2)))
        assert address.startswith("data:image/")
        assert len(address) < 4000


def test_thumbnails_keep_small_images_exactly_and_forget_where_they_were_taken():
    import base64
    import io

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    address = data_uri(Image.fromarray(pixels))
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as found:
        np.testing.assert_array_equal(np.asarray(found), pixels)
    large = Image.new("RGB", (400, 300))
    large.info["comment"] = b"secret"
    large.info["exif"] = b"Exif\x00\x00secret"
    with Image.open(io.BytesIO(base64.b64decode(data_uri(large).partition(",")[2]))) as found:
        assert found.size == (128, 96)
        assert not set(found.info) & {"comment", "exif"}


def test_a_page_is_written_whole_and_over_nothing_that_is_wanted(tmp_path):
    target = tmp_path / "report.html"
    check_page(target, inputs=[tmp_path / "data"], overwrite=False)
    write_page(target, whole_page())
    assert target.read_text(encoding="utf-8") == whole_page()
    with pytest.raises(InputError, match="exists already"):
        check_page(target, inputs=[], overwrite=False)
    check_page(target, inputs=[], overwrite=True)
    assert list(tmp_path.iterdir()) == [target]


def test_a_page_is_refused_where_it_would_do_harm(tmp_path):
    data = tmp_path / "images" / "cat"
    data.mkdir(parents=True)
    model = tmp_path / "model.html"
    model.write_text("a checkpoint, for all we know")
    for place, given, message in (
        (data / "report.html", [data.parent], "over or into"),
        (model, [model], "over or into"),
        (tmp_path / "report.pdf", [], "is an HTML file"),
        (tmp_path / "absent" / "report.html", [], "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            check_page(place, inputs=given, overwrite=True)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InputError, match="something else than a file"):
        check_page(tmp_path / "folder.html", inputs=[], overwrite=True)
