"""Where the key may travel: https, to the configured hosts and fal's own, and plain http only where allowed."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

FAL_DOMAIN = "fal.run"
DEFAULT_PORTS = {"https": 443, "http": 80}

Origin = tuple[str, str, int]


def checked_base_url(url: str, allow_http_hosts: frozenset[str]) -> str:
    """The URL without a trailing slash, when it is https, or plain http to this machine or to a host named as allowed.

    `allow_http_hosts` holds `host` or `host:port`. Raises ValueError otherwise, and for a URL with credentials, a
    query or a fragment.
    """
    parts = _split(url)
    if parts is None or parts.query or parts.fragment:
        raise ValueError("not a usable http(s) URL: a scheme and a host, without credentials, query or fragment")
    if parts.scheme == "http" and not _http_allowed(parts, allow_http_hosts):
        raise ValueError("plain http is allowed for this machine and for hosts named as allowed only")
    return url.rstrip("/")


class TrustedOrigins:
    """The only places that are ever sent the key: the configured origins, and fal's own hosts over https."""

    def __init__(self, *base_urls: str) -> None:
        self._origins = {origin for url in base_urls if (origin := _origin(url)) is not None}

    def __contains__(self, url: object) -> bool:
        if not isinstance(url, str) or (origin := _origin(url)) is None:
            return False
        scheme, host, port = origin
        at_fal = (host == FAL_DOMAIN or host.endswith("." + FAL_DOMAIN)) and (scheme, port) == ("https", 443)
        return at_fal or origin in self._origins


def _origin(url: str) -> Origin | None:
    parts = _split(url)
    if parts is None or parts.hostname is None:
        return None
    return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]


def _split(url: str) -> SplitResult | None:
    """The parts of a URL that means the same to every parser: no credentials, no backslashes, no white space."""
    if any(character in url for character in "\\@") or any(ord(character) <= 32 for character in url):
        return None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if usable else None


def _http_allowed(parts: SplitResult, allow_http_hosts: frozenset[str]) -> bool:
    host = parts.hostname or ""
    if host in allow_http_hosts or f"{host}:{parts.port or 80}" in allow_http_hosts or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
