"""What `perpetune import openai` says."""

from __future__ import annotations

from collections.abc import Callable

from perpetune.cli.console import shown
from perpetune.cli.curation.ingestion_lines import show
from perpetune.scaffold.from_openai import Imported, Matched

Say = Callable[[str], None]


def show_import(done: Imported, say: Say) -> None:
    if done.created and done.task:
        say(f"made a workspace of {shown(done.created.folder.absolute())}: {', '.join(done.created.files)}")
        for reason in done.task.reasons:
            say(f"  {reason}")
        say("  to correct this, edit `task` in params.yaml")
    for each in done.training:
        show(each, say)
    for each in done.validation:
        show(each, say)
        say("  its rows are the frozen holdout, and are never trained on")
    if done.matched:
        _show_matched(done.matched, say)
    if done.created and done.created.git != "missing":
        say("next: `git commit -m 'Our own model'`, so that versions of the model name the commit")
    say("next: `perpetune up`, and in a second terminal `perpetune refresh`")


def _show_matched(found: Matched, say: Say) -> None:
    (trained, _), (held, missing) = found.training, found.validation
    say(f"{found.answers:,} answers of the hosted model: {held:,} validation and {trained:,} training rows have one")
    if missing:
        say(f"  {missing:,} validation rows have none, and are left out of the comparison with the hosted model")
    if found.unmatched:
        say(
            f"  {found.unmatched:,} answers belong to no row: no row has the same conversation, or the id if the file says "
            "nothing else; a batch's output has only ids, so give its requests too: --answers requests.jsonl"
        )
    for reason, count in found.why_not.most_common(5):
        first = next(each.where for each in found.unusable if each.reason == reason)
        say(f"  {count:,} lines are of no use: {reason}; the first: {first}")
    if trained:
        say("  the hosted model was trained on training rows: on those that are held out, it looks better than it is")
