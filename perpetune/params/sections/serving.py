"""The gateway, its log, and how a version goes live."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from perpetune.params.sections.kinds import Count, Network, Positive, Probability, Section
from perpetune.params.sections.models import RemoteModel


class ServeParams(Section):
    """The gateway and its engine; `initial_model` answers until something better does, null for the prompted base.

    `requests_per_minute` is of one API key, or of one address if there are none.
    """

    engine: Literal["transformers", "vllm"] = "transformers"
    """`transformers` answers in the gateway's process, `vllm` over HTTP. vLLM serves the adapters of `train.method` `lora`,
    `rslora` and `qlora`. See docs/guides/vllm.md.
    """
    initial_model: RemoteModel | None = None
    """What answers as version 1, until a better version is promoted: `null` is the prompted base, `{url, model}` a
    larger model behind OpenAI's API. Its key is the environment variable `PERPETUNE_REMOTE_API_KEY`.
    """
    workers: Count = 1
    """Processes that serve one address, so that the gateway uses as many cores. More than one need `vllm`. `max_queue`,
    `requests_per_minute` and `wrong_keys_per_minute` are limits of each.
    """
    poll_seconds: Positive = 5
    """How often the gateway asks MLflow which versions the aliases name. Unit: seconds."""
    max_batch: Count = 16
    """Requests answered together by `transformers`. It also bounds the shadow requests that are answered at once. Unit:
    requests.
    """
    max_wait_ms: Annotated[float, Field(ge=0)] = 5
    """How long the first request of a batch waits for others. Unit: milliseconds."""
    max_request_chars: Count = 32000
    """A request with more text is refused (413). Unit: characters."""
    max_queue: Count = 256
    """With so many requests waiting, the next is refused (429). With `vllm` the requests being answered count too.
    Unit: requests.
    """
    timeout_seconds: Positive = 60
    """A request that takes longer is ended (504). Unit: seconds."""
    requests_per_minute: Count | None = None
    """Limit of one API key or, without keys, of one address, in each gateway; beyond it 429. `null`: no limit. Unit:
    requests a minute.
    """
    cors_origins: tuple[str, ...] = ()
    """Origins of pages that may call the API from a browser, such as `https://app.example.com`."""
    wrong_keys_per_minute: Count = 60
    """Limit of requests with a wrong API key from one address; beyond it 429 instead of 401. Right keys pass. Unit:
    requests a minute.
    """
    keep_alive_seconds: Count = 75
    """How long an idle connection stays open. It must be longer than a proxy in front keeps its idle connections, or
    requests fail now and then with 502: the defaults of common ones are 60 s. Unit: seconds.
    """
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses or networks of proxies, such as `10.0.0.0/8`. Only they may name the client in `X-Forwarded-For`, whose
    address counts for `requests_per_minute`. If it is empty, what the environment's `FORWARDED_ALLOW_IPS` names.
    """
    identity_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] | None = None
    """Header in which a proxy of `trusted_proxies` names the user whom it has authenticated, such as
    `X-Auth-Request-Email`: the identity of an approval. `null`: the API key is. From any other address it is ignored.
    """

    @model_validator(mode="after")
    def _is_named_by_a_proxy(self) -> ServeParams:
        if self.identity_header is not None and not self.trusted_proxies:
            raise ValueError("identity_header needs trusted_proxies: the addresses of the proxies that set it")
        return self


class LogParams(Section):
    """The prediction log: the ratio of requests in it, for how long, and whether personal data is kept out."""

    sample_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Ratio of the requests that are stored. What is not stored cannot be judged afterwards. Unit: ratio."""
    retention_days: Positive | None = None
    """Older rows are deleted with their feedback; `null` keeps them. Unit: days."""
    redact: bool = False
    """`true` replaces e-mail addresses, phone numbers, card numbers and the like before anything is stored."""
    embeddings_per_hour: Annotated[int, Field(ge=0)] = 300
    """Most requests an hour whose inputs each gateway embeds with `evaluate.encoder`, after they were answered, for the test
    of drift. Longer text than the encoder reads is cut. 0, or no encoder: none, and only words, letters and lengths are
    tested. See docs/guides/drift.md. Unit: requests an hour.
    """


class ReleaseParams(Section):
    """How a promoted version takes over, and what it must show at the gateway's door (parity) and on trial.

    `traffic_ratio` of the users (canary) or of the requests (shadow) goes to the challenger; `max_requests` are its own.
    """

    strategy: Literal["immediate", "canary", "shadow"] = "immediate"
    """`immediate`: the promoted version serves at once. `canary`: it first answers some of the users. `shadow`: it
    first answers some of the requests without anybody seeing it. See docs/guides/release.md.
    """
    traffic_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Ratio of the users (canary) or of the requests (shadow) that the challenger answers. Unit: ratio."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The trial shows that the challenger is not worse by this margin, or that it is. Unit: score."""
    alpha: Probability = 0.05
    """Error rate of the trial, however often it is checked."""
    min_labels: Count = 50
    """Labels on each side without which quality is not judged; requests, if both versions have answered the same ones.
    Unit: labels.
    """
    max_requests: Count = 2000
    """Requests of the challenger that decide. After them the trial ends when the labels that were asked for have come. Unit:
    requests.
    """
    paired: bool = True
    """In a canary the champion answers the challenger's requests too, unseen, so that a few labels of those that both answer
    differently decide. `false` computes them once, and compares two groups of users, which takes many more labels.
    """
    labels: Annotated[int, Field(ge=0)] = 200
    """Most labels of disagreements that a trial asks for; it asks for as many as an equal challenger needs. 0: none. Unit:
    labels.
    """
    label_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 7
    """How long a trial waits for a label that it asked for. Unit: days."""
    accept_unproven: Literal["never", "unlabelled", "observed"] = "unlabelled"
    """What a trial promotes at its end although quality is not shown to be within `margin`. `never`: nothing.
    `unlabelled`: a version for which too few labels came to judge it. `observed`: also one whose observed quality is within
    the margin, which may be much worse. See docs/guides/release.md.
    """
    slow_seconds: Positive = 2.0
    """An answer that takes longer counts as slow. Unit: seconds."""
    parity_prompts: Annotated[int, Field(ge=0)] = 16
    """Golden prompts: held-out rows whose answers are recorded at evaluation. Unit: prompts."""
    parity_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Ratio of the golden prompts that the gateway must answer alike. Unit: ratio."""
    parity_tolerance: Annotated[float, Field(gt=0, le=1)] = 0.05
    """How far the probability of the recorded label may differ. Two tokens of free text count as tied within twice
    that. With vLLM in bf16 probabilities differed by up to 0.06 from the engine in process: set 0.1 there, or train and
    serve in fp32. Unit: probability.
    """
