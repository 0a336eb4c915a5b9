"""The one error that people are meant to read."""


class PerpetuneError(Exception):
    """Something a person can put right: what was wrong, where, and what to do.

    Commands print it as it is and exit with 1; nothing else is shown of it, so the
    text must stand alone.
    """

    def __init__(self, what: str, *, where: str | None = None, do: str | None = None) -> None:
        self.what = what
        self.where = where
        self.do = do
        super().__init__(self._text())

    def _text(self) -> str:
        position = f"{self.where}: " if self.where else ""
        advice = f"\n  {self.do}" if self.do else ""
        return f"{position}{self.what}{advice}"


class NoPrevious(PerpetuneError):
    """There is no previous champion to go back to."""
