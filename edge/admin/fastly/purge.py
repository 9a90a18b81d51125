"""Purging, as Fastly's API has it.  There is no cache yet, so that everything is gone already."""

from __future__ import annotations

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.fastly.shape import Form, answer, done, endpoint, read_form
from edge.catalogue import services
from edge.catalogue.ids import new_id
from edge.catalogue.records import Scope, ServiceRecord
from edge.errors import ApiRefused, Refusal

_MOST_KEYS = 256  # of one call, as Fastly has it


def routes(around: Around) -> list[Route]:
    """The endpoints."""
    here = _Purges(around)
    return [
        endpoint("POST", "/service/{service}/purge_all", here.everything, Scope.PURGE),
        endpoint("POST", "/service/{service}/purge", here.keys, Scope.PURGE),
        endpoint("POST", "/service/{service}/purge/{key}", here.key, Scope.PURGE),
        endpoint("POST", "/purge/{url...}", here.url, Scope.PURGE, confined=True),
    ]


class _Purges:
    def __init__(self, around: Around) -> None:
        self._around = around

    async def everything(self, call: Call) -> Reply:
        await self._find(call)
        return done()

    async def key(self, call: Call) -> Reply:
        await self._find(call)
        return answer({"status": "ok", "id": new_id()})

    async def url(self, call: Call) -> Reply:
        """One URL, whichever service answers it."""
        return answer({"status": "ok", "id": new_id()})

    async def keys(self, call: Call) -> Reply:
        """Those of the field Surrogate-Key, or of the body; each with the id of its purge."""
        await self._find(call)
        named = (call.headers("surrogate-key") or "").split()
        if not named:
            form: Form = await read_form(call)
            named = form.texts("surrogate_keys")
        if not 1 <= len(named) <= _MOST_KEYS:
            raise ApiRefused(
                Refusal.INVALID, f"name 1 to {_MOST_KEYS} keys in Surrogate-Key, not {len(named)}"
            )
        return answer({key: new_id() for key in named})

    async def _find(self, call: Call) -> ServiceRecord:
        return await self._around.catalogue.read(
            lambda tx: services.find(tx, call.params["service"])
        )
