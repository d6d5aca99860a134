"""Who may do what over HTTP: hosts, origins, keys and their rates.

Everything here is decided from the headers of a request, before any of its body is read.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from fastapi.routing import RouteContext, iter_route_contexts
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.errors import WhenceError
from index.generations import utc_now
from service.auth import DEFAULT_PORTS, KEY_MARK, ApiKey, KeyStore, parse_origin
from service.auth import Scope as KeyScope
from service.headers import header
from service.problems import Problem, answer_to
from service.rates import Allowance
from service.settings import Settings

logger = logging.getLogger(__name__)

ASK, WRITE, ADMIN = KeyScope

# Every route and the scope that it needs; None: open to everyone. What is not here needs the highest one.
SCOPES: Mapping[tuple[str, str], KeyScope | None] = {
    ("GET", "/v1/ask"): ASK,
    ("POST", "/v1/ask"): ASK,
    ("POST", "/v1/ask/batch"): ASK,
    ("POST", "/v1/verify"): ASK,
    ("POST", "/v1/chat"): ASK,
    ("GET", "/v1/chat/suggestions"): ASK,
    ("POST", "/v1/deep-chat"): ASK,
    ("GET", "/v1/models"): ASK,
    ("GET", "/v1/models/{model}"): ASK,
    ("POST", "/v1/chat/completions"): ASK,
    ("POST", "/v1/feedback"): ASK,
    ("POST", "/mcp"): ASK,
    ("POST", "/retrieval"): ASK,
    ("POST", "/v1/web-search"): ASK,
    ("GET", "/v1/documents"): ASK,
    ("GET", "/v1/documents/{doc_id:path}"): ASK,
    ("GET", "/v1/documents/{doc_id:path}/text"): ASK,
    ("GET", "/v1/documents/{doc_id:path}/original"): ASK,
    ("POST", "/v1/documents"): WRITE,
    ("PUT", "/v1/documents/{doc_id:path}"): WRITE,
    ("DELETE", "/v1/documents/{doc_id:path}"): WRITE,
    ("GET", "/v1/tasks"): WRITE,
    ("GET", "/v1/tasks/{task_id}"): WRITE,
    ("DELETE", "/v1/tasks/{task_id}"): WRITE,
    ("GET", "/v1/generations"): WRITE,
    ("POST", "/v1/generations/{name}/publish"): ADMIN,
    ("GET", "/v1/insights/unanswered"): ADMIN,
    ("GET", "/metrics"): ADMIN,
    ("GET", "/livez"): None,
    ("GET", "/readyz"): None,
    ("GET", "/openapi.json"): None,
    ("GET", "/docs"): None,
    ("GET", "/"): None,
    ("GET", "/documents/{doc_id:path}"): None,
    ("GET", "/static/{name}"): None,
    ("GET", "/widget.js"): None,
    ("GET", "/demo"): None,
}
PROBES = ("/livez", "/readyz")  # asked by address, whatever the service is called
WRONG_KEYS = "20/min"  # from one address, before they are not even logged any more
METHODS = ("GET", "POST", "PUT", "DELETE")
SENT_HEADERS = ("*",)  # of allowed origins: clients add their own, such as OpenAI's x-stainless-lang
SHOWN_HEADERS = (
    "X-Request-ID",
    "Location",
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)
NO_KEY = (
    "A key is needed. Send it as `Authorization: Bearer KEY`; whoever runs this service makes it: whence keys create"
)

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/@\s]+))(?::[0-9]*)?")
_KEY_ID = re.compile(r"whence_(?:pub_)?([0-9a-f]{1,32})_")
_REFERER = re.compile(r"[a-z]+://[^/?#]*", re.IGNORECASE)
_CONVERTOR = re.compile(r":[a-z]+\}")


class Gate:
    """Middleware that turns away what a browser was tricked into sending: by the Host and the Origin of a request.

    An open service trusts whoever reaches it. So that no page in a browser on the same machine can do so, it answers
    for its own names alone (or else a page could reach it under a name of its own, DNS rebinding), and lets no page
    but its own and the allowed ones write (cross-site request forgery).

    Args:
        app: what stands behind it.
        settings: of the service.
        keys: whose origins are allowed, too.

    Raises:
        WhenceError: one of the allowed origins is none.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, keys: KeyStore) -> None:
        self._app = app
        self._keys = keys
        self._is_open = not needs_key(settings)
        self._is_local = self._is_open and is_loopback(settings.host)
        self._hosts = frozenset(name.lower() for name in settings.allowed_hosts)
        self._origins = allowed_origins(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with a problem."""
        if scope["type"] == "http":
            try:
                await self._check(scope)
            except (Problem, WhenceError) as error:
                await _answer(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        if "\n" in scope["path"]:
            # The router's patterns take a line break at the end for nothing, and `a%0A` for `a`.
            raise Problem("malformed_request", "The address holds a line break (%0A). Leave it out.")
        host = header(scope, b"host") or ""
        if scope["path"].removeprefix(scope.get("root_path", "")) not in PROBES:
            self._check_host(host)
        origin = header(scope, b"origin")
        if self._is_open and origin is not None and scope["method"] not in _SAFE_METHODS:
            await self._check_origin(origin, host)

    def _check_host(self, host: str) -> None:
        name = _host_name(host)
        is_known = name in self._hosts if self._hosts else not self._is_local or is_loopback(name)
        if not is_known:
            raise Problem(
                "host_refused",
                f"The Host header says {host!r}, and this service does not answer for that name. Whoever runs it "
                "allows names with WHENCE_ALLOWED_HOSTS.",
            )

    async def _check_origin(self, origin: str, host: str) -> None:
        if "*" in self._origins or origin in self._origins or _is_own(origin, host):
            return
        await _refresh(self._keys)
        if origin not in self._keys.origins():
            raise Problem(
                "origin_refused",
                f"A page of {origin} may not do this. Whoever runs this service allows origins with "
                "WHENCE_CORS_ORIGINS, or makes a key for one.",
            )


class Cors(CORSMiddleware):
    """Middleware that lets the pages of allowed origins, and those of valid keys, read answers in a browser.

    Args:
        app: what stands behind it.
        settings: of the service.
        keys: whose origins are allowed.

    Raises:
        WhenceError: one of the allowed origins is none.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, keys: KeyStore) -> None:
        super().__init__(
            app,
            allow_origins=allowed_origins(settings),
            allow_methods=METHODS,
            allow_headers=SENT_HEADERS,
            expose_headers=SHOWN_HEADERS,
        )
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass a request on and tell the browser who may read the answer."""
        if scope["type"] != "http" or header(scope, b"origin") is None:
            await self.app(scope, receive, _varying(send))
            return
        try:
            await _refresh(self._keys)
            self._check_preflight(scope)
        except (Problem, WhenceError) as error:
            await _answer(error, scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    def is_allowed_origin(self, origin: str) -> bool:
        """Return whether the pages of an origin may read answers."""
        return super().is_allowed_origin(origin) or origin in self._keys.origins()

    def _check_preflight(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if scope["method"] != "OPTIONS" or "access-control-request-method" not in headers:
            return
        response = self.preflight_response(headers)
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            said = bytes(response.body).decode()
            raise Problem("origin_refused", f"A page of {headers['origin']} may not send this request: {said}.")


class Access:
    """Middleware that lets a request through to its route if its key is for that.

    It stands directly before the routes and finds the one that will be taken, as the router does. What is not there
    is not held back: the router says so. Without a key an open service allows everything, but one of ours that is
    sent counts there, too.

    Args:
        app: what stands behind it.
        settings: of the service.
        keys: of the service.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, keys: KeyStore) -> None:
        self._app = app
        self._keys = keys
        self._needs_key = needs_key(settings)
        self._own_origin = public_origin(settings)
        self._routes: Sequence[RouteContext] = ()
        # The routes without parameters: by method, path, and what of the path is a proxy's.
        self._known: dict[tuple[str, str, str], RouteContext] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            allowance = await self._check(scope)
        except (Problem, WhenceError) as error:
            await _answer(error, scope, receive, send)
            return
        await self._app(scope, receive, send if allowance is None else _telling(allowance, send))

    async def _check(self, scope: Scope) -> Allowance | None:
        """Return what the key has left, if it has a rate."""
        needed = self._needed(scope)
        token = _token(scope)
        # Clients made for other services send something, whether it is asked for or not.
        counts = self._needs_key or (token is not None and token.startswith(KEY_MARK))
        if needed is None or not counts:
            return None
        if token is None:
            raise Problem("key_required", NO_KEY, headers={"WWW-Authenticate": "Bearer"})
        key = await self._identify(token, scope)
        scope["key_id"] = key.id
        self._check_origin_of(key, Headers(scope=scope))
        _check_scope_of(key, needed)
        return await self._count(key)

    def _needed(self, scope: Scope) -> KeyScope | None:
        address = scope["method"], scope["path"], scope.get("root_path", "")
        route = self._known.get(address) or self._find(scope)
        if route is None:
            return None
        path = route.path or ""
        if path == scope["path"].removeprefix(scope.get("root_path", "")):
            self._known[address] = route
        scope["route"] = route.route  # for the log; the router will come to the same
        return scope_of(scope["method"], path)

    def _find(self, scope: Scope) -> RouteContext | None:
        if not self._routes:
            self._routes = tuple(iter_route_contexts(scope["app"].routes))
        return next((route for route in self._routes if route.matches(scope)[0] is Match.FULL), None)

    async def _identify(self, token: str, scope: Scope) -> ApiKey:
        await _refresh(self._keys)
        key = self._keys.find(token)
        if key is None:
            raise await self._refused(token, scope, "key_unknown", "The key is unknown, revoked or misspelt.")
        if key.is_expired(utc_now()):
            raise await self._refused(token, scope, "key_expired", f"The key {key.id} expired at {key.expires}.")
        return key

    async def _refused(self, token: str, scope: Scope, code: str, detail: str) -> Problem:
        """Return the problem of a wrong key, and log it unless the address has sent too many of them."""
        address = client_network(scope)
        allowance = await run_in_threadpool(self._keys.rates.hit, WRONG_KEYS, "wrong keys", address)
        if allowance.is_exceeded:
            return _exceeded(allowance, f"Too many wrong keys came from {address}.")
        match = _KEY_ID.match(token)
        logger.warning("%s: key %s from %s", code, match[1] if match else "of another form", address)
        detail += " Make another: whence keys create"
        return Problem(code, detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})

    def _check_origin_of(self, key: ApiKey, headers: Headers) -> None:
        """Refuse a key for pages in any page but those and ours: a chat in one of them leads to our sources."""
        page = _page_of(headers)
        if not key.origins or page in key.origins or (page and self._is_own(page, headers)):
            return
        where = f"in pages of {page}" if page else "outside of a page"
        raise Problem("origin_refused", f"The key {key.id} cannot be used {where}, only in {', '.join(key.origins)}.")

    def _is_own(self, page: str, headers: Headers) -> bool:
        return page == self._own_origin or _is_own(page, headers.get("host", ""))

    async def _count(self, key: ApiKey) -> Allowance | None:
        if key.rate is None:
            return None
        allowance = await run_in_threadpool(self._keys.rates.hit, key.rate, "key", key.id)
        if allowance.is_exceeded:
            raise _exceeded(allowance, f"The key {key.id} may be used {key.rate}.")
        return allowance


def needs_key(settings: Settings) -> bool:
    """Return whether a service asks for keys; one that does not is open to everyone who reaches it."""
    return settings.require_key or not (settings.insecure or is_loopback(settings.host))


@lru_cache(maxsize=1_024)
def is_loopback(host: str) -> bool:
    """Return whether a name or an address is reached from the same machine only."""
    if host.lower().removesuffix(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_to_bind(settings: Settings, keys: KeyStore) -> None:
    """Check that a service may listen on its address.

    Raises:
        WhenceError: other machines reach it, and there is no key; or the public address or an allowed origin is none.
    """
    allowed_origins(settings)
    public_origin(settings)
    if is_loopback(settings.host) or settings.insecure or keys.any_active():
        return
    raise WhenceError(
        f"Other machines can reach {settings.host or 'all addresses'}, and there is no valid key. Make one: whence "
        f"keys create --name NAME --home {settings.home}. Or listen on 127.0.0.1, or let everyone in: --insecure"
    )


def allowed_origins(settings: Settings) -> frozenset[str]:
    """Return the allowed origins of the settings, as browsers write them; `*` stays.

    Raises:
        WhenceError: one of them is no origin.
    """
    try:
        return frozenset(origin if origin == "*" else parse_origin(origin) for origin in settings.cors_origins)
    except WhenceError as exc:
        raise WhenceError(f"WHENCE_CORS_ORIGINS: {exc}") from exc


def public_origin(settings: Settings) -> str | None:
    """Return the origin of our pages when the settings say at which address people reach them.

    Raises:
        WhenceError: browsers would not write it so.
    """
    if not settings.public_url:
        return None
    scheme, _, rest = settings.public_url.partition("://")
    try:
        return parse_origin(f"{scheme}://{rest.partition('/')[0]}")
    except WhenceError as exc:
        raise WhenceError(f"WHENCE_PUBLIC_URL: {exc}") from exc


def scope_of(method: str, template: str) -> KeyScope | None:
    """Return the scope that a route needs; None: it is open to everyone."""
    return SCOPES.get(("GET" if method == "HEAD" else method, template), ADMIN)


def describe_access(described: dict[str, Any], settings: Settings) -> None:
    """Add to an OpenAPI description which routes take a key, and of which scope."""
    described.setdefault("components", {})["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "A key that `whence keys create` made."}
    }
    for (method, template), needed in SCOPES.items():
        operation = described["paths"].get(_CONVERTOR.sub("}", template), {}).get(method.lower())
        if operation is not None and needed is not None:
            required: dict[str, list[str]] = {"key": [needed.value]}
            operation["security"] = [required] if needs_key(settings) else [{}, required]


def client_network(scope: Scope) -> str:
    """Return the address that a request came from; of IPv6 the network, which one client has for itself."""
    host = str((scope.get("client") or ("unknown", 0))[0])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


async def _answer(error: Problem | WhenceError, scope: Scope, receive: Receive, send: Send) -> None:
    problem = error if isinstance(error, Problem) else Problem.of(error)
    if problem is not error:
        logger.error("%s: %s", type(error).__name__, error)
    await answer_to(Request(scope), problem)(scope, receive, send)


async def _refresh(keys: KeyStore) -> None:
    """Read the keys again if that is due, in a thread: the disk must not hold up other requests."""
    if not keys.is_fresh:
        await run_in_threadpool(keys.refresh)


def _telling(allowance: Allowance, send: Send) -> Send:
    """Return a `send` that adds to a response what is left of a rate."""

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_rate_headers(allowance))
        await send(message)

    return telling


def _exceeded(allowance: Allowance, reason: str) -> Problem:
    detail = f"{reason} Try again in {allowance.reset_s} s."
    headers = {"Retry-After": str(allowance.reset_s), **_rate_headers(allowance)}
    return Problem("rate_exceeded", detail, headers=headers)


def _rate_headers(allowance: Allowance) -> dict[str, str]:
    return {
        "RateLimit-Limit": str(allowance.limit),
        "RateLimit-Remaining": str(allowance.remaining),
        "RateLimit-Reset": str(allowance.reset_s),
    }


def _varying(send: Send) -> Send:
    """Return a `send` that says of a response without an origin that it may differ for one."""

    async def varying(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).add_vary_header("Origin")
        await send(message)

    return varying


def _token(scope: Scope) -> str | None:
    """Return the bearer token; other ways to authenticate are a proxy's business."""
    kind, _, token = (header(scope, b"authorization") or "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _page_of(headers: Headers) -> str | None:
    """Return the origin of the page that a request came from, if it came from one."""
    referer = _REFERER.match(headers.get("referer", ""))
    said = headers.get("origin") or (referer[0] if referer else "")
    try:
        return parse_origin(said)
    except WhenceError:
        return None


def _check_scope_of(key: ApiKey, needed: KeyScope) -> None:
    if not key.scope.includes(needed):
        raise Problem(
            "scope_missing",
            f"The key {key.id} has the scope {key.scope.value}; this needs {needed.value}.",
            headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{needed.value}"'},
        )


def _host_name(host: str) -> str:
    """Return the name or the address in a Host header, without the port; empty if it is malformed."""
    match = _HOST.fullmatch(host)
    return (match[1] or match[2]).lower() if match else ""


def _is_own(origin: str, host: str) -> bool:
    """Return whether a page came from the very host that a request went to."""
    scheme, _, place = origin.partition("://")
    port = DEFAULT_PORTS.get(scheme)
    return port is not None and place.removesuffix(port) == host.lower().removesuffix(port)
