from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy
from older_logs import downgrade
from sqlalchemy import select, text

from perpetune.errors import PerpetuneError
from perpetune.gateway.server import warn_if_open
from perpetune.prediction_log.api_keys import (
    Keyring,
    KeyringCache,
    add_key,
    list_keys,
    parse_role,
    read_keyring,
    register_key,
    revoke_key,
)
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.tables import api_keys


def test_only_the_digest_of_a_key_is_stored(log: sqlalchemy.Engine) -> None:
    secret = add_key(log, "shop", ["feedback", "ask", "ask"])
    assert re.fullmatch(r"ppt_[A-Za-z0-9_-]{43}", secret)
    with log.connect() as connection:
        [row] = connection.execute(select(api_keys)).all()
    assert row.digest == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in str(row)
    [key] = list_keys(log)
    assert (key.name, key.roles, key.revoked) == ("shop", ("ask", "feedback"), None)
    assert abs((datetime.now(UTC) - key.created).total_seconds()) < 10


def test_a_key_is_found_until_it_is_revoked(log: sqlalchemy.Engine) -> None:
    assert read_keyring(log).open
    one, two = add_key(log, "one", ["ask"]), add_key(log, "two", ["admin"])
    assert one != two
    ring = read_keyring(log)
    found = ring.find(one), ring.find(two)
    assert [key.name for key in found if key] == ["one", "two"]
    for wrong in ("", "ppt_", one[:-1], one + "x", two.upper(), "é\ud800"):
        assert ring.find(wrong) is None
    revoked = revoke_key(log, "one")
    assert revoke_key(log, "one") == revoked  # the time of the first revocation stays
    ring = read_keyring(log)
    assert ring.find(one) is None
    assert ring.find(two) is not None
    assert not ring.open


def test_a_key_that_was_made_elsewhere_is_registered_once(log: sqlalchemy.Engine) -> None:
    secret = "ppt_" + 48 * "a"
    assert register_key(log, "compose", ["admin"], secret)
    assert not register_key(log, "compose", ["admin"], secret)
    [key] = list_keys(log)
    assert read_keyring(log).find(secret) == key
    with pytest.raises(PerpetuneError, match="there is or was a key named compose"):
        register_key(log, "compose", ["admin"], secret + "b")
    revoke_key(log, "compose")
    with pytest.raises(PerpetuneError, match="there is or was a key named compose"):
        register_key(log, "compose", ["admin"], secret)


def test_a_key_that_can_be_guessed_is_refused(log: sqlalchemy.Engine) -> None:
    with pytest.raises(PerpetuneError, match="31 characters can be guessed"):
        register_key(log, "compose", ["admin"], 31 * "a")
    assert list_keys(log) == ()


def test_a_revoked_key_keeps_the_gateway_closed(log: sqlalchemy.Engine) -> None:
    add_key(log, "one", ["ask"])
    revoke_key(log, "one")
    assert not read_keyring(log).open


def test_admin_may_everything(log: sqlalchemy.Engine) -> None:
    add_key(log, "boss", ["admin"])
    add_key(log, "shop", ["ask"])
    boss, shop = list_keys(log)
    assert all(boss.may(role) for role in ("ask", "feedback", "admin"))
    assert [shop.may(role) for role in ("ask", "feedback", "admin")] == [True, False, False]


def test_a_key_is_for_all_tasks_or_for_those_named(log: sqlalchemy.Engine) -> None:
    add_key(log, "all", ["ask"])
    add_key(log, "some", ["ask"], ["reviews", "intents", "reviews"])
    every, some = list_keys(log)
    assert (every.tasks, some.tasks) == ((), ("intents", "reviews"))
    tasks = ("intents", "reviews", "others")
    assert [every.is_for(task) for task in tasks] == [True, True, True]
    assert [some.is_for(task) for task in tasks] == [True, True, False]
    for wrong in ("", "Reviews", "a b", "reviews@1"):
        with pytest.raises(PerpetuneError, match="no name of a task"):
            add_key(log, "wrong", ["ask"], [wrong])
    assert [key.name for key in list_keys(log)] == ["all", "some"]


def test_a_key_of_tasks_does_not_become_one_of_all_in_an_older_log(log: sqlalchemy.Engine) -> None:
    everywhere, somewhere = add_key(log, "all", ["ask"]), add_key(log, "some", ["ask"], ["intents"])
    downgrade(log, "0010")
    upgraded = open_log(str(log.url))
    ring = read_keyring(upgraded)
    assert (ring.find(everywhere), ring.find(somewhere)) == (list_keys(upgraded)[0], None)
    upgraded.dispose()


def test_the_keys_of_several_logs(log: sqlalchemy.Engine, tmp_path: Path) -> None:
    other = open_log(f"sqlite:///{tmp_path / 'other.db'}")
    assert read_keyring(log, other).open
    mine = add_key(other, "mine", ["ask"])
    ring = read_keyring(log, other)
    assert not ring.open
    assert ring.find(mine) == list_keys(other)[0]
    other.dispose()


def test_what_cannot_be(log: sqlalchemy.Engine) -> None:
    add_key(log, "shop", ["ask"])
    with pytest.raises(PerpetuneError, match="there is or was a key named shop"):
        add_key(log, "shop", ["ask"])
    for name in ("", "a b", "-x", "x" * 65, "a\n"):
        with pytest.raises(PerpetuneError, match="no valid name"):
            add_key(log, name, ["ask"])
    with pytest.raises(PerpetuneError, match="no key named nobody"):
        revoke_key(log, "nobody")
    with pytest.raises(PerpetuneError, match="ask, feedback, admin"):
        parse_role("king")


def test_a_log_of_before_gains_the_table(log: sqlalchemy.Engine) -> None:
    downgrade(log, "0002")
    upgraded = open_log(str(log.url))
    assert add_key(upgraded, "shop", ["ask"]).startswith("ppt_")
    upgraded.dispose()


def test_a_database_that_is_down_leaves_the_last_keys(
    log: sqlalchemy.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = add_key(log, "shop", ["ask"])
    file = tmp_path / "log" / "predictions.db"

    async def scenario() -> tuple[Keyring | None, Keyring | None]:
        unread = KeyringCache(log)
        holder = KeyringCache(log)
        await holder.refresh()
        file.rename(file.with_suffix(".away"))
        await holder.refresh()
        await holder.refresh()
        await unread.refresh()
        file.with_suffix(".away").rename(file)
        before = unread.keyring
        await unread.refresh()
        assert unread.keyring == holder.keyring
        return before, holder.keyring

    with caplog.at_level(logging.WARNING):
        before, kept = asyncio.run(scenario())
    assert before is None
    assert kept is not None
    assert kept.find(secret) is not None
    assert caplog.text.count("cannot be read") == 2  # once for each holder, however often it failed
    assert secret not in caplog.text


@pytest.mark.parametrize(("host", "warned"), [("0.0.0.0", True), ("::", True), ("127.0.0.1", False), ("::1", False)])
def test_an_open_gateway_on_the_network_is_warned_of(
    log: sqlalchemy.Engine, caplog: pytest.LogCaptureFixture, host: str, warned: bool
) -> None:
    warn_if_open(log, host)
    assert ("perpetune keys add" in caplog.text) is warned
    caplog.clear()
    add_key(log, "shop", ["ask"])
    warn_if_open(log, host)
    assert caplog.text == ""


def test_roles_are_stored_as_a_list(log: sqlalchemy.Engine) -> None:
    add_key(log, "shop", ["feedback", "ask"])
    with log.connect() as connection:
        stored = connection.execute(text("SELECT roles FROM api_keys")).scalar_one()
    assert (json.loads(stored) if isinstance(stored, str) else stored) == ["ask", "feedback"]
