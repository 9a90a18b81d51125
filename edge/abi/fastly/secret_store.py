"""`fastly_secret_store`: secrets, whose values leave the host through `plaintext` only."""

from __future__ import annotations

from typing import Annotated

from edge.abi.codec import Bytes, Handle, Out, Str
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import Missing
from edge.model.secret import Secret
from edge.stores.secret_store import SecretStore, check_name

abi = HostModule("fastly_secret_store", FASTLY)

_OVERHEAD = 128  # a Secret, its bytes object, a table entry

Store = Annotated[SecretStore, Handle(SecretStore)]
SecretHandle = Annotated[Secret, Handle(Secret)]


@abi.hostcall
def open_(box: Sandbox, name: Str) -> Store:
    """Open a store by name; NONE when the service has none of that name."""
    secrets = box.service.secret_stores.get(check_name(name))
    if secrets is None:
        raise Missing("no such secret store in this service")
    return SecretStore(secrets)


@abi.hostcall
def get(box: Sandbox, store: Store, name: Str) -> SecretHandle:
    """A handle of a secret; NONE when the store has none of that name."""
    secret = store.lookup(name)
    if secret is None:
        raise Missing("no such secret in this store")
    return secret


@abi.hostcall
def plaintext(box: Sandbox, secret: SecretHandle, value: Out) -> None:
    """The value of a secret."""
    value.fill(secret.reveal())


@abi.hostcall
def from_bytes(box: Sandbox, value: Bytes) -> SecretHandle:
    """Make a secret of the guest's own bytes, at most 65,535."""
    box.hold(len(value) + _OVERHEAD)
    return Secret(value)
