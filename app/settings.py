"""The settings, with defaults and limits.

Every field is an environment variable with the prefix `CHARLOOM_`: `port` is `CHARLOOM_PORT`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.errors import ConfigError

PREFIX = "CHARLOOM_"
OTHERS = ("API_KEY", "URL")  # used by the command line as a client
ALIASES = {"CHECKPOINTS": "STORE", "KEYS": "API_KEYS", "TEXT": "CORPUS", "ADDRESS": "HOST", "BIND": "HOST"}
# Kubernetes sets these in every container if a service is named charloom or charloom-...
INJECTED = re.compile(
    r"CHARLOOM_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
INJECTED_PORT = re.compile(r"(tcp|udp|sctp)://")


class Settings(BaseSettings):
    """Settings of the server and the worker. Lengths are in characters, times in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    store: Path = Field(
        Path("checkpoints"), description="Directory that holds the runs; server and worker share it."
    )
    corpus: Path = Field(
        Path("corpora/shakespeare.txt"), description="Text of the runs that a new store queues."
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
        description="Server processes that share the port, each with its own engine; `auto` starts one per "
        "core that the process, or its container, may use.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Minimum level that is logged. In a terminal, `charloom serve` logs only warnings unless "
        "this is set.",
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Format of the log lines: text for people, JSON for programs."
    )

    api_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys that clients need, as `name:secret` (may read) or `name:secret:right`, separated "
        "by commas; the rights are read, train and admin, and `+texts` adds that to read whole texts. None: "
        "every client may do everything.",
    )
    rate_limit: str = Field(
        "",
        description="Maximum number of texts per key, or per address if there are no keys, such as "
        "`60/minute; 1000/day`; checks, reports and exports count as a text. None: no limit.",
    )
    root_path: str = Field(
        "",
        pattern=r"^((/[A-Za-z0-9._~-]+)+/?)?$",
        description="Path below which a proxy publishes the server, such as `/charloom`; the proxy may strip "
        "it or not. None: `/`.",
    )
    allowed_hosts: str = Field(
        "",
        description="Host names by which clients reach the server, separated by commas; `*.example.org` "
        "allows every subdomain, `*` every name. Addresses, `localhost`, names without a dot and the "
        "listening host are always allowed.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses of proxies whose `X-Forwarded-For` is trusted, separated by commas; `*` "
        "trusts every proxy. None: no proxy is trusted.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may call the API from a browser, separated by commas; `*` allows "
        "every origin.",
    )
    telemetry: bool = Field(
        False, description="Whether requests are traced with OpenTelemetry, which has its own configuration."
    )

    access_log: bool = Field(True, description="Whether each request gets a log line, at level debug.")

    poll_seconds: float = Field(
        0.25, ge=0.01, le=0.5, description="How often the server looks for a new checkpoint."
    )
    model_cache_bytes: int = Field(
        256 * 1024 * 1024,
        ge=0,
        description="Memory in bytes for models that requests name, in addition to the newest; the least "
        "recently used are released first.",
    )

    default_length: int = Field(500, ge=1, description="Characters generated when a request gives no length.")
    max_length: int = Field(10_000, ge=1, description="Maximum number of characters per request.")
    max_prompt: int = Field(10_000, ge=0, description="Maximum length of a prompt, in characters.")
    max_n: int = Field(16, ge=1, description="Maximum number of texts per request.")
    max_stop: int = Field(4, ge=0, description="Maximum number of stop strings per request.")
    max_models: int = Field(8, ge=1, description="Maximum number of models that score one text.")
    unknown: Literal["refuse", "drop", "replace"] = Field(
        "refuse",
        description="What to do with characters of a prompt that the model has never seen, if a request does "
        "not specify it: `refuse`, `drop`, or `replace` with the most similar one that it knows.",
    )
    max_logprobs: int = Field(
        500_000,
        ge=1,
        description="Maximum number of log-probabilities per answer, counted over the characters of prompts "
        "and texts, all models and all alternatives.",
    )
    max_stop_length: int = Field(100, ge=1, description="Maximum length of a stop string, in characters.")
    max_body_bytes: int = Field(1_000_000, ge=1_000, description="Maximum size of a request body, in bytes.")

    max_corpus_bytes: int = Field(
        64_000_000, ge=1_000, le=256 * 1024 * 1024, description="Maximum size of an uploaded text, in bytes."
    )
    max_uploads: int = Field(
        8,
        ge=1,
        le=1_000,
        description="Maximum number of uploads in progress, of which one client may have three quarters; "
        "further uploads get 429.",
    )
    max_store_bytes: int | None = Field(
        None,
        ge=0,
        description="Maximum size of the store, in bytes; old intermediate checkpoints are deleted first. 0: "
        "no limit. None: four fifths of its volume.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Workers that `charloom serve` starts, each of which trains one run at a time; any "
        "number of other workers can share the store, from any machine.",
    )
    lease_seconds: float = Field(
        30.0,
        ge=0.5,
        le=3600,
        description="Time after which another worker takes over a run whose worker is silent. A store keeps "
        "the value of its first worker.",
    )
    max_runs: int = Field(
        1_000,
        ge=1,
        le=100_000,
        description="Maximum number of runs, and of uploaded files, in the store.",
    )
    watch_seconds: float = Field(
        3600.0, gt=0, description="Maximum duration of a run's event stream; the client then reconnects."
    )

    read_seconds: float = Field(
        30.0,
        ge=0.1,
        description="Maximum time for a client to send a request, head and body; a long body gets one more "
        "second for every 64 kB.",
    )

    max_rows: int = Field(
        64, ge=1, le=4096, description="Maximum number of texts generated at the same time."
    )
    max_queue: int = Field(
        256,
        ge=0,
        description="Maximum number of texts waiting to be generated; further requests get 429 with "
        "Retry-After.",
    )
    max_streams: int = Field(
        256,
        ge=1,
        le=65_536,
        description="Maximum number of open text streams; as many clients again may watch runs.",
    )
    deadline_seconds: float = Field(
        60.0, gt=0, description="Maximum duration of a generation, including the wait."
    )
    grace_seconds: float = Field(
        10.0, ge=0, description="How long a stopping server waits for requests in flight to finish."
    )
    gradcheck_seconds: float = Field(120.0, gt=0, description="Maximum duration of a gradient check.")
    plot_seconds: float = Field(30.0, gt=0, description="Maximum duration of drawing a picture.")

    @field_validator("port", mode="before")
    @classmethod
    def _without_injected(cls, port: Any) -> Any:
        injected = isinstance(port, str) and INJECTED_PORT.match(port)
        return cls.model_fields["port"].default if injected else port


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A message for each variable that looks like a setting but is not one, with the closest match."""
    settings = [name.upper() for name in Settings.model_fields]
    found = []
    for name, value in sorted(environment.items()):
        given = name.upper().removeprefix(PREFIX)  # the names of settings may be in lower case
        injected = INJECTED.fullmatch(name) or (name.endswith("_PORT") and INJECTED_PORT.match(value))
        used = given in settings or name in (f"{PREFIX}{other}" for other in OTHERS)
        if not name.upper().startswith(PREFIX) or used or injected:
            continue
        near = difflib.get_close_matches(given, [*ALIASES, *settings, *OTHERS], 1)
        near = near or [one for one in settings if given.endswith(f"_{one}")]
        near = [ALIASES.get(one, one) for one in near]
        advice = f"did you mean {PREFIX}{near[0]}?" if near else "docs/operations.md lists the settings"
        found.append(f"{name} is not a setting and is ignored; {advice}")
    return found


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment; `overrides` take precedence unless they are None or empty.

    Raises ConfigError, which names the variable, the value given and the limit.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value not in (None, "")})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        variable = f"{name} ({PREFIX}{name.upper()})"
        raise ConfigError(variable, f"is not usable: {first['msg']}. Given: {first['input']!r}") from None
