"""Drift of inputs and predictions: Evidently's tests of a window against the reference, and its report."""

from __future__ import annotations

import base64
import gzip
import html as markup
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.container import MetricOrContainer
from evidently.core.report import Snapshot
from evidently.legacy.calculations.stattests import StatTest, register_stattest
from evidently.legacy.core import ColumnType
from evidently.metrics import MeanValue, ValueDrift
from scipy.stats import chi2, chi2_contingency, kstwobign

from perpetune.files import write_atomic
from perpetune.monitoring.input_drift import whole_input_drift
from perpetune.monitoring.window import (
    ANSWER,
    ANSWER_LENGTH,
    CONFIDENCE,
    INPUT_COLUMNS,
    SCORE,
    Window,
    current_frame,
    reference_frame,
)
from perpetune.params import WatchParams
from perpetune.policy.retraining import ColumnDrift, DriftEvidence, InputDrift

KOLMOGOROV_SMIRNOV = "ks"
CHI_SQUARE = "two-sample chi-square"
LEVEL = 0.01  # false-alarm rate of a check, for inputs and for predictions each
SMALLEST_SHIFT = 0.1  # of a KS distance, or of Cohen's w
RARE = 5  # the chi-square approximation needs about this many in a cell


def drift_report(window: Window, params: WatchParams, html: Path) -> DriftEvidence:
    """Test a window against the reference, and write Evidently's report to `html` (about 1.6 MB).

    One test of the whole input decides whether the inputs drifted (perpetune/monitoring/input_drift.py). The columns
    explain it: numbers by the two-sample Kolmogorov-Smirnov test, answers by a chi-square test of homogeneity. The
    false-alarm rate `LEVEL` is divided among the input columns and among the prediction columns (Bonferroni). Shifts below
    a KS distance of 0.1 (or Cohen's w of 0.1 for answers) never count, although they are significant in large windows.
    Predictions drifted if the answers or their confidence did.

    The tests of columns assume independent rows. Correlated neighbours raise the false-alarm rate: of windows without drift
    from reviews that arrived sentence by sentence, 12% had drifted predictions (1.5% when shuffled). With fewer than
    `params.min_rows` rows in the window or the reference nothing is tested, and the page says so.
    """
    current, reference = current_frame(window), reference_frame(window)
    heading = _heading(window)
    if min(len(current), len(reference)) < params.min_rows:
        write_atomic(html, _page(heading, f"<p>Too few rows for a test: each side needs {params.min_rows}.</p>"))
        return DriftEvidence(False, len(current), len(reference), 0.0, False, False, {})

    inputs = _thresholds(INPUT_COLUMNS, current, reference, params)
    predictions = _thresholds((ANSWER, ANSWER_LENGTH, CONFIDENCE), current, reference, params)
    whole = whole_input_drift(window, current, reference)
    heading = f"{heading} {_finding(whole)}"
    snapshot = _run(current, reference, inputs, predictions)
    columns = _column_drifts(snapshot, {**inputs, **predictions})
    ratio = sum(columns[column].drifted for column in inputs) / len(inputs)
    write_atomic(html, _page(heading, _compressed(_with_heading(snapshot.get_html_str(as_iframe=False), heading))))
    return DriftEvidence(
        judged=True,
        rows=len(current),
        reference_rows=len(reference),
        share=ratio,
        inputs_drifted=whole.drifted,
        predictions_drifted=any(columns[column].drifted for column in predictions),
        columns=columns,
        inputs=whole,
    )


def _finding(whole: InputDrift) -> str:
    verdict = "Inputs drifted" if whole.drifted else "Drift of the inputs is not shown"
    return f"{verdict}: {whole.test}, AUC {whole.auc:.2f}, p {whole.p_value:.3g} at level {whole.level:g}."


def _thresholds(
    columns: Sequence[str], current: pd.DataFrame, reference: pd.DataFrame, params: WatchParams
) -> dict[str, float]:
    """The largest p-value that counts as drift, by column; columns with too few values are left out."""
    usable = [
        column
        for column in columns
        if column in current and min(current[column].count(), reference[column].count()) >= params.min_rows
    ]
    return {
        column: min(LEVEL / len(usable), _p_of_smallest_shift(current[column], reference[column])) for column in usable
    }


def _p_of_smallest_shift(current: pd.Series, reference: pd.Series) -> float:
    """The p-value of a shift of exactly `SMALLEST_SHIFT` with this many rows."""
    rows = 1 / (1 / current.count() + 1 / reference.count())
    if pd.api.types.is_numeric_dtype(current):
        return float(kstwobign.sf(SMALLEST_SHIFT * np.sqrt(rows)))
    freedom = max(_counts(reference, current).shape[1] - 1, 1)
    return float(chi2.sf(SMALLEST_SHIFT**2 * rows, freedom))


def _chi_square(reference: pd.Series, current: pd.Series, kind: ColumnType, threshold: float) -> tuple[float, bool]:
    """A two-sample test: Evidently's own chi-square treats the reference's ratios as exact, with too many alarms."""
    counts = _counts(reference, current)
    p_value = float(chi2_contingency(counts, correction=False).pvalue) if counts.shape[1] > 1 else 1.0
    return p_value, p_value <= threshold


def _counts(reference: pd.Series, current: pd.Series) -> np.ndarray:
    """A table of shape (2, answers); answers given fewer than `RARE` times in total are merged into one column."""
    both = pd.DataFrame({"reference": reference.value_counts(), "current": current.value_counts()}).fillna(0)
    rare = both.sum(axis=1) < RARE
    kept = both[~rare].to_numpy()
    return np.vstack([kept, both[rare].sum().to_numpy()]).T if rare.any() else kept.T


register_stattest(StatTest(CHI_SQUARE, "chi-square p_value", [ColumnType.Categorical]), _chi_square)


def _run(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    inputs: Mapping[str, float],
    predictions: Mapping[str, float],
) -> Snapshot:
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


def _column_drifts(snapshot: Snapshot, thresholds: Mapping[str, float]) -> dict[str, ColumnDrift]:
    columns = {}
    for metric in snapshot.dict()["metrics"]:
        column, value = metric["config"].get("column"), metric["value"]
        if metric["config"]["type"].endswith(":ValueDrift"):
            threshold = thresholds[column]
            columns[column] = ColumnDrift(metric["config"]["method"], float(value), threshold, bool(value <= threshold))
    return columns


def _heading(window: Window) -> str:
    """A sentence on what was compared."""
    rows = window.predictions
    if not rows:
        return f"No predictions in the window; {len(window.reference)} reference rows."
    times, versions = sorted(row.time for row in rows), sorted({row.version for row in rows})
    labelled = sum(row.label is not None for row in rows)
    return (
        f"{rows[0].task}, version {', '.join(versions)}: {len(rows)} predictions from {times[0]:%Y-%m-%d %H:%M} to "
        f"{times[-1]:%Y-%m-%d %H:%M %Z}, {labelled} of them labelled, against {len(window.reference)} reference rows."
    )


def _page(heading: str, body: str) -> str:
    title = markup.escape(heading)
    head = f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>'
    return f"{head}<p>{title}</p>\n{body}\n</html>\n"


def _with_heading(report: str, heading: str) -> str:
    title = markup.escape(heading)
    style = "font: 16px Roboto, sans-serif; margin: 24px 24px 0"
    report = report.replace("<head>", f"<head><title>{title}</title>", 1)
    return report.replace("<body>", f'<body><p style="{style}">{title}</p>', 1)


def _compressed(report: str) -> str:
    """A page that decompresses `report` in the browser.

    Evidently puts 3.5 MB of script into each report, and every check makes a report.
    """
    packed = base64.b64encode(gzip.compress(report.encode())).decode()
    return f"""<noscript>This report needs JavaScript.</noscript>
<script type="module">
const packed = Uint8Array.from(atob("{packed}"), (character) => character.charCodeAt(0));
const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
const report = await new Response(stream).text();
document.open();
document.write(report);
document.close();
</script>"""
