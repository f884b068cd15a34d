"""The Open Inference Protocol, spoken by an unmodified `tritonclient` with the application behind a real socket."""

import asyncio
import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from app.api.v2.inputs import png_of
from app.networks.images import ImagePreprocessor
from app.recipe import ImageInput
from tests.app.api.conftest import ADMIN_KEY

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")

HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}
ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [1.0, -2.0, 3.0, 40.0], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32)


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with triton.InferenceServerClient(address) as client:
        yield client


def tensor(name: str, values: NDArray[Any], datatype: str, *, binary: bool = True) -> Any:
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def asked(client: Any, model: str, *inputs: Any, **more: Any) -> Any:
    return client.infer(model, list(inputs), headers=dict(HEADERS), **more)


def files(*contents: bytes) -> NDArray[Any]:
    return np.array(contents, dtype=np.object_)


def test_a_client_finds_the_server_and_its_models(service: Any, client: Any) -> None:
    service.create()
    service.publish("iris", winner=1)
    service.parts.refresher.wait_for(1, 2, 5)

    assert client.is_server_live()
    assert client.is_server_ready()
    assert "binary_tensor_data" in client.get_server_metadata(headers=HEADERS)["extensions"]
    assert client.is_model_ready("iris", headers=HEADERS)
    assert client.is_model_ready("iris", "1", headers=HEADERS)
    assert not client.is_model_ready("iris", "9", headers=HEADERS)
    assert not client.is_model_ready("roses", headers=HEADERS)
    found = client.get_model_metadata("iris", headers=HEADERS)
    assert (found["name"], found["versions"]) == ("iris", ["2", "1"])
    assert found["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}]
    assert [(one["name"], one["datatype"], one["shape"]) for one in found["outputs"]] == [
        ("probabilities", "FP32", [-1, 3]),
        ("label", "BYTES", [-1]),
        ("prediction_id", "BYTES", [-1]),
    ]
    assert found["outputs"][0]["labels"] == ["a", "b", "c"]
    assert client.get_model_metadata("iris", "1", headers=HEADERS) == found
    assert client.get_model_repository_index(headers=HEADERS) == [
        {"name": "iris", "version": version, "state": "READY", "reason": ""} for version in ("2", "1")
    ]


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize(("datatype", "dtype"), [("FP32", np.float32), ("FP64", np.float64)])
def test_features_are_answered_as_our_own_call_answers_them(
    service: Any, client: Any, binary_input: bool, binary_output: bool, datatype: str, dtype: type
) -> None:
    service.create()
    own = service.post("/v1/models/iris/predict", json={"inputs": [{"features": row} for row in ROWS.tolist()]}).json()

    answer = asked(
        client,
        "iris",
        tensor("features", ROWS.astype(dtype), datatype, binary=binary_input),
        outputs=[
            triton.InferRequestedOutput(name, binary_data=binary_output)
            for name in ("prediction_id", "label", "probabilities")
        ],
        request_id="mine",
    )

    told = answer.get_response()
    assert (told["model_name"], told["model_version"], told["id"]) == ("iris", "1", "mine")
    assert [one["name"] for one in told["outputs"]] == ["prediction_id", "label", "probabilities"]
    expected = [
        [next(one["score"] for one in prediction["top"] if one["label"] == label) for label in "abc"]
        for prediction in own["predictions"]
    ]
    beliefs = answer.as_numpy("probabilities")
    assert (beliefs.dtype, beliefs.shape) == (np.float32, (3, 3))
    np.testing.assert_allclose(beliefs, expected, rtol=1e-6)
    assert texts(answer, "label") == [prediction["label"] for prediction in own["predictions"]]
    for prediction, label in zip(texts(answer, "prediction_id"), texts(answer, "label"), strict=True):
        assert service.get(f"/v1/models/iris/predictions/{prediction}").json()["label"] == label


def texts(answer: Any, name: str) -> list[str]:
    return [one.decode() if isinstance(one, bytes) else str(one) for one in answer.as_numpy(name).ravel()]


def test_without_named_outputs_all_come_and_as_bytes_where_the_request_says_so(service: Any, client: Any) -> None:
    service.create()

    answer = asked(client, "iris", tensor("features", ROWS, "FP32"))
    plain = service.post("/v2/models/iris/infer", json=body([ROWS[0].tolist()]))

    outputs = answer.get_response()["outputs"]
    assert [one["name"] for one in outputs] == ["probabilities", "label", "prediction_id"]
    assert all("data" not in one and one["parameters"]["binary_data_size"] > 0 for one in outputs)
    assert plain.headers["x-model-version"] == "1"
    assert "inference-header-content-length" not in plain.headers
    assert [len(one["data"]) for one in plain.json()["outputs"]] == [3, 1, 1]
    assert "id" not in plain.json()


def body(data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    one = {"name": "features", "shape": shape or [len(data), 4], "datatype": "FP32", "data": data}
    return {"inputs": [one]}


def test_numbers_in_json_are_flat_or_nested_as_their_shape_is(service: Any) -> None:
    service.create()
    rows = ROWS.tolist()

    nested = service.post("/v2/models/iris/infer", json=body(rows))
    flat = service.post("/v2/models/iris/infer", json=body([one for row in rows for one in row], [3, 4]))

    assert nested.status_code == flat.status_code == 200
    assert nested.json()["outputs"][0] == flat.json()["outputs"][0]


def test_the_best_labels_come_with_score_and_place(service: Any, client: Any) -> None:
    service.create()
    service.publish("iris", winner=1)
    service.parts.refresher.wait_for(1, 2, 5)

    answer = asked(
        client,
        "iris",
        tensor("features", ROWS, "FP32"),
        outputs=[triton.InferRequestedOutput("probabilities", class_count=2)],
    )
    more = asked(
        client,
        "iris",
        tensor("features", ROWS, "FP32"),
        outputs=[triton.InferRequestedOutput("probabilities", class_count=9, binary_data=False)],
    )

    assert answer.as_numpy("probabilities").shape == (3, 2)
    score, place, label = answer.as_numpy("probabilities")[0, 0].decode().split(":")
    assert (float(score) > 0.99, place, label) == (True, "1", "b")
    assert more.as_numpy("probabilities").shape == (3, 3)


def test_a_version_is_asked_by_its_number(service: Any, client: Any) -> None:
    service.create()
    service.publish("iris", winner=1)
    service.publish("iris", winner=2)
    service.parts.refresher.wait_for(1, 3, 5)

    answers = {
        version: asked(client, "iris", tensor("features", ROWS, "FP32"), model_version=version) for version in "23"
    }

    assert {version: texts(answer, "label") for version, answer in answers.items()} == {"2": ["b"] * 3, "3": ["c"] * 3}
    assert {version: answer.get_response()["model_version"] for version, answer in answers.items()} == {
        "2": "2",
        "3": "3",
    }


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_request_may_come_compressed(service: Any, client: Any, algorithm: str) -> None:
    service.create("wide", input={"kind": "features", "size": 20_000})
    rows = np.random.default_rng(0).normal(size=(32, 20_000)).astype(np.float32)  # 2.5 MB, which hardly shrink

    plain = asked(client, "wide", tensor("features", rows, "FP32"))
    packed = asked(
        client,
        "wide",
        tensor("features", rows, "FP32"),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )

    np.testing.assert_array_equal(packed.as_numpy("probabilities"), plain.as_numpy("probabilities"))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_that_are_decoded_already_are_answered_as_their_file_is(
    service: Any, client: Any, channels: int
) -> None:
    service.create("pets", input={"kind": "image", "size": 16, "channels": channels}, labels=["cat", "dog"])
    pixels = np.random.default_rng(channels).integers(0, 256, (2, channels, 16, 16), dtype=np.uint8)

    raw = asked(client, "pets", tensor("image", pixels, "UINT8"))
    in_json = asked(client, "pets", tensor("image", pixels, "UINT8", binary=False))
    packed = asked(client, "pets", tensor("image", files(*(picture_of(one) for one in pixels)), "BYTES"))
    texts64 = [base64.b64encode(picture_of(one)) for one in pixels]
    in_base64 = asked(client, "pets", tensor("image", files(*texts64), "BYTES", binary=False))

    for answer in (in_json, packed, in_base64):
        np.testing.assert_array_equal(answer.as_numpy("probabilities"), raw.as_numpy("probabilities"))
    taught = service.post(
        "/v1/models/pets/samples",
        json={"samples": [{"prediction_id": one, "label": "cat"} for one in texts(raw, "prediction_id")]},
    )
    assert (taught.status_code, taught.json()["accepted"]) == (202, 2), taught.text


def picture_of(pixels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_that_is_kept_of_pixels_holds_those_very_pixels(channels: int) -> None:
    given = ImageInput(kind="image", size=16, channels=1 if channels == 1 else 3)
    pixels = np.random.default_rng(channels).integers(0, 256, (channels, 16, 16), dtype=np.uint8)

    decoded = ImagePreprocessor(given, pretrained=False).decode(png_of(pixels))

    np.testing.assert_array_equal(decoded.numpy(), pixels)


def test_a_model_without_classes_answers_empty_labels(service: Any, client: Any) -> None:
    service.create("empty", labels=[])

    answer = asked(client, "empty", tensor("features", ROWS, "FP32"))
    classified = asked(
        client,
        "empty",
        tensor("features", ROWS, "FP32"),
        outputs=[triton.InferRequestedOutput("probabilities", class_count=3, binary_data=False)],
    )

    assert texts(answer, "label") == ["", "", ""]
    assert answer.as_numpy("probabilities").shape == (3, 0)
    assert classified.as_numpy("probabilities").shape == (3, 0)


def test_all_of_many_labels_come_and_the_log_keeps_the_best(service: Any, client: Any) -> None:
    service.create("many", labels=[f"label {number}" for number in range(200)])
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)

    answer = asked(client, "many", tensor("features", rows, "FP32"))

    beliefs = answer.as_numpy("probabilities")
    assert beliefs.shape == (64, 200)
    np.testing.assert_allclose(beliefs.sum(axis=1), 1, rtol=1e-5)
    assert texts(answer, "label") == [f"label {number}" for number in beliefs.argmax(axis=1)]
    kept = service.get(f"/v1/models/many/predictions/{texts(answer, 'prediction_id')[0]}").json()
    assert len(kept["top"]) == 5


def test_requests_in_flight_at_a_time_get_their_own_answers(service: Any, address: str) -> None:
    service.create()
    with triton.InferenceServerClient(address, concurrency=8) as client:
        expected = [asked(client, "iris", tensor("features", ROWS[n % 3][None], "FP32")) for n in range(3)]
        waiting = [
            client.async_infer("iris", [tensor("features", ROWS[n % 3][None], "FP32")], headers=dict(HEADERS))
            for n in range(48)
        ]
        answers = [one.get_result(timeout=20) for one in waiting]

    for number, answer in enumerate(answers):
        np.testing.assert_allclose(
            answer.as_numpy("probabilities"), expected[number % 3].as_numpy("probabilities"), rtol=1e-6
        )
    assert len({texts(answer, "prediction_id")[0] for answer in answers}) == 48


def test_the_asynchronous_client_works_too(service: Any, address: str) -> None:
    service.create()

    async def ask() -> Any:
        async with triton_aio.InferenceServerClient(address) as client:
            return await client.infer("iris", [tensor("features", ROWS, "FP32")], headers=dict(HEADERS))

    assert asyncio.run(asyncio.wait_for(ask(), 20)).as_numpy("probabilities").shape == (3, 3)


def test_a_call_needs_a_key_and_predict_is_enough(service: Any, client: Any, keys: dict[str, str]) -> None:
    service.create()
    inputs = [tensor("features", ROWS, "FP32")]

    for headers in (None, {"Authorization": "Bearer prn_none"}):
        with pytest.raises(InferenceServerException, match="key") as refused:
            client.infer("iris", inputs, headers=headers)
        assert refused.value.status() == "401"
    bearer = {"Authorization": f"Bearer {keys['predict']}"}

    assert client.infer("iris", inputs, headers=bearer).as_numpy("label").shape == (3,)
    assert client.get_model_repository_index(headers={"Authorization": f"Bearer {keys['predict']}"})


def test_a_refusal_is_told_so_that_the_client_can_read_it(service: Any, client: Any) -> None:
    service.create()

    with pytest.raises(InferenceServerException, match="no model named 'roses'") as unknown:
        asked(client, "roses", tensor("features", ROWS, "FP32"))
    with pytest.raises(InferenceServerException, match="no version 9") as version:
        asked(client, "iris", tensor("features", ROWS, "FP32"), model_version="9")
    with pytest.raises(InferenceServerException, match="Nothing is at this address") as elsewhere:
        client.get_model_config("iris", headers=HEADERS)

    assert [one.value.status() for one in (unknown, version, elsewhere)] == ["404", "404", "404"]


def test_the_index_tells_why_a_version_cannot_be_asked(start: Any) -> None:
    first = start()
    first.create()
    first.create("other")
    first.publish("iris", winner=1, damage=lambda path: path.write_bytes(b"no weights"))
    second = start()
    assert second.parts.refresher.wait_for(1, 1, 5)  # an ancestor is served meanwhile
    assert second.parts.refresher.wait_for(2, 1, 5)

    everything = second.post("/v2/repository/index")
    ready = second.post("/v2/repository/index", json={"ready": True})

    assert [(one["name"], one["version"], one["state"]) for one in everything.json()] == [
        ("iris", "2", "UNAVAILABLE"),
        ("iris", "1", "READY"),
        ("other", "1", "READY"),
    ]
    assert "could not be loaded" in everything.json()[0]["reason"]
    assert [(one["name"], one["version"]) for one in ready.json()] == [("iris", "1"), ("other", "1")]


def test_a_server_that_cannot_answer_for_a_model_is_not_ready(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boxes_builder.py").write_text(
        "from torch import nn\n\n\ndef build(num_classes):\n    return nn.Sequential(nn.Linear(4, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    first = start(builders={"mine": "boxes_builder:build"})
    first.create(network={"architecture": "mine"})
    assert first.get("/v2/models/iris/ready").json() == {"name": "iris", "ready": True}

    second = start()  # without the builder
    assert not second.parts.refresher.wait_for(1, 1, 0.5)
    ready = second.get("/v2/health/ready", key=None)
    model = second.get("/v2/models/iris/ready")
    asked = second.post("/v2/models/iris/infer", json=body(ROWS.tolist()))

    assert (ready.status_code, ready.json(), ready.headers["retry-after"]) == (503, {"ready": False}, "1")
    assert (model.status_code, asked.status_code) == (503, 503)
    assert "not loaded here yet" in model.json()["error"]
    (entry,) = second.post("/v2/repository/index").json()
    assert (entry["version"], entry["state"]) == ("1", "UNAVAILABLE")
    assert second.get("/v2/models/iris").json()["versions"] == ["1"]


def test_figures_count_what_is_asked_in_this_protocol_too(service: Any) -> None:
    service.create()
    assert service.post("/v2/models/iris/infer", json=body(ROWS.tolist())).status_code == 200
    assert service.post("/v2/models/iris/infer", json=body([[1.0]], [1, 1])).status_code == 422

    text = service.get("/metrics", key=None).text

    assert 'perennial_predictions_total{model="iris",version="1"} 3.0' in text
    assert 'perennial_rejections_total{model="iris",reason="InvalidItem"} 1.0' in text


def test_the_example_of_the_guide_runs_as_it_stands(service: Any, address: str) -> None:
    service.create("boxes", input={"kind": "features", "size": 2}, labels=["wide", "tall"])
    guide = (Path(__file__).resolve().parents[3] / "docs" / "guide.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- run by tests/app/api/test_v2.py -->\n```python\n(.*?)```", guide, re.DOTALL)
    assert found is not None

    done = subprocess.run(
        [sys.executable, "-c", found[1]],
        env={**os.environ, "PERENNIAL_URL": f"http://{address}", "PERENNIAL_KEY": ADMIN_KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    version, *rows = done.stdout.splitlines()
    assert version == "version 1"
    assert [row.split()[0] in ("wide", "tall") for row in rows] == [True, True]
