"""The signal handlers, which commands replace."""

from tests.flows.conftest import signals

__all__ = ["signals"]
