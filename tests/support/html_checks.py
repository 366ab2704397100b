"""What every page must keep to, checked on its text alone."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from html.parser import HTMLParser

EMPTY = {"meta", "link", "img", "br", "hr", "input", "area", "base", "col", "source", "wbr"}
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}


class Reader(HTMLParser):
    """Every element of a page in order, with the ways in which it is not well made."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.problems: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if len(dict(attrs)) != len(attrs):
            self.problems.append(f"<{tag}> has an attribute twice")
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def read(text: str) -> Reader:
    """Return the elements of a page that is well made: balanced, self-contained, described."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.problems == []
    assert reader.open == []
    _check_loads_nothing(text, reader)
    _check_described(reader)
    _check_ids(reader)
    _check_headings(reader)
    return reader


def _check_loads_nothing(text: str, reader: Reader) -> None:
    names = {tag for tag, _ in reader.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in reader.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in LOADING & set(attributes):
            assert re.match(r"(#|data:image/(png|jpeg);base64,)", attributes[name]), attributes
        for value in attributes.values():
            assert "url(" not in value.replace("url(#", ""), tag
    for style in re.findall(r"<style>(.*?)</style>", text, re.DOTALL):
        assert "url(" not in style
        assert "@import" not in style


def _check_described(reader: Reader) -> None:
    for tag, attributes in reader.elements:
        if tag == "img":
            assert attributes.get("alt"), attributes
        if tag == "svg" or attributes.get("role") == "img":
            assert attributes.get("aria-label"), attributes
    (page,) = [attributes for tag, attributes in reader.elements if tag == "html"]
    assert page["lang"] == "en"
    assert any(tag == "title" for tag, _ in reader.elements)


def _check_ids(reader: Reader) -> None:
    ids = Counter(attributes["id"] for _, attributes in reader.elements if "id" in attributes)
    assert [name for name, times in ids.items() if times > 1] == []
    for _, attributes in reader.elements:
        asked = re.findall(r"url\(#([^)]*)\)", " ".join(attributes.values()))
        asked += [attributes["href"][1:] for _ in range(attributes.get("href", "")[:1] == "#")]
        assert set(asked) <= set(ids)


def _check_headings(reader: Reader) -> None:
    levels = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
