"""The settings page matches the code, what it prints parses, and the shipped config is good."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.model.documented import SettingField, documented
from edge.model.limits import DEFAULT_CEILINGS, Limits
from edge.model.parse import Config, parse_config
from edge.model.reference import render, written
from edge.settings import Kind, Settings

ROOT = Path(__file__).parent.parent


def leaves(cls: type, path: str = "") -> list[tuple[str, SettingField]]:
    found: list[tuple[str, SettingField]] = []
    for item in documented(cls):
        where = f"{path}{item.name}"
        if item.about.kind is Kind.GROUP:
            found += leaves(item.type, f"{where}.")
        else:
            found.append((where, item))
    return found


EVERY = leaves(Settings) + leaves(Limits, "limits.")


def nested(path: str, value: str) -> str:
    *groups, name = path.split(".")
    opening = "".join(f"{{{group}: " for group in groups)
    return f"{opening}{{{name}: {value}}}{'}' * len(groups)}"


def at(config: Config, path: str) -> object:
    value: object = config if path.startswith("limits.") else config.settings
    for name in path.split("."):
        value = getattr(value, name)
    return value


def parse(text: str) -> Config:
    return parse_config(text, source="page", base=Path(), env={})


def test_the_page_is_what_the_definitions_say() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == render(), "run: python -m edge.model.reference > docs/settings.md"


@pytest.mark.parametrize(("path", "item"), EVERY, ids=[path for path, _ in EVERY])
def test_every_default_on_the_page_parses_to_itself(path: str, item: SettingField) -> None:
    nothing = "{}" if isinstance(item.default, dict) else "[]"
    shown = f'"{text}"' if (text := written(item, item.default)) else nothing
    assert f"`{path}`" in render()
    assert at(parse(nested(path, shown)), path) == item.default


@pytest.mark.parametrize(("path", "item"), EVERY, ids=[path for path, _ in EVERY])
def test_every_example_on_the_page_parses(path: str, item: SettingField) -> None:
    if item.about.example:
        parse(nested(path, item.about.example))
    assert item.about.meaning.endswith(".")


def test_every_bound_on_the_page_is_accepted_and_the_next_step_is_not_needed() -> None:
    for path, item in EVERY:
        for bound in (item.about.least, item.about.most):
            if bound is None:
                continue
            whole = item.about.kind in (Kind.BYTES, Kind.COUNT)
            text = written(item, int(bound) if whole else bound)
            document = nested(path, text)
            if path.startswith("limits."):  # out of the ceiling's way
                document = f"{document[:-1]}, ceilings: {{{item.name}: {text}}}}}"
            assert at(parse(document), path) == bound


def test_every_default_lies_within_its_bounds_and_its_ceiling() -> None:
    for path, item in EVERY:
        if item.default is None or item.about.least is None or item.about.most is None:
            continue
        assert isinstance(item.default, (int, float)), path
        assert item.about.least <= item.default <= item.about.most, path
    for item in documented(Limits):
        assert item.default <= getattr(DEFAULT_CEILINGS, item.name), item.name


def test_every_key_of_a_service_has_an_example_that_parses() -> None:
    parse(
        "services: {a: {module: services/hello.wat, routes: [{host: '*', path: /}], limits: {}, "
        "env: {GREETING: hello}, config_stores: {flags: {banner: blue}}, log_endpoints: [audit], "
        "family: auto, unknown_imports: refuse, server_timing: false, "
        "backends: {origin: {url: https://origin.example.com}}, kv_stores: [cart, sessions], "
        "acls: {blocked: [{prefix: 203.0.113.0/24, action: BLOCK}]}}}"
    )


def test_the_shipped_configuration_is_good_and_its_module_is_there() -> None:
    path = ROOT / "config" / "edge.yaml"
    config = parse_config(path.read_text(), source=path.name, base=path.parent, env={})
    (hello,) = config.services
    assert hello.module.is_file()
    assert (hello.routes[0].host, hello.routes[0].path) == ("*", "/")
    assert config.settings.server.listen[0].port == 8080
