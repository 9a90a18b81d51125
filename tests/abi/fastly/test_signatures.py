"""The derived signatures against the table typed from the public ABI, and what is not built."""

from __future__ import annotations

from edge.abi.fastly.modules import FASTLY_MODULES
from tests.abi.fastly.golden import BEYOND, GOLDEN, LEGACY

DERIVED = {
    module.name: {name: call.signature for name, call in module.hostcalls.items()}
    for module in FASTLY_MODULES
}
# Ours besides the documented fifty: a guest that knows only these names must be able to answer.
EXTRA_LEGACY = {"xqd_resp_send_downstream": "iii"}


def test_the_golden_table_is_complete() -> None:
    assert len(GOLDEN) == 24
    assert all(set(names.split()) <= set(GOLDEN[module]) for module, names in BEYOND.items())
    beyond = sum(len(names.split()) for names in BEYOND.values())
    assert beyond == 4
    assert sum(len(functions) for functions in GOLDEN.values()) - beyond == 251
    assert len(LEGACY) == 50


def test_every_function_links_with_the_signature_of_the_abi() -> None:
    assert {name: calls for name, calls in DERIVED.items() if name != "env"} == GOLDEN


def test_every_legacy_name_links_with_its_signature() -> None:
    assert DERIVED["env"] == LEGACY | EXTRA_LEGACY


def test_every_function_returns_a_status_and_says_what_it_does() -> None:
    for module in FASTLY_MODULES:
        for name, call in module.hostcalls.items():
            assert call.returns == "i", f"{module.name}.{name}"
            assert call.doc or call.unsupported, f"{module.name}.{name} has no docstring"


def test_what_may_wait_is_linked_as_suspending_and_nothing_else_is() -> None:
    suspending = {
        f"{module.name}.{name}"
        for module in FASTLY_MODULES
        for name, call in module.hostcalls.items()
        if call.suspends
    }
    assert suspending == {
        "fastly_async_io.select",
        "fastly_geo.lookup",
        "fastly_http_body.append",
        "fastly_http_body.read",
        "fastly_http_body.write",
        "fastly_http_downstream.next_request_wait",
        "fastly_http_req.pending_req_select",
        "fastly_http_req.pending_req_select_v2",
        "fastly_http_req.pending_req_wait",
        "fastly_http_req.pending_req_wait_v2",
        "fastly_http_req.send",
        "fastly_http_req.send_v2",
        "fastly_http_req.send_v3",
        "fastly_kv_store.delete_wait",
        "fastly_kv_store.insert",
        "fastly_kv_store.insert_wait",
        "fastly_kv_store.list_wait",
        "fastly_kv_store.lookup_wait",
        "fastly_kv_store.lookup_wait_v2",
        "fastly_object_store.insert",
        "fastly_object_store.insert_async",
        "fastly_object_store.lookup",
        "fastly_object_store.pending_delete_wait",
        "fastly_object_store.pending_insert_wait",
        "fastly_object_store.pending_lookup_wait",
        "env.xqd_body_append",
        "env.xqd_body_read",
        "env.xqd_body_write",
        "env.xqd_pending_req_select",
        "env.xqd_pending_req_wait",
        "env.xqd_req_send",
    }


# Whole modules that only answer UNSUPPORTED, and single functions of the others.
NOT_BUILT_MODULES = {
    "fastly_cache",
    "fastly_http_cache",
    "fastly_purge",
    "fastly_image_optimizer",
}
NOT_BUILT_FUNCTIONS = {
    "fastly_http_req": "on_behalf_of redirect_to_grip_proxy redirect_to_grip_proxy_v2 inspect",
}


def test_what_is_not_built_is_exactly_this() -> None:
    for module in FASTLY_MODULES:
        unsupported = {name for name, call in module.hostcalls.items() if call.unsupported}
        if module.name in NOT_BUILT_MODULES:
            assert unsupported == set(module.hostcalls), module.name
        else:
            expected = set(NOT_BUILT_FUNCTIONS.get(module.name, "").split())
            assert unsupported == expected, module.name
