"""Which program a User-Agent names, by its product tokens (RFC 9110 §10.1.5).  No device database.

A table of the products people count, most specific first, and otherwise the first product of the
text.  One pass over at most 8 KiB and no regular expressions: nothing here can be made slow.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_USER_AGENT = 8 * 1024
_MAX_FAMILY = 64

# Product token (lower-case) -> family.  Browsers built on others name those too, so order decides.
_PRODUCTS = {
    "googlebot": "Googlebot",
    "bingbot": "bingbot",
    "applebot": "Applebot",
    "duckduckbot": "DuckDuckBot",
    "baiduspider": "Baiduspider",
    "yandexbot": "YandexBot",
    "facebookexternalhit": "FacebookBot",
    "twitterbot": "Twitterbot",
    "gptbot": "GPTBot",
    "claudebot": "ClaudeBot",
    "edg": "Edge",
    "edge": "Edge",
    "edga": "Edge Mobile",
    "edgios": "Edge Mobile",
    "opr": "Opera",
    "samsungbrowser": "Samsung Internet",
    "ucbrowser": "UC Browser",
    "yabrowser": "Yandex Browser",
    "vivaldi": "Vivaldi",
    "electron": "Electron",
    "headlesschrome": "HeadlessChrome",
    "crios": "Chrome Mobile iOS",
    "fxios": "Firefox iOS",
    "chrome": "Chrome",
    "firefox": "Firefox",
}
_HAS_MOBILE_FORM = {"Chrome", "Firefox"}
_SEPARATORS = str.maketrans("();,", "    ")


@dataclass(frozen=True, slots=True)
class UserAgent:
    """A family, and the parts of its version that are numbers; empty where there is none."""

    family: str
    major: str = ""
    minor: str = ""
    patch: str = ""


OTHER = UserAgent("Other")


def parse_user_agent(text: str) -> UserAgent:
    """Never fails: `OTHER` when no product is named.  Reads the first 8 KiB."""
    words = text[:MAX_USER_AGENT].translate(_SEPARATORS).split()
    products: dict[str, str] = {}
    for word in words:
        name, _, version = word.partition("/")
        products.setdefault(name.lower(), version)
    for token, family in _PRODUCTS.items():
        if token in products:
            mobile = family in _HAS_MOBILE_FORM and ("mobile" in products or "tablet" in products)
            return _agent(f"{family} Mobile" if mobile else family, products[token])
    if "safari" in products and "version" in products:
        return _agent("Mobile Safari" if "mobile" in products else "Safari", products["version"])
    if "trident" in products or "msie" in products:
        return _internet_explorer(words)
    return _first_product(words)


def _internet_explorer(words: list[str]) -> UserAgent:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.lower() == "msie":
            return _agent("IE", following)
        if word.startswith("rv:"):
            return _agent("IE", word[3:])
    return _agent("IE", "")


def _first_product(words: list[str]) -> UserAgent:
    if not words:
        return OTHER
    name, _, version = words[0].partition("/")
    # Everybody says Mozilla; alone it tells nothing.
    if not version or not name or name == "Mozilla" or len(name) > _MAX_FAMILY:
        return OTHER
    return _agent(name, version)


def _agent(family: str, version: str) -> UserAgent:
    parts: list[str] = []
    for part in version.split(".", 3)[:3]:
        if not (part.isascii() and part.isdigit()):
            break
        parts.append(part)
    return UserAgent(family, *parts)
