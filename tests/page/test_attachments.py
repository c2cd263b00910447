"""Images and files on the page: chosen, pasted or dropped, and shown with the message."""

from __future__ import annotations

from base64 import b64encode

import pytest
from playwright.async_api import FilePayload, Locator, expect

from tests.page.browser import Chat
from tests.server.files.contents import PNG, TEXT
from unbroken.server.agents.scripted import answer_to

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]

IMAGE = FilePayload(name="dot.png", mimeType="image/png", buffer=PNG)
DOCUMENT = FilePayload(name="poem.txt", mimeType="text/plain", buffer=TEXT)

GIVE = """([target, kind, base64]) => {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "dot.png", { type: "image/png" }));
    const options = { bubbles: true, cancelable: true };
    const event = kind === "paste"
        ? new ClipboardEvent("paste", { ...options, clipboardData: data })
        : new DragEvent("drop", { ...options, dataTransfer: data });
    document.querySelector(target).dispatchEvent(event);
}"""


async def choose(chat: Chat, *files: FilePayload) -> None:
    await chat.page.locator("#file").set_input_files(list(files))


def chips(chat: Chat, status: str) -> Locator:
    return chat.page.locator(f"#attachments .chip[data-status={status}]")


async def is_drawn(image: Locator) -> None:
    """It isn't only there: the browser has read it as an image."""
    await expect(image).to_have_count(1)
    await expect(image).to_have_js_property("naturalWidth", 1)


async def test_what_is_chosen_is_uploaded_sent_and_shown_also_after_a_reload(chat: Chat) -> None:
    async with chat.page.expect_file_chooser() as chooser:
        await chat.button("Attach images or files").click()
    await (await chooser.value).set_files([IMAGE, DOCUMENT])
    await expect(chips(chat, "ready")).to_have_count(2)
    await is_drawn(chat.page.locator("#attachments .thumbnail"))
    await chat.say("look")
    await chat.has_answered(answer_to("look"))
    await expect(chat.page.locator("#attachments .chip")).to_have_count(0)

    for _ in range(2):
        await chat.has_said("look")
        await is_drawn(chat.users.locator(".files .thumbnail"))
        await expect(chat.users.locator(".files .thumbnail")).to_have_attribute("alt", "dot.png")
        await expect(chat.users.locator(".file").last).to_have_text("poem.txt")
        await chat.page.reload()
        await chat.is_connected()


async def test_an_image_may_be_sent_without_a_word(chat: Chat) -> None:
    await choose(chat, IMAGE)
    await expect(chips(chat, "ready")).to_have_count(1)
    await chat.box.press("Enter")
    await chat.has_answered(answer_to(""))

    await is_drawn(chat.users.locator(".files .thumbnail"))


@pytest.mark.parametrize(("kind", "target"), [("paste", "#message"), ("drop", "#log")])
async def test_what_is_pasted_or_dropped_is_attached(chat: Chat, kind: str, target: str) -> None:
    await chat.page.evaluate(GIVE, [target, kind, b64encode(PNG).decode()])

    await expect(chips(chat, "ready")).to_have_count(1)


async def test_what_was_attached_can_be_taken_back(chat: Chat) -> None:
    await choose(chat, IMAGE, DOCUMENT)
    await expect(chips(chat, "ready")).to_have_count(2)
    await chips(chat, "ready").first.get_by_role("button", name="Remove").click()
    await chat.say("look")
    await chat.has_answered(answer_to("look"))

    await expect(chat.users.locator(".file")).to_have_text(["poem.txt"])


async def test_a_file_that_is_not_taken_is_told_of(chat: Chat) -> None:
    await choose(chat, FilePayload(name="evil.png", mimeType="image/png", buffer=b"MZ\x00\x01" * 9))
    await expect(chat.notice).to_contain_text("evil.png: Files can be PNG")
    await expect(chips(chat, "uploading")).to_have_count(0)
    chat.lost.clear()
    assert [line for line in chat.complaints if "415" not in line] == []
    chat.complaints.clear()
    await chat.say("hi")

    await chat.has_answered(answer_to("hi"))


async def test_a_name_is_shown_as_text(chat: Chat) -> None:
    await choose(
        chat, FilePayload(name="<img src=x onerror=alert(1)>.txt", mimeType="text/plain", buffer=TEXT)
    )
    await expect(chips(chat, "ready")).to_have_count(1)
    await chat.say("look")
    await chat.has_answered(answer_to("look"))

    await expect(chat.users.locator(".file")).to_have_text("<img src=x onerror=alert(1)>.txt")
