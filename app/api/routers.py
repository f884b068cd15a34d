"""Every router, a noun each."""

from fastapi import APIRouter

from app.api import events, health, learning, models, predict, samples, versions

ROUTERS: tuple[APIRouter, ...] = (
    predict.router,
    samples.router,
    models.router,
    versions.router,
    learning.router,
    events.router,
    health.router,
)
