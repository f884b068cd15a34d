"""The HTTP side of the commands: one server's address and key, answers as plain data, refusals in its own words.

Called by the commands that speak to a running server, the demo and the benchmarks. Knows the wire of the API and
nothing of the database.
"""

from types import TracebackType
from typing import Any, Self

import httpx

from app.errors import PerennialError, Unavailable


class Refused(PerennialError):
    """The server answered with a problem; the message is its `detail`, `members` are all that the problem says."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        members: dict[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        self.status = status
        self.members = members or {}
        self.retry_after_seconds = retry_after_seconds
        super().__init__(detail)


class Connection:
    """A running server as one client sees it. Not to be shared between threads."""

    def __init__(self, url: str, key: str = "", timeout_seconds: float = 60.0) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_seconds, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int | None) -> Any:
        return self.ask("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Any = None) -> Any:
        return self.ask("POST", path, json=body if body is not None else {})

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """Send one request, give the decoded answer. Raises Refused, or Unavailable when nobody answers."""
        try:
            response = self._http.request(method, path, **request)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise Refused(0, f"{self.url!r} is no address of a server; expected e.g. http://127.0.0.1:8000.") from error
        except httpx.TransportError as error:
            raise Unavailable(
                f"No server answers at {self.url} ({type(error).__name__}). "
                "Start one with `perennial up`, or name another with --url or PERENNIAL_URL."
            ) from error
        if response.is_error:
            raise _refusal(response)
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise Refused(response.status_code, f"{self.url} answers, but not as a Perennial server does.") from error


def _refusal(response: httpx.Response) -> Refused:
    """What an answer that is no success says, and when to try again."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    members = problem if isinstance(problem, dict) else {}
    wait = response.headers.get("Retry-After", "")
    return Refused(
        response.status_code,
        _detail(response, members),
        members=members,
        retry_after_seconds=float(wait) if wait.isdecimal() else None,
    )


def _detail(response: httpx.Response, problem: dict[str, Any]) -> str:
    """The problem's words; where there are none, the status."""
    if problem.get("detail"):
        errors = problem.get("errors")
        if isinstance(errors, list) and errors and all(isinstance(error, dict) for error in errors):
            return "\n".join(f"{'.'.join(error.get('loc', []))}: {error.get('detail', '')}" for error in errors)
        return str(problem["detail"])
    return f"The server answered {response.status_code} {response.reason_phrase}."
