"""Errors that users can fix."""


class PerpetuneError(Exception):
    """An error that the user can fix: what was wrong, where (file, line, field or address), and what to do.

    Commands print only its text, without a traceback, and exit with 1.
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


class NoDecision(PerpetuneError):
    """A run or a version has no decision record. An unreachable store is another error."""


class NoExamples(PerpetuneError):
    """No source holds a row, nor a rejected one."""


class ChampionChanged(PerpetuneError):
    """Another version has become champion since a version was compared with it."""


class NoPrevious(PerpetuneError):
    """There is no previous champion to roll back to."""
