from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from perpetune.inference.predictor import Predictor
from perpetune.model.base import Base
from perpetune.model.label_head import TEMPERATURES, HeadShape, LabelHead, contrast, fit_probe, head_shape, load_head
from perpetune.model.release import LABEL_HEAD
from perpetune.params import TrainParams
from perpetune.records import Example, Message, conversation
from perpetune.training.batches import Encoded, batches, encode_all
from perpetune.training.decoder.fused import (
    PlainModel,
    losses_by_temperature,
    prompt_features,
    summed_loss,
    training_network,
)
from perpetune.training.trainer import Progress, mean_loss, train

COLOURS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}
ROWS = [
    Example(input=f"the {thing}", output=colour, id=thing, group=thing, source="test")
    for thing, colour in COLOURS.items()
]
LABELS = ("blue", "green", "red")
INSTRUCTION = "which colour"
CPU = torch.device("cpu")


def encoded(base: Base, params: TrainParams) -> list[Encoded]:
    return encode_all(base.tokenizer, ROWS, INSTRUCTION, params, LABELS)


def head_of(base: Base) -> LabelHead:
    torch.manual_seed(1)
    head = LabelHead(head_shape(base.tokenizer, INSTRUCTION, LABELS), base.model.config.hidden_size)
    torch.nn.init.normal_(head.weight)
    return head


def test_a_head_learns_its_labels(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    trained = train(tiny_base, ROWS, ROWS, INSTRUCTION, train_params, tmp_path, lambda _: None, labels=LABELS)

    predictor = Predictor(tiny_base, 64)
    predictor.load_adapter("colours", tmp_path)
    answers = predictor.answer("colours", [conversation(INSTRUCTION, row) for row in ROWS], LABELS, 4)
    assert [answer.text for answer in answers] == list(COLOURS.values())
    assert all(answer.probabilities and sum(answer.probabilities.values()) == pytest.approx(1) for answer in answers)
    told = [
        -torch.tensor(answer.probabilities[row.output]).log()
        for answer, row in zip(answers, ROWS, strict=True)
        if answer.probabilities
    ]
    assert float(torch.stack(told).mean()) == pytest.approx(trained.validation_loss, rel=1e-3, abs=1e-5)


def test_answers_do_not_depend_on_company_nor_on_the_order_of_labels(
    tiny_base: Base, train_params: TrainParams, tmp_path: Path
) -> None:
    train(
        tiny_base,
        ROWS,
        [],
        INSTRUCTION,
        train_params.model_copy(update={"epochs": 4.0}),
        tmp_path,
        lambda _: None,
        labels=LABELS,
    )
    predictor = Predictor(tiny_base, 64)
    predictor.load_adapter("colours", tmp_path)
    asked = [
        *(conversation(INSTRUCTION, row) for row in ROWS),
        (Message(role="system", content="say the"), Message(role="user", content="sky")),
    ]
    together = predictor.answer("colours", asked, LABELS, 4)
    for question, answer in zip(asked, together, strict=True):
        [alone] = predictor.answer("colours", [question], LABELS[::-1], 4)
        assert alone.probabilities == pytest.approx(answer.probabilities, abs=1e-5)


def test_features_are_the_mean_of_the_input_and_the_last_token(tiny_base: Base, train_params: TrainParams) -> None:
    rows, head = encoded(tiny_base, train_params), head_of(tiny_base)
    found = prompt_features(training_network(tiny_base.model, torch.float32, label_head=head), rows, CPU)
    for row, mine in zip(rows, found, strict=True):
        hidden = tiny_base.model.get_decoder()(torch.tensor([row.inputs])).last_hidden_state[0]
        wanted = torch.cat([hidden[head.shape.input_from :].mean(0), hidden[-1]])
        torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-4)


def test_the_loss_is_that_of_the_rows_one_by_one(tiny_base: Base, train_params: TrainParams) -> None:
    rows, head = encoded(tiny_base, train_params), head_of(tiny_base)
    rows = [replace(row, weight=weight) for row, weight in zip(rows, (1.0, 2.0, 0.0, 1.0, 0.5, 1.0), strict=True)]
    for network in (
        training_network(tiny_base.model, torch.float32, label_head=head),
        PlainModel(tiny_base.model, torch.float32, False, head),
    ):
        network.eval()  # in training rows are held against each other too
        together = summed_loss(network, rows, CPU)
        alone = sum(summed_loss(network, [row], CPU) for row in rows)
        assert float(together) == pytest.approx(float(alone), rel=1e-4)


def test_the_contrast_is_that_of_its_paper() -> None:
    """Khosla et al. 2020, equation 2, written out row by row."""
    vectors = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([0, 1, 0, 2, 0, 1])
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    for row, found in enumerate(contrast(vectors, labels).tolist()):
        others = [other for other in range(6) if other != row]
        alike = [other for other in others if labels[other] == labels[row]]
        total = sum(math.exp(float(unit[row] @ unit[other]) / 0.1) for other in others)
        wanted = [math.log(total) - float(unit[row] @ unit[other]) / 0.1 for other in alike]
        assert found == pytest.approx(sum(wanted) / len(wanted) if wanted else 0.0, abs=1e-4)


def test_the_contrastive_loss_is_used_in_training_only(tiny_base: Base, train_params: TrainParams) -> None:
    rows, head = encoded(tiny_base, train_params), head_of(tiny_base)
    network = training_network(tiny_base.model, torch.float32, label_head=head)
    learning, judging = (float(summed_loss(network.train(on), rows, CPU)) for on in (True, False))
    features = prompt_features(network, rows, CPU)
    labels = torch.tensor([row.label for row in rows])
    more = contrast((features - head.mean) / head.scale, labels).sum()
    assert learning - judging == pytest.approx(float(more), rel=1e-3)


def test_a_validation_does_not_hold_overconfidence_against_a_head() -> None:
    """Scores four times as large are the same ranking, and calibration makes the same probabilities of them."""
    head = LabelHead(HeadShape(LABELS, 0), 2)
    features = torch.eye(4)[[0, 1, 2] * 10]
    labels = torch.tensor([0, 1, 2] * 8 + [1, 2, 0] * 2)  # four of five as the features say
    best, plain = [], []
    for size in (2.0, 8.0):
        with torch.no_grad():
            head.weight.copy_(size * torch.eye(3, 4))
            found = head.eval().losses_by_temperature(features, labels, torch.ones(30))
            plain.append(float(head.summed_loss(features, labels, torch.ones(30))))
        best.append(float(found.min()))
        assert found[TEMPERATURES.index(1.0)] == pytest.approx(plain[-1])
    assert best[0] == pytest.approx(best[1], rel=1e-3) and plain[1] > 1.5 * plain[0] >= 1.5 * best[0]


def test_the_validation_loss_is_that_at_the_best_temperature(tiny_base: Base, train_params: TrainParams) -> None:
    rows, head = encoded(tiny_base, train_params), head_of(tiny_base)
    network = training_network(tiny_base.model, torch.float32, label_head=head)
    each = losses_by_temperature(network.eval(), rows, CPU)
    for limit in (64, 12):  # in one pass, and in several
        assert mean_loss(network, rows, limit) == pytest.approx(float(each.min()) / len(rows), rel=1e-4)


def test_a_batch_has_pairs_of_a_label_and_an_epoch_each_row_once() -> None:
    rows = [Encoded((number, 1), 1, label=number % 10) for number in range(40)]
    order = list(islice(batches(rows, 8, seed=3), 10))
    for epoch in (order[:5], order[5:]):
        seen = [row for batch in epoch for row in batch]
        assert sorted(row.tokens for row in seen) == sorted(row.tokens for row in rows)
        assert all(one.label == other.label for one, other in zip(seen[::2], seen[1::2], strict=True))
    assert order[:5] != order[5:]


def test_training_starts_from_a_probe(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    """Before it has learned its loss is far below that of guessing, which random weights would have."""
    seen: list[Progress] = []
    short = train_params.model_copy(update={"epochs": 1.0, "batch_size": 6, "learning_rate": 1e-9})
    train(tiny_base, ROWS, ROWS, INSTRUCTION, short, tmp_path, seen.append, labels=LABELS)
    found = seen[-1].validation_loss
    assert found is not None and found < 0.8 * math.log(3)


@pytest.mark.parametrize("labels", [2, 3])
def test_a_probe_knows_two_labels_as_well_as_many(labels: int) -> None:
    torch.manual_seed(3)
    found = torch.randn(600, 8)
    classes = found[:, 0].argsort().argsort() * labels // 600
    head = LabelHead(HeadShape(tuple("abc"[:labels]), 0), 4)
    fit_probe(head, found, classes.tolist(), [1.0] * 600)
    assert (head(found).argmax(1) == classes).float().mean() > 0.85


def test_a_label_that_no_row_has_is_the_least_likely() -> None:
    torch.manual_seed(3)
    found = torch.randn(60, 8)
    head = LabelHead(HeadShape(("a", "never", "b"), 0), 4)
    fit_probe(head, found, [0 if value > 0 else 2 for value in found[:, 0].tolist()], [1.0] * 60)
    assert set(head(found).argmax(1).tolist()) == {0, 2}


def test_rows_of_other_labels_are_left_out(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    short = train_params.model_copy(update={"epochs": 1.0})
    trained = train(tiny_base, ROWS, [], INSTRUCTION, short, tmp_path, lambda _: None, labels=("blue", "red"))
    assert trained.too_long == 2
    head = load_head(tmp_path, CPU)
    assert head is not None
    assert head.shape.labels == ("blue", "red")


def test_the_head_is_part_of_the_digest(tiny_base: Base, train_params: TrainParams, tmp_path: Path) -> None:
    short = train_params.model_copy(update={"epochs": 1.0})
    digests = [
        train(tiny_base, ROWS, [], INSTRUCTION, short, tmp_path / name, lambda _: None, labels=labels).digest
        for name, labels in (("one", LABELS), ("same", LABELS), ("text", None))
    ]
    assert digests[0] == digests[1] != digests[2]
    assert (tmp_path / "one" / LABEL_HEAD).is_file()
    assert load_head(tmp_path / "text", CPU) is None
