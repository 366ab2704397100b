"""How the channels to execute are searched for."""

from __future__ import annotations

from dataclasses import dataclass

from prunecli.errors import InputError
from prunecli.methods.dynamic.bandit import EXPLORE


@dataclass(frozen=True)
class DynamicOptions:
    """How channels are searched for.

    `explore` is the factor of the confidence radius, `sqrt(explore ln t / T)`. `reward_ema` is what
    a mean reward keeps of itself at another reward (0: the plain mean over all of them). `search`
    is the share of the steps after which the channels are frozen; with `settle` they are as soon as
    an epoch has not changed those with the highest mean reward.
    """

    explore: float = EXPLORE
    reward_ema: float = 0.0
    search: float = 0.5
    settle: bool = True

    def check(self) -> None:
        """Raise `InputError` (`BAD_OPTION`) for a number that is out of range."""
        for name, fine, wanted in (
            ("explore", 0 <= self.explore < float("inf"), "0 or more"),
            ("reward_ema", 0 <= self.reward_ema < 1, "0 (off) to below 1"),
            ("search", 0 <= self.search < 1, "0 to below 1"),
        ):
            if not fine:
                raise InputError(
                    f"{name.replace('_', '-')} {getattr(self, name)} is out of range",
                    code="BAD_OPTION",
                    hint=f"give {wanted}",
                )
