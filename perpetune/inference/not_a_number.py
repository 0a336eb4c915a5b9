"""Scores that are not numbers are an error, never an answer."""

from __future__ import annotations

from perpetune.errors import PerpetuneError


class NotANumber(PerpetuneError):
    """A model computed NaN: its weights are damaged, or the precision is too low for them."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} are not finite",
            where="the weights of the model",
            do="train the version again; if the base itself does this, set train.precision: fp32 or use another one",
        )
