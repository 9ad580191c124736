"""Settings, read once at the edges (command line, web factory) and handed down as values.

Precedence: command line, then `COARSELOC_*` environment, then `coarseloc.toml`, then the defaults here.
"""

from __future__ import annotations

import os
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from coarseloc.core.errors import ConfigError
from coarseloc.core.types import Fit

SearchEngine = Literal["faiss", "auto"]
"""Who may search exactly on a CPU: FAISS alone, or whichever of FAISS, numpy and torch is fastest here."""

DATABASE_FILE = "coarseloc.db"  # the embedded default's, in the data folder
DEMO_FOLDER = Path("demo-data")  # of `coarseloc demo`, in the working directory


class CustomBackbone(BaseModel):
    """A `[[backbones]]` row of coarseloc.toml: a laboratory's own Hugging Face vision model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]*$")
    path: Path
    pooling: Literal["cls", "pooler", "mean"] = "cls"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class Settings(BaseSettings):
    """Where the state lives and how the parts are reached. Every field is `COARSELOC_<FIELD>` too."""

    model_config = SettingsConfigDict(env_prefix="COARSELOC_", env_ignore_empty=True, extra="forbid", frozen=True)

    data_dir: Path = Path("~/.local/share/coarseloc")
    weights_dir: Path | None = None
    database_url: str | None = None
    qdrant_url: str | None = None
    qdrant_api_key: SecretStr | None = None
    qdrant_timeout_s: float = Field(default=30.0, gt=0)
    qdrant_shard_number: int = Field(default=1, ge=1)
    qdrant_replication_factor: int = Field(default=1, ge=1)
    input_px: int = Field(default=224, gt=0)
    fit: Fit = "squash"  # of pictures that are not square, in embeddings made anew
    device: str = "auto"
    search_engine: SearchEngine = "faiss"  # exact search on a CPU: FAISS alone, or also numpy and torch
    token: SecretStr | None = None  # the web's, needed when it listens beyond this machine
    source_roots: tuple[Path, ...] = ()  # folders of maps, captures and flights that the pages may start jobs on
    trusted_hosts: tuple[str, ...] = ()  # further names the web may be addressed by, such as a proxy's
    base_map: Path | None = None  # below the web's maps: MBTiles or PMTiles of pictures, or a GeoTIFF
    backbones: tuple[CustomBackbone, ...] = ()

    @property
    def weights(self) -> Path:
        return (self.weights_dir or self.data_dir / "weights").expanduser()

    @property
    def database(self) -> str:
        """The database's URL; the embedded default is a SQLite file in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir / DATABASE_FILE}"

    @property
    def mirrors(self) -> Path:
        return self.data_dir / "mirrors"

    @property
    def thumbnails(self) -> Path:
        return self.data_dir / "thumbnails"

    @property
    def localizability(self) -> Path:
        return self.data_dir / "localizability"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml_file = cast(InitSettingsSource, init_settings).init_kwargs.pop("toml_file", None)  # of `load`, no setting
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file))


def is_data_folder(folder: Path) -> bool:
    """Whether an embedded database has been made in a folder."""
    return (folder / DATABASE_FILE).is_file()


def named_data_dir(data_dir: Path | None = None) -> Path | None:
    """The data folder that `--data-dir` or else COARSELOC_DATA_DIR names; None where neither does."""
    environment = os.environ.get("COARSELOC_DATA_DIR")
    return data_dir or (Path(environment) if environment else None)


def load(data_dir: Path | None = None, config_file: Path | None = None) -> Settings:
    """Read the environment and the file (`--config`, `COARSELOC_CONFIG`, or `coarseloc.toml` in the data
    folder where there is one). Raises ConfigError naming the setting, what it held and what it may hold."""
    folder = named_data_dir(data_dir) or Settings.model_fields["data_dir"].default
    folder = folder.expanduser().absolute()
    named = config_file or (Path(env) if (env := os.environ.get("COARSELOC_CONFIG")) else None)
    if named and not named.is_file():
        raise ConfigError(f"configuration file {named} is not there: correct --config or COARSELOC_CONFIG")
    path = named or folder / "coarseloc.toml"
    sources: dict[str, Any] = {"data_dir": folder, "toml_file": path}
    try:
        return Settings(**sources)
    except (TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}. Correct it or move it away.") from None
    except SettingsError as error:  # of lists, which the environment gives in JSON
        raise ConfigError(f'{error}: give it in JSON, such as ["name"], or in coarseloc.toml') from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        secret = isinstance(first.get("input"), str) and name in ("qdrant_api_key", "token")
        raise ConfigError(
            f"setting `{name}` is {'***' if secret else repr(first.get('input'))}: {first['msg']}. "
            f"Correct COARSELOC_{name.upper()} or coarseloc.toml."
        ) from None
