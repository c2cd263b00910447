"""People in a process of their own, so that what they see is not slowed by whoever watches over nodes.

Run as a program it takes lines on its input: who talks to whom, then ``answered``, as often as one
likes, and ``over``. It answers each with a line: when everybody has had another answer, and when all
have seen the end and what they saw is in the file that was named. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from msgspec import msgpack

from tests.chaos.history import Witness
from tests.chaos.speaker import Manner, Speaker
from tests.fakes.tied import tied

__all__ = ["Crowd"]

_PATIENCE: Final = 120.0
"""Seconds in which everybody has had another answer, on a machine with other things to do."""


class Crowd:
    """The process, from outside.

    Args:
        names: Of the people.
        ports: Where each node is reached, by its name.
        manner: Of all of them.
        seed: Of what is left to chance.
        folder: For what they saw.

    """

    def __init__(
        self, names: Sequence[str], ports: Mapping[str, int], manner: Manner, *, seed: int, folder: Path
    ) -> None:
        self._file = folder / f"{names[0]}.seen"
        self._told: dict[str, Any] = {
            "names": list(names),
            "ports": dict(ports),
            "manner": asdict(manner),
            "seed": seed,
            "file": str(self._file),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Have them begin to talk."""
        self._process = await asyncio.create_subprocess_exec(
            *tied([sys.executable, "-m", "tests.chaos.crowd"]),
            cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._say(json.dumps(self._told))

    async def all_answered(self) -> None:
        """Wait until everybody has had another answer: so that what follows meets answers that run."""
        await self._ask("answered")

    async def finish(self) -> list[Witness]:
        """Let everybody come to the end of what was asked, and return what they saw."""
        await self._ask("over")
        return msgpack.decode(await asyncio.to_thread(self._file.read_bytes), type=list[Witness])

    async def close(self) -> None:
        """End the process, wherever it is."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def _ask(self, word: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._say(word)
        async with asyncio.timeout(_PATIENCE):
            answer = await self._process.stdout.readline()
        if answer.decode().strip() != word:
            raise RuntimeError(f"the process of {self._told['names'][0]} and others has ended")


async def _talk(told: dict[str, Any], lines: asyncio.StreamReader) -> None:
    draw = random.Random(told["seed"])
    ports: list[tuple[str, int]] = list(told["ports"].items())
    manner = Manner(**told["manner"])

    def speaker(name: str) -> Speaker:
        chance = random.Random(draw.random())
        return Speaker(name, lambda: chance.choice(ports), random.Random(draw.random()), manner)

    speakers = [speaker(name) for name in told["names"]]
    async with asyncio.TaskGroup() as group:
        talking = [group.create_task(each.speak()) for each in speakers]
        while word := (await lines.readline()).decode().strip():
            for each in speakers:
                each.answered.clear()
                each.is_over = word == "over"
                each.may_leave.set()
            if word == "over":
                await asyncio.gather(*talking)
                data = msgpack.encode([each.witness() for each in speakers])
                await asyncio.to_thread(Path(told["file"]).write_bytes, data)
            else:
                await asyncio.gather(*[each.answered.wait() for each in speakers])
            print(word, flush=True)  # noqa: T201 - to whoever asked
        for task in talking:
            task.cancel()


async def _listen() -> None:
    lines = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer
    )
    await _talk(json.loads(await lines.readline()), lines)


if __name__ == "__main__":
    asyncio.run(_listen())
