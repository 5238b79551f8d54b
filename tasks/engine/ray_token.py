"""The secret that Ray's processes ask each other for: whoever has it can run code as this user."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bfr_models.errors import UsageError

PROBE_TIMEOUT = 5.0  # seconds; the cluster has answered a moment ago
OPEN_CLUSTER = (
    "the Ray cluster at {address} asks its callers for no token, so anyone who reaches it can run code on it with this "
    "run's credentials; start it with RAY_AUTH_MODE=token, or say with --allow-open-cluster that this is known"
)


def prepare_token() -> None:
    """Makes the token of this machine's own clusters before Ray does, which lets every user read its file."""
    ray_made = Path("~/.ray/auth_token").expanduser()
    if ray_made.is_file() and ray_made.stat().st_uid == os.getuid():
        _hide(ray_made)
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if os.environ.get("RAY_AUTH_MODE") == "token" and path and not os.environ.get("RAY_AUTH_TOKEN"):
        _require_private(Path(path))


def _require_private(path: Path) -> None:
    """Makes the file, or closes one that others can read."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
            with suppress(FileExistsError):  # another run may have been first: there is one token for all
                os.link(temporary, path)
        finally:
            temporary.unlink()
        _hide(path)
    except OSError as error:
        raise UsageError(
            f"expected a place for Ray's token at {path}, found none ({error.strerror}); name another file in "
            "RAY_AUTH_TOKEN_PATH, or set the token itself as RAY_AUTH_TOKEN"
        ) from error


def _hide(path: Path) -> None:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o600)


def is_open(address: str) -> bool:
    """Whether the cluster at a `host:port` or `ray://host:port` answers a caller who shows no token.

    False also where it cannot be found out, as with mutual TLS, which lets in nobody without a certificate.
    """
    import grpc

    method, request, options = _harmless_question(address)
    with grpc.insecure_channel(address.removeprefix("ray://"), options=options) as channel:
        try:
            method(channel)(request, timeout=PROBE_TIMEOUT)
        except grpc.RpcError:
            return False
    return True


def _harmless_question(address: str) -> tuple[Callable[[Any], Callable[..., Any]], Any, list[tuple[str, int]]]:
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc, ray_client_pb2, ray_client_pb2_grpc

    direct = [("grpc.enable_http_proxy", 0)]
    if address.startswith("ray://"):
        request = ray_client_pb2.ClusterInfoRequest(type=ray_client_pb2.ClusterInfoType.PING)
        return lambda channel: ray_client_pb2_grpc.RayletDriverStub(channel).ClusterInfo, request, direct
    stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub
    return lambda channel: stub(channel).CheckAlive, gcs_service_pb2.CheckAliveRequest(), direct
