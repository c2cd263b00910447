from __future__ import annotations

import pytest

from unbroken.server.web_origins import origin_fault


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "http://localhost:3000",
        "https://xn--mnchen-3ya.example:8443",
        "http://[::1]:8000",
        "https://a",
        "https://my_shop.example",
        "chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai",
        "safari-web-extension://E1B2C3D4-0000-4000-8000-00805F9B34FB",
        "capacitor://localhost",
    ],
)
def test_what_browsers_send_is_an_origin(origin: str) -> None:
    assert origin_fault(origin) is None


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("https://A.example/", "https://a.example"),
        ("https://a.example/", "https://a.example"),
        ("https://a.example/page?x#y", "https://a.example"),
        ("HTTPS://a.example", "https://a.example"),
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:80", "http://a.example"),
        ("https://bob:pw@a.example", "https://a.example"),
        ("http://[::1]:80/", "http://[::1]"),
        ("*", None),
        ("null", None),
        ("", None),
        ("a.example", None),
        ("https://", None),
        ("https://*.a.example", None),
        ("https://münchen.example", None),
        ("https://a.example:0", "https://a.example"),
        ("https://a.example:99999", None),
        ("https://[a.example", None),
        ("file:///", None),
        ("wss://a.example", None),
        ("https://a.example https://b.example", None),
        ("https://a..example", None),
    ],
)
def test_what_no_browser_sends_is_none_and_what_is_meant_is_said(value: str, meant: str | None) -> None:
    fault = origin_fault(value)

    assert fault is not None
    assert fault.startswith(f"should be {meant}: scheme://" if meant else "should be scheme://")
