"""What `info` can be asked for."""

from dataclasses import dataclass

from prunecli.options import shared
from prunecli.options.declare import option


@dataclass(frozen=True)
class InfoOptions:
    """What is told of a file beside what its headers say."""

    build: bool = option(
        False,
        "Build the model and count its FLOPs, if the file does not tell them. Takes seconds.",
        panel=shared.READING,
        basic=True,
    )
