"""Device detection: records by User-Agent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.errors import ConfigError
from edge.settings import DeviceDetection
from edge.stores.devices import Devices
from edge.stores.records import signature


def test_records_of_the_file_and_before_them_those_of_settings(tmp_path: Path) -> None:
    path = tmp_path / "devices.json"
    path.write_text('{"a": {"device": {"name": "ä"}}, "b": {"device": {"is_mobile": true}}}')
    devices = Devices.load(DeviceDetection(file=path, user_agents={"b": '{"device": {}}'}))
    found = devices.lookup("a")
    assert found is not None
    assert json.loads(found) == {"device": {"name": "ä"}}
    assert devices.lookup("b") == b'{"device":{}}'
    assert devices.signature == signature(path)


def test_only_the_exact_text_is_known() -> None:
    devices = Devices.load(DeviceDetection(user_agents={"Phone/1": "{}"}))
    assert devices.lookup("Phone/1") == b"{}"
    for agent in ("phone/1", "Phone/1 ", "Phone", ""):
        assert devices.lookup(agent) is None


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "{" * 100_000, '{"a": {"x": Infinity}}'])
def test_what_is_no_file_of_records_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "devices.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"device_detection: .*devices\.json"):
        Devices.load(DeviceDetection(file=path))
    with pytest.raises(ConfigError, match="No such file"):
        Devices.load(DeviceDetection(file=tmp_path / "absent.json"))
