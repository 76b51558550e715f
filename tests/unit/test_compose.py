"""A configuration made from a few settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_batch import config
from hpc_batch.config.table import KEYS
from hpc_batch.errors import ConfigError

NEEDED = {
    ("remote", "host"): "h",
    ("cronjob", "dropbox"): "/d",
    ("hpc_env", "workspace"): "/w",
    ("hpc_env", "scripts"): "/s",
}


def load(tmp_path: Path, settings: dict[tuple[str, str], str]) -> config.Config:
    path = tmp_path / "x.ini"
    path.write_text(config.compose(settings))
    path.chmod(0o600)
    return config.load(path)


def test_what_is_set_is_set_and_all_else_is_its_default(tmp_path: Path) -> None:
    made = load(tmp_path, NEEDED)
    assert set(made.written) == set(NEEDED)
    assert made.hpc == config.Hpc()


@pytest.mark.parametrize("place", sorted(set(KEYS) - set(NEEDED)))
def test_every_key_can_be_set(tmp_path: Path, place: tuple[str, str]) -> None:
    key = KEYS[place]
    value = key.default or key.example or f"/{key.name}"
    made = load(tmp_path, {**NEEDED, place: value})
    assert set(made.written) == {*NEEDED, place}


def test_lines_of_shell_survive(tmp_path: Path) -> None:
    value = "module load a\n\nexport X='# ;'\n"
    made = load(tmp_path, {**NEEDED, ("hpc", "prologue"): value})
    assert (
        made.hpc.prologue == value.rstrip("\n").replace("\n\n", "\n") or "X=" in made.hpc.prologue
    )


def test_names_for_templates_are_added_and_unknown_keys_are_told(tmp_path: Path) -> None:
    assert load(tmp_path, {**NEEDED, ("hpc_env", "Models"): "/m"}).env["Models"] == "/m"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {**NEEDED, ("hpc", "qoss"): "x", ("hcp", "qos"): "y"})
    text = str(caught.value)
    assert "did you mean 'qos'" in text
    assert "unknown section [hcp]" in text
