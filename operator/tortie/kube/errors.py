"""What can go wrong between us and the API server, as one tree.

ApiError                  what the API server refused; `retryable` says whether the same request may succeed later
├── Unreachable           no answer (refused, reset, timed out), or 5xx. Whether a write was done is unknown
├── TooManyRequests       429: the server asks to wait `retry_after` seconds
├── Unauthorized          401: it doesn't know us
├── Forbidden             403: it knows us, and a right is missing
├── NotFound              404
├── Conflict              409: the object is not the one that the decision was made on
│   └── AlreadyExists     409, on creation
├── Gone                  410: the version or the continue token is older than what the server keeps
├── Invalid               422, 400: the object breaks a rule
├── Undecodable           the answer is not what we declared
├── NoCredentials         no kubeconfig, and not in a pod
├── Defect                a write raised something that isn't ours: a mistake in this program
├── NotLeading            the gate was closed, so nothing was sent
└── LeaseLost             another leads, or the lease couldn't be renewed in time

Belongs here: the exceptions, and how an answer becomes one. Does not: what to do about them.
"""

from typing import ClassVar

import msgspec


class Cause(msgspec.Struct, frozen=True):
    """One rule that an object breaks (`metav1.StatusCause`); `field` is a path such as spec.cidr, and may be empty."""

    field: str = ""
    message: str = ""


Causes = tuple[Cause, ...]


class ApiError(Exception):
    """A request that did not do what it should: `{what} @ {where}`, and the way out."""

    retryable: ClassVar[bool] = False
    way_out: ClassVar[str] = ""

    def __init__(
        self, message: str, where: str, *, status: int = 0, reason: str = "", retry_after: float = 0.0, causes: Causes = ()
    ) -> None:
        super().__init__(message, where)
        self.message = message
        self.where = where
        self.status = status  # HTTP; 0: there was no answer
        self.reason = reason  # the API server's word for programs; may be empty
        self.retry_after = retry_after  # seconds that the server asks to wait; 0: it didn't say
        self.causes = causes  # the rules that an object breaks, each with its field; empty where the server named none

    def __str__(self) -> str:
        return f"{self.message} @ {self.where}" + (f"; {self.way_out}" if self.way_out else "")


class Unreachable(ApiError):
    """No answer, or one that says that the server can't serve now."""

    retryable = True
    way_out = "is the API server up, and reachable from here?"


class TooManyRequests(ApiError):
    """The server sheds load."""

    retryable = True


class Unauthorized(ApiError):
    """The server doesn't know who asks."""

    way_out = "has the token or the client certificate expired, or does it belong to another cluster?"


class Forbidden(ApiError):
    """A right is missing."""

    way_out = "grant this right in the ClusterRole, or find the admission rule that the message names"


class NotFound(ApiError):
    """There is no such object, or no such kind."""


class Conflict(ApiError):
    """The object has changed, or is another one of the same name."""

    way_out = "read it again and decide anew"


class AlreadyExists(Conflict):
    """There is an object of this name: decided before it was seen."""


class Gone(ApiError):
    """What we knew is too old to go on from."""

    way_out = "list again"


class Invalid(ApiError):
    """The API server refuses what the object says."""


class Undecodable(ApiError):
    """The answer doesn't have the declared form."""

    way_out = "does this version of the cluster serve the kind in another form?"


class NoCredentials(ApiError):
    """Nothing says where the API server is and who we are."""

    way_out = "give --kubeconfig, set KUBECONFIG, or run in a pod that has a service account"


class Defect(ApiError):
    """A write raised what it shouldn't; the log holds the traceback."""


class NotLeading(ApiError):
    """Another one leads now, so nothing was sent."""


class LeaseLost(ApiError):
    """This process no longer leads."""


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: int = 0
    causes: Causes = ()


class Status(msgspec.Struct, rename="camel"):
    """The API server's own account of a failure (`metav1.Status`)."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}
# The server answers 504 or 500 to a list or watch at a version that its own cache hasn't reached: a matter of waiting.
_BY_REASON: dict[str, type[ApiError]] = {"AlreadyExists": AlreadyExists, "Expired": Gone, "Gone": Gone}


def error_from(status: Status, where: str, retry_after: float = 0.0) -> ApiError:
    """Return the exception for the API server's account of a failure."""
    kind = _BY_REASON.get(status.reason) or (Unreachable if status.code >= 500 else _BY_STATUS.get(status.code, ApiError))
    wait = retry_after or (float(status.details.retry_after_seconds) if status.details else 0.0)
    said = status.message or f"HTTP {status.code}"
    causes = status.details.causes if status.details else ()
    return kind(said, where, status=status.code, reason=status.reason, retry_after=wait, causes=causes)


def error_from_answer(code: int, body: bytes, where: str, retry_after: str | None = None) -> ApiError:
    """Return the exception for an HTTP answer; a body that isn't a Status (a proxy's page) is quoted."""
    try:
        status = msgspec.json.decode(body, type=Status)
    except msgspec.DecodeError:
        status = Status(message=body[:200].decode(errors="replace").strip())
    status.code = code
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
    return error_from(status, where, seconds)
