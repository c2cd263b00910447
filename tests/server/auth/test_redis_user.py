"""The rule in docs/operations.md for a user of Redis lets this package do all that it does."""

from __future__ import annotations

import re
from pathlib import Path

from tests.fakes.clock import FakeClock
from tests.fakes.valkey import Server
from tests.server.auth.test_secret_store import ONE, RECORD
from unbroken.server.auth.key_store import new_key
from unbroken.server.auth.principal import Principal
from unbroken.server.auth.redis.connection import Redis
from unbroken.server.auth.redis.directory import RedisDirectory
from unbroken.server.auth.redis.keys import RedisKeyStore
from unbroken.server.auth.redis.secrets import RedisSecretStore
from unbroken.sessions.backends.redis.connection import Address, Client, connect

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
(RULE,) = re.findall(r"^ACL SETUSER unbroken .*$", OPERATIONS.read_text(), re.MULTILINE)


async def test_the_user_that_the_docs_name_may_do_all_of_it(valkey: Server, client: Client) -> None:
    valkey.command(*RULE.split())
    limited = connect(Address(valkey.url.replace("redis://", "redis://unbroken:password@")), name="test")
    redis = Redis(limited, "unbroken")
    try:
        keys = RedisKeyStore(redis)
        record = new_key("ci", now=1.0)[1]
        await keys.add(record)
        await keys.note_uses({record.id: 2.0})
        assert await keys.find(record.digest) == record
        assert await keys.all() == [(record, 2.0)]
        assert await keys.version() == "1"
        assert await keys.revoke(record.id)
        secrets = RedisSecretStore(redis)
        await secrets.put("d", RECORD, uses=2, lifetime=60)
        assert [await secrets.spend("d", RECORD, ONE, kept=60) for _ in range(3)] == [True, True, False]
        assert await secrets.look("d") is not None
        directory = RedisDirectory(redis, FakeClock())
        await directory.note(Principal("user:ann"))
        assert await RedisDirectory(redis, FakeClock()).find(Principal("user:ann").id) is not None
    finally:
        await limited.aclose()
        valkey.command("ACL", "DELUSER", "unbroken")
