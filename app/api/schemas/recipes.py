"""The forms of recipes with names."""

from typing import Any

from pydantic import ConfigDict, Field

from app.api.schemas.wire import Sent, example


class NamedRecipeAnswer(Sent):
    name: str = Field(description="Stands for the whole recipe wherever one is asked for.")
    about: str
    differs: dict[str, Any] = Field(description="What it sets; all else is as in a recipe that says nothing.")
    recipe: dict[str, Any] = Field(description="The same, spelled out in full.")


class RecipesAnswer(Sent):
    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "default": "from-scratch",
                "default_pretrained": "frozen-backbone",
                "recipes": [
                    {
                        "name": "frozen-backbone",
                        "about": "Pretrained weights stay as they are and the head is solved anew with every label.",
                        "differs": {"head": {"kind": "slda"}, "trainable": "head", "penalties": []},
                        "recipe": {"based_on": "frozen-backbone", "trainable": "head", "batch_size": 32},
                    }
                ],
            }
        ),
    )

    default: str = Field(description="What a model without pretrained weights learns by when nothing is said.")
    default_pretrained: str = Field(description="The same with pretrained weights.")
    recipes: list[NamedRecipeAnswer]
