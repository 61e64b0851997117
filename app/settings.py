"""What can be configured, with defaults and limits.

Every field is an environment variable with the prefix `CHARLOOM_`: `port` is `CHARLOOM_PORT`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.errors import ConfigError

PREFIX = "CHARLOOM_"
OTHERS = ("CHARLOOM_API_KEY",)  # of the command line, which is a client
ALIASES = {"CHECKPOINTS": "STORE", "KEYS": "API_KEYS", "TEXT": "CORPUS", "ADDRESS": "HOST", "BIND": "HOST"}
# what Kubernetes sets in every container beside a service that is named charloom
INJECTED = re.compile(r"CHARLOOM_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
INJECTED_PORT = re.compile(r"(tcp|udp|sctp)://")


class Settings(BaseSettings):
    """Settings of the server and the worker. Lengths are in characters, times in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    store: Path = Field(
        Path("checkpoints"), description="Folder that holds the runs; server and worker share it."
    )
    corpus: Path = Field(
        Path("corpora/shakespeare.txt"), description="Text of the runs a fresh start queues."
    )

    model: str = Field(
        "",
        description="Model that answers requests without one: `run`, `run@step` or `run@best`. None: the "
        "newest checkpoint of the run that trained last.",
    )

    host: str = Field("127.0.0.1", description="Address the server listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port the server listens on; 0 takes a free one.")
    processes: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        1,
        description="Server processes on the one port, each with an engine of its own; `auto` starts as many "
        "as the cores that the process, or its container, may use.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Least level logged. `charloom serve` in a terminal logs warnings only unless it is set.",
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Log lines for people or for machines."
    )

    api_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys that clients need, as `name:secret` (may read) or `name:secret:right`, separated "
        "by commas; the rights are read, train and admin, and `+texts` adds that to read whole texts. None: "
        "everybody may do everything.",
    )
    rate_limit: str = Field(
        "",
        description="Most texts a key, or an address where there are no keys, may ask for, such as "
        "`60/minute; 1000/day`; checks, reports and exports count as a text. None: no limit.",
    )
    root_path: str = Field(
        "",
        pattern=r"^((/[A-Za-z0-9._~-]+)+/?)?$",
        description="Path that the server is reached below behind a proxy, such as `/charloom`; the proxy "
        "may take it off, or not. None: `/`.",
    )
    allowed_hosts: str = Field(
        "",
        description="Host names that clients reach the server by, separated by commas; `*.example.org` is "
        "any below it, `*` any at all. Addresses, `localhost`, names without a dot and the host listened on "
        "are always allowed.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses of proxies whose `X-Forwarded-For` is believed, separated by commas; `*` is "
        "any. None: no proxy's.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may call the API from a browser, separated by commas; `*` is any.",
    )
    telemetry: bool = Field(
        False, description="Whether requests are traced with OpenTelemetry, by its own configuration."
    )

    access_log: bool = Field(True, description="Whether each request gets a log line, at level debug.")

    poll_seconds: float = Field(
        0.25, ge=0.01, le=0.5, description="How often the server looks for a new checkpoint."
    )
    model_cache_bytes: int = Field(
        256 * 1024 * 1024,
        ge=0,
        description="Bytes that models named by requests may take in memory, besides the newest; the least "
        "recently used go first.",
    )

    default_length: int = Field(500, ge=1, description="Characters generated when a request gives no length.")
    max_length: int = Field(10_000, ge=1, description="Most characters one request may ask for.")
    max_prompt: int = Field(10_000, ge=0, description="Longest prompt.")
    max_n: int = Field(16, ge=1, description="Most texts one request may ask for.")
    max_stop: int = Field(4, ge=0, description="Most stop strings in one request.")
    max_models: int = Field(8, ge=1, description="Most models that one text is scored by.")
    unknown: Literal["refuse", "drop", "replace"] = Field(
        "refuse",
        description="What happens to characters of a prompt that the model has never seen, where a request "
        "does not say: `refuse`, `drop`, or `replace` by the nearest one it knows.",
    )
    max_logprobs: int = Field(
        500_000,
        ge=1,
        description="Most log-probabilities that one answer may list: characters, read and written, of all "
        "texts and models, each with its alternatives.",
    )
    max_stop_length: int = Field(100, ge=1, description="Longest stop string.")
    max_body_bytes: int = Field(1_000_000, ge=1_000, description="Largest request body, in bytes.")

    max_corpus_bytes: int = Field(
        64_000_000, ge=1_000, le=256 * 1024 * 1024, description="Largest text that can be uploaded, in bytes."
    )
    max_uploads: int = Field(
        8,
        ge=1,
        le=1_000,
        description="Uploads that may be under way at the same time, three fourths of them of one client; "
        "others get 429.",
    )
    max_store_bytes: int | None = Field(
        None,
        ge=0,
        description="Most bytes that the store may take; old intermediate checkpoints go first. 0: no limit. "
        "None: four fifths of its volume.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Workers that `charloom serve` starts here, each of which trains one run at a time; any "
        "number of others may work on the same store, from any machine.",
    )
    lease_seconds: float = Field(
        30.0,
        ge=0.5,
        le=3600,
        description="Time after which a run whose worker gives no sign of life is taken over by another. The "
        "store keeps the value that it was first trained with.",
    )
    max_runs: int = Field(
        1_000,
        ge=1,
        le=100_000,
        description="Most runs, and most uploaded files, that uploads may fill the store to.",
    )
    watch_seconds: float = Field(
        3600.0, gt=0, description="Longest that a run's events are sent for; a watcher then comes back."
    )

    read_seconds: float = Field(
        30.0,
        ge=0.1,
        description="How long a client may take to send a request, head and body; a long body has a second "
        "more for every 64 kB.",
    )

    max_rows: int = Field(64, ge=1, le=4096, description="Texts generated at the same time.")
    max_queue: int = Field(
        256, ge=0, description="Texts that may wait for a row; further requests get 429 with Retry-After."
    )
    max_streams: int = Field(
        256,
        ge=1,
        le=65_536,
        description="Streams of texts that may be open at the same time; as many watchers of runs may be.",
    )
    deadline_seconds: float = Field(
        60.0, gt=0, description="Longest a generation may take, waiting included."
    )
    grace_seconds: float = Field(
        10.0, ge=0, description="How long a stopping server lets requests in flight finish."
    )
    gradcheck_seconds: float = Field(120.0, gt=0, description="Longest a gradient check may take.")
    plot_seconds: float = Field(30.0, gt=0, description="Longest the drawing of a picture may take.")

    @field_validator("port", mode="before")
    @classmethod
    def _without_injected(cls, port: Any) -> Any:
        injected = isinstance(port, str) and INJECTED_PORT.match(port)
        return cls.model_fields["port"].default if injected else port


def unknown_variables(names: Iterable[str]) -> list[str]:
    """A sentence for each variable that looks like a setting and is none, with the nearest setting."""
    known = [name.upper() for name in Settings.model_fields]
    found = []
    for name in sorted(names):
        given = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or given in known or name in OTHERS or INJECTED.fullmatch(name):
            continue
        near = [ALIASES[given]] if given in ALIASES else difflib.get_close_matches(given, known, 1)
        advice = f"did you mean {PREFIX}{near[0]}?" if near else "docs/operations.md lists the settings"
        found.append(f"{name} is not a setting, and is ignored; {advice}")
    return found


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment; `overrides` that are neither None nor empty win.

    Raises ConfigError that names the variable, the value given and the limit.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value not in (None, "")})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        variable = f"{name} ({PREFIX}{name.upper()})"
        raise ConfigError(variable, f"is not usable: {first['msg']}. Given: {first['input']!r}") from None
