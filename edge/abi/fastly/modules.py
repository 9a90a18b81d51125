"""All import modules of the Fastly ABI, for whoever links guests."""

from __future__ import annotations

from edge.abi.fastly import (
    acl,
    async_io,
    backend,
    compute_runtime,
    config_store,
    device_detection,
    dictionary,
    dynamic,
    erl,
    geo,
    handoff,
    http_body,
    http_downstream,
    http_req,
    http_resp,
    image_optimizer,
    kv_store,
    log,
    object_store,
    purge,
    secret_store,
    sending,
    shielding,
    uap,
    version,
)
from edge.abi.fastly.legacy import legacy_module
from edge.abi.fastly.unsupported import NOT_BUILT, declare_not_built, module_not_built
from edge.abi.hostcall import HostModule


def _modules() -> tuple[HostModule, ...]:
    built = {
        file.abi.name: file.abi
        for file in (
            version,
            http_req,
            sending,  # three more files of `fastly_http_req`
            dynamic,
            handoff,
            http_resp,
            http_body,
            http_downstream,
            async_io,
            log,
            dictionary,
            config_store,
            secret_store,
            kv_store,
            object_store,
            compute_runtime,
            uap,
            backend,
            acl,
            geo,
            device_detection,
            erl,
            shielding,
            image_optimizer,
            purge,
        )
    }
    for name in NOT_BUILT:
        if name in built:
            declare_not_built(built[name])
        else:
            built[name] = module_not_built(name)
    return (*built.values(), legacy_module(built))


FASTLY_MODULES = _modules()
