"""Where a setting's value comes from, and what is refused."""

import re
from pathlib import Path

import pytest

from novacron.core.settings import KNOWN, SettingsError, config_dir, load, variable_of

DOCUMENT = Path(__file__).parents[2] / "docs/settings.md"


def source_of(loaded, key):
    return next((e.value, e.source) for e in loaded.explain() if e.key == key)


def write(directory: Path, text: str) -> dict[str, str]:
    """An environment whose configuration folder holds this file."""
    (directory / "novacron.toml").write_text(text)
    return {"NOVACRON_CONFIG_DIR": str(directory)}


def test_without_anything_every_value_is_the_default(tmp_path):
    loaded = load(environment={"HOME": str(tmp_path)})
    assert {e.source for e in loaded.explain()} == {"default"}
    assert loaded.settings.controller.api == "127.0.0.1:8080"


def test_flags_win_over_variables_over_the_file_over_defaults(tmp_path):
    environment = write(tmp_path, '[controller]\napi = "f:1"\nlisten = "f:2"\ncluster = "from-file"\n')
    environment |= {"NOVACRON_CONTROLLER_API": "v:1", "NOVACRON_CONTROLLER_LISTEN": "v:2"}
    loaded = load(flags={"controller.api": "g:1", "controller.listen": None}, environment=environment)
    assert source_of(loaded, "controller.api") == ("g:1", "flag")
    assert source_of(loaded, "controller.listen") == ("v:2", "variable NOVACRON_CONTROLLER_LISTEN")
    assert source_of(loaded, "controller.cluster") == ("from-file", f"file {tmp_path / 'novacron.toml'}")
    assert source_of(loaded, "controller.advertise") == ("", "default")


def test_a_variable_of_the_client_carries_no_section():
    assert variable_of("client.context") == "NOVACRON_CONTEXT"
    assert load(environment={"NOVACRON_CONTEXT": "site-b", "HOME": "/nonexistent"}).settings.client.context == "site-b"


def test_a_number_in_a_variable_becomes_a_number(tmp_path):
    loaded = load(environment={"HOME": str(tmp_path), "NOVACRON_MIGRATE_STREAMS": "4"})
    assert loaded.settings.migrate.streams == 4


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[controller]\napy = "x"\n', "controller.api"),
        ('[controler]\napi = "x"\n', "controller.api"),
        ('api = "x"\n', "controller.api"),
    ],
)
def test_an_unknown_key_of_the_file_is_refused_with_the_nearest_name(tmp_path, text, named):
    with pytest.raises(SettingsError, match=re.escape(named)) as refused:
        load(environment=write(tmp_path, text))
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "text", ["[migrate]\nstreams = 17\n", '[client]\noutput = "xml"\n', "[migrate]\nstreams = {}\n"]
)
def test_a_value_that_cannot_be_is_refused_by_key(tmp_path, text):
    with pytest.raises(SettingsError, match=r"(migrate\.streams|client\.output) cannot be"):
        load(environment=write(tmp_path, text))


def test_a_file_that_is_no_toml_says_where_it_is(tmp_path):
    with pytest.raises(SettingsError, match="is not TOML"):
        load(environment=write(tmp_path, "[["))


def test_a_file_that_was_named_must_be_there(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load(environment={"NOVACRON_CONFIG": str(tmp_path / "none.toml")})


def test_an_unknown_variable_is_named_and_does_no_harm(tmp_path):
    loaded = load(environment={"HOME": str(tmp_path), "NOVACRON_CONTROLLER_APY": "x", "NOVACRON_ZZZZ": "1"})
    assert loaded.unknown_variables == {"NOVACRON_CONTROLLER_APY": "NOVACRON_CONTROLLER_API", "NOVACRON_ZZZZ": ""}


def test_an_unknown_flag_is_refused():
    with pytest.raises(SettingsError, match="not a setting"):
        load(flags={"controller.nothing": 1}, environment={"HOME": "/nonexistent"})


def test_the_configuration_folder_follows_the_variables():
    assert config_dir({"NOVACRON_CONFIG_DIR": "/c"}) == Path("/c")
    assert config_dir({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x/novacron")
    assert config_dir({"HOME": "/h"}) == Path("/h/.config/novacron")


def test_every_setting_is_documented_with_its_variable():
    text = DOCUMENT.read_text()
    missing = [key for key in KNOWN if f"`{key}`" not in text or f"`{variable_of(key)}`" not in text]
    assert missing == []
