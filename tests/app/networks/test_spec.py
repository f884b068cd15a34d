from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, ImageInput


def test_a_spec_survives_json() -> None:
    for shape in (FeaturesInput(size=3), ImageInput(size=28, channels=1)):
        spec = NetworkSpec("small_cnn", shape, (4, 1), weights="imagenet", seed=7, projection=20, power=0.7)
        assert NetworkSpec.from_json(spec.to_json()) == spec


def test_a_spec_saved_before_there_were_projections_and_powers_has_neither() -> None:
    spec = NetworkSpec("mlp", FeaturesInput(size=3), (4, 1))
    saved = {name: value for name, value in spec.to_json().items() if name not in ("projection", "power")}
    assert NetworkSpec.from_json(saved) == spec


def test_growth_appends_in_the_order_of_arrival_and_skips_what_is_there() -> None:
    spec = NetworkSpec("mlp", FeaturesInput(size=3), (4, 1))
    assert spec.grown((9, 1, 0, 9)).labels == (4, 1, 9, 0)
