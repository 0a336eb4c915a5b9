"""The answers of champion and challenger to stored traffic, as the run that made the challenger keeps them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from perpetune.statistics.disagreements import Disagreements


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Disagreement(_Frozen):
    """A request that the two answer differently."""

    request_id: str
    champion: str
    challenger: str


class TrafficSample(_Frozen):
    """Requests of one time that both have answered, and the held-out rows of the same population.

    `rows` counts the requests. `differing` are those answered differently, in an order drawn by lot; labels were asked
    for the first `asked`. Of the `held_out` rows `held_out_differing` are answered differently, with these differences
    of scores (challenger minus champion).
    """

    rows: int
    differing: tuple[Disagreement, ...]
    asked: int = 0
    held_out: int = 0
    held_out_differing: tuple[float, ...] = ()

    def disagreements(self, differences: Mapping[str, float]) -> Disagreements:
        """With the labels that have come: `differences` by request, of which only those asked for count."""
        asked = [each.request_id for each in self.differing[: self.asked]]
        labelled = tuple(differences[request_id] for request_id in asked if request_id in differences)
        return Disagreements(
            self.rows + self.held_out,
            len(self.differing) + len(self.held_out_differing),
            (*self.held_out_differing, *labelled),
        )


class TrafficComparison(_Frozen):
    """Both samples, the versions compared, and how often labels were asked for; `recent` or `earlier` may be empty."""

    champion: str
    challenger: str
    recent: TrafficSample
    earlier: TrafficSample
    rounds: int = 1

    def asked(self) -> list[Disagreement]:
        """The disagreements that labels were asked for."""
        return [each for sample in (self.recent, self.earlier) for each in sample.differing[: sample.asked]]

    def with_asked(self, recent: int, earlier: int) -> TrafficComparison:
        """After so many more labels were asked for; the first of them do not begin another round."""
        samples = {
            "recent": self.recent.model_copy(update={"asked": self.recent.asked + recent}),
            "earlier": self.earlier.model_copy(update={"asked": self.earlier.asked + earlier}),
        }
        return self.model_copy(update={**samples, "rounds": self.rounds + bool(self.asked())})
