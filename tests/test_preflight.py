"""What is tried of a configuration before anything starts."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from edge import preflight
from edge.errors import ConfigError
from edge.model.parse import Config, parse_config
from tests.support.certificates import authority
