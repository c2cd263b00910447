"""Answers in Markdown: what is shown of it, as it comes, and that nothing in it is ever run."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.async_api import BrowserContext, expect

from tests.page.browser import CONTRASTS, Chat

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]

RENDER: Final = """async ({ text, steps }) => {
    const { Markdown } = await import("/page/markdown.js");
    const body = document.createElement("div");
    const markdown = new Markdown(body);
    for (const end of steps) markdown.show(text.slice(0, end), false);
    markdown.show(text, true);
    return body.innerHTML;
}"""
"""What is shown of a text that comes in so many steps, as the browser writes it."""


async def rendered(chat: Chat, text: str, *steps: int) -> str:
    html: str = await chat.page.evaluate(RENDER, {"text": text, "steps": steps})
    return html


CODE = (
    '<div class="code"><div class="bar"><span class="language">{}</span>'
    '<button class="small copy" type="button" aria-label="Copy code">Copy</button></div>'
    "<pre><code>{}</code></pre></div>"
)


def link(url: str, text: str) -> str:
    return f'<a href="{url}" title="{url}" target="_blank" rel="noopener noreferrer nofollow">{text}</a>'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain", "<p>plain</p>"),
        ("one\ntwo\n\nthree", "<p>one\ntwo</p>\n\n<p>three</p>"),
        ("# One\n## Two ##\n####### no", "<h3>One</h3>\n<h4>Two</h4>\n<p>####### no</p>"),
        ("#hashtag", "<p>#hashtag</p>"),
        (
            "**b** *i* ***x*** __b__ _i_ ~~d~~",
            "<p><strong>b</strong> <em>i</em> <strong><em>x</em></strong>"
            " <strong>b</strong> <em>i</em> <del>d</del></p>",
        ),
        ("2 * 3 * 4, a_b_c, *open", "<p>2 * 3 * 4, a_b_c, *open</p>"),
        ("**open *closed* on", "<p>**open <em>closed</em> on</p>"),
        (r"\*no\* \`no\` C:\dir", r"<p>*no* `no` C:\dir</p>"),
        ("`a*b*` ``c`d`` `open", "<p><code>a*b*</code> <code>c`d</code> `open</p>"),
        ("```py\nx = 1\n\ny\n```\nafter", CODE.format("py", "x = 1\n\ny") + "\n<p>after</p>"),
        ("~~~\n```\n~~~", CODE.format("", "```")),
        ("```\nopen\n", CODE.format("", "open\n")),
        ("```no``` fence", "<p><code>no</code> fence</p>"),
        ("before\n```\nx\n```", "<p>before</p>\n" + CODE.format("", "x")),
        (
            "- a\n- b\n  - c\n\n- d",
            "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li></ul></li><li><p>d</p></li></ul>",
        ),
        ("3. a\n4. b", '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>'),
        (
            "1. a\n   ```\n   x\n   ```\n2. b",
            f"<ol><li><p>a</p>{CODE.format('', 'x')}</li><li><p>b</p></li></ol>",
        ),
        ("It was\n1999. A year", "<p>It was\n1999. A year</p>"),
        ("- a\n\nafter", "<ul><li><p>a</p></li></ul>\n\n<p>after</p>"),
        ("> a\n> - b\n\nc", "<blockquote><p>a</p><ul><li><p>b</p></li></ul></blockquote>\n\n<p>c</p>"),
        ("a\n\n---\n\nb", "<p>a</p>\n\n<hr>\n\n<p>b</p>"),
        (
            "| a | b |\n|---|--:|\n| 1 | **2** | 3 |\n\nend",
            '<div class="table"><table><thead><tr><th>a</th><th class="end">b</th></tr></thead>'
            '<tbody><tr><td>1</td><td class="end"><strong>2</strong></td></tr></tbody></table></div>'
            "\n\n<p>end</p>",
        ),
        ("a | b\nno table", "<p>a | b\nno table</p>"),
        ("[x](https://a.example/b_(c))", f"<p>{link('https://a.example/b_(c)', 'x')}</p>"),
        ("[**x**](http://a.example)", f"<p>{link('http://a.example/', '<strong>x</strong>')}</p>"),
        ("see https://a.example/b_c_d.", f"<p>see {link('https://a.example/b_c_d', 'https://a.example/b_c_d')}.</p>"),
        ("<https://a.example/>!", f"<p>{link('https://a.example/', 'https://a.example/')}!</p>"),
        ("[x](/local) [y](ftp://a.example)", "<p>[x](/local) [y](ftp://a.example)</p>"),
        ("a<br>b &amp; <b>c</b>", "<p>a<br>b &amp;amp; &lt;b&gt;c&lt;/b&gt;</p>"),
    ],
)  # fmt: skip
async def test_what_models_write_is_shown(chat: Chat, text: str, html: str) -> None:
    assert await rendered(chat, text) == html
    # The same, however it comes in.
    assert await rendered(chat, text, *range(len(text))) == html


HOSTILE = [
    "<script>window.owned = 1</script>",
    "<img src=x onerror=window.owned=1>",
    '<svg onload="window.owned=1"><a xlink:href="javascript:window.owned=1">x</a></svg>',
    '<iframe srcdoc="<script>parent.owned=1</script>"></iframe>',
    "<style>body{display:none}</style><link rel=stylesheet href=//e.example/x><base href=//e.example>",
    "<form action=//e.example><input name=q autofocus onfocus=window.owned=1></form>",
    "<details open ontoggle=window.owned=1><summary>x</summary></details>",
    "[x](javascript:window.owned=1)",
    "[x](JaVaScRiPt:window.owned=1)",
    "[x](java\tscript:window.owned=1)",
    "[x](&#106;avascript:window.owned=1)",
    "[x](javascript&colon;window.owned=1)",
    "[x](\x01javascript:window.owned=1)",
    "[x](data:text/html,<script>window.owned=1</script>)",
    "[x](vbscript:x) [x](file:///etc/passwd) [x](blob:x) [x](//e.example) [x](https:e.example)",
    '[x](https://e.example/"onmouseover="window.owned=1)',
    '[x](https://e.example "t" onmouseover="window.owned=1")',
    '[<img src=x onerror=window.owned=1>](https://e.example/"><script>window.owned=1</script>)',
    "![x](https://e.example/pixel.png) ![x](javascript:window.owned=1) ![x](data:image/svg+xml,<svg/>)",
    "<https://e.example/<script>window.owned=1</script>> <javascript:window.owned=1>",
    "https://e.example/'onclick='window.owned=1",
    "[x]: javascript:window.owned=1\n\n[x]",
    "[a](https://e.example) [[b](https://f.example)](https://g.example)",
    "```<script>window.owned=1</script>\n<img src=x onerror=window.owned=1>\n```",
    '```"><script>window.owned=1</script>\nx',
    "`<img src=x onerror=window.owned=1>`",
    "# <img src=x onerror=window.owned=1>\n- <img src=x onerror=window.owned=1>\n> <script>1</script>",
    '| <img src=x onerror=window.owned=1> | b |\n|---|---|\n| "><script>window.owned=1</script> | x |',
    '1. x\n99999999999999999999. " onclick="window.owned=1',
    "**<b onclick=window.owned=1>**__<script>__~~<script>~~\\<script>window.owned=1\\</script>",
    "<a id=message name=owned href=javascript:window.owned=1>x</a><p id=composer>",
    "\u202e<script>\u2028window.owned=1\u2029</script>\x00<scr\x00ipt>",
    "&lt;script&gt;window.owned=1&lt;/script&gt; {{constructor.constructor('window.owned=1')()}}",
]

HARMLESS: Final = """async ({ texts }) => {
    const { Markdown } = await import("/page/markdown.js");
    const allowed = {
        A: ["href", "title", "target", "rel"], BUTTON: ["class", "type", "aria-label"], OL: ["start"],
        DIV: ["class"], SPAN: ["class"], TD: ["class"], TH: ["class"],
        P: [], H3: [], H4: [], H5: [], H6: [], HR: [], BR: [], UL: [], LI: [], BLOCKQUOTE: [], PRE: [],
        CODE: [], STRONG: [], EM: [], DEL: [], TABLE: [], THEAD: [], TBODY: [], TR: [],
    };
    const wrong = [];
    const check = (body, text) => {
        for (const node of body.querySelectorAll("*")) {
            const names = allowed[node.tagName];
            const isKnown = names && [...node.attributes].every(({ name }) => names.includes(name));
            const isLocal = node.tagName === "A" && !["http:", "https:"].includes(node.protocol);
            if (!isKnown || isLocal) wrong.push([text, node.outerHTML]);
        }
    };
    for (const text of texts) {
        const body = document.createElement("div");
        document.getElementById("log").append(body);
        const markdown = new Markdown(body);
        for (let end = 0; end <= text.length; end++) {
            markdown.show(text.slice(0, end), false);
            check(body, text);
        }
        markdown.show(text, true);
        check(body, text);
        body.querySelectorAll("*").forEach((node) => {
            if (!["A", "BUTTON"].includes(node.tagName)) node.click();
            node.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
        });
        const whole = document.createElement("div");
        new Markdown(whole).show(text, true);
        if (whole.innerHTML !== body.innerHTML) wrong.push([text, whole.innerHTML, body.innerHTML]);
        body.remove();
    }
    await new Promise((resolve) => setTimeout(resolve));
    return { wrong, owned: window.owned ?? null };
}"""
"""What is wrong with what is shown of each text, after each of its characters."""


async def test_nothing_in_an_answer_is_ever_run(chat: Chat) -> None:
    found: dict[str, Any] = await chat.page.evaluate(HARMLESS, {"texts": HOSTILE})

    assert found == {"wrong": [], "owned": None}
    assert await chat.page.title() == "Unbroken"


async def test_an_attack_by_the_whole_way(chat: Chat) -> None:
    """Of an answer, as the server sends it; it goes on to be shown after a reload."""
    attack = "\n\n".join(HOSTILE[:20]).replace("\x01", "")
    await chat.say(attack)
    await chat.is_idle()
    await chat.page.reload()
    await chat.is_connected()

    await expect(chat.texts).to_contain_text("window.owned = 1")
    assert await chat.page.evaluate("window.owned ?? null") is None
    assert await chat.page.locator("#log :is(img, script, svg, iframe, style, form, input)").count() == 0
    protocols = await chat.page.locator("#log a").evaluate_all("links => links.map((link) => link.protocol)")
    assert set(protocols) == {"https:"}


MARKS = st.sampled_from(
    [
        *("```", "``", "`", "**", "*", "_", "__", "~~", "~~~", "- ", "1. ", "2) ", "> ", "# ", "|", "|---|"),
        *("---", "\n", "\n\n", "  ", "    ", "\t", "[", "](", ")", "https://e.example/", "<", ">", "\\", "!"),
        *("a", "b c", "javascript:", "<script>", "é", "👩‍👩‍👧", '"', "<br>", ":-:"),
    ]
)


async def test_it_is_the_same_however_it_comes_in_and_never_more_than_text(chat: Chat) -> None:
    texts: list[str] = []

    @settings(max_examples=400, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(MARKS, max_size=40).map("".join))
    def collect(text: str) -> None:
        texts.append(text)

    collect()

    found: dict[str, Any] = await chat.page.evaluate(HARMLESS, {"texts": texts})
    assert len(texts) >= 400
    assert found == {"wrong": [], "owned": None}


async def test_plain_text_is_kept_to_the_letter(chat: Chat) -> None:
    text = "a  b\n\n\n  c\td\nü 👩‍👩‍👧\n\n你好 - 1.5 x 2\n"

    shown = await chat.page.evaluate(
        """async (text) => {
            const { Markdown } = await import("/page/markdown.js");
            const body = document.createElement("div");
            new Markdown(body).show(text, true);
            return body.textContent;
        }""",
        text,
    )

    assert shown == text


async def test_a_fence_that_comes_in_pieces_does_not_flicker(chat: Chat) -> None:
    """At no moment a backtick is seen, and what has been shown of the code stays the same node."""
    text = "Look:\n\n```python\nprint(1)\nprint(2)\n```\n\nDone."
    seen: dict[str, Any] = await chat.page.evaluate(
        """async (text) => {
            const { Markdown } = await import("/page/markdown.js");
            const body = document.createElement("div");
            const markdown = new Markdown(body);
            const ticks = [], nodes = new Set(), languages = new Set();
            for (let end = 0; end <= text.length; end++) {
                markdown.show(text.slice(0, end), end === text.length);
                if (body.textContent.includes("`")) ticks.push(text.slice(0, end));
                for (const node of body.querySelectorAll("pre")) nodes.add(node);
                for (const node of body.querySelectorAll(".language")) languages.add(node.textContent);
            }
            return { ticks, count: nodes.size, languages: [...languages] };
        }""",
        text,
    )

    assert seen == {"ticks": [], "count": 1, "languages": ["python"]}


async def test_only_the_last_block_is_touched(chat: Chat) -> None:
    """What has been read is left alone: a selection in it stays, and it costs nothing more."""
    touched: list[str] = await chat.page.evaluate(
        """async () => {
            const { Markdown } = await import("/page/markdown.js");
            const body = document.createElement("div");
            const markdown = new Markdown(body);
            let text = "";
            for (let block = 0; block < 50; block++) {
                text += `paragraph **${block}**\\n\\n- item\\n\\n`;
                markdown.show(text, false);
            }
            const old = new Set([...body.children].slice(0, -2));
            const touched = [];
            new MutationObserver((records) => {
                const targets = records.map(({ target }) => target);
                touched.push(...[...old].filter((each) => targets.some((target) => each.contains(target))));
            }).observe(body, { subtree: true, childList: true, characterData: true });
            const kept = [...old];
            for (const word of ["more ", "and *more*", "\\n\\nend"]) markdown.show((text += word), false);
            await new Promise((resolve) => setTimeout(resolve));
            touched.push(...kept.filter((each) => each.parentNode !== body));
            return touched.map((each) => each.outerHTML);
        }"""
    )

    assert touched == []


LONG = [
    "*a " * 20_000, "**a_b" * 12_000, "[" * 60_000, "[x](http://" * 5_000, "`" * 30_000 + " x",
    " ".join("`" * count for count in range(1, 340)), "> " * 30_000, "- " * 30_000 + "x", "|" * 60_000,
    "a|b\n|--" + " " * 60_000 + "x", "# x" + " #" * 30_000, "```" + " " * 60_000 + "`", "~" * 60_000 + "`",
    "https://" * 7_000, "<" * 60_000, "\\" * 60_000, "- a\n" * 15_000, "***" * 20_000 + "a",
    "1. " * 20_000 + "x", "|a" * 5_000 + "|\n" + "|-" * 5_000 + "|\n" + "|\n" * 15_000, "![" * 30_000,
    "\n> " * 20_000, "`` `" * 15_000,
    "[" + "a" * 900 + "](" + "https://e.example/" + "(" * 1_900, ("-" + " " * 50) * 1_000 + "x",
]  # fmt: skip


async def test_no_text_takes_the_page_long(chat: Chat) -> None:
    """Each is as long as a long answer. What goes back and forth over one needs minutes: too long."""
    shown: list[int] = await chat.page.evaluate(
        """async (texts) => {
            const { Markdown } = await import("/page/markdown.js");
            return texts.map((text) => {
                const body = document.createElement("div");
                new Markdown(body).show(text, true);
                return body.querySelectorAll("*").length;
            });
        }""",
        LONG,
    )

    assert all(shown)


async def test_code_can_be_copied(context: BrowserContext, chat: Chat) -> None:
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    await chat.say("\n```py\nx = 1\n\ny = **2**\n```")
    await chat.is_idle()

    await chat.page.get_by_role("button", name="Copy code").click()

    await expect(chat.page.locator(".code .copy")).to_have_text("Copied")
    assert await chat.page.evaluate("navigator.clipboard.readText()") == "x = 1\n\ny = **2**"
    await chat.button("Copy").click()  # the whole answer: as it was written
    copied = await chat.page.evaluate("navigator.clipboard.readText()")
    assert copied == "You said: \n```py\nx = 1\n\ny = **2**\n```"


async def test_what_one_writes_oneself_is_shown_as_it_was_written(chat: Chat) -> None:
    await chat.say("**mine** `too`")
    await chat.is_idle()

    await chat.has_said("**mine** `too`")
    await expect(chat.texts.locator("strong")).to_have_text("mine")


async def test_it_can_be_read_by_everybody(chat: Chat) -> None:
    await chat.say("\n# One\n\n> quoted `code`\n\n1. a\n\n[x](https://e.example)\n\n```py\nx\n```")
    await chat.is_idle()

    measured = await chat.page.evaluate(CONTRASTS)

    assert "quoted code" in {text.strip() for text, _ in measured}
    assert [each for each in measured if each[1] < 4.5] == []
