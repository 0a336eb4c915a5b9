"""What Evidently does with a window: the tests of its columns and the page that shows them.

It takes seconds to import, so only what draws a page imports this module.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.container import MetricOrContainer
from evidently.core.report import Snapshot
from evidently.legacy.calculations.stattests import StatTest, register_stattest
from evidently.legacy.core import ColumnType
from evidently.metrics import MeanValue, ValueDrift
from scipy.stats import chi2_contingency

from perpetune.monitoring.window import ANSWER, SCORE, answer_counts
from perpetune.policy.retraining import ColumnDrift

KOLMOGOROV_SMIRNOV = "ks"
CHI_SQUARE = "two-sample chi-square"


def tested(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    inputs: Mapping[str, float],
    predictions: Mapping[str, float],
) -> Snapshot:
    """Evidently's report of two frames; the thresholds are the largest p-values that count as drift, by column."""
    metrics: list[MetricOrContainer] = [
        ValueDrift(column=column, method=KOLMOGOROV_SMIRNOV, threshold=threshold)
        for column, threshold in inputs.items()
    ]
    if current[SCORE].notna().any() and reference[SCORE].notna().any():
        metrics.append(MeanValue(column=SCORE))
    for column, threshold in predictions.items():
        method = CHI_SQUARE if column == ANSWER else KOLMOGOROV_SMIRNOV
        metrics.append(ValueDrift(column=column, method=method, threshold=threshold))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Evidently correlates the columns; a constant one has no correlation.
        warnings.simplefilter("ignore", RuntimeWarning)
        return Report(metrics).run(dataset(current), dataset(reference))


def dataset(frame: pd.DataFrame) -> Dataset:
    """An Evidently dataset with the answer as categorical column and the others as numerical."""
    categorical = [ANSWER] if ANSWER in frame else []
    numerical = [column for column in frame if column not in categorical]
    return Dataset.from_pandas(
        frame, data_definition=DataDefinition(numerical_columns=numerical, categorical_columns=categorical)
    )


def column_drifts(snapshot: Snapshot, thresholds: Mapping[str, float]) -> dict[str, ColumnDrift]:
    """What the tests of the columns found."""
    columns = {}
    for metric in snapshot.dict()["metrics"]:
        column, value = metric["config"].get("column"), metric["value"]
        if metric["config"]["type"].endswith(":ValueDrift"):
            threshold = thresholds[column]
            columns[column] = ColumnDrift(metric["config"]["method"], float(value), threshold, bool(value <= threshold))
    return columns


def _chi_square(reference: pd.Series, current: pd.Series, kind: ColumnType, threshold: float) -> tuple[float, bool]:
    """A two-sample test: Evidently's own chi-square treats the reference's ratios as exact, with too many alarms."""
    counts = answer_counts(reference, current)
    p_value = float(chi2_contingency(counts, correction=False).pvalue) if counts.shape[1] > 1 else 1.0
    return p_value, p_value <= threshold


register_stattest(StatTest(CHI_SQUARE, "chi-square p_value", [ColumnType.Categorical]), _chi_square)
