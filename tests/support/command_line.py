"""Run the command line in this process and read what it prints."""

from __future__ import annotations

import json

from prunecli_cli.main import main


def run(capsys, *words):
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def envelope(capsys, *words):
    code, out, _ = run(capsys, *words, "--json")
    return code, json.loads(out)
