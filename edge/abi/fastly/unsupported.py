"""Every Fastly hostcall that is not built yet: it links, and answers UNSUPPORTED.

Signatures are core wasm parameters, one letter each (`i` i32).  A feature that gets built
moves from here to its own module.
"""

from __future__ import annotations

from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule

# module -> reason -> function -> parameters
NOT_BUILT: dict[str, dict[str, dict[str, str]]] = {
    "fastly_http_req": {
        "services share no cache": {
            "on_behalf_of": "iii",
        },
        "no Pushpin is configured to hand the connection to": {
            "redirect_to_grip_proxy": "ii",
            "redirect_to_grip_proxy_v2": "iii",
        },
    },
    "fastly_cache": {
        "the cache is not built yet": {
            "lookup": "iiiii",
            "insert": "iiiii",
            "replace": "iiiii",
            "replace_insert": "iiii",
            "replace_get_age_ns": "ii",
            "replace_get_body": "iiii",
            "replace_get_hits": "ii",
            "replace_get_length": "ii",
            "replace_get_max_age_ns": "ii",
            "replace_get_stale_while_revalidate_ns": "ii",
            "replace_get_state": "ii",
            "replace_get_user_metadata": "iiii",
            "transaction_lookup": "iiiii",
            "transaction_lookup_async": "iiiii",
            "cache_busy_handle_wait": "ii",
            "transaction_insert": "iiii",
            "transaction_insert_and_stream_back": "iiiii",
            "transaction_update": "iii",
            "transaction_cancel": "i",
            "close_busy": "i",
            "close": "i",
            "get_state": "ii",
            "get_user_metadata": "iiii",
            "get_body": "iiii",
            "get_length": "ii",
            "get_max_age_ns": "ii",
            "get_stale_while_revalidate_ns": "ii",
            "get_age_ns": "ii",
            "get_hits": "ii",
        },
    },
    "fastly_http_cache": {
        "the cache is not built yet": {
            "is_request_cacheable": "ii",
            "get_suggested_cache_key": "iiii",
            "lookup": "iiii",
            "transaction_lookup": "iiii",
            "transaction_insert": "iiiii",
            "transaction_insert_and_stream_back": "iiiiii",
            "transaction_update": "iiii",
            "transaction_update_and_return_fresh": "iiiii",
            "transaction_choose_stale": "i",
            "transaction_record_not_cacheable": "iii",
            "transaction_abandon": "i",
            "close": "i",
            "get_suggested_backend_request": "ii",
            "get_suggested_cache_options": "iiiiii",
            "prepare_response_for_storage": "iiii",
            "get_found_response": "iiii",
            "get_state": "ii",
            "get_length": "ii",
            "get_max_age_ns": "ii",
            "get_stale_while_revalidate_ns": "ii",
            "get_stale_if_error_ns": "ii",
            "get_age_ns": "ii",
            "get_hits": "ii",
            "get_sensitive_data": "ii",
            "get_surrogate_keys": "iiii",
            "get_vary_rule": "iiii",
        },
    },
}


def declare_not_built(module: HostModule) -> None:
    """Add what its own file has not (yet) got to a module that is otherwise built."""
    for reason, functions in NOT_BUILT[module.name].items():
        for name, signature in functions.items():
            module.unsupported(name, signature, reason)


def module_not_built(name: str) -> HostModule:
    """A module of which nothing is built."""
    module = HostModule(name, FASTLY)
    declare_not_built(module)
    return module
