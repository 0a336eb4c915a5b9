"""Streams of labels as users give them: bursts, one heavy user, day and night, a shifting mix, noise, complaints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import numpy.typing as npt

from perpetune.monitoring.mix_shift import Scored, decompose
from perpetune.policy.ignorable import SelectionRow, ignorable
from perpetune.policy.retraining import MixShift
from perpetune.prediction_log.labels.delays import LabelledGroup, ripe

Numbers = npt.NDArray[np.float64]

PER_DAY = 50  # labels
ACCURACY = 0.85
BURST = 5
HEAVY = 0.3  # of the labels are of one user
NIGHT = 0.10  # points that answers at night are worse than by day
NOISE = 0.10  # of the labels are wrong
START = datetime(2026, 1, 1, tzinfo=UTC)
COMPLAINED, CONFIRMED = timedelta(hours=1), timedelta(days=3)  # after which wrong and right answers are labelled
HARD = (0.95, 0.65)  # accuracy of easy and hard requests


@dataclass(frozen=True)
class Stream:
    """Scores (histories x labels), the cluster and day of each label, and its part of the traffic."""

    scores: Numbers
    clusters: npt.NDArray[np.int64]
    parts: npt.NDArray[np.int64]


Source = Callable[[np.random.Generator, tuple[int, int]], Stream]


def alone(scores: Numbers, parts: npt.NDArray[np.int64] | None = None) -> Stream:
    """Each label is a cluster of its own."""
    labels = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return Stream(scores, labels, np.zeros(scores.shape, dtype=int) if parts is None else parts)


def steady(rng: np.random.Generator, shape: tuple[int, int]) -> Stream:
    return alone(_right(rng, ACCURACY, shape))


def bursts(rng: np.random.Generator, shape: tuple[int, int]) -> Stream:
    """Five labels at a time, of inputs that are nearly equal: all right or all wrong."""
    histories, labels = shape
    first = _right(rng, ACCURACY, (histories, labels // BURST))
    clusters = np.broadcast_to(np.arange(labels // BURST), first.shape)
    return Stream(
        np.repeat(first, BURST, axis=1), np.repeat(clusters, BURST, axis=1), np.zeros((histories, labels), dtype=int)
    )


def heavy_user(rng: np.random.Generator, shape: tuple[int, int]) -> Stream:
    """One user gives 30% of the labels, on one topic a day, of which all or no answers are right."""
    histories, labels = shape
    day = np.arange(labels) // PER_DAY
    is_heavy = rng.random(shape) < HEAVY
    topic = _right(rng, ACCURACY, (histories, day[-1] + 1))[:, day]
    scores = np.where(is_heavy, topic, _right(rng, ACCURACY, shape))
    clusters = np.where(is_heavy, -1 - day, np.arange(labels))
    return Stream(scores, clusters, np.zeros(shape, dtype=int))


def day_and_night(rng: np.random.Generator, shape: tuple[int, int]) -> Stream:
    """Half of the labels come by day and half at night, when answers are worse by 10 points."""
    night = (np.arange(shape[1]) % PER_DAY) >= PER_DAY // 2
    return alone(_right(rng, ACCURACY + NIGHT / 2 - NIGHT * night, shape), np.broadcast_to(night.astype(int), shape))


def busy_day_and_night(rng: np.random.Generator, shape: tuple[int, int]) -> Stream:
    """As `day_and_night`, with 1,000 labels a day."""
    night = (np.arange(shape[1]) % 1000) >= 500
    return alone(_right(rng, ACCURACY + NIGHT / 2 - NIGHT * night, shape), np.broadcast_to(night.astype(int), shape))


def mix_shift(rng: np.random.Generator, shape: tuple[int, int]) -> Stream:
    """Hard requests grow from a third to two thirds of the traffic at label 1,000; each kind is answered as before."""
    chance = np.where(np.arange(shape[1]) < 1000, 1 / 3, 2 / 3)
    hard = rng.random(shape) < chance
    return alone(_right(rng, np.where(hard, HARD[1], HARD[0]), shape), hard.astype(int))


def noisy(rng: np.random.Generator, shape: tuple[int, int]) -> Stream:
    """A tenth of the labels are wrong, in the reference too."""
    return alone(_right(rng, ACCURACY * (1 - NOISE) + (1 - ACCURACY) * NOISE, shape))


def independent(stream: Stream) -> tuple[Stream, float]:
    """The first label of each cluster, as many in each history, and the ratio of labels that are left."""
    histories = len(stream.scores)
    first = np.zeros(stream.scores.shape, dtype=bool)
    for history in range(histories):
        first[history, np.unique(stream.clusters[history], return_index=True)[1]] = True
    length = int(first.sum(axis=1).min()) // 10 * 10
    kept = np.argsort(~first, axis=1, kind="stable")[:, :length]
    kept_of = partial(np.take_along_axis, indices=kept, axis=1)
    return Stream(kept_of(stream.scores), kept_of(stream.clusters), kept_of(stream.parts)), float(first.mean())


def mix_of_fall(before: Stream, since: Stream) -> MixShift | None:
    """The fall from one to the other, one history each, taken apart as a check does."""
    return decompose("label", _scored(before), _scored(since))


def complaints_decide(rng: np.random.Generator, times: float, requests: int, margin: float) -> bool:
    """Whether labels that came unasked decide, if wrong answers are labelled so many times as often; 15 came by lot."""
    confidence = rng.beta(8, 1.4, requests)
    right = rng.random(requests) < confidence
    came = rng.random(requests) < np.where(right, 0.1, 0.1 * times)
    lot = rng.random(requests) < 15 / requests
    rows = [
        SelectionRow(
            float(sure),
            float(is_right) if unasked or drawn else None,
            bool(unasked and not drawn),
            1.0 if drawn else None,
        )
        for sure, is_right, unasked, drawn in zip(confidence, right, came, lot, strict=True)
    ]
    return ignorable(rows, margin, "test").decides


def late_confirmations(rng: np.random.Generator, lots: int) -> list[Numbers]:
    """The scores that each daily check admits, if people label a lot a day: wrong answers in an hour, right ones in 3 days."""
    right = rng.random((lots, PER_DAY)) < ACCURACY
    drawn = [START + timedelta(days=day) for day in range(lots)]
    labelled = [
        [when + (CONFIRMED if each else COMPLAINED) for each in lot] for when, lot in zip(drawn, right, strict=True)
    ]
    admitted, checks = np.zeros(right.shape, dtype=bool), []
    for check in drawn:
        now = check + timedelta(hours=12)
        groups = [
            LabelledGroup([(when, label if label <= now else None) for label in labels])
            for when, labels in zip(drawn, labelled, strict=True)
            if when <= now
        ]
        is_ripe = [when <= now and when <= ripe(group, groups, now) for when, group in zip(drawn, groups, strict=False)]
        known = np.array([[label <= now for label in labels] for labels in labelled])
        new = known & ~admitted
        new[: len(is_ripe)] &= np.array(is_ripe)[:, None]
        new[len(is_ripe) :] = False
        admitted |= new
        checks.append(
            np.concatenate([np.sort(lot[of_lot]) for lot, of_lot in zip(right, new, strict=True)]).astype(float)
        )
    return checks


def _scored(stream: Stream) -> list[Scored]:
    """One for each part of the traffic, with the weight of its labels."""
    parts, scores = stream.parts.ravel(), stream.scores.ravel()
    rows, totals = np.bincount(parts), np.bincount(parts, weights=scores)
    return [
        Scored(str(part), float(total / count), float(count))
        for part, (count, total) in enumerate(zip(rows, totals, strict=True))
        if count
    ]


def _right(rng: np.random.Generator, chance: npt.ArrayLike, shape: tuple[int, int]) -> Numbers:
    return (rng.random(shape) < np.asarray(chance, dtype=float)).astype(np.float64)
