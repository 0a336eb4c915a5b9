"""Train a label head and ensemble it with a linear model on sentence embeddings."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace

from perpetune.classifiers.encoder import load_encoder
from perpetune.classifiers.ensemble import Pool, fit_powers, save_pool
from perpetune.classifiers.temperature import MIN_ROWS
from perpetune.evaluation.baselines import answers_of, fitted_linear
from perpetune.inference.predictor import load_predictor
from perpetune.model.adapters import trained_digest
from perpetune.model.release import POOL
from perpetune.params import BaseParams
from perpetune.records import Example, conversation
from perpetune.training.job_files import Job
from perpetune.training.launch import launch
from perpetune.training.trainer import OnForecast, Report, Trained

BATCH_TOKENS = 2048


def launch_ensemble(
    job: Job,
    encoder: BaseParams | None,
    train: Sequence[Example],
    validation: Sequence[Example],
    report: Report,
    launcher: str | None = None,
    on_forecast: OnForecast | None = None,
) -> Trained:
    """Train as `launch` does; then ensemble a label head with a linear model on embeddings of `encoder`.

    The validation rows calibrate the ensemble and decide whether the linear model is part of it. Raises PerpetuneError
    as `launch` does, and if the encoder is missing.
    """
    shutil.rmtree(job.adapter / POOL, ignore_errors=True)  # left by an interrupted training
    trained = launch(job, train, validation, report, launcher, on_forecast)
    if encoder is None or job.labels is None or len(validation) < MIN_ROWS:
        return trained
    model = fitted_linear(train, job.params.seed, load_encoder(encoder, job.assets))
    if model is None:
        return trained
    predictor = load_predictor(job.base, job.assets, job.params.precision, BATCH_TOKENS)
    predictor.load_adapter("trained", trained.adapter)
    prompts = [(row, conversation(job.instruction, row)) for row in validation]
    fitting = [(row, prompt) for row, prompt in prompts if predictor.fits(prompt, job.labels, 1, job.prompt_format)]
    fitting = fitting[: job.params.validation_rows]
    head_answers = predictor.answer(
        "trained", [prompt for _, prompt in fitting], job.labels, 1, prompt_format=job.prompt_format
    )
    rows = [row for row, _ in fitting]
    powers = fit_powers(head_answers, answers_of(model, rows), [row.output for row in rows])
    save_pool(trained.adapter, Pool(powers, model if powers.linear else None))
    return replace(trained, digest=trained_digest(trained.adapter))
