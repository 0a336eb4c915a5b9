"""Drift of inputs and predictions: Evidently's tests of a window against the reference, and its report."""

from __future__ import annotations

import base64
import gzip
import html as markup
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import chi2, kstwobign

from perpetune.files import write_atomic
from perpetune.monitoring.independent import cluster_and_day
from perpetune.monitoring.input_change import InputChange, as_html, input_change
from perpetune.monitoring.input_drift import InputRow, compare_inputs, rows_of_reference, rows_of_window
from perpetune.monitoring.window import (
    ANSWER,
    ANSWER_LENGTH,
    CONFIDENCE,
    INPUT_COLUMNS,
    Window,
    answer_counts,
    current_frame,
    reference_frame,
)
from perpetune.params import WatchParams
from perpetune.policy.retraining import DriftEvidence, InputDrift

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

LEVEL = 0.02  # false-alarm rate of a check that stands alone: half for inputs and half for predictions
SMALLEST_SHIFT = 0.1  # of a KS distance, or of Cohen's w


@dataclass(frozen=True, eq=False)
class Span:
    """Inputs that are tested together against the reference's: the newest requests, or those of a week."""

    name: str
    new: Sequence[InputRow]
    old: Sequence[InputRow]


NEWEST = "the newest requests"


def drift_report(
    window: Window,
    params: WatchParams,
    html: Path,
    *,
    spans: Sequence[Span] = (),
    level: float = LEVEL,
    now: datetime | None = None,
    with_texts: bool = True,
    notes: Sequence[str] = (),
) -> DriftEvidence:
    """Test traffic against the reference at a level, and write Evidently's report to `html` (about 1.6 MB).

    Half of `level`, the probability of a false alarm, is for the inputs and half for the predictions. The inputs are tested
    as a whole (perpetune/monitoring/input_drift.py), each of the `spans` at an equal part; without spans, those of the
    window. Columns explain it: numbers by the two-sample Kolmogorov-Smirnov test, answers by a chi-square test of
    homogeneity. The level is divided among the input columns and among the prediction columns (Bonferroni). Shifts below
    a KS distance of 0.1 (or Cohen's w of 0.1 for answers) never count, although they are significant in large windows.
    Predictions drifted if the answers or their confidence did.

    Only the first row a day of each user or session and of equal inputs counts: the tests assume independent rows, and of
    windows without drift from reviews that arrived sentence by sentence 12% had drifted predictions. With fewer than
    `params.min_rows` rows in the window or the reference nothing is tested, and the page says so. `with_texts` shows the
    farthest requests themselves, else their ids. `notes` are shown with it, as what is estimated without labels.
    """
    heading, noted = _heading(window), _noted(notes)
    window = _independent(window)
    current, reference = current_frame(window), reference_frame(window)
    if min(len(current), len(reference)) < params.min_rows:
        needed = f"each side needs {params.min_rows}. One a day of each user or session counts, and of equal inputs."
        write_atomic(html, _page(heading, f"<p>Too few rows for a test: {needed}</p>{noted}"))
        return DriftEvidence(False, len(current), len(reference), 0.0, False, False, {})

    from perpetune.monitoring import evidently_report

    inputs = _thresholds(INPUT_COLUMNS, current, reference, params, level / 2)
    predictions = _thresholds((ANSWER, ANSWER_LENGTH, CONFIDENCE), current, reference, params, level / 2)
    tested = spans or [Span(NEWEST, rows_of_window(window), rows_of_reference(window))]
    whole, change = _test_spans(tested, level / 2)
    snapshot = evidently_report.tested(current, reference, inputs, predictions)
    columns = evidently_report.column_drifts(snapshot, {**inputs, **predictions})
    _write(html, snapshot, f"{heading} {_finding(whole)}", noted + as_html(change, with_texts=with_texts))
    return DriftEvidence(
        judged=True,
        rows=len(current),
        reference_rows=len(reference),
        share=sum(columns[column].drifted for column in inputs) / len(inputs),
        inputs_drifted=whole.drifted,
        predictions_drifted=any(columns[column].drifted for column in predictions),
        columns=columns,
        inputs=whole,
        tested=now,
        farthest=tuple(each.request.id for each in change.farthest),
    )


def draw_report(
    window: Window, params: WatchParams, html: Path, last: DriftEvidence, notes: Sequence[str] = ()
) -> None:
    """Write Evidently's report of a window that is not tested: the picture, and what the last test found."""
    noted = _noted(notes)
    current, reference = current_frame(window), reference_frame(window)
    when = f" {last.tested:%Y-%m-%d %H:%M %Z}" if last.tested else ""
    heading = f"{_heading(window)} Last tested{when}: {_finding(last.inputs) if last.inputs else ''}"
    if min(len(current), len(reference)) < params.min_rows:
        few = f"<p>Too few rows for a picture: each side needs {params.min_rows}.</p>"
        write_atomic(html, _page(heading, f"{few}{noted}"))
        return
    from perpetune.monitoring import evidently_report

    inputs = _thresholds(INPUT_COLUMNS, current, reference, params, LEVEL / 2)
    predictions = _thresholds((ANSWER, ANSWER_LENGTH, CONFIDENCE), current, reference, params, LEVEL / 2)
    _write(html, evidently_report.tested(current, reference, inputs, predictions), heading, noted)


def _independent(window: Window) -> Window:
    """The first row of each cluster and day."""
    predictions = {cluster_and_day(row): row for row in reversed(window.predictions)}
    return replace(window, predictions=list(predictions.values())[::-1])


def _test_spans(spans: Sequence[Span], level: float) -> tuple[InputDrift, InputChange]:
    """The test of the span that is farthest below its level, and what changed in that span."""
    found = [(replace(compare_inputs(each.new, each.old, level / len(spans)), span=each.name), each) for each in spans]
    whole, span = min(found, key=lambda pair: (not pair[0].drifted, pair[0].p_value))
    return whole, input_change(span.new, span.old)


def _write(html: Path, snapshot: Snapshot, heading: str, body: str) -> None:
    report = _with_heading(snapshot.get_html_str(as_iframe=False), heading, body)
    write_atomic(html, _page(heading, _compressed(report)))


def _noted(notes: Sequence[str]) -> str:
    """What is estimated without labels, as HTML; "" if nothing is."""
    lines = "".join(f"<li>{markup.escape(note)}</li>" for note in notes)
    return f"<h2>Estimated without labels</h2>\n<ul>{lines}</ul>\n" if lines else ""


def _finding(whole: InputDrift) -> str:
    verdict = "Inputs drifted" if whole.drifted else "Drift of the inputs is not shown"
    return f"{verdict}: {whole.test}, AUC {whole.auc:.2f}, p {whole.p_value:.3g} at level {whole.level:.2g}."


def _thresholds(
    columns: Sequence[str], current: pd.DataFrame, reference: pd.DataFrame, params: WatchParams, level: float
) -> dict[str, float]:
    """The largest p-value that counts as drift, by column; columns with too few values are left out."""
    usable = [
        column
        for column in columns
        if column in current and min(current[column].count(), reference[column].count()) >= params.min_rows
    ]
    return {
        column: min(level / len(usable), _p_of_smallest_shift(current[column], reference[column])) for column in usable
    }


def _p_of_smallest_shift(current: pd.Series, reference: pd.Series) -> float:
    """The p-value of a shift of exactly `SMALLEST_SHIFT` with this many rows."""
    rows = 1 / (1 / current.count() + 1 / reference.count())
    if pd.api.types.is_numeric_dtype(current):
        return float(kstwobign.sf(SMALLEST_SHIFT * np.sqrt(rows)))
    freedom = max(answer_counts(reference, current).shape[1] - 1, 1)
    return float(chi2.sf(SMALLEST_SHIFT**2 * rows, freedom))


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


_STYLE = """<style>
.perpetune { font: 15px Roboto, sans-serif; margin: 24px; max-width: 1100px; line-height: 1.45; }
.perpetune h2 { font-size: 16px; font-weight: 600; margin: 20px 0 8px; }
.perpetune table { border-collapse: collapse; }
.perpetune th, .perpetune td { text-align: left; vertical-align: top; padding: 4px 16px 4px 0; border-bottom: 1px solid #ddd; }
</style>"""


def _with_heading(report: str, heading: str, body: str) -> str:
    """The report after a heading (text) and a body (HTML) of ours."""
    title = markup.escape(heading)
    report = report.replace("<head>", f"<head><title>{title}</title>{_STYLE}", 1)
    return report.replace("<body>", f'<body><div class="perpetune"><p>{title}</p>\n{body}</div>', 1)


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
