"""Object store keys in a Prefect block: a run's settings hold the name of the block, never its contents."""

from __future__ import annotations

import os
from typing import Any

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from bfr_models.errors import UsageError


class StoreCredentials(Block):
    """Keys of an S3 store, which a run puts into the environment of its processes."""

    _block_type_name = "BFR store credentials"
    _block_type_slug = "bfr-store-credentials"

    access_key_id: str
    secret_access_key: SecretStr
    session_token: SecretStr | None = None
    endpoint_url: str | None = Field(None, description="of a store that is not Amazon's")
    region: str | None = None

    def environment(self) -> dict[str, str]:
        """The variables that every S3 tool reads."""
        found = {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key.get_secret_value(),
            "AWS_SESSION_TOKEN": self.session_token and self.session_token.get_secret_value(),
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": self.region,
        }
        return {name: value for name, value in found.items() if value}


def load_credentials(name: str) -> StoreCredentials:
    """The block of that name. Raises UsageError, which says how to make it, if there is none."""
    try:
        found: Any = StoreCredentials.load(name)
    except ValueError as error:
        raise UsageError(
            f"expected a Prefect block {StoreCredentials._block_type_slug}/{name}, found none ({error}); make it in "
            "Prefect's UI (Blocks), or in Python: StoreCredentials(...).save(name)"
        ) from None
    credentials: StoreCredentials = found
    return credentials


def use_credentials(name: str | None) -> None:
    """Uses the keys of that block from here on, in this process and in those it starts; its endpoint, or else the one
    that is there."""
    if name is not None:
        found = load_credentials(name).environment()
        os.environ.pop("AWS_SESSION_TOKEN", None)  # it would belong to other keys
        if "AWS_ENDPOINT_URL" in found:
            os.environ.pop("AWS_ENDPOINT_URL_S3", None)  # it would go before the block's
        os.environ.update(found)
