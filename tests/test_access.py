"""Who may do what over HTTP: decided from the headers, answered with a problem, before the body is read."""

from __future__ import annotations

import http.client
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from httpx import Response
from live import running
from pydantic import BaseModel
from starlette.testclient import TestClient
from waiting import until

from index.errors import WhenceError
from index.state import State
from service.access import (
    SCOPES,
    Access,
    Cors,
    Gate,
    client_network,
    describe_access,
    is_loopback,
    needs_key,
    refuse_to_bind,
    scope_of,
)
from service.app import create_app
from service.auth import KeyStore, Scope
from service.problems import MEDIA_TYPE, handle_problems
from service.settings import Settings

LOCAL = "http://127.0.0.1:8000"
DOCS = "https://docs.example.com"
ELSEWHERE = "https://elsewhere.example"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SECRET = "0" * 64


class Asked(BaseModel):
    """A body that is checked."""

    question: str


router = APIRouter()


@router.post("/v1/ask")
def ask(asked: Asked) -> dict[str, str]:
    return {"answer": asked.question}


@router.get("/v1/ask")
def ask_by_address() -> dict[str, str]:
    return {"answer": "yes"}


@router.get("/v1/documents/{doc_id:path}/text")
@router.get("/v1/documents/{doc_id:path}")
@router.put("/v1/documents/{doc_id:path}")
def document(doc_id: str) -> dict[str, str]:
    return {"id": doc_id}


@router.post("/v1/generations/{name}/publish")
@router.get("/v1/forgotten/{name}")
def by_name(name: str) -> dict[str, str]:
    return {"name": name}


@router.get("/livez")
@router.get("/readyz")
@router.get("/metrics")
@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
def page() -> str:
    return "fine"


Client = Callable[..., TestClient]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """The state of an empty home."""
    with State(tmp_path) as state:
        yield state


@pytest.fixture
def keys(state: State) -> Iterator[KeyStore]:
    """A store without keys."""
    with closing(KeyStore(state)) as keys:
        yield keys


@pytest.fixture
def client(keys: KeyStore) -> Client:
    """Make a client of a small service that is protected as the real one is."""

    def make(*, base_url: str = LOCAL, address: str = "127.0.0.1", **given: Any) -> TestClient:
        app = small_app(keys, **given)
        return TestClient(app, base_url=base_url, client=(address, 50_000), root_path=given.get("root_path", ""))

    return make


def small_app(keys: KeyStore, **given: Any) -> FastAPI:
    settings = Settings.model_validate(given)
    app = FastAPI(docs_url=None, redoc_url=None)
    app.include_router(router)
    handle_problems(app)
    app.add_middleware(Access, settings=settings, keys=keys)
    app.add_middleware(Cors, settings=settings, keys=keys)
    app.add_middleware(Gate, settings=settings, keys=keys)
    return app


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **more}


def code(response: Response) -> tuple[int, str]:
    """Return the status and the code of a problem."""
    assert response.headers["Content-Type"] == MEDIA_TYPE
    return response.status_code, response.json()["code"]


# Keys


def test_an_open_service_needs_no_key(client: Client) -> None:
    service = client()
    assert service.post("/v1/ask", json={"question": "Why?"}).json() == {"answer": "Why?"}
    assert service.post("/v1/generations/a/publish").status_code == 200


def test_what_other_services_call_a_key_is_none_here(client: Client) -> None:
    assert client().post("/v1/ask", json={"question": "Why?"}, headers=bearer("sk-none")).status_code == 200
    refused = client(require_key=True).post("/v1/ask", json={"question": "Why?"}, headers=bearer("sk-none"))
    assert code(refused) == (401, "key_unknown")


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/ask"), ("PUT", "/v1/documents/a"), ("GET", "/metrics")])
def test_where_keys_are_needed_a_request_without_one_is_refused(client: Client, method: str, path: str) -> None:
    response = client(require_key=True).request(method, path)
    assert code(response) == (401, "key_required")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/openapi.json"])
def test_pages_and_probes_are_open_to_everyone(client: Client, path: str) -> None:
    service = client(require_key=True)
    assert service.get(path).status_code == 200
    assert service.get(path, headers=bearer("nonsense")).status_code == 200


def test_what_is_not_there_is_not_hidden_behind_a_key(client: Client) -> None:
    service = client(require_key=True)
    assert code(service.get("/v1/nothing")) == (404, "not_found")
    assert code(service.get("/etc/passwd")) == (404, "not_found")
    assert code(service.delete("/v1/ask")) == (405, "method_not_allowed")
    assert service.head("/").status_code == 200
    assert service.options("/v1/ask").status_code == 405


def test_a_request_without_a_key_is_refused_before_its_body_is_looked_at(client: Client) -> None:
    service = client(require_key=True)
    for body in (b"", b"{", b'{"question": 7}', b"\xff" * 1_000_000):
        assert code(service.post("/v1/ask", content=body)) == (401, "key_required")


def test_a_request_is_refused_before_its_body_has_come(keys: KeyStore) -> None:
    _, token = keys.create("program", Scope.ASK)
    with running(small_app(keys, require_key=True)) as address:
        for path, headers, status in (
            ("/v1/ask", {}, 401),
            ("/v1/ask", bearer(token[:-1] + "g"), 401),
            ("/v1/documents/a", bearer(token), 403),
        ):
            connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=5)
            with closing(connection):
                connection.putrequest("PUT" if status == 403 else "POST", path)
                for name, value in {**headers, "Content-Length": "1000000"}.items():
                    connection.putheader(name, value)
                connection.endheaders()
                assert connection.getresponse().status == status


def test_a_valid_key_is_let_through(client: Client, keys: KeyStore) -> None:
    _, token = keys.create("program", Scope.ASK)
    service = client(require_key=True)
    assert service.post("/v1/ask", json={"question": "Why?"}, headers=bearer(token)).json() == {"answer": "Why?"}
    assert service.get("/v1/ask", headers={"authorization": f"bearer  {token} "}).status_code == 200


@pytest.mark.parametrize("given", [{}, {"require_key": True}], ids=["open", "needs keys"])
def test_a_key_that_is_sent_counts_wherever_it_is_sent(
    client: Client, keys: KeyStore, given: dict[str, bool]
) -> None:
    service = client(**given)
    revoked, old = keys.create("revoked", Scope.ASK)
    keys.revoke(revoked.id)
    expired, over = keys.create("expired", Scope.ASK, expires=LONG_AGO + timedelta(days=1), now=LONG_AGO)
    for token in (old, f"whence_{revoked.id}_{SECRET}", "whence_nonsense", *(["nonsense", ""] if given else [])):
        response = service.get("/v1/ask", headers=bearer(token))
        assert code(response) == (401, "key_unknown")
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    response = service.get("/v1/ask", headers=bearer(over))
    assert code(response) == (401, "key_expired")
    assert f"{expired.id} expired at 2020-01-02" in response.json()["detail"]


def test_other_ways_to_authenticate_are_the_business_of_a_proxy(client: Client) -> None:
    basic = {"Authorization": "Basic dXNlcjpwYXNzd29yZA=="}
    assert client().get("/v1/ask", headers=basic).status_code == 200
    assert code(client(require_key=True).get("/v1/ask", headers=basic)) == (401, "key_required")


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [(Scope.ASK, 1), (Scope.WRITE, 2), (Scope.ADMIN, 4)],
)
def test_a_key_does_what_its_scope_says(client: Client, keys: KeyStore, scope: Scope, allowed: int) -> None:
    _, token = keys.create("program", scope)
    service = client(require_key=True)
    requests = [
        ("GET", "/v1/documents/a/text"),
        ("PUT", "/v1/documents/a/text"),
        ("POST", "/v1/generations/a/publish"),
        ("GET", "/v1/forgotten/a"),
    ]
    answers = [service.request(method, path, headers=bearer(token)) for method, path in requests]
    assert [answer.status_code for answer in answers] == [200] * allowed + [403] * (4 - allowed)
    for answer in answers[allowed:]:
        assert code(answer) == (403, "scope_missing")
        assert answer.headers["WWW-Authenticate"].startswith('Bearer error="insufficient_scope", scope="')


def test_a_revoked_key_stops_within_a_second(client: Client, keys: KeyStore, tmp_path: Path) -> None:
    key, token = keys.create("program", Scope.ASK)
    service = client(require_key=True)
    assert service.get("/v1/ask", headers=bearer(token)).status_code == 200
    with State(tmp_path) as state, closing(KeyStore(state)) as elsewhere:
        elsewhere.revoke(key.id)
    until(lambda: service.get("/v1/ask", headers=bearer(token)).status_code == 401, seconds=1)


def test_the_log_names_the_key_and_never_its_secret(
    client: Client, keys: KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    key, token = keys.create("program", Scope.ASK)
    service = client(address="203.0.113.7")
    wrong = f"whence_{key.id}_{SECRET}"
    with caplog.at_level(logging.WARNING):
        service.get("/v1/ask", headers=bearer(wrong))
        service.get("/v1/ask", headers=bearer("whence_\\n_x"))
        service.get("/v1/ask", headers=bearer(token))
    assert [record.getMessage() for record in caplog.records if record.name == "service.access"] == [
        f"key_unknown: key {key.id} from 203.0.113.7",
        "key_unknown: key of another form from 203.0.113.7",
    ]


def test_wrong_keys_from_one_address_are_limited_and_right_ones_are_not(
    client: Client, keys: KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    _, token = keys.create("program", Scope.ASK)
    service = client(require_key=True, address="2001:db8::1")
    answers = [service.get("/v1/ask", headers=bearer(f"guess-{number}")) for number in range(25)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 5
    assert code(answers[-1]) == (429, "rate_exceeded")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert len([record for record in caplog.records if record.name == "service.access"]) == 20
    assert client(require_key=True, address="2001:db8::2").get("/v1/ask", headers=bearer("x")).status_code == 429
    assert client(require_key=True, address="2001:db9::1").get("/v1/ask", headers=bearer("x")).status_code == 401
    assert service.get("/v1/ask", headers=bearer(token)).status_code == 200
    assert code(service.get("/v1/ask")) == (401, "key_required")


def test_a_state_that_cannot_be_read_is_a_problem(client: Client, state: State) -> None:
    service = client(require_key=True)
    state.close()
    assert code(service.get("/v1/ask", headers=bearer("nonsense"))) == (507, "storage_unavailable")
    assert code(service.get("/v1/ask", headers={"Origin": DOCS})) == (507, "storage_unavailable")
    assert service.get("/livez").status_code == 200


# Rates


def test_a_key_is_used_as_often_as_its_rate_allows(client: Client, keys: KeyStore) -> None:
    _, token = keys.create("program", Scope.ASK, rate="2/min")
    service, other_worker = client(require_key=True), client(require_key=True)
    first = service.get("/v1/ask", headers=bearer(token))
    second = other_worker.post("/v1/ask", json={"question": "Why?"}, headers=bearer(token))
    third = service.get("/v1/ask", headers=bearer(token))
    assert [first.status_code, second.status_code] == [200, 200]
    assert code(third) == (429, "rate_exceeded")
    assert [answer.headers["RateLimit-Limit"] for answer in (first, second, third)] == ["2", "2", "2"]
    assert [answer.headers["RateLimit-Remaining"] for answer in (first, second, third)] == ["1", "0", "0"]
    assert 1 <= int(third.headers["Retry-After"]) <= 60
    assert third.headers["Retry-After"] == third.headers["RateLimit-Reset"]
    assert "may be used 2/min. Try again in" in third.json()["detail"]


def test_after_its_pause_a_key_works_again(client: Client, keys: KeyStore) -> None:
    _, token = keys.create("program", Scope.ASK, rate="1/s")
    service = client(require_key=True)
    answers = [service.get("/v1/ask", headers=bearer(token)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    time.sleep(int(answers[1].headers["Retry-After"]) + 0.05)
    assert service.get("/v1/ask", headers=bearer(token)).status_code == 200


def test_each_key_has_its_own_rate_and_what_is_refused_does_not_count(client: Client, keys: KeyStore) -> None:
    tokens = [keys.create("program", Scope.ASK, rate="1/h")[1] for _ in range(2)]
    service = client(require_key=True)
    assert service.put("/v1/documents/a", headers=bearer(tokens[0])).status_code == 403
    assert [service.get("/v1/ask", headers=bearer(token)).status_code for token in tokens] == [200, 200]
    assert "RateLimit-Limit" not in service.get("/").headers


# Keys for pages


def test_a_key_for_pages_works_in_its_pages_alone(client: Client, keys: KeyStore) -> None:
    key, token = keys.create("docs", Scope.ASK, origins=[DOCS, "http://localhost:3000"])
    service = client(require_key=True)
    for headers in (
        {"Origin": DOCS},
        {"Origin": "http://localhost:3000", "Referer": f"{ELSEWHERE}/"},
        {"Referer": f"{DOCS}/guide/?q=1"},
    ):
        assert service.get("/v1/ask", headers=bearer(token, **headers)).status_code == 200
    for headers in (
        {},
        {"Origin": ELSEWHERE, "Referer": f"{DOCS}/"},
        {"Origin": "null"},
        {"Origin": f"{DOCS}.elsewhere.example"},
        {"Referer": f"https://elsewhere.example/{DOCS}"},
        {"Referer": f"{DOCS}@elsewhere.example/"},
        {"Referer": "https://[::1"},
    ):
        response = service.get("/v1/ask", headers=bearer(token, **headers))
        assert code(response) == (403, "origin_refused")
        assert f"The key {key.id} cannot be used" in response.json()["detail"]


def test_a_key_for_pages_opens_the_service_to_them_in_a_browser(client: Client, keys: KeyStore) -> None:
    key, token = keys.create("docs", Scope.ASK, origins=[DOCS])
    service = client(require_key=True)
    preflight = service.options(
        "/v1/ask",
        headers={
            "Origin": DOCS,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == DOCS
    answer = service.get("/v1/ask", headers=bearer(token, Origin=DOCS))
    assert answer.headers["Access-Control-Allow-Origin"] == DOCS
    keys.revoke(key.id)
    refused = service.get("/v1/ask", headers=bearer(token, Origin=DOCS))
    assert "Access-Control-Allow-Origin" not in refused.headers


# Browsers


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1", "127.1.2.3:99", "[::1]:8000"]
)
def test_an_open_service_answers_for_the_names_of_its_own_machine(client: Client, host: str) -> None:
    assert client().get("/v1/ask", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "attacker.example",
        "localhost.attacker.example",
        "192.168.0.7:8000",
        "localhost@attacker.example",
        "attacker.example/localhost",
        "[::2]",
        "[::1",
        "127.0.0.1.nip.io",
    ],
)
@pytest.mark.parametrize("path", ["/", "/v1/ask", "/nothing"])
def test_an_open_service_answers_for_no_other_name(client: Client, host: str, path: str) -> None:
    response = client().get(path, headers={"Host": host})
    assert code(response) == (400, "host_refused")
    assert "WHENCE_ALLOWED_HOSTS" in response.json()["detail"]


def test_probes_are_answered_under_any_name(client: Client) -> None:
    service = client(base_url="http://10.0.0.5:8000", root_path="/whence")
    assert [service.get(path).status_code for path in ("/livez", "/readyz", "/whence/livez")] == [200, 200, 200]
    assert code(service.get("/metrics")) == (400, "host_refused")


def test_names_can_be_allowed(client: Client) -> None:
    service = client(allowed_hosts="Docs.Example.com, 10.0.0.5")
    answers = [service.get("/v1/ask", headers={"Host": host}) for host in ("docs.example.com:443", "10.0.0.5")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert code(service.get("/v1/ask", headers={"Host": "localhost"})) == (400, "host_refused")


@pytest.mark.parametrize("given", [{"require_key": True}, {"host": "0.0.0.0", "insecure": True}], ids=str)
def test_a_service_that_is_no_secret_of_its_machine_answers_for_any_name(
    client: Client, given: dict[str, Any]
) -> None:
    assert client(**given).get("/", headers={"Host": "docs.example.com"}).status_code == 200


def test_no_foreign_page_writes_to_an_open_service(client: Client) -> None:
    service = client()
    body = {"question": "Why?"}
    for origin in (ELSEWHERE, "null", "http://127.0.0.1:3000", "http://127.0.0.1", "ws://127.0.0.1:8000", "x"):
        assert code(service.post("/v1/ask", json=body, headers={"Origin": origin})) == (403, "origin_refused")
        assert service.get("/v1/ask", headers={"Origin": origin}).status_code == 200
    assert code(service.put("/v1/documents/a", headers={"Origin": ELSEWHERE})) == (403, "origin_refused")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost"),
        ("localhost:443", "https://localhost"),
        ("LOCALHOST:8000", "https://localhost:8000"),
    ],
)
def test_its_own_pages_write_to_an_open_service(client: Client, host: str, origin: str) -> None:
    response = client().post("/v1/ask", json={"question": "Why?"}, headers={"Host": host, "Origin": origin})
    assert response.status_code == 200


def test_allowed_pages_write_to_an_open_service(client: Client, keys: KeyStore) -> None:
    key, _ = keys.create("docs", Scope.ASK, origins=[DOCS])
    service = client(cors_origins="https://Wiki.example.com:443")

    def ask_from(origin: str) -> int:
        return service.post("/v1/ask", json={"question": "Why?"}, headers={"Origin": origin}).status_code

    assert [ask_from(origin) for origin in ("https://wiki.example.com", DOCS, ELSEWHERE)] == [200, 200, 403]
    keys.revoke(key.id)
    assert ask_from(DOCS) == 403
    service = client(cors_origins="*")
    assert ask_from(ELSEWHERE) == 200


def test_only_allowed_pages_may_read_answers(client: Client) -> None:
    service = client(require_key=True, cors_origins=DOCS)
    allowed = service.get("/v1/ask", headers={"Origin": DOCS})
    assert code(allowed) == (401, "key_required")
    assert allowed.headers["Access-Control-Allow-Origin"] == DOCS
    assert "Retry-After" in allowed.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in allowed.headers
    assert "Access-Control-Allow-Origin" not in service.get("/v1/ask", headers={"Origin": ELSEWHERE}).headers
    anyone = client(cors_origins="*").get("/v1/ask", headers={"Origin": ELSEWHERE})
    assert anyone.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("origin", "method", "header", "status"),
    [
        (DOCS, "PUT", "authorization", 200),
        (ELSEWHERE, "PUT", "authorization", 403),
        (DOCS, "PATCH", "authorization", 403),
        (DOCS, "PUT", "x-stainless-lang", 200),
    ],
)
def test_a_browser_that_asks_first_is_told(
    client: Client, origin: str, method: str, header: str, status: int
) -> None:
    response = client(require_key=True, cors_origins=DOCS).options(
        "/v1/documents/a",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": header,
        },
    )
    assert response.status_code == status
    if status == 403:
        assert code(response) == (403, "origin_refused")


# Starting


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("localhost.example.com", False),
        ("128.0.0.1", False),
    ],
)
def test_a_loopback_address_is_told_from_others(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert needs_key(Settings(host=host)) is not expected


def test_keys_can_be_asked_for_everywhere_and_nowhere() -> None:
    assert needs_key(Settings(require_key=True))
    assert needs_key(Settings(host="0.0.0.0"))
    assert not needs_key(Settings(host="0.0.0.0", insecure=True))
    assert needs_key(Settings(host="0.0.0.0", insecure=True, require_key=True))


def test_a_service_without_keys_does_not_listen_to_other_machines(keys: KeyStore, tmp_path: Path) -> None:
    settings = Settings(host="0.0.0.0", home=tmp_path)
    keys.create("over", Scope.ASK, expires=LONG_AGO + timedelta(days=1), now=LONG_AGO)
    with pytest.raises(WhenceError, match=r"Other machines can reach 0.0.0.0, and there is no valid key.*--insecure"):
        refuse_to_bind(settings, keys)
    refuse_to_bind(Settings(), keys)
    refuse_to_bind(Settings(host="0.0.0.0", insecure=True), keys)
    keys.create("program", Scope.ASK)
    refuse_to_bind(settings, keys)


def test_a_setting_that_is_no_origin_is_named_before_the_service_starts(keys: KeyStore) -> None:
    with pytest.raises(WhenceError, match=r"WHENCE_CORS_ORIGINS: 'docs.example.com' is not an origin"):
        refuse_to_bind(Settings(cors_origins=("docs.example.com",)), keys)


# The table


def test_what_is_not_in_the_table_needs_the_highest_scope() -> None:
    assert scope_of("GET", "/v1/forgotten/{name}") is Scope.ADMIN
    assert scope_of("PUT", "/v1/ask") is Scope.ADMIN
    assert scope_of("HEAD", "/metrics") is Scope.ADMIN
    assert scope_of("HEAD", "/") is None


@pytest.mark.parametrize(("given", "optional"), [({}, [{}]), ({"require_key": True}, [])], ids=["open", "needs keys"])
def test_the_description_tells_which_routes_take_a_key(
    keys: KeyStore, given: dict[str, bool], optional: list[dict[str, Any]]
) -> None:
    described = small_app(keys).openapi()
    describe_access(described, Settings(**given))
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    paths = described["paths"]
    assert paths["/v1/ask"]["post"]["security"] == [*optional, {"key": ["ask"]}]
    assert paths["/v1/documents/{doc_id}"]["put"]["security"] == [*optional, {"key": ["write"]}]
    assert "security" not in paths["/livez"]["get"]


@pytest.mark.parametrize(
    ("client", "network"),
    [
        (("203.0.113.7", 1), "203.0.113.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("testclient", 1), "testclient"),
        (None, "unknown"),
    ],
)
def test_a_client_is_told_by_its_address_or_its_network(client: tuple[str, int] | None, network: str) -> None:
    assert client_network({"type": "http", "client": client}) == network


def test_every_route_stands_in_the_table_and_nothing_else(tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path))
    routes = {
        (method, route.path or "")
        for route in iter_route_contexts(app.routes)
        for method in (route.methods or {"a mounted app"}) - {"HEAD"}
    }
    app.state.services.state.close()
    assert routes == SCOPES.keys()


# The service's own pages


def test_a_key_for_pages_works_in_the_pages_of_the_service_too(client: Client, keys: KeyStore) -> None:
    _, token = keys.create("docs", Scope.ASK, origins=[DOCS])
    service = client(require_key=True, public_url="https://Answers.example.com:443/whence")
    for headers in (
        {"Origin": LOCAL},
        {"Referer": f"{LOCAL}/"},
        {"Host": "answers.example", "Origin": "https://answers.example"},
        {"Host": "upstream:8000", "Referer": "https://answers.example.com/whence/documents/a"},
    ):
        assert service.get("/v1/ask", headers=bearer(token, **headers)).status_code == 200
    for headers in (
        {"Origin": "http://127.0.0.1"},
        {"Origin": LOCAL, "Host": "answers.example"},
        {"Origin": ELSEWHERE, "Referer": f"{LOCAL}/"},
        {"Origin": "http://answers.example.com"},
        {"Host": "", "Origin": "null"},
    ):
        assert code(service.get("/v1/ask", headers=bearer(token, **headers))) == (403, "origin_refused")
    elsewhere = client(require_key=True)
    assert elsewhere.get("/v1/ask", headers=bearer(token, Origin="https://answers.example.com")).status_code == 403


def test_a_public_address_that_has_no_origin_is_named_before_the_service_starts(keys: KeyStore) -> None:
    with pytest.raises(WhenceError, match=r"WHENCE_PUBLIC_URL: 'https://me@docs.example.com' is not an origin"):
        refuse_to_bind(Settings(public_url="https://me@docs.example.com/whence"), keys)
