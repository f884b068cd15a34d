"""The names that stand in addresses, and what they may look like: never a path, never a control character."""

from typing import Annotated

from fastapi import Path, Query

from app.recipe import MODEL_NAME

UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
TEXT = r"^[^\x00-\x1f\x7f]+$"
_NUMBER = 2**31 - 1

ModelPath = Annotated[str, Path(pattern=MODEL_NAME, description="The model's name.", examples=["iris"])]
FamilyPath = Annotated[str, Path(pattern=MODEL_NAME, description="The family's name.", examples=["animals"])]
VersionPath = Annotated[int, Path(ge=1, le=_NUMBER, description="The version's number.", examples=[17])]
SamplePath = Annotated[str, Path(pattern=UUID, description="The sample's id, from the answer that accepted it.")]
PredictionPath = Annotated[str, Path(pattern=UUID, description="The `prediction_id` of an answer.")]

Limit = Annotated[int, Query(ge=1, le=200, description="Rows a page.")]
NumberCursor = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="The `next_cursor` of the page before.")]
SampleCursor = Annotated[str | None, Query(pattern=UUID, description="The `next_cursor` of the page before.")]
AskedVersion = Annotated[int | None, Query(ge=1, le=_NUMBER, description="A version to ask instead of the live one.")]
TextFilter = Annotated[str | None, Query(min_length=1, max_length=200, pattern=TEXT)]
