"""Takes one upload off the wire and into the store. Whatever ends it early, nothing is left of it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from starlette.requests import Request

from unbroken.server.files.base import FileDetails, FileStore, FileTooLarge, StoredFile
from unbroken.server.files.kinds import Kind
from unbroken.server.files.names import clean_name
from unbroken.server.files.transfers import TransferLimits
from unbroken.server.protocols.file_objects import lifetime_of, purpose_of
from unbroken.server.protocols.multipart import FormReader, InvalidForm
from unbroken.sessions.ids import PrincipalId

__all__ = ["UploadStalled", "receive_file"]

_FORM_BYTES: Final = 65536
"""What a form may have beside the file's content."""


class UploadStalled(Exception):
    """The client sends too slowly, or not at all."""

    def __str__(self) -> str:
        return "The upload came too slowly, and was given up. Try again."


async def receive_file(
    request: Request, principal: PrincipalId, store: FileStore, limits: TransferLimits, *, lifetime: float
) -> StoredFile:
    """Return the file that *request* brings, once it is in the store.

    Raises:
        InvalidForm, UnsupportedKind, BadRequest: It brings none that can be taken.
        FileError: The store doesn't take it.
        UploadStalled: It doesn't come.
        ClientDisconnect: The client has gone.

    """
    most = store.limits.file_bytes
    form = FormReader(request.headers.get("content-type", ""))
    declared = request.headers.get("content-length", "")
    # The last digits are enough: what has more of them has zeros in front, or the parser has refused it.
    if declared.isdecimal() and int(declared[-20:]) > most + _FORM_BYTES:
        raise FileTooLarge(most)
    kind, size, received = Kind(), 0, 0
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with aclosing(request.stream()) as body, store.upload(principal) as upload:
        while True:
            try:
                async with asyncio.timeout_at(limits.deadline(loop.time(), began, received)):
                    data = await anext(body, None)
            except TimeoutError:
                raise UploadStalled from None
            if data is None:
                break
            received += len(data)
            for piece in form.feed(data):
                kind.feed(piece)
                await upload.write(piece)
                size += len(piece)
            if received - size > _FORM_BYTES:
                raise InvalidForm(f"The form has more than {_FORM_BYTES} bytes beside the file.")
        name = form.finish()
        details = FileDetails(
            name=clean_name(name) or "file",
            media_type=kind.finish(),
            purpose=purpose_of(form.fields),
            lifetime=lifetime_of(form.fields, lifetime),
        )
        return await upload.commit(details)
