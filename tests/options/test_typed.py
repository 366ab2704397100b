"""Options written as words are read again as what they were."""

from __future__ import annotations

import pytest

from prunecli.options import LoadOptions
from prunecli.options.declare import assembled, declared
from prunecli.options.typed import typed_words
from prunecli_cli.main import root_command
from prunecli_cli.signature import FORMS

OPTIONS = (
    LoadOptions(),
    LoadOptions(architecture="timm/resnet18", architecture_args={"num_classes": 7, "norm": "bn"}),
    LoadOptions(input_size=(64, 96), mean=(0.5, 0.25), std=(1.0, 0.125)),
    LoadOptions(ignore=("loss.*", "*.queue"), renamed={"my head": "fc", "backbone": ""}),
    LoadOptions(weights="ema", prefix="student", head_activation="gelu", allow_outside=True),
    LoadOptions(input_shapes=(("image", (3, 8, 8), "float32"), ("ids", (7,), "int64"))),
)


@pytest.mark.parametrize("options", OPTIONS)
def test_words_are_read_as_the_options_that_they_were_written_from(options):
    command = root_command().commands["info"]
    words = ["model.pt", *typed_words(options)]
    typed = command.make_context("info", words, resilient_parsing=True).params
    values = {}
    for known in declared(LoadOptions):
        value = typed.get(known.name)
        if value not in (None, [], ()):
            form = FORMS.get(known.option.form)
            values[known.name] = value if form is None else form.read(known.flags[0], value)
    assert assembled(LoadOptions, values) == options
