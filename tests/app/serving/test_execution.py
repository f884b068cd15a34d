"""A backbone is run another way only where that was tried, and gives the same answers."""

import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from app.networks.backbone import example
from app.networks.catalog import build
from app.networks.network import Network
from app.networks.packing import packed
from app.networks.preprocessor import preprocessor_for
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, ImageInput
from app.serving import ways
from app.serving.execution import Execution
from app.serving.executions import Executions
from app.serving.predictor import Predictor
from app.serving.ways import BFLOAT16, PLAIN, Options

CPU = torch.device("cpu")
SHAPE = ImageInput(size=32, channels=3)
PICTURES = (example(SHAPE, 9) * 127 + 128).to(torch.uint8)


def network(architecture: str = "small_cnn", labels: int = 3) -> Network:
    shape = FeaturesInput(size=5) if architecture == "mlp" else SHAPE
    return build(NetworkSpec(architecture, shape, labels=tuple(range(1, labels + 1))), {})


def prepared(executions: Executions, asked: Network) -> Execution:
    made = executions.of(asked)
    executions.prepare(asked)
    return made


def features(made: Execution, of: Network, count: int, pictures: Tensor = PICTURES) -> Tensor:
    return made(pictures[:count], preprocessor_for(of.spec).normalised)


@pytest.mark.parametrize("options", [Options(), Options(packing=False), Options(precision=BFLOAT16)])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_whatever_is_chosen_gives_the_network_s_features(options: Options, count: int) -> None:
    asked = network()
    made = prepared(Executions(CPU, options), asked)

    with torch.inference_mode():
        plain = asked.raw_features(preprocessor_for(asked.spec).batch(list(PICTURES[:count])))

    share = 5e-2 if options.precision == BFLOAT16 else 1e-4
    torch.testing.assert_close(features(made, asked, count), plain, atol=share * float(plain.abs().max()), rtol=0)


def test_versions_on_one_backbone_share_what_was_made_of_it() -> None:
    executions = Executions(CPU, Options())
    first = network()
    second = Network(first.spec, first.backbone, first.head, first.width)

    made = executions.of(first)

    assert executions.of(second) is made
    assert executions.of(network()) is not made


def test_what_was_made_goes_with_the_last_who_holds_it() -> None:
    executions = Executions(CPU, Options())
    asked = network()
    made = executions.of(asked)
    made.choose(*[("packed", packed(asked.backbone, example(SHAPE, 1)))] * 2, ())
    laid_out = next(module for module in made._chosen.many.modules() if hasattr(module, "_weight"))  # type: ignore[attr-defined]
    gone = [weakref.ref(one) for one in (asked.backbone, made, laid_out, laid_out._weight)]

    del asked, made, laid_out

    assert [one() for one in gone] == [None] * 4  # at once: nothing waits for the collector


def test_vectors_of_numbers_get_the_same_features_whatever_runs_them() -> None:
    asked = network("mlp")
    made = prepared(Executions(CPU, Options()), asked)
    vectors = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for count in (1, 9):
            assert torch.equal(made(vectors[:count], lambda inputs: inputs), asked.raw_features(vectors[:count]))


def test_a_way_that_is_not_near_or_fails_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(asked: nn.Module, *_: object, **__: object) -> nn.Module:
        return nn.Sequential(asked, nn.Threshold(1e9, 0.5))

    def failing(*_: object, **__: object) -> nn.Module:
        raise RuntimeError("not on this processor")

    monkeypatch.setattr(ways, "packed", wrong)
    monkeypatch.setattr(ways, "blocked", failing)
    monkeypatch.setattr(ways, "Recording", failing)
    asked = network()

    assert prepared(Executions(CPU, Options()), asked).ways == (PLAIN, PLAIN)


def test_a_pass_runs_no_layer_in_python() -> None:
    asked = network()
    made = prepared(Executions(CPU, Options()), asked)
    called: list[str] = []

    for count in (1, 9):
        sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_filename) if event == "call" else None)
        try:
            features(made, asked, count)
        finally:
            sys.setprofile(None)

    assert PLAIN not in made.ways
    assert any("serving" in file for file in called)
    assert not any(part in file for file in called for part in ("torch/nn/modules/conv", "networks/packing"))


def test_what_cannot_be_recorded_is_rewritten_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looks(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, inputs: Tensor) -> Tensor:
            made: Tensor = self.inner(inputs)
            return made * 2 if float(inputs.sum()) > 0 else made

    monkeypatch.setattr(ways, "blocked", lambda *_, **__: None)
    asked = network()
    odd = Network(asked.spec, Looks(asked.backbone), asked.head, asked.width)
    executions = Executions(CPU, Options())
    made = prepared(executions, odd)

    assert set(made.ways) <= {"packed", PLAIN}
    for pictures in (PICTURES, torch.zeros_like(PICTURES)):  # on both sides of what it looks at
        plain = odd.raw_features(preprocessor_for(asked.spec).normalised(pictures)).detach()
        assert torch.allclose(features(made, odd, 9, pictures), plain, atol=1e-4 * float(plain.abs().max()))

    tried: list[object] = []
    monkeypatch.setattr(ways, "Recording", lambda *given: tried.append(given))
    prepared(executions, Network(odd.spec, Looks(network().backbone), odd.head, odd.width))
    assert not tried  # the form is known


def test_a_version_whose_answers_would_move_runs_as_it_stands() -> None:
    asked = network()
    executions = Executions(CPU, Options())
    made = executions.of(asked)
    plain = asked.raw_features(example(SHAPE, 16)).detach()
    near = plain + 1e-3 * plain.abs().max()
    shaken = Network(asked.spec, asked.backbone, network().head, asked.width)
    shaken.head.weight.data.zero_()[0] = 100  # so steep that it turns between features that are near
    shaken.head.bias.data[0] = -100 * plain.sum(1).mean()
    plain[0] += (plain.sum(1).mean() - plain[0].sum()) / asked.width  # one that lies where it turns
    near[0] = plain[0] + 1e-3

    made.choose((BFLOAT16, asked.backbone), (BFLOAT16, asked.backbone), (plain, near))

    assert made.agrees(asked)
    assert not made.agrees(shaken)
    assert executions.of(shaken).ways == (PLAIN, PLAIN)


def test_what_is_served_runs_as_it_stands_until_something_sooner_was_found() -> None:
    asked = network()
    executions = Executions(CPU, Options())

    made = executions.of(asked)

    assert made.ways == (PLAIN, PLAIN)
    executions.prepare(asked)
    executions.prepare(asked)
    assert executions.of(asked) is made


def test_a_way_is_judged_before_it_serves() -> None:
    asked = network()
    executions = Executions(CPU, Options())
    made = executions.of(asked)
    plain = asked.raw_features(example(SHAPE, 16)).detach()
    running: list[tuple[str, str]] = []
    asked.head.register_forward_hook(lambda *_: running.append(made.ways))

    assert not made.choose(("packed", asked.backbone), ("packed", asked.backbone), (plain, plain + 1))
    assert made.ways == (PLAIN, PLAIN)
    assert made.choose(("packed", asked.backbone), ("packed", asked.backbone), (plain, plain))
    assert made.ways == ("packed", "packed")
    assert set(running) == {(PLAIN, PLAIN)}


def test_a_trial_is_given_up_when_the_server_ends() -> None:
    asked = network()
    passes: list[int] = []

    def ending() -> None:
        passes.append(1)
        if len(passes) == 3:
            executions.end()

    executions = Executions(CPU, Options(), ending)

    assert prepared(executions, asked).ways == (PLAIN, PLAIN)
    assert len(passes) == 3


def test_a_backbone_that_was_tried_does_not_wait_for_the_trial_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    executions = Executions(CPU, Options())
    tried, other = network(), network()
    prepared(executions, tried)
    executions._soonest.clear()
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> nn.Module:
        begun.set()
        assert go_on.wait(10)
        return other.backbone

    monkeypatch.setattr(ways, "packed", slow)
    with ThreadPoolExecutor(2) as threads:
        trial = threads.submit(prepared, executions, other)
        assert begun.wait(10)
        threads.submit(executions.prepare, tried).result(5)
        assert not trial.done()
        go_on.set()
        trial.result(30)


def test_in_float32_logits_are_held_closer() -> None:
    asked = network()
    made = Execution(asked.backbone, CPU)
    plain = asked.raw_features(example(SHAPE, 16)).detach()
    near = plain + 1e-2 * plain.abs().max()
    for way, taken in ((BFLOAT16, True), ("packed", False)):
        made.choose((way, asked.backbone), (way, asked.backbone), (plain, near))
        assert made.agrees(asked) is taken


def test_a_grown_version_gives_its_old_logits_to_the_bit() -> None:
    executions = Executions(CPU, Options())
    old = network(labels=3)
    grown = network(labels=70)
    grown = Network(grown.spec, old.backbone, grown.head, old.width)
    grown.head.weight.data[:3], grown.head.bias.data[:3] = old.head.weight, old.head.bias

    def logits(asked: Network) -> Tensor:
        predictor = Predictor(
            model_id=1,
            model="m",
            version_id="id",
            version=1,
            network=asked,
            preprocessor=preprocessor_for(asked.spec),
            labels=[str(label) for label in asked.spec.labels],
            device=CPU,
            execution=executions.of(asked),
        )
        return predictor._scored(predictor.features(list(PICTURES)))

    assert torch.equal(logits(grown)[:, :3], logits(old))


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def plain_features(asked: Network, pictures: Tensor) -> Tensor:
    with torch.inference_mode():
        return asked.raw_features(preprocessor_for(asked.spec).normalised(pictures.to("cuda")))


@NEEDS_CUDA
@pytest.mark.parametrize("options", [Options(), Options(packing=False), Options(precision=BFLOAT16)])
@pytest.mark.parametrize("count", [1, 3, 9, 70])
def test_on_cuda_recorded_graphs_give_the_network_s_features(options: Options, count: int) -> None:
    device = torch.device("cuda")
    asked = network().to(device)
    pictures = PICTURES.repeat(8, 1, 1, 1)[:count]
    made = prepared(Executions(device, options), asked)

    plain = plain_features(asked, pictures)

    share = 5e-2 if options.precision == BFLOAT16 else 1e-2  # torch lets CUDA's convolutions round to 10 bits
    for _ in range(2):
        found = features(made, asked, count, pictures)
        torch.testing.assert_close(found, plain, atol=share * float(plain.abs().max()), rtol=0)


@NEEDS_CUDA
def test_on_cuda_a_network_that_cannot_be_recorded_runs_as_it_stands_and_others_go_on() -> None:
    class Looks(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            features = inputs.flatten(1)[:, :8]
            return features * 2 if float(features.sum()) > 0 else features  # waits for the device

    device = torch.device("cuda")
    asked = network().to(device)
    odd = Network(asked.spec, Looks(), asked.head, asked.width)
    executions = Executions(device, Options(precision=BFLOAT16))
    looking, usual = executions.of(odd), executions.of(asked)

    for count in (1, 9):
        made = features(looking, odd, count)
        torch.testing.assert_close(made, plain_features(odd, PICTURES[:count]))
        made = features(usual, asked, count)
        plain = plain_features(asked, PICTURES[:count])
        torch.testing.assert_close(made, plain, atol=1e-2 * float(plain.abs().max()), rtol=0)


@NEEDS_CUDA
def test_on_cuda_threads_that_record_and_replay_at_once_get_their_own_features() -> None:
    device = torch.device("cuda")
    executions = Executions(device, Options())
    networks = [network().to(device) for _ in range(3)]
    with torch.no_grad():
        for number, one in enumerate(networks):
            for parameter in one.backbone.parameters():
                parameter.mul_(1 + number / 10)
    expected = [plain_features(one, PICTURES) for one in networks]

    def ask(turn: int) -> bool:
        which, count = turn % 3, turn % 9 + 1
        found = features(executions.of(networks[which]), networks[which], count)
        bound = 1e-2 * float(expected[which].abs().max())
        return float((found - expected[which][:count]).abs().max()) <= bound

    held = [executions.of(one) for one in networks]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(300)))
    assert len(held) == 3
