"""What the wire's forms share: strictness, examples and the kinds of text that may come in."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# No control characters (a NUL is no text for PostgreSQL, a line break none for a log), and something to read.
PRINTABLE = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
WRITTEN = r"^[^\x00-\x08\x0b-\x1f\x7f]*$"  # as the former, and may be empty or of several lines

LabelText = Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTABLE)]
ShortText = Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTABLE)]
ReasonText = Annotated[str, Field(max_length=1000, pattern=WRITTEN)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Received(BaseModel):
    """What comes in: no type is bent into another, no unknown field is let pass."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Sent(BaseModel):
    """What goes out."""

    model_config = ConfigDict(frozen=True)


def example(*examples: dict[str, Any]) -> dict[str, Any]:
    """Give a schema's examples, for `json_schema_extra`."""
    return {"examples": list(examples)}


class Problem(Sent):
    """RFC 9457, `application/problem+json`."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra=example(
            {
                "type": "urn:perennial:problem:unknown-model",
                "title": "Not Found",
                "status": 404,
                "detail": "There is no model named 'pet'. GET /v1/models lists those that exist.",
            }
        ),
    )

    type: str
    title: str
    status: int
    detail: str = Field(description="What was expected, what came, and what to do.")
