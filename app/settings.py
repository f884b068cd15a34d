"""Every setting of the processes: environment (`PERENNIAL_…`), then `perennial.toml`, then the default.

Read once by a composition root and handed down; nothing else reads the environment.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from app.log import LogFormat


class Settings(BaseSettings):
    """What a server, a worker or a command needs to know of its surroundings."""

    model_config = SettingsConfigDict(
        env_prefix="PERENNIAL_", toml_file="perennial.toml", extra="forbid", validate_default=True
    )

    host: str = Field(default="127.0.0.1", description="Address the server listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port the server listens on.")
    data_dir: Path = Field(
        default=Path("perennial-data"), description="Folder of everything you own: database, weights."
    )
    database_url: str = Field(
        default="", description="SQLAlchemy address of the database; SQLite in the data folder when empty."
    )
    weights_url: str = Field(
        default="", description="Folder of the weight files; `weights` in the data folder when empty."
    )
    admin_key: str = Field(
        default="", repr=False, description="The first admin key (≥ 32 characters); a random one is printed when empty."
    )
    auth: Literal["on", "off"] = Field(
        default="on", description="`off` lets everyone in, and is refused on any address but loopback."
    )
    builders: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="Your own networks, `name=module:function,…`; the wire can name only these.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="Least severe log level that is shown."
    )
    log_format: LogFormat = Field(default="text", description="`text` for people, `json` for machines.")
    device: str = Field(default="auto", description="Where the worker learns: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.")
    processes: int = Field(
        default=1, ge=1, le=64, description="Serving processes of `up` and `serve`; they share the port."
    )
    server_device: str = Field(
        default="cpu", description="Where the server predicts: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`."
    )
    server_threads: int = Field(default=1, ge=1, description="Torch threads of each serving process.")
    server_precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="What the server computes in; `bfloat16` where it is found sooner and the answers agree.",
    )
    server_packing: bool = Field(
        default=True,
        description="Whether networks of convolutions are laid out for the processor, in up to two more copies.",
    )
    worker_threads: int = Field(default=1, ge=1, description="Torch threads of the worker.")
    worker_scheduling: Literal["idle", "nice"] = Field(
        default="idle",
        description="`idle` learns in the time that other processes leave; `nice` takes a share, by `worker_nice`.",
    )
    worker_nice: int = Field(
        default=10, ge=0, le=19, description="How far the worker steps back beside other processes under `nice`."
    )
    worker_rest: float = Field(
        default=1.6,
        ge=0,
        description="How long the worker rests at most while predictions are computed beside it, times its work.",
    )
    poll_seconds: float = Field(default=0.25, gt=0, le=60, description="How often servers and workers look for news.")
    lease_seconds: float = Field(
        default=30, gt=0, description="How long an update outlives the last sign of its worker."
    )
    queue_limit: int = Field(default=1_000_000, ge=1, description="Samples that may wait in a model's queue; then 429.")
    claim_limit: int = Field(default=2048, ge=1, description="Label revisions one update takes at most.")
    inflight_limit: int = Field(
        default=256,
        ge=1,
        description="Inputs to one model that may wait or be in work at a time in each serving process; then 429.",
    )
    request_seconds: float = Field(default=30, gt=0, description="Time a predict request may take; then 504.")
    warm_versions: int = Field(default=3, ge=1, description="Earlier versions each server keeps loaded for rollback.")
    prediction_days: float = Field(default=30, gt=0, description="How long predictions and their inputs are kept.")
    prediction_bytes: int = Field(
        default=1 << 30, ge=0, description="How many bytes of prediction inputs are kept, newest first."
    )
    weights_download: bool = Field(
        default=True, description="Whether `imagenet` weights may be fetched from torchvision's own address."
    )
    kill_at: str = Field(
        default="", description="For tests only: the named point at which the process kills itself.", repr=False
    )

    @field_validator("builders", mode="before")
    @classmethod
    def _split_builders(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.strip() for part in value.split(",") if part.strip()]
        if any("=" not in pair or ":" not in pair for pair in pairs):
            raise ValueError("expected name=module:function[,name=module:function…]")
        return dict(pair.split("=", 1) for pair in pairs)

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("admin_key")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        if value and len(value) < 32:
            raise ValueError("an admin key needs at least 32 characters; leave it empty to have one made")
        return value

    @property
    def database_address(self) -> str:
        """The database's address with the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'perennial.db'}"

    @property
    def on_loopback(self) -> bool:
        """Whether the server listens where only this machine reaches it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def weights_dir(self) -> Path:
        """The folder of the weight files with the default filled in."""
        return Path(self.weights_url.removeprefix("file://")) if self.weights_url else self.data_dir / "weights"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
