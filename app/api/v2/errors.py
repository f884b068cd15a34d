"""How the Open Inference Protocol tells an error: `{"error": "…"}`, with the status that the API gives it elsewhere.

Asked by `app/api/error_handlers.py`, so that every refusal under /v2 has this form, an unknown address' too.
"""

from collections.abc import Mapping
from typing import Any


def speaks(path: str) -> bool:
    """Say whether an address is one of this protocol."""
    return path == "/v2" or path.startswith("/v2/")


def error_form(detail: str, members: Mapping[str, Any]) -> dict[str, str]:
    """Put a problem's detail, and what its members add to it, into the protocol's one text."""
    errors = members.get("errors")
    if errors:
        return {"error": "; ".join(f"{'.'.join(one['loc'])}: {one['detail']}" for one in errors)}
    if "incident" in members:
        return {"error": f"{detail} ({members['incident']})"}
    return {"error": detail}
