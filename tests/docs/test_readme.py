"""The documentation says what is so: its commands parse, its links and its Python work."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from prunecli_cli.guide import TOPICS
from prunecli_cli.main import main, root_command
from tests.docs.markdown import REPOSITORY, blocks, command, section
from tests.docs.sections import GUIDES, MEASURED, README, generated

DOCUMENTS = [README, MEASURED, *sorted(GUIDES.glob("*.md"))]
TEXTS = {path.relative_to(REPOSITORY).as_posix(): path.read_text("utf-8") for path in DOCUMENTS}
TEXT = README.read_text(encoding="utf-8")

MOST_LINES = 250


def calls(text):
    """Yield every call of prunecli in the shell of a text, cut at pipes and substitutions."""
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"\|\|?|&&| > ", line):
                call = re.sub(r"^.*?\$\(|\)$", "", part).strip()
                if call.startswith(("prunecli ", ".venv/bin/prunecli ")):
                    yield call


CALLS = [(name, call) for name, text in TEXTS.items() for call in calls(text)]
GENERATED = generated()
SECTIONS = [(path, name) for path, sections in GENERATED.items() for name in sections]
EXTENDING = "prunecli/guides/extending.md"
PYTHON = sorted(
    {block for name in TEXTS if name != EXTENDING for block in blocks(TEXTS[name], "python")}
)


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= MOST_LINES


@pytest.mark.parametrize(("path", "name"), SECTIONS, ids=lambda part: getattr(part, "stem", part))
def test_a_generated_section_is_up_to_date(path, name):
    """When this fails: python -m tests.docs.sections."""
    text = path.read_text(encoding="utf-8")
    assert section(text, name).strip() == GENERATED[path][name].strip()


@pytest.mark.parametrize(("document", "call"), CALLS)
def test_a_command_parses(document, call):
    verb, *words = shlex.split(call)[1:]
    entry = root_command().commands[verb]
    entry.make_context(verb, words, **entry.context_settings)


def test_the_readme_shows_all_verbs_of_the_workflow():
    shown = {shlex.split(call)[1] for call in calls(TEXT)}
    assert {"analyze", "prune", "finetune", "export", "evaluate", "demo"} <= shown


@pytest.mark.parametrize("verb", root_command().commands)
def test_the_examples_in_the_help_name_options_that_exist(verb):
    entry = root_command().commands[verb]
    examples = re.findall(r"\$ prunecli (.*)", entry.help or "")
    options = {
        name for parameter in entry.params for name in (*parameter.opts, *parameter.secondary_opts)
    }
    assert examples
    for example in examples:
        first, *words = shlex.split(example)
        assert first == verb
        assert {word for word in words if word.startswith("-")} <= options


@pytest.mark.parametrize("document", TEXTS)
def test_the_options_that_a_text_names_exist(document):
    options = {
        name
        for entry in root_command().commands.values()
        for parameter in entry.params
        for name in parameter.opts
    }
    prose = re.sub(r"^```.*?^```", "", TEXTS[document], flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"`(--[a-z0-9-]+)", prose))
    other = {"--against"} if document == "tests/benchmarks/README.md" else {"--help"}
    assert named - other <= options


@pytest.mark.parametrize("document", TEXTS)
def test_links_lead_to_files_and_headings(document):
    folder = (REPOSITORY / document).parent
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in TEXTS[document].splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[document]):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://"):
            assert (folder / target).is_file(), target


@pytest.mark.parametrize("document", TEXTS)
def test_the_files_and_guides_that_a_text_names_exist(document):
    for path in re.findall(r"`((?:prunecli|tests|cli)/[\w./-]*)`", TEXTS[document]):
        assert (REPOSITORY / path).exists(), path
    names = {name for topic in TOPICS.values() for name in topic}
    mentioned = set(re.findall(r"prunecli guide ([a-z-]+)", TEXTS[document]))
    assert mentioned <= names


def test_the_table_of_what_can_be_added_names_a_file_of_each():
    rows = re.findall(r"^\| an? ([\w ]+) \| `([\w./]+)` \|$", TEXT, re.MULTILINE)
    kinds = {kind for kind, _ in rows}
    assert {"operator", "signal", "training method", "cost", "export format"} <= kinds
    assert "architecture" in kinds
    assert all((REPOSITORY / path).exists() for _, path in rows)


@pytest.mark.parametrize("block", PYTHON)
def test_the_python_runs(block, monkeypatch, tmp_path):
    for package in re.findall(r"^from (ultralytics|transformers)\b", block, re.MULTILINE):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("name", ["demo-command", "test-command"])
def test_the_two_commands_are_one_line_each_and_bring_their_own_environment(name):
    assert command(TEXT, name).startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_continuous_integration_runs_the_test_command_of_the_readme():
    script = REPOSITORY / ".ci" / "run"
    shown = subprocess.run([script, "--print"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == command(TEXT, "test-command")


def test_methods_prints_the_tables_of_the_guide_to_names(capsys):
    assert main(["methods", "signal", "--markdown"]) == 0
    text = (GUIDES / "names.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() in section(text, "names")
    assert main(["methods", "sginal"]) == 2
    assert "did you mean 'signal'" in capsys.readouterr().err
