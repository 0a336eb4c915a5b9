"""What watches a version in production, refreshes it and clears up."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from perpetune.params.renamed_settings import DROPPED
from perpetune.params.sections.kinds import Count, Positive, Section
from perpetune.params.sections.models import JudgeParams


class EstimateParams(Section):
    """What scores are estimated from without labels, beside confidence and likelihood, which cost nothing.

    Each check asks about a few requests by lot and those with labels, and about 100 reference rows, or twice
    `watch.min_rows` if that is more, once for each champion. See docs/guides/drift.md.
    """

    judge: JudgeParams | None = None
    """A larger model that grades answers: `{url, model}` behind OpenAI's API. `null`: none."""
    samples: Annotated[int, Field(ge=0, le=20)] = 0
    """Self-consistency of free text: so many further answers are drawn from the champion, by the gateway, and compared with
    the one that was given. 0: none; 5 do. Unit: answers.
    """
    temperature: Annotated[float, Field(gt=0, le=2)] = 0.7
    """Of these samples. At a low one the model agrees with itself whatever it says. Unit: temperature."""
    requests_per_day: Count = 100
    """Most requests in 24 hours that the judge, and as many that self-consistency, is computed of, reference rows included.
    Unit: requests a day.
    """


class WatchParams(Section):
    """The monitor. Decay: the mean score of labelled answers is below the promised one by more than `margin`."""

    cron: str = "0 * * * *"
    """When the monitor checks, in UTC."""
    window: Count = 300
    """Newest predictions that drift is judged on, newest labels whose score is shown, and the labels after a release
    within which an alarm goes back to the previous champion. Unit: predictions.
    """
    min_rows: Count = 50
    """With fewer predictions nothing is said about drift. Unit: predictions."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Decay is a fall of the mean score of labelled answers by at least this. Near 0 and 1 it is less: right answers that
    halve, or errors that double, are decay too. Unit: score (0.05 is five points).
    """
    run_length: Annotated[float, Field(gt=1)] = 20000
    """Average number of labels before a false alarm, at least, however often the monitor checks: a year at 55 labels a day.
    `perpetune calibrate` sets it to a year of your own. See decision 27. Unit: labels.
    """
    urgent_labels: Annotated[int, Field(ge=0)] = 150
    """If early evidence of decay comes, so many requests are drawn by lot to be labelled first, and as many once more if they
    neither raise the alarm nor deny it. Without a change that adds at most a tenth to the labels. 0: none. Unit: requests.
    """
    mix_shift: Literal["name", "retrain"] = "name"
    """What follows if the score fell only because other labels, or another time of day, became more frequent: `name` it, or
    `retrain` as after decay.
    """
    consecutive_checks: Count = 1
    """Checks in a row, each with new labels, that must find decay before a refresh starts. Unit: checks."""
    drift_alarms_per_year: Positive = 1
    """Most false alarms of drift that are expected in a year without a change, however often the monitor checks. See
    decision 37. Unit: alarms a year.
    """
    without_labels: Literal["nothing", "ask", "retrain"] = "ask"
    """What follows if fewer than `label_requests` of the window are labelled, the score estimated without labels has fallen
    beyond `margin`, and inputs or predictions drifted: `ask` for labels, `retrain` (only if it has fallen so far even if
    the estimate is as much too low as the last labels leave possible, else it asks), or `nothing`. Drift alone never retrains. See docs/guides/drift.md.
    """
    label_requests: Count = 50
    """Most open label requests. Unit: requests."""
    random_label_ratio: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Ratio of the label requests that are drawn by lot, each request with the same propensity. The others' grows with the
    model's doubt. Unit: ratio.
    """
    lot_per_day: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5
    """A standing lot: so many requests a day are drawn, each with the same propensity, so that the scores stay honest in
    quiet times. 0 draws none. Unit: requests a day.
    """
    unasked: Literal["test", "trust", "ignore"] = "test"
    """Whether labels that came unasked count where versions are judged. `test`: if they are shown to be like labels by lot.
    `trust`: always. `ignore`: never. They are trained on all the same. See docs/guides/labels.md.
    """

    @model_validator(mode="before")
    @classmethod
    def dropped_settings_are_left_out(cls, values: Any) -> Any:
        """A params.yaml that still has a setting that nothing uses any more stays valid."""
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if f"watch.{name}" not in DROPPED}


class RefreshParams(Section):
    """When a refresh may start. `backoff_factor` multiplies cooldown and `new_labels` after each that did not help.

    The first one starts with `first_labels` labelled requests or rows, while the prompted base serves. `growth` is the
    ratio of new rows to those that the last one had.
    """

    cron: str = "0 3 * * 1"
    """When the scheduled refresh starts, in UTC."""
    first_labels: Count = 200
    """While version 1 serves, the watch starts the first refresh with so many labelled requests or rows that no refresh
    has used. Unit: labels.
    """
    cooldown_minutes: Annotated[float, Field(ge=0)] = 60
    """After a refresh, decay starts no other for so long. Unit: minutes."""
    new_labels: Annotated[int, Field(ge=0)] = 200
    """Decay starts no refresh before so many labels have come since the last one, and since the scores began to fall:
    with fewer there is too little new to learn from and to judge by. Unit: labels.
    """
    growth: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    """The schedule starts no refresh before so many rows are new, as a ratio of the rows that the last refresh had. The
    same data, settings and champion are never tried again, unless by `perpetune refresh --again`. Unit: ratio.
    """
    backoff_factor: Annotated[float, Field(ge=1)] = 2.0
    """The cooldown (up to 30 days) and `new_labels` are multiplied by this for each refresh that decay has started
    since the champion was promoted. Unit: factor.
    """
    gpu_hours_per_month: Positive | None = None
    """Decay starts no refresh if all refreshes of the last 30 days have trained for so long (hours times devices, the
    metric `train/device_hours`). `null`: no limit. Unit: device hours.
    """


class LimitsParams(Section):
    """Time limits: a task that takes longer is ended, and its run fails and says so. They are there for what hangs, so they
    are generous.
    """

    curate_hours: Positive = 12
    """Of the curation. Unit: hours."""
    train_hours: Positive = 72
    """Of the training. Unit: hours."""
    evaluate_hours: Positive = 24
    """Of the evaluation, and of answering stored traffic. Unit: hours."""
    check_hours: Positive = 3
    """Of a check of the newest traffic. Unit: hours."""
    trial_days: Positive = 60
    """Of following a trial. Unit: days."""
    other_minutes: Positive = 60
    """Of each other task: to register and release a version, to log the data, to decide. Unit: minutes."""


class RetentionParams(Section):
    """For how long what nobody needs is kept; `null` keeps it for ever. See docs/guides/production.md#retention.

    The champion, its predecessors, a version on trial or waiting for approval or labels, and what reproduces them stay.
    """

    delete: bool = False
    """Whether the scheduled flow deletes. `false`: it only says what it would delete."""
    cron: str = "30 2 * * 0"
    """When the flow `retention/NAME` starts, in UTC."""
    report_days: Positive | None = 90
    """Drift reports of checks that found no decay. Unit: days."""
    check_days: Positive | None = 365
    """MLflow runs of checks that found no decay, with their numbers and decision records. Unit: days."""
    refresh_days: Positive | None = 730
    """MLflow runs of refreshes whose versions never served, with these versions. Unit: days."""
    release_days: Positive | None = 30
    """Downloads of versions that do not serve; MLflow has them. Unit: days."""
    data_days: Positive | None = 365
    """What no kept version needs of the DVC cache, and of a remote in the workspace. Unit: days."""
    log_megabytes: Positive | None = 100
    """A larger log file of a service is compressed, and begins again; one such file is kept of each. Unit: MB."""
    backup_days: Positive | None = 30
    """`perpetune doctor` warns if the last backup is older. Unit: days."""
