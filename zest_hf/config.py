"""Settings: from the environment first, then from `config.toml` in the zest directory, then the defaults.

The only module that reads settings from the environment. Each variable `ZEST_NAME` except `ZEST_HOME` can be written as
`name` into config.toml. An empty variable counts as unset.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast

from zest_hf import access
from zest_hf import setting_values as values
from zest_hf.access import QuietHours
from zest_hf.errors import ConfigError
from zest_hf.setting_values import HostPort, Rejected

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

CONFIG_KEYS: Final = (
    *("listen", "peers", "trackers", "lsd", "dht", "dht_bootstrap", "swarm_key", "max_down", "max_up"),
    *("seed", "allow", "deny", "quiet_hours", "daemon", "idle_exit", "status", "strict", "log"),
)
MAX_CONFIG_BYTES: Final = 1 << 20
MAX_SWARM_KEY_BYTES: Final = 4096

CI_VARIABLES: Final = (
    *("CI", "CONTINUOUS_INTEGRATION", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "BUILDKITE", "CIRCLECI"),
    *("TF_BUILD", "TEAMCITY_VERSION", "CODEBUILD_BUILD_ID", "BUILD_ID", "BUILD_NUMBER"),
)
"""Any of them says that this is a build. Most systems set CI; these are the others, and those that may be stripped."""
CA_BUNDLE_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class Listen(NamedTuple):
    """Where peers connect. `explicit` is False for the default, whose port gives way to the next free one."""

    host: str
    port: int
    explicit: bool


@dataclass(frozen=True)
class Settings:
    """All settings, parsed. Rates are bytes per second, None where there is no cap."""

    enabled: bool
    home: Path
    listen: Listen
    peers: tuple[HostPort, ...]
    trackers: tuple[str, ...]
    lsd: bool
    dht: bool
    dht_bootstrap: tuple[HostPort, ...]
    """Empty: the swarm library's own routers."""
    swarm_key: bytes | None = field(repr=False)
    max_down_bytes_s: int | None
    max_up_bytes_s: int | None
    seed: bool
    allow: tuple[str, ...]
    """Patterns of the repositories that peers are given and asked for; empty: all (`access.permits`)."""
    deny: tuple[str, ...]
    """... and of those that they never are."""
    quiet_hours: tuple[QuietHours, ...]
    daemon: Literal["auto", "off"]
    """Always "off" under CI, where a process left behind would keep the job from ending."""
    idle_exit_s: float | None
    """After this time without anything to do a seeder that a download has left running ends; None: never."""
    status: HostPort | None
    strict: bool
    log_level: int
    hub_offline: bool
    """The user wants no network: no peer or tracker traffic either."""
    ca_bundle: Path | None
    """File or directory of trusted certificates in place of the built-in ones."""
    sources: Mapping[str, str] = field(repr=False)
    """Per field name "environment", "config.toml" or "default"; "environment (CI)" for a daemon that CI
    rules out.
    """


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environ` (default: the process's) and from config.toml.

    Raises ConfigError, which names the variable or key, its value and what is accepted. Reads no other
    file than config.toml and that of a `file:` swarm key.
    """
    reader = _Reader(os.environ if environ is None else environ)
    home = reader.home()
    reader.read_file(home / "config.toml")
    host, port = reader.get("listen", "listen", values.DEFAULT_LISTEN, values.listen)
    return Settings(
        enabled=reader.enabled(),
        home=home,
        listen=Listen(host, port, explicit=reader.sources["listen"] != "default"),
        peers=reader.get("peers", "peers", (), values.host_ports),
        trackers=reader.get("trackers", "trackers", (), values.trackers),
        lsd=reader.get("lsd", "lsd", True, values.boolean),
        dht=reader.get("dht", "dht", True, values.boolean),
        dht_bootstrap=reader.get("dht_bootstrap", "dht_bootstrap", (), values.host_ports),
        swarm_key=reader.get("swarm_key", "swarm_key", None, reader.swarm_key),
        max_down_bytes_s=reader.get("max_down", "max_down_bytes_s", None, values.rate),
        max_up_bytes_s=reader.get("max_up", "max_up_bytes_s", None, values.rate),
        seed=reader.get("seed", "seed", True, values.boolean),
        allow=reader.get("allow", "allow", (), access.patterns),
        deny=reader.get("deny", "deny", (), access.patterns),
        quiet_hours=reader.get("quiet_hours", "quiet_hours", (), access.quiet_hours),
        daemon=reader.daemon(),
        idle_exit_s=reader.get(
            "idle_exit", "idle_exit_s", cast("float | None", values.DEFAULT_IDLE_EXIT_S), values.duration
        ),
        status=reader.get("status", "status", cast("HostPort | None", values.DEFAULT_STATUS), values.status),
        strict=reader.get("strict", "strict", False, values.boolean),
        log_level=reader.get("log", "log_level", values.DEFAULT_LOG_LEVEL, values.log_level),
        hub_offline=reader.hub_offline(),
        ca_bundle=reader.ca_bundle(),
        sources=MappingProxyType(reader.sources),
    )


def is_strict(environ: Mapping[str, str] | None = None) -> bool:
    """Whether errors are to be raised; also where some other setting is wrong. Raises nothing."""
    environ = os.environ if environ is None else environ
    try:
        return load_settings(environ).strict
    except ConfigError:
        # Alone: os.devnull has no config.toml in it.
        alone = {"ZEST_HOME": os.devnull, "ZEST_STRICT": environ.get("ZEST_STRICT", "")}
    try:
        return load_settings(alone).strict
    except ConfigError:
        return False


class _Reader:
    """One pass over the sources; notes for every field where its value came from."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.sources: dict[str, str] = {}
        self._environ = environ
        self._file: dict[str, str] = {}
        self._file_path = Path()

    def get(self, key: str, name: str, default: T, parse: Callable[[str], T]) -> T:
        """The value of config key `key` (variable ZEST_KEY) for the field `name`."""
        variable = f"ZEST_{key.upper()}"
        if text := self._variable(variable):
            self.sources[name] = "environment"
            where = f"{variable}={_shown(key, text)}"
        elif text := self._file.get(key, ""):
            self.sources[name] = "config.toml"
            where = f"{key} = {_shown(key, text)} in {self._file_path}"
        else:
            self.sources[name] = "default"
            return default
        try:
            return parse(text)
        except Rejected as error:
            raise ConfigError(f"{where}: {error}") from None

    def read_file(self, path: Path) -> None:
        """Take over config.toml if there is one. Raises ConfigError for an unreadable file or an unknown
        key.
        """
        self._file_path = path
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_CONFIG_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
        if len(data) > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} has more than {MAX_CONFIG_BYTES} bytes: that is no settings file")
        try:
            table = tomllib.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # also bad UTF-8 and numbers of absurd length
            raise ConfigError(f"{path} is not valid TOML: {error}") from None
        for key, value in table.items():
            self._file[key] = self._file_value(key, value)

    def home(self) -> Path:
        if text := self._variable("ZEST_HOME"):
            self.sources["home"] = "environment"
            return Path(os.path.abspath(self._expand(text)))
        # The same rule as huggingface_hub's, which must not be imported for this.
        text = self._variable("HF_HOME")
        self.sources["home"] = "environment" if text else "default"
        if not text:
            text = os.path.join(
                self._variable("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "huggingface"
            )
        return Path(os.path.abspath(self._expand(text))) / "zest"

    def enabled(self) -> bool:
        variable = "HF_HUB_ENABLE_ZEST"
        text = self._variable(variable)
        self.sources["enabled"] = "environment" if text else "default"
        try:
            return values.boolean(text) if text else False
        except Rejected as error:
            raise ConfigError(f"{variable}={_shown(variable, text)}: {error}") from None

    def daemon(self) -> Literal["auto", "off"]:
        word = self.get("daemon", "daemon", "auto", values.daemon)
        if word == "auto" and any(
            self._variable(name).lower() not in {"", "0", "false", "no", "off"} for name in CI_VARIABLES
        ):
            self.sources["daemon"] = "environment (CI)"
            return "off"
        return cast("Literal['auto', 'off']", word)

    def hub_offline(self) -> bool:
        text = self._variable("HF_HUB_OFFLINE") or self._variable("TRANSFORMERS_OFFLINE")
        self.sources["hub_offline"] = "environment" if text else "default"
        # Not ours to be strict about: huggingface_hub takes every other word for false.
        return text.upper() in {"1", "ON", "YES", "TRUE"}

    def ca_bundle(self) -> Path | None:
        text = next(filter(None, map(self._variable, CA_BUNDLE_VARIABLES)), "")
        self.sources["ca_bundle"] = "environment" if text else "default"
        return Path(text) if text else None

    def swarm_key(self, text: str) -> bytes:
        """The key itself, or the stripped content of `file:PATH`."""
        if not text.startswith("file:"):
            key = text.encode("utf-8", "surrogateescape")
        else:
            path = Path(self._expand(text[len("file:") :]))
            try:
                with path.open("rb") as stream:
                    key = stream.read(MAX_SWARM_KEY_BYTES + 1).strip()
            except (OSError, ValueError) as error:
                raise Rejected(
                    f"cannot read the key file {path}: {getattr(error, 'strerror', error)}"
                ) from None
        if not 1 <= len(key) <= MAX_SWARM_KEY_BYTES:
            raise Rejected(
                f"accepted is a secret of 1..{MAX_SWARM_KEY_BYTES} bytes, or file:PATH of a file with one"
            )
        return key

    def _variable(self, name: str) -> str:
        return self._environ.get(name, "").strip()

    def _expand(self, text: str) -> str:
        """`~` and `$NAME`, from the environment that we were given."""
        home = self._environ.get("HOME")
        if home and (text == "~" or text.startswith(("~/", "~" + os.sep))):
            text = home + text[1:]
        text = os.path.expanduser(text)
        return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda m: self._environ.get(m[1] or m[2], m[0]), text)

    def _file_value(self, key: str, value: Any) -> str:
        """The text that the variable of `key` would have."""
        if key == "home":
            raise ConfigError(
                f"home in {self._file_path}: set the variable ZEST_HOME, this file lies inside of it"
            )
        if key not in CONFIG_KEYS:
            near = difflib.get_close_matches(key.lower().removeprefix("zest_"), CONFIG_KEYS, 1, 0.0)[0]
            raise ConfigError(f"unknown key {_short(repr(key))} in {self._file_path}: did you mean {near!r}?")
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, str):
            return value.strip()
        if isinstance(value, int) and value.bit_length() < 64:
            return str(value)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return ",".join(value)
        raise ConfigError(f"{key} in {self._file_path}: a {type(value).__name__} is no value for it")


def _shown(key: str, text: str) -> str:
    """The value for a message; never a secret."""
    if key == "swarm_key" and not text.startswith("file:"):
        return "..."
    return _short(repr(text))


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
