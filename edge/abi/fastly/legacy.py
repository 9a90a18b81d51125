"""The module `env` with the oldest names of the ABI: `env.xqd_req_new` is `fastly_http_req.new`."""

from __future__ import annotations

from collections.abc import Mapping

from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule

# module -> prefix of the older names -> functions that had one
_ALIASES = {
    "fastly_abi": {"xqd_": "init"},
    "fastly_http_body": {"xqd_body_": "append new read write close"},
    "fastly_log": {"xqd_log_": "endpoint_get write"},
    "fastly_http_req": {
        "xqd_req_": (
            "body_downstream_get cache_override_set downstream_client_ip_addr "
            "downstream_client_request_id downstream_tls_cipher_openssl_name "
            "downstream_tls_protocol downstream_tls_client_hello new header_names_get "
            "original_header_names_get original_header_count header_value_get "
            "header_values_get header_values_set header_insert header_append header_remove "
            "method_get method_set uri_get uri_set version_get version_set send send_async "
            "send_async_streaming"
        ),
        "xqd_": "pending_req_poll pending_req_wait pending_req_select",
    },
    "fastly_http_resp": {
        # `send_downstream` is our addition to the documented fifty: without it no guest that
        # speaks only these names could answer.
        "xqd_resp_": (
            "new header_names_get header_value_get header_values_get header_values_set "
            "header_insert header_append header_remove version_get version_set status_get "
            "status_set send_downstream"
        ),
    },
}


def legacy_module(modules: Mapping[str, HostModule]) -> HostModule:
    """`env`, made of the hostcalls of the given modules."""
    env = HostModule("env", FASTLY)
    for module, prefixes in _ALIASES.items():
        for prefix, names in prefixes.items():
            for name in names.split():
                env.alias(prefix + name, modules[module].hostcalls[name])
    close = modules["fastly_http_body"].hostcalls["close"]
    env.alias("xqd_body_close_downstream", close)
    return env
