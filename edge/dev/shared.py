"""What all services of a `fastly.toml` share: places of addresses, devices, shield sites."""

from __future__ import annotations

from functools import partial

from edge.dev import stores
from edge.dev.tables import Table, Tables
from edge.model.backend_reader import read_origin
from edge.settings import DeviceDetection, Geolocation, ShieldSite


def geolocation(tables: Tables, table: Table, path: str) -> Geolocation:
    """Viceroy's two formats, and `format = "mmdb"` with a MaxMind database."""
    tables.check_keys(table, ("use_default_loopback", "format", "addresses", "file"), path)
    if "format" not in table:
        return Geolocation()
    if table["format"] == "mmdb":
        name = tables.required(table, "file", path)
        if name is None or tables.file(name, f"{path}.file") is None:
            return Geolocation()
        return Geolocation(file=tables.base / name)
    return Geolocation(addresses=stores.records(tables, table, "addresses", path))


def device_detection(tables: Tables, local: Table, path: str) -> DeviceDetection:
    """Records by the text of a User-Agent."""
    if "device_detection" not in local:
        return DeviceDetection()
    path = f"{path}.device_detection"
    table = tables.table(local["device_detection"], path)
    tables.check_keys(table, ("format", "user_agents", "file"), path)
    return DeviceDetection(user_agents=stores.records(tables, table, "user_agents", path))


def shielding_sites(tables: Tables, local: Table, path: str) -> dict[str, ShieldSite]:
    """`"local"`, or `{encrypted = URL, unencrypted = URL}`."""
    found: dict[str, ShieldSite] = {}
    for name, value in tables.part(local, "shielding_sites", path).items():
        where = f"{path}.shielding_sites.{name}"
        if isinstance(value, str):
            if value.lower() != "local":
                tables.problem(where, 'must be "local" or {encrypted = URL, unencrypted = URL}')
            found[name] = ShieldSite(local=True)
            continue
        table = tables.table(value, where)
        tables.check_keys(table, ("encrypted", "unencrypted"), where)
        urls = [_url(tables, table, key, where) for key in ("encrypted", "unencrypted")]
        found[name] = ShieldSite(False, *urls)
    return found


def _url(tables: Tables, table: Table, key: str, path: str) -> str:
    text = tables.required(table, key, path)
    if text is None:
        return ""
    origin = tables.attempt(f"{path}.{key}", partial(read_origin, text))
    return str(origin) if origin is not None else ""
