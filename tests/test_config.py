"""Settings: their text forms, their sources, and one clear line for everything else."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf import setting_values as values
from zest_hf.config import CONFIG_KEYS, Listen, Settings, load_settings
from zest_hf.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "zest").mkdir()
    return tmp_path / "zest"


def load(home: Path, **variables: str) -> Settings:
    return load_settings({"ZEST_HOME": str(home), **variables})


def refused(home: Path, **variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(home, **variables)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults(home: Path) -> None:
    settings = load(home)
    assert settings == Settings(
        enabled=False,
        home=home,
        listen=Listen("0.0.0.0", 6881, explicit=False),
        peers=(),
        trackers=(),
        lsd=True,
        dht=True,
        dht_bootstrap=(),
        swarm_key=None,
        max_down_bytes_s=None,
        max_up_bytes_s=None,
        seed=True,
        allow=(),
        deny=(),
        quiet_hours=(),
        daemon="auto",
        idle_exit_s=24 * 3600.0,
        status=values.HostPort("127.0.0.1", 9847),
        strict=False,
        log_level=logging.WARNING,
        hub_offline=False,
        ca_bundle=None,
        sources=settings.sources,
    )
    fields = set(Settings.__dataclass_fields__) - {"sources"}
    assert dict(settings.sources) == {**dict.fromkeys(fields, "default"), "home": "environment"}


def test_everything_from_the_environment(home: Path) -> None:
    settings = load(
        home,
        HF_HUB_ENABLE_ZEST="1",
        ZEST_LISTEN="[::]:7000",
        ZEST_PEERS="10.0.0.1:6881, [fe80::1%eth0]:6882 ,node-3.lab:6883,10.0.0.1:6881",
        ZEST_TRACKERS="udp://t.example:6969/announce,https://t.example/announce",
        ZEST_LSD="off",
        ZEST_DHT="No",
        ZEST_DHT_BOOTSTRAP="router.example:6881",
        ZEST_SWARM_KEY="correct horse",
        ZEST_MAX_DOWN="10MB",
        ZEST_MAX_UP="1.5 GB",
        ZEST_SEED="0",
        ZEST_ALLOW="org/*, datasets/other/*",
        ZEST_DENY="org/secret-*",
        ZEST_QUIET_HOURS="22:00-07:00,08:00-18:00=1MB",
        ZEST_DAEMON="off",
        ZEST_IDLE_EXIT="90min",
        ZEST_STATUS="off",
        ZEST_STRICT="true",
        ZEST_LOG="DEBUG",
        HF_HUB_OFFLINE="1",
        SSL_CERT_FILE="/etc/ca.pem",
    )
    assert settings.enabled and settings.strict and settings.hub_offline
    assert not (settings.lsd or settings.dht or settings.seed)
    assert settings.listen == ("::", 7000, True)
    assert settings.peers == (("10.0.0.1", 6881), ("fe80::1%eth0", 6882), ("node-3.lab", 6883))
    assert settings.trackers == ("udp://t.example:6969/announce", "https://t.example/announce")
    assert settings.dht_bootstrap == (("router.example", 6881),)
    assert settings.swarm_key == b"correct horse"
    assert (settings.max_down_bytes_s, settings.max_up_bytes_s) == (10_000_000, 1_500_000_000)
    assert (settings.daemon, settings.status, settings.log_level) == ("off", None, logging.DEBUG)
    assert (settings.allow, settings.deny) == (("org/*", "datasets/other/*"), ("org/secret-*",))
    assert settings.quiet_hours == ((22 * 60, 7 * 60, 0), (8 * 60, 18 * 60, 10**6))
    assert settings.idle_exit_s == 5400
    assert settings.ca_bundle == Path("/etc/ca.pem")
    assert set(settings.sources.values()) == {"environment"}
    assert "correct horse" not in repr(settings)


def test_everything_from_the_file(home: Path) -> None:
    (home / "config.toml").write_text(
        """
        listen = 7000
        peers = ["10.0.0.1:6881", "[::1]:6882"]
        trackers = "udp://t.example:6969"
        lsd = false
        dht = "off"
        dht_bootstrap = []
        swarm_key = "secret"
        max_down = 5000
        max_up = "64MiB"
        seed = true
        allow = "*"
        deny = ["org/a", "org/b"]
        quiet_hours = ["22:00-07:00", "12:00-13:00=1MB"]
        daemon = false
        idle_exit = false
        status = "0.0.0.0:80"
        strict = 1
        log = "info"
        """
    )
    settings = load(home)
    assert settings.listen == ("0.0.0.0", 7000, True)
    assert settings.peers == (("10.0.0.1", 6881), ("::1", 6882))
    assert (settings.lsd, settings.dht, settings.seed, settings.strict) == (False, False, True, True)
    assert (settings.max_down_bytes_s, settings.max_up_bytes_s) == (5000, 64 * 2**20)
    assert (settings.daemon, settings.status) == ("off", ("0.0.0.0", 80))
    assert (settings.allow, settings.deny, settings.idle_exit_s) == (("*",), ("org/a", "org/b"), None)
    assert [str(one) for one in settings.quiet_hours] == ["22:00-07:00", "12:00-13:00=1000000"]
    assert settings.sources["peers"] == settings.sources["quiet_hours"] == "config.toml"
    assert settings.sources["dht_bootstrap"] == "default"


def test_environment_goes_before_the_file(home: Path) -> None:
    (home / "config.toml").write_text('max_up = "1MB"\nlog = "info"\n')
    settings = load(home, ZEST_MAX_UP="2MB", ZEST_LOG="")
    assert (settings.max_up_bytes_s, settings.sources["max_up_bytes_s"]) == (2_000_000, "environment")
    assert (settings.log_level, settings.sources["log_level"]) == (logging.INFO, "config.toml")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ZEST_HOME": "/z"}, "/z"),
        ({"ZEST_HOME": "~/z", "HOME": "/home/u"}, "/home/u/z"),
        ({"HF_HOME": "/hf"}, "/hf/zest"),
        ({"HF_HOME": "$SCRATCH/hf", "SCRATCH": "/s"}, "/s/hf/zest"),
        ({"HF_HOME": "${UNSET}/hf"}, str(Path.cwd() / "${UNSET}/hf/zest")),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/huggingface/zest"),
        ({"HOME": "/home/u"}, "/home/u/.cache/huggingface/zest"),
        ({"HOME": "/home/u", "HF_HOME": ""}, "/home/u/.cache/huggingface/zest"),
    ],
)
def test_home(variables: dict[str, str], expected: str) -> None:
    assert load_settings(variables).home == Path(expected)


def test_home_agrees_with_huggingface_hub() -> None:
    from huggingface_hub import constants

    environ = {name: value for name, value in os.environ.items() if not name.startswith("ZEST_")}
    assert load_settings(environ).home == Path(constants.HF_HOME) / "zest"


def test_no_daemon_under_ci(home: Path) -> None:
    for variables in (
        {"CI": "true"},
        {"CI": "woodpecker", "ZEST_DAEMON": "auto"},
        {"GITHUB_ACTIONS": "true"},
        {"JENKINS_URL": "http://ci.example/"},
    ):
        settings = load(home, **variables)
        assert (settings.daemon, settings.sources["daemon"]) == ("off", "environment (CI)")
    assert load(home, CI="true", ZEST_DAEMON="off").sources["daemon"] == "environment"
    for no_ci in ("", "0", "false"):
        assert load(home, CI=no_ci).daemon == "auto"


def test_first_ca_bundle_variable_wins(home: Path) -> None:
    names = {"REQUESTS_CA_BUNDLE": "/a", "CURL_CA_BUNDLE": "/b", "SSL_CERT_FILE": "/c"}
    for path in ("/a", "/b", "/c"):
        assert load(home, **names).ca_bundle == Path(path)
        names.pop(next(iter(names)))


def test_offline_words_are_the_hubs(home: Path) -> None:
    assert load(home, TRANSFORMERS_OFFLINE="YES").hub_offline
    assert not load(home, HF_HUB_OFFLINE="maybe").hub_offline


def test_swarm_key_from_a_file(home: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"\x00\xffsecret\n")
    assert load(home, ZEST_SWARM_KEY=f"file:{key}").swarm_key == b"\x00\xffsecret"
    assert load(home, ZEST_SWARM_KEY="file:~/key", HOME=str(tmp_path)).swarm_key == b"\x00\xffsecret"
    key.write_bytes(b"\n")
    assert "1..4096 bytes" in refused(home, ZEST_SWARM_KEY=f"file:{key}")
    key.write_bytes(b"k" * 4097)
    assert "1..4096 bytes" in refused(home, ZEST_SWARM_KEY=f"file:{key}")
    message = refused(home, ZEST_SWARM_KEY="file:/nowhere/key")
    assert "ZEST_SWARM_KEY='file:/nowhere/key'" in message and "No such file" in message
    assert "No such file" not in refused(home, ZEST_SWARM_KEY="file:/a\0b")


def test_a_bad_key_is_not_printed(home: Path) -> None:
    message = refused(home, ZEST_SWARM_KEY="s3cret" * 1000)
    assert "s3cret" not in message and "ZEST_SWARM_KEY=..." in message


@pytest.mark.parametrize(
    ("variable", "value", "accepted"),
    [
        ("HF_HUB_ENABLE_ZEST", "maybe", "on or off"),
        ("ZEST_QUIET_HOURS", "at night", "such as 22:00-07:00"),
        ("ZEST_DENY", "https://huggingface.co/org", "wildcards"),
        ("ZEST_IDLE_EXIT", "0.5s", "30min, 12h or 2d, or off"),
        ("ZEST_LISTEN", "0.0.0.0", "host:port"),
        ("ZEST_LISTEN", "65536", "0..65535"),
        ("ZEST_LISTEN", "::1:6881", "brackets"),
        ("ZEST_PEERS", "10.0.0.1", "host:port"),
        ("ZEST_PEERS", "10.0.0.1:0", "1..65535"),
        ("ZEST_PEERS", "[::g]:1", "host:port"),
        ("ZEST_PEERS", "http://node:80", "brackets"),
        ("ZEST_PEERS", "a/b:80", "host:port"),
        ("ZEST_TRACKERS", "t.example:6969", "udp://"),
        ("ZEST_TRACKERS", "udp://t.example:99999", "udp://"),
        ("ZEST_LSD", "2", "on or off"),
        ("ZEST_MAX_DOWN", "fast", "500KB"),
        ("ZEST_MAX_DOWN", "0", "500KB"),
        ("ZEST_MAX_DOWN", "-1MB", "500KB"),
        ("ZEST_MAX_DOWN", "1e6", "500KB"),
        ("ZEST_MAX_DOWN", "9999TB", "500KB"),
        ("ZEST_MAX_DOWN", "1i", "500KB"),
        ("ZEST_DAEMON", "on", "auto or off"),
        ("ZEST_STATUS", "nowhere", "or off"),
        ("ZEST_LOG", "loud", "debug, info"),
    ],
)
def test_refused_values(home: Path, variable: str, value: str, accepted: str) -> None:
    message = refused(home, **{variable: value})
    assert message.startswith(f"{variable}={value!r}: ")
    assert accepted in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("peer = 'a:1'", "unknown key 'peer' in {path}: did you mean 'peers'?"),
        ("ZEST_MAX_UP = '1MB'", "did you mean 'max_up'?"),
        ("home = '/x'", "set the variable ZEST_HOME"),
        ("max_up = 'lots'", "max_up = 'lots' in {path}: accepted are"),
        ("max_up = 1.5", "max_up in {path}: a float is no value for it"),
        ("[peers]\na = 1", "a dict is no value"),
        ("peers = [1]", "a list is no value"),
        ("max_up = ", "is not valid TOML"),
        ("max_up = " + "9" * 5000, "is not valid TOML"),
        ("max_up = 0x" + "f" * 5000, "a int is no value"),
        ("a = " + "[" * 100_000, "is not valid TOML"),
        ("# \udcff", "is not valid TOML"),
        ("#" * (2**20 + 1), "more than 1048576 bytes"),
    ],
)
def test_refused_files(home: Path, content: str, expected: str) -> None:
    path = home / "config.toml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert expected.format(path=path) in refused(home)


def test_unreadable_file(home: Path) -> None:
    (home / "config.toml").mkdir()
    assert "cannot read" in refused(home)


def test_zest_home_need_not_exist(tmp_path: Path) -> None:
    assert load(tmp_path / "none").home == tmp_path / "none"
    (tmp_path / "file").touch()
    assert load(tmp_path / "file").home == tmp_path / "file"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1), ("512B", 512), ("10kb", 10_000), ("10K", 10_000), ("10MB", 10**7), ("10 mb", 10**7),
        ("1.5 GB", 1_500_000_000), ("64MiB", 64 * 2**20), ("1Ti", 2**40), ("0.5KiB", 512),
        ("2MB/s", 2_000_000),
    ],
)  # fmt: skip
def test_rates(text: str, size: int) -> None:
    assert values.rate(text) == size


@given(st.text(min_size=1))
def test_any_text_is_a_value_or_rejected(text: str) -> None:
    for parse in (
        values.boolean,
        values.rate,
        values.host_ports,
        values.listen,
        values.status,
        values.trackers,
        values.daemon,
        values.log_level,
    ):
        try:
            parse(text)
        except values.Rejected as error:
            assert str(error).startswith("accepted")


@given(st.integers(1, 65535), st.ip_addresses())
def test_addresses_round_trip(port: int, address: object) -> None:
    written = str(values.HostPort(str(address), port))
    assert values.host_port(written) == (str(address), port)


def test_every_key_has_a_field(home: Path) -> None:
    names = {
        "log": "log_level",
        "max_up": "max_up_bytes_s",
        "max_down": "max_down_bytes_s",
        "idle_exit": "idle_exit_s",
    }
    assert {names.get(key, key) for key in CONFIG_KEYS} <= set(Settings.__dataclass_fields__)
