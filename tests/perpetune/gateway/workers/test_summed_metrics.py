from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.gateway.workers.summed_metrics import summed


def worker(answers: int, waiting: int) -> bytes:
    metrics = Metrics()
    metrics.answers.labels("1", "champion").inc(answers)
    metrics.engine_seconds.labels("1").observe(0.02)
    metrics.serving.labels("1").set(1)
    metrics.log_waiting.set(waiting)
    return metrics.text()


def values(text: bytes) -> dict[str, float]:
    families = text_string_to_metric_families(text.decode())
    return {sample.name: sample.value for family in families for sample in family.samples if "le" not in sample.labels}


def test_what_is_counted_is_added_and_what_is_the_same_is_not() -> None:
    found = values(summed(worker(3, 2), [worker(4, 5).decode()], [worker(10, 100).decode()]))
    assert found["perpetune_answers_total"] == 17
    assert found["perpetune_engine_seconds_count"] == 3
    assert found["perpetune_log_rows_waiting"] == 7, "an ended process has none"
    assert found["perpetune_release_serving"] == 1
    assert found["perpetune_build_info"] == 1


def test_types_and_buckets_stay() -> None:
    own = worker(3, 2)
    families = {family.name: family for family in text_string_to_metric_families(own.decode())}
    for family in text_string_to_metric_families(summed(own, [own.decode()]).decode()):
        assert family.type == families[family.name].type
        assert family.documentation == families[family.name].documentation
        for sample, one in zip(family.samples, families[family.name].samples, strict=True):
            assert sample.labels == one.labels
            if sample.name.endswith("_bucket"):
                assert sample.value == 2 * one.value


def test_one_worker_is_not_changed() -> None:
    own = worker(3, 2)
    assert summed(own) == own
