"""Where alerts go: a Prefect block for any Apprise URL, or a notification block that a team has made in Prefect."""

from __future__ import annotations

from uuid import UUID

from prefect import get_client
from prefect.blocks.notifications import AppriseNotificationBlock
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from perpetune.errors import PerpetuneError

SETTING = "PERPETUNE_ALERTS"


class AlertChannel(AppriseNotificationBlock):
    """An Apprise URL (https://github.com/caronc/apprise/wiki): mail, Slack, Teams, PagerDuty, a webhook and others.

    Prefect's server sends, so that process must have imported this module: `perpetune.flows.server` does.
    """

    _block_type_name = "perpetune alert channel"
    _block_type_slug = "perpetune-alert-channel"


def channels(wanted: SecretStr | None, task: str) -> list[UUID]:
    """The ids of the blocks of `wanted`: Apprise URLs and names of blocks (`slack-webhook/ops`), with spaces between.

    A URL is saved as a block of the task. Raises PerpetuneError if Apprise does not know a URL, or Prefect a block.
    """
    named = wanted.get_secret_value().split() if wanted else []
    return [
        _saved(each, f"{_slug(task)}-{number}") if "://" in each else _existing(each)
        for number, each in enumerate(named, start=1)
    ]


def _saved(url: str, name: str) -> UUID:
    from apprise import Apprise

    if not Apprise().add(url):
        scheme = url.split("://", 1)[0]
        raise PerpetuneError(
            f"this is no address that Apprise knows: {scheme}://...",  # the rest may hold a password
            where=SETTING,
            do="write it as https://github.com/caronc/apprise/wiki says, such as mailtos://USER:PASSWORD@example.org",
        )
    saved = AlertChannel(url=SecretStr(url)).save(name, overwrite=True)
    assert isinstance(saved, UUID)
    return saved


def _existing(named: str) -> UUID:
    kind, _, name = named.partition("/")
    with get_client(sync_client=True) as client:
        try:
            return client.read_block_document_by_name(name, kind).id
        except ObjectNotFound:
            raise PerpetuneError(
                f"Prefect has no notification block {named}",
                where=SETTING,
                do="create it in Prefect's UI under Blocks, and write its type and name as in slack-webhook/ops",
            ) from None


def _slug(task: str) -> str:
    """The task's name with the characters that a block's name may have."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in task.lower()).strip("-")
