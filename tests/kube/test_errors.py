"""How answers become exceptions, and what these say at three in the morning."""

import msgspec
import pytest

from tortie.kube.errors import (
    AlreadyExists,
    ApiError,
    Cause,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    error_from_answer,
)

WHERE = "GET /api/v1/pods"


def answer(code: int, reason: str = "", message: str = "no", **details: object) -> ApiError:
    body = {"kind": "Status", "metadata": {}, "code": code, "reason": reason, "message": message, "details": details}
    return error_from_answer(code, msgspec.json.encode(body), WHERE)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "BadRequest", Invalid), (401, "Unauthorized", Unauthorized), (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound), (409, "Conflict", Conflict), (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone), (410, "Gone", Gone), (422, "Invalid", Invalid), (429, "TooManyRequests", TooManyRequests),
        (500, "InternalError", Unreachable), (503, "ServiceUnavailable", Unreachable), (504, "Timeout", Unreachable),
        (418, "", ApiError),
    ],
)  # fmt: skip
def test_kind(code: int, reason: str, expected: type[ApiError]) -> None:
    error = answer(code, reason)
    assert type(error) is expected
    assert (error.status, error.reason, error.where) == (code, reason, WHERE)


def test_only_want_of_an_answer_is_retryable() -> None:
    assert {code for code in (400, 401, 403, 404, 409, 410, 422, 429, 500, 503) if answer(code).retryable} == {
        429,
        500,
        503,
    }


def test_the_server_may_ask_for_time() -> None:
    assert error_from_answer(429, b"{}", WHERE, "7").retry_after == 7
    assert answer(429, retryAfterSeconds=3).retry_after == 3
    assert error_from_answer(429, b"", WHERE, "Wed, 21 Oct 2026 07:28:00 GMT").retry_after == 0


def test_an_answer_that_is_no_status_is_quoted() -> None:
    error = error_from_answer(502, b"<html>Bad gateway from the proxy</html>", WHERE)
    assert isinstance(error, Unreachable)
    assert "Bad gateway from the proxy" in str(error)


def test_an_empty_answer_names_its_status() -> None:
    assert str(error_from_answer(404, b"", WHERE)) == "HTTP 404 @ GET /api/v1/pods"


def test_the_sentence_says_what_where_and_the_way_out() -> None:
    said = str(answer(403, "Forbidden", 'pods is forbidden: User "a" cannot list resource "pods"'))
    assert said == (
        'pods is forbidden: User "a" cannot list resource "pods" @ GET /api/v1/pods; '
        "grant this right in the ClusterRole, or find the admission rule that the message names"
    )


def test_the_rules_that_an_object_breaks_are_kept() -> None:
    causes = [{"reason": "FieldValueInvalid", "message": "must be 1", "field": "spec.a"}, {"message": "two"}]
    assert answer(422, "Invalid", causes=causes).causes == (Cause("spec.a", "must be 1"), Cause("", "two"))
    assert answer(422, "Invalid").causes == ()
