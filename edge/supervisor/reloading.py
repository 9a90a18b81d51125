"""What a reload may change and what it leaves for a restart.  Pure."""

from __future__ import annotations

from dataclasses import fields, replace

from edge.control import Sizing
from edge.errors import ConfigError, Problem
from edge.model.limits import Limits
from edge.model.parse import Config
from edge.settings import Settings


def check_ceilings(config: Config, size: Sizing) -> None:
    """The pool was made for the ceilings of the start; more than those needs a new one."""
    problems = [
        Problem(f"services.{service.name}.limits.{name}", f"{value} needs a restart: the pool was "
                f"made for at most {most}")
        for service in config.services
        for name, value, most in (
            ("memory", service.limits.memory, size.memory_ceiling),
            ("table_elements", service.limits.table_elements, size.table_ceiling),
        )
        if value > most
    ]  # fmt: skip
    if problems:
        raise ConfigError(*problems)


def reloaded(old: Settings, new: Settings) -> Settings:
    """The settings of before with those groups of the new ones that a snapshot carries."""
    return replace(
        old,
        egress=new.egress,
        geolocation=new.geolocation,
        device_detection=new.device_detection,
        shielding_sites=new.shielding_sites,
    )


def differing(old: Settings, new: Settings) -> list[str]:
    """Groups of settings that differ."""
    return [
        item.name for item in fields(Settings) if getattr(old, item.name) != getattr(new, item.name)
    ]


def clamped(config: Config, size: Sizing) -> Config:
    """A document whose limits fit the pool, for services that are deployed under it."""

    def fitting(limits: Limits) -> Limits:
        return replace(
            limits,
            memory=min(limits.memory, size.memory_ceiling),
            table_elements=min(limits.table_elements, size.table_ceiling),
        )

    return replace(config, limits=fitting(config.limits), ceilings=fitting(config.ceilings))
