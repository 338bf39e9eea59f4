"""Secrets out of texts: what is said, recorded or reported passes here.

Two kinds are known: the credentials inside an address (`scheme://user:password@host`), wherever it comes from, and the
values of environment variables whose names say that they are secret.
"""

from __future__ import annotations

import os
import re

MASK = "***"
_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|PASSWORD|PASSWD|SECRET|API_KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?|AUTH_STRING)(_|$)", re.IGNORECASE
)
_IN_ADDRESS = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.\-]*://)[^\s/?#'\"<>]*@")
_IN_QUERY = re.compile(
    r"(?P<name>[?&][\w.\-]*(?:token|password|secret|key|signature|auth)[\w.\-]*=)[^\s&'\"<>#]+", re.IGNORECASE
)
_SHORTEST = 6  # characters: a shorter value would blot out ordinary words


def redacted(text: str) -> str:
    """The text without credentials in addresses and without the values of secret environment variables."""
    for secret in _secrets():
        text = text.replace(secret, MASK)
    text = _IN_ADDRESS.sub(rf"\g<scheme>{MASK}@", text)
    return _IN_QUERY.sub(rf"\g<name>{MASK}", text)


def _secrets() -> list[str]:
    """Values of the variables that hold secrets, the longest first: one may hold another."""
    found = {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST}
    return sorted(found, key=len, reverse=True)
