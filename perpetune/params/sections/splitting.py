"""From clean rows to the splits that train and judge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from perpetune.params.sections.kinds import Count, Positive, Ratio, Section


class SplitParams(Section):
    """Ratios of groups that are not in the record of assignments yet; another seed draws all again. `frozen_traffic` is of
    labelled traffic, and so is `recent`, which is drawn from the newest.
    """

    seed: int = 7
    """The split of a new group depends on this seed and the group's name. It is recorded in `data/assignments.csv`, so
    that no group changes sides when data is added, edited or removed.
    """
    near_duplicates: bool = True
    """Rows whose inputs are near duplicates are split as one group, and a row that is still like a held-out one is
    quarantined. `false` for data that is alike by nature, such as forms: then only equal inputs are kept apart. See
    docs/guides/own-data.md.
    """
    by: Literal["hash", "time"] = "hash"
    """Which new groups are held out. `hash`: a random sample, in which each label has its ratio. `time`: the newest, so
    that the holdout shows how a model does on later rows. Rows without a time are older than all others.
    """
    frozen: Ratio = 0.2
    """Ratio of groups in the frozen holdout, which no model ever trains on and which is the same for all versions.
    Unit: ratio.
    """
    frozen_traffic: Ratio = 0.1
    """Ratio of the groups of labelled traffic that join the frozen holdout, by hash and for ever; at most
    `split.frozen`. Without it no new label could fill a frozen holdout that is too small. See decision 14. Unit: ratio.
    """
    validation: Ratio = 0.1
    """Ratio of groups that choose the best checkpoint. Unit: ratio."""
    recent: Ratio = 0.3
    """Ratio of labelled traffic in the recent holdout: every other group, by hash, of the newest groups with twice as
    many rows. Unit: ratio.
    """
    frozen_sources: tuple[str, ...] = ("openai-validation",)
    """Sources whose rows all join the frozen holdout, beside the ratio, and are never trained on; nor are rows of their
    groups and near duplicates of them. `perpetune import openai --validation` gives its rows the default.
    """
    min_train_rows: Count = 20
    """Fewer training rows are an error. Unit: rows."""

    @model_validator(mode="after")
    def traffic_is_drawn_among_the_frozen(self) -> SplitParams:
        if self.frozen_traffic > self.frozen:
            raise ValueError(
                f"frozen_traffic must not be above frozen ({self.frozen:g}): a group would move when it gets curated rows"
            )
        return self


class MixParams(Section):
    """What is trained on: `replay` is the most older rows for each recent one, null all of them.

    Recent is the traffic of so many days, up to its newest row; all traffic for null.
    """

    replay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Most older training rows (curated rows and older traffic) for each recent one: `1.0` trains on as many old rows
    as new ones, `null` keeps all. Labels take turns, rows are chosen by hash, and at least `split.min_train_rows` rows
    remain in all. See decision 12. Unit: rows for each recent row.
    """
    recent_days: Positive | None = None
    """Traffic of so many days before the newest row of traffic counts as recent; `null`: all traffic. Unit: days."""


class SelectParams(Section):
    """The training rows that are worth their cost, instead of all. Validation and holdouts stay as they are."""

    budget: Count | None = None
    """Most training rows; `null` keeps all. Labels share it evenly, and rare ones keep all their rows. Unit: rows."""
    method: Literal["facility_location", "k_center", "random"] = "facility_location"
    """How the rows of a label are chosen. `facility_location`: those that stand for all others best, and whose mean is that
    of all; `k_center`: those from which no other is far, outliers included; `random`: by hash. See decisions 23 and 32.
    """
    prefer: Literal["none", "hard", "easy"] = "none"
    """Which rows count more when they are chosen: those that are hard to learn, or easy, or none. With labels, hardness is
    the error of a model that was not trained on the row; without, the distance from the usual inputs. Not for `random`.
    See decision 23.
    """


class ReferenceParams(Section):
    """What traffic is compared with: the recent holdout alone if it has `min_recent` rows."""

    rows: Count = 600
    """Rows that the monitor compares traffic with. Unit: rows."""
    min_recent: Count = 100
    """If the recent holdout has so many rows, traffic is compared with it alone; else frozen rows are added. Unit:
    rows.
    """
