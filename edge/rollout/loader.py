"""From the catalogue to versions that can be built: in one transaction, so that they fit together.

Holds what a definition is read with besides: default limits, ceilings and settings.  A reload
replaces those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.catalogue import services, versions
from edge.catalogue.database import Transaction
from edge.catalogue.packages import PackageStore
from edge.errors import ApiRefused, Refusal
from edge.model.parse import Config
from edge.model.service import Role
from edge.rollout import definition
from edge.rollout.wanted import Serving, Wanted


@dataclass(slots=True)
class Loader:
    """One per server; `config` is that of the last reload."""

    config: Config
    packages: PackageStore

    def load(
        self, tx: Transaction, service_id: str, serving: Serving, *, stores: bool = True
    ) -> list[Wanted]:
        """What is wanted of one service; without `stores` for who asks for its routes alone.

        ApiRefused when a version is not there or not whole.
        """
        name = services.get(tx, service_id).name
        found: list[Wanted] = []
        for number, role, share in serving.roles():
            record = versions.get(tx, service_id, number)
            if record.package is None:
                raise ApiRefused(
                    Refusal.NO_PACKAGE,
                    f"version {number} of {name} has no package; upload one first",
                )
            loaded = definition.load(
                tx,
                service_id,
                number,
                packages=self.packages,
                settings=self.config.settings,
                defaults=self.config.limits,
                ceilings=self.config.ceilings,
                routed=role is Role.ACTIVE,
                stores=stores,
            )
            found.append(
                Wanted(
                    service_id,
                    loaded.service,
                    number,
                    role,
                    share,
                    record.package.sha256,
                    record.revision,
                    loaded.warnings,
                )
            )
        return found

    def refuse_changed(self, tx: Transaction, wanted: Sequence[Wanted]) -> None:
        """ApiRefused CONFLICT when a version is no longer what was built of it."""
        for each in wanted:
            if versions.get(tx, each.id, each.number).revision != each.revision:
                raise ApiRefused(
                    Refusal.CONFLICT,
                    f"version {each.number} of {each.service.name} was changed while it was being "
                    "activated; nothing was activated, try again",
                )
