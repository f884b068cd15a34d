"""Every router, a noun each."""

from fastapi import APIRouter

from app.api import events, families, health, learning, matrix, models, predict, recipes, samples, versions
from app.api.v2 import infer, metadata

ROUTERS: tuple[APIRouter, ...] = (
    predict.router,
    samples.router,
    models.router,
    matrix.router,  # before the versions, whose number its address would be taken for
    versions.router,
    families.router,
    learning.router,
    recipes.router,
    events.router,
    health.router,
    infer.router,
    metadata.router,
)
