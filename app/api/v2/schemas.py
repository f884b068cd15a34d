"""The forms of the Open Inference Protocol V2, as its clients write and read them.

Unlike our own forms these let unknown fields and parameters pass: the protocol's extensions add some, and a server
leaves those alone that it does not know.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.wire import Sent, example

Size = Annotated[int, Field(ge=0, le=2**31 - 1)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Asked(BaseModel):
    """What comes in: no type is bent into another."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class InputParameters(Asked):
    binary_data_size: Size | None = Field(default=None, description="Bytes of this tensor after the JSON part.")
    shared_memory_region: Any = Field(default=None, description="Refused: tensors come with the request.")


class InputTensor(Asked):
    """A tensor in row-major order: numbers in `data`, nested or flat, or bytes after the JSON part."""

    name: Name
    shape: list[Size] = Field(max_length=8)
    datatype: Name
    parameters: InputParameters | None = None
    data: Any = None


class OutputParameters(Asked):
    binary_data: bool | None = Field(default=None, description="Whether it comes after the JSON part.")
    classification: Size | None = Field(
        default=None, description="So many best labels of `probabilities`, as `score:index:label`."
    )
    shared_memory_region: Any = Field(default=None, description="Refused: tensors go with the answer.")


class OutputAsked(Asked):
    name: Name
    parameters: OutputParameters | None = None


class InferParameters(Asked):
    binary_data_output: bool | None = Field(default=None, description="`binary_data` of outputs that say nothing.")


class InferRequest(Asked):
    """One tensor of inputs, answered by one version in their order; all outputs unless some are named."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "id": "42",
                "inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}],
                "outputs": [{"name": "label"}, {"name": "probabilities", "parameters": {"classification": 2}}],
            }
        ),
    )

    id: str | None = Field(default=None, max_length=1000, description="Comes back in the answer.")
    parameters: InferParameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=16)
    outputs: list[OutputAsked] | None = Field(default=None, max_length=16)


class TensorParameters(Sent):
    binary_data_size: int


class OutputTensor(Sent):
    name: str
    datatype: str
    shape: list[int]
    parameters: TensorParameters | None = None
    data: list[Any] | None = Field(default=None, description="Flat, in row-major order.")


_ID = "019aa5e2-7c1e-7b5a-9d1c-0a1b2c3d4e5f"


class InferAnswer(Sent):
    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model_name": "iris",
                "model_version": "17",
                "id": "42",
                "outputs": [
                    {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.97, 0.03]},
                    {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["setosa"]},
                    {"name": "prediction_id", "datatype": "BYTES", "shape": [1], "data": [_ID]},
                ],
            }
        ),
    )

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class InferError(Sent):
    model_config = ConfigDict(
        json_schema_extra=example({"error": "There is no model named 'pet'. GET /v1/models lists those that exist."}),
    )

    error: str = Field(description="What was expected, what came, and what to do.")


class ServerMetadata(Sent):
    model_config = ConfigDict(
        json_schema_extra=example(
            {"name": "perennial", "version": "0.1.0", "extensions": ["binary_tensor_data", "classification"]}
        ),
    )

    name: str
    version: str
    extensions: list[str]


class ServerLive(Sent):
    model_config = ConfigDict(json_schema_extra=example({"live": True}))

    live: bool


class ServerReady(Sent):
    model_config = ConfigDict(json_schema_extra=example({"ready": True}))

    ready: bool


class ModelReady(Sent):
    model_config = ConfigDict(json_schema_extra=example({"name": "iris", "ready": True}))

    name: str
    ready: bool


class TensorMetadata(Sent):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 where any number goes.")
    labels: list[str] | None = Field(default=None, description="Ours: what the columns of `probabilities` stand for.")


class ModelMetadata(Sent):
    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "name": "iris",
                "versions": ["17", "16"],
                "platform": "perennial_torch",
                "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}],
                "outputs": [
                    {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2], "labels": ["setosa", "virginica"]},
                    {"name": "label", "datatype": "BYTES", "shape": [-1]},
                    {"name": "prediction_id", "datatype": "BYTES", "shape": [-1]},
                ],
            }
        ),
    )

    name: str
    versions: list[str] = Field(description="Those loaded here, the live one first; others are loaded when asked.")
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class IndexRequest(Asked):
    model_config = ConfigDict(json_schema_extra=example({"ready": True}))

    ready: bool = Field(default=False, description="Leave out what cannot be asked now.")


class IndexEntry(Sent):
    """A version that this server has loaded, or should have."""

    name: str
    version: str
    state: str = Field(description="READY, LOADING or UNAVAILABLE.")
    reason: str = Field(description="Why it is not READY; empty where it is.")
