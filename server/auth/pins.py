"""What the maker of a short-lived key settles of its sessions: whoever holds the key can't widen it."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from unbroken.sessions.entries import Command, CreateItem, CreateItems, CreateResponse, UpdateConfig
from unbroken.sessions.items import (
    Concurrency,
    FunctionTool,
    Item,
    Message,
    SessionConfig,
    Settled,
    ToolChoice,
)

__all__ = ["Pins"]


class Pins(Struct, frozen=True, omit_defaults=True):
    """The settled part of a session's configuration. What is unset is the client's to choose."""

    model: str | UnsetType = UNSET
    instructions: str | UnsetType = UNSET
    max_output_tokens: int | UnsetType = UNSET
    """The most that an answer may have: a client may ask for less."""
    tools: tuple[FunctionTool, ...] | UnsetType = UNSET
    """All that there are: with this, the server's own tools aren't offered."""
    tool_choice: ToolChoice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    concurrency: Concurrency | UnsetType = UNSET
    reasoning: bool | UnsetType = UNSET

    def applied(self, config: SessionConfig) -> SessionConfig:
        """Return *config* with everything in it that is settled. The model has been looked at before."""
        settled = {
            name: getattr(self, name)
            for name in self.__struct_fields__
            if name != "model" and getattr(self, name) is not UNSET
        }
        if self.tools is not UNSET:
            settled["server_tools"] = False  # what is settled is all that there is
        return replace(config, **settled)

    def allows(self, config: SessionConfig) -> bool:
        """Whether a session that is as *config* says is no wider than what is settled. Its model aside."""
        most = 1 << 31 if config.max_output_tokens is None else config.max_output_tokens
        has = self._changed(
            config.instructions,
            () if config.tools is UNSET else config.tools,
            UNSET if self.tool_choice is UNSET else config.tool_choice,
            UNSET if self.parallel_tool_calls is UNSET else config.parallel_tool_calls,
            most,
        )
        return (
            has is None
            and self.tool_choice in (UNSET, config.tool_choice)
            and self.parallel_tool_calls in (UNSET, config.parallel_tool_calls)
            and self.concurrency in (UNSET, config.concurrency)
            and (self.reasoning is UNSET or config.reasoning in (UNSET, False, self.reasoning))
            and (self.tools is UNSET or config.server_tools is False)
        )

    def kept_by(self, command: Command) -> Command:
        """Return *command* so that a response which it asks for keeps to what is settled, whenever it runs.

        Others may have changed the session's configuration by then: it isn't theirs to settle.
        """
        if not isinstance(command, CreateResponse) or (settled := self.settled) is None:
            return command
        return replace(command, request=replace(command.request, settled=settled))

    @property
    def settled(self) -> Settled | None:
        """What of it responses keep to. None: nothing."""
        settled = Settled(**{name: getattr(self, name) for name in Settled.__struct_fields__})
        return None if settled == Settled() else settled

    def violation(self, command: Command) -> str | None:
        """Return which field of *command*, as clients write it, would change what is settled; None: none.

        To say again what is settled, or to ask for less, changes nothing.
        """
        match command:
            case UpdateConfig():
                fields = self._changed(
                    command.instructions,
                    command.tools,
                    command.tool_choice,
                    command.parallel_tool_calls,
                    command.max_output_tokens,
                )
                if self.concurrency is not UNSET and command.concurrency not in (UNSET, self.concurrency):
                    fields = "unbroken.concurrency"
                if self.reasoning is not UNSET and command.reasoning not in (UNSET, self.reasoning):
                    fields = "unbroken.reasoning"
                return None if fields is None else f"session.{fields}"
            case CreateResponse(request=request):
                field = self._changed(
                    UNSET if request.instructions is None else request.instructions,
                    UNSET if request.tools is None else request.tools,
                    UNSET if request.tool_choice is None else request.tool_choice,
                    UNSET if request.parallel_tool_calls is None else request.parallel_tool_calls,
                    UNSET if request.max_output_tokens is None else request.max_output_tokens,
                )
                if field is None and any(map(self._instructs, request.input or ())):
                    field = "input"
                return None if field is None else f"response.{field}"
            case CreateItem(item=item):
                return "item.role" if self._instructs(item) else None
            case CreateItems(items=items):
                return "items" if any(map(self._instructs, items)) else None
            case _:
                return None

    def _instructs(self, item: Item) -> bool:
        """Whether *item* says what only the instructions are to say."""
        return self.instructions is not UNSET and isinstance(item, Message) and item.role == "system"

    def _changed(
        self,
        instructions: str | UnsetType,
        tools: tuple[FunctionTool, ...] | UnsetType,
        tool_choice: ToolChoice | UnsetType,
        parallel_tool_calls: bool | UnsetType,
        most: int | UnsetType | None,
    ) -> str | None:
        if self.instructions is not UNSET and instructions not in (UNSET, self.instructions):
            return "instructions"
        if self.tools is not UNSET and tools is not UNSET and any(tool not in self.tools for tool in tools):
            return "tools"
        if self.tool_choice is not UNSET and tool_choice not in (UNSET, self.tool_choice):
            return "tool_choice"
        if self.parallel_tool_calls is not UNSET and parallel_tool_calls not in (
            UNSET,
            self.parallel_tool_calls,
        ):
            return "parallel_tool_calls"
        if (
            self.max_output_tokens is not UNSET
            and most is not UNSET
            and (most or 1 << 31) > self.max_output_tokens
        ):
            return "max_output_tokens"
        return None
