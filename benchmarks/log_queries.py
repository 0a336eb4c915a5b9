"""How long reads of the prediction log take, from 10 thousand to 10 million logged requests.

    python benchmarks/log_queries.py                         # SQLite: 10 thousand, 100 thousand and 1 million requests
    python benchmarks/log_queries.py --rows 10000 10000000   # 10 million needs about 8 GB of disk
    python benchmarks/log_queries.py --url postgresql://...  # an empty database, which is filled
    python benchmarks/log_queries.py --quick                 # 10 thousand and 50 thousand, no output files

The rows are made by the database itself: a year of one task, 100 versions that serve one after the other, labels of one
request in a hundred, and label requests of one in a thousand. The newest version has answered a hundredth of the
requests. Each query is timed five times after one that is not counted: the p50, with the fastest and the slowest. Queries
that read every label, as training does, grow with the labels, and are shown without a goal.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared.record import Claim, write
from sqlalchemy import Engine, text

from perpetune.prediction_log.answers.trial_outcomes import outcomes_of, shadow_outcomes
from perpetune.prediction_log.database import open_log, redacted, update_statistics, writing
from perpetune.prediction_log.labels.admission import admit, newly_admitted
from perpetune.prediction_log.labels.counts import label_counts
from perpetune.prediction_log.labels.requests import count_open, newest_draw, open_requests, undrawn_answers
from perpetune.prediction_log.labels.selection import selection
from perpetune.prediction_log.queries import (
    answered_since,
    counts,
    labelled_examples,
    labelled_since,
    recent_predictions,
)

SIZES = (10_000, 100_000, 1_000_000)
QUICK = (10_000, 50_000)
ROUNDS = 5
BATCH = 1_000_000  # rows that one transaction makes: a trigger keeps copies of them until it ends
TASK, VERSIONS, YEAR = "reviews", 100, 365 * 86_400
START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(seconds=YEAR)
CHAMPION = str(VERSIONS)
GOAL_SECONDS = 1.0


@dataclass(frozen=True)
class Query:
    """A read of the log, who does it, and whether it should take as long however long the log is."""

    name: str
    run: Callable[[Engine], object]
    is_window: bool = True


@dataclass(frozen=True)
class Timed:
    """Seconds of a query with so many requests in the log: the median, the fastest, the slowest."""

    query: str
    rows: int
    p50: float
    fastest: float
    slowest: float


QUERIES = (
    Query("counts (status, check)", lambda log: counts(log, TASK)),
    Query("newest 300 of the champion (check)", lambda log: _recent(log, CHAMPION)),
    Query("newest 300 of an old version", lambda log: _recent(log, "3")),
    Query("newest 300 of a version that never answered", lambda log: _recent(log, "none")),
    Query("newest 60,000 with how they were labelled (check)", lambda log: selection(log, TASK, CHAMPION, END)),
    Query("newest 60,000 of all versions (status)", lambda log: selection(log, TASK, None, END), False),
    Query("labels to admit (check)", lambda log: admit(log, TASK, CHAMPION, END)),
    Query("labels since the last check (check)", lambda log: newly_admitted(log, TASK, CHAMPION, _newest(log) - 50)),
    Query("5,000 labels before (check)", lambda log: newly_admitted(log, TASK, CHAMPION, 0, newest=5000)),
    Query("label requests (status)", lambda log: count_open(log, TASK)),
    Query("label requests of the champion (check)", lambda log: open_requests(log, TASK, version=CHAMPION)),
    Query("undrawn since the last lot (check)", lambda log: _undrawn(log)),
    Query("labels by how they came (status)", lambda log: label_counts(log, TASK)),
    Query("labels of a week (refresh)", lambda log: labelled_since(log, TASK, END - timedelta(days=7))),
    Query("answers of an hour (costs)", lambda log: answered_since(log, TASK, END - timedelta(hours=1))),
    Query("a trial's 2,000 outcomes", lambda log: _outcomes(log)),
    Query("a shadow's 2,000 pairs", lambda log: shadow_outcomes(log, TASK, "shadow", END - timedelta(days=7), 2000)),
    Query("all labelled rows (training)", lambda log: labelled_examples(log, TASK), False),
)


def _recent(log: Engine, version: str) -> object:
    return recent_predictions(log, TASK, version=version, limit=300)


def _newest(log: Engine) -> int:
    with log.connect() as connection:
        return int(connection.execute(text("SELECT max(number) FROM admitted_labels")).scalar_one())


def _undrawn(log: Engine) -> object:
    return undrawn_answers(log, TASK, CHAMPION, newest_draw(log, TASK, CHAMPION))


def _outcomes(log: Engine) -> object:
    return outcomes_of(log, TASK, CHAMPION, "champion", END - timedelta(days=2), 2000)


def fill(log: Engine, rows: int, versions: int = VERSIONS, start: datetime = START) -> None:
    """Fill an empty log with the `rows` requests of the year from `start`, and what belongs to them."""
    for first in range(1, rows + 1, BATCH):
        numbers = range(first, min(rows, first + BATCH - 1) + 1)
        with writing(log) as connection:
            if log.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA cache_size = -2000000")
            for statement in _statements(log.dialect.name, numbers, rows, versions, start):
                connection.execute(text(statement.replace(":", "\\:")))
    with log.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if log.dialect.name == "postgresql":  # what autovacuum does within minutes
            connection.exec_driver_sql("VACUUM ANALYZE")
    update_statistics(log)


def _statements(dialect: str, made: range, rows: int, versions: int, start: datetime) -> Sequence[str]:
    """SQL that makes these rows: ids are spread over the index as random ones are, times run through the year."""
    first, last = made[0], made[-1]
    if dialect == "sqlite":
        numbers = f"WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last})"
        source = "s"
        name = "printf('chatcmpl-%016x', (n * 1103515245 + 12345) & 281474976710655)"
        when = f"strftime('%Y-%m-%d %H:%M:%f000', {start.timestamp()} + {YEAR} * (n / {rows}.0), 'unixepoch')"
    else:
        numbers, source = "", f"generate_series({first}, {last}) AS s(n)"
        name = "'chatcmpl-' || md5(n::text)"
        when = f"to_timestamp({start.timestamp()} + {YEAR} * (n / {rows}.0))"
    version = f"CAST((n - 1) * CAST({versions} AS BIGINT) / {rows} + 1 AS TEXT)"
    asked = (
        '[{"role": "user", "content": "an input of usual length, which is about a hundred characters long, and no. "}]'
    )
    columns = (
        "id, time, task, version, messages, input, output, prompt_tokens, completion_tokens, latency_ms, confidence"
    )
    late = when.replace("(n /", "((n + 0.5) /")
    return (
        f"INSERT INTO predictions ({columns}, route, finish_reason) {numbers} SELECT {name}, {when}, '{TASK}', {version}, "
        f"'{asked}', 'an input of usual length, which is about a hundred characters long, and no. ' || n, 'good', 60, 2, "
        f"12.5, 0.5 + (n % 50) / 100.0, 'champion', CASE n % 50 WHEN 0 THEN 'cancelled' ELSE 'stop' END "
        f"FROM {source}",
        f"INSERT INTO feedback (request_id, time, label, score, digest) {numbers} SELECT {name}, {late}, "
        f"CASE n % 3 WHEN 0 THEN 'bad' ELSE 'good' END, CASE n % 7 WHEN 0 THEN 0.5 END, 'd' || n FROM {source} "
        "WHERE n % 100 = 1",
        f"INSERT INTO label_requests (request_id, time, why, propensity, weight, urgent) {numbers} SELECT {name}, {late}, "
        f"'lot', 0.1, 1.0, {'0' if dialect == 'sqlite' else 'FALSE'} FROM {source} WHERE n % 1000 = 1",
        f"INSERT INTO admitted_labels (request_id, weight) {numbers} SELECT {name}, 1.0 FROM {source} "
        f"WHERE n % 100 = 1 AND n < {rows} - 2000",
        f"INSERT INTO shadows (request_id, version, time, task, output, latency_ms) {numbers} SELECT {name}, 'shadow', "
        f"{when}, '{TASK}', 'good', 10 FROM {source} WHERE n % 20 = 0",
    )


def measure(log: Engine, rows: int) -> list[Timed]:
    return [_timed(query, log, rows) for query in QUERIES]


def _timed(query: Query, log: Engine, rows: int) -> Timed:
    seconds = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        query.run(log)
        seconds.append(time.perf_counter() - began)
        if seconds[0] > 60:
            break
    timed = seconds[1:] or seconds
    return Timed(query.name, rows, statistics.median(timed), min(timed), max(timed))


def claims_of(timed: Sequence[Timed], database: str) -> list[Claim]:
    """One for each query of a window, with the most requests that were tried."""
    most = max(each.rows for each in timed)
    windows = {query.name for query in QUERIES if query.is_window}
    return [
        Claim(
            f"{database}, {most:,} requests: {each.query}, seconds (p50)",
            round(each.p50, 4),
            (round(each.fastest, 4), round(each.slowest, 4)),
            GOAL_SECONDS,
            each.p50 <= GOAL_SECONDS,
        )
        for each in timed
        if each.rows == most and each.query in windows
    ]


def show(timed: Sequence[Timed]) -> None:
    sizes = sorted({each.rows for each in timed})
    print(f"{'p50 in milliseconds':52}" + "".join(f"{size:>14,}" for size in sizes))
    for query in QUERIES:
        found = {each.rows: each.p50 for each in timed if each.query == query.name}
        print(f"{query.name:52}" + "".join(f"{1000 * found[size]:14.1f}" for size in sizes))


def main() -> None:
    parser = argparse.ArgumentParser(description="How long reads of the prediction log take.")
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument(
        "--url", help="an empty PostgreSQL database; its tables are deleted and made again for each size"
    )
    parser.add_argument("--folder", type=Path, help="where SQLite files are made; else a temporary folder")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    began, timed = time.monotonic(), []
    database = "PostgreSQL" if asked.url else "SQLite"
    for rows in QUICK if asked.quick else asked.rows:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            log = open_log(asked.url or f"sqlite:///{Path(folder) / 'predictions.db'}")
            try:
                if asked.url:
                    require_empty(log, asked.url)
                start = time.monotonic()
                fill(log, rows)
                print(f"{rows:,} requests were made in {time.monotonic() - start:.0f} s", flush=True)
                timed += measure(log, rows)
                if asked.url:
                    empty(log)
            finally:
                log.dispose()
    show(timed)
    claims = claims_of(timed, database)
    if not asked.quick:
        write(f"log_queries-{database.lower()}", claims, [vars(each) for each in timed], time.monotonic() - began)
    if broken := [claim.claim for claim in claims if not claim.holds]:
        sys.exit("does not hold: " + "; ".join(broken))


def require_empty(log: Engine, url: str) -> None:
    with log.connect() as connection:
        if connection.execute(text("SELECT count(*) FROM (SELECT 1 FROM predictions LIMIT 1) AS found")).scalar_one():
            sys.exit(f"{redacted(url)} has requests: name an empty database")


def empty(log: Engine) -> None:
    with writing(log) as connection:
        connection.execute(text("TRUNCATE predictions, answer_counts CASCADE"))


if __name__ == "__main__":
    main()
