"""Azure Blob Storage: Arrow reads and lists it, Azure's own client writes it.

Arrow's output stream makes an empty blob first and fills it when it is closed: a killed process
would leave an empty receipt, and ``plan.json`` would be empty while it is replaced.  The stream
here shows a blob when it is whole: up to 16 MiB in one Put Blob, above that as blocks, which
nobody sees until the list of blocks is committed.  Azure removes uncommitted blocks after a week.

Source: Azure Storage REST reference, "Put Blob" and "Put Block List".
"""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from cfray.errors import ConfigError
from cfray.runtime.sdk import import_sdk
from cfray.runtime.wrapped_filesystem import WrappedFileSystem

#: Environment variables, as Lance reads them.  The endpoint is needed where it is not the public
#: cloud's, and names the account: ``http://127.0.0.1:10000/devstoreaccount1``,
#: ``https://account.blob.core.usgovcloudapi.net``.
ACCOUNT, KEY = "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"
ENDPOINT = "AZURE_STORAGE_ENDPOINT"
#: Bytes that are sent at once.  A blob has 50,000 blocks at most: 780 GiB.
BLOCK = 16 * 2**20
#: Seconds to connect, and seconds of silence in an answer.
_CONNECT_TIMEOUT, _READ_TIMEOUT = 10, 60


@dataclass(frozen=True, slots=True)
class Account:
    """A storage account as the environment names it.

    Attributes:
        name: of the account.
        key: one of its two access keys.
        endpoint: URL of its Blob service, the account included.
    """

    name: str
    key: str = field(repr=False)
    endpoint: str

    @property
    def arrow_services(self) -> dict[str, str]:
        """Give Arrow the addresses of the Blob and the Data Lake service.

        Arrow puts the account before an authority that begins with a dot, and behind any other.
        """
        scheme, authority = urlsplit(self.endpoint)[:2]
        names_account = authority.startswith(f"{self.name}.")
        blob = authority.removeprefix(self.name) if names_account else authority
        dfs = blob.replace(".blob.", ".dfs.", 1) if names_account else blob
        return {
            "blob_storage_authority": blob,
            "blob_storage_scheme": scheme,
            "dfs_storage_authority": dfs,
            "dfs_storage_scheme": scheme,
        }


def read_account() -> Account:
    """Read the account from the environment.

    Raises:
        ConfigError: it names no account or no key.
    """
    missing = [name for name in (ACCOUNT, KEY) if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"an az:// location needs a storage account and its key: {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set",
            f"export {ACCOUNT} and {KEY}, on the driver and on every worker",
        )
    try:
        base64.b64decode(os.environ[KEY], validate=True)
    except ValueError:
        raise ConfigError(
            f"{KEY} is no key of a storage account, which is text in Base64",
            f"correct {KEY}; a connection string or a SAS token is not taken",
        ) from None
    name = os.environ[ACCOUNT]
    endpoint = os.environ.get(ENDPOINT) or f"https://{name}.blob.core.windows.net"
    return Account(name, os.environ[KEY], endpoint.rstrip("/"))


def lance_options() -> dict[str, str]:
    """Give Lance the endpoint; it reads the account and the key from the environment itself."""
    endpoint = os.environ.get(ENDPOINT, "").rstrip("/")
    if not endpoint:
        return {}
    return {
        "azure_endpoint": endpoint,
        "allow_http": str(endpoint.startswith("http://")).lower(),
    }


def open_azure(uri: str) -> tuple[pafs.FileSystem, str]:
    """Open the filesystem of an ``az://`` URI.

    Returns:
        The containers of the account, and the path in them.

    Raises:
        ConfigError: the URI is not ``az://CONTAINER/PATH``, or the environment names no account.
    """
    path = uri.removeprefix("az://").rstrip("/")
    if not path or path.startswith("/") or not {"?", "#", "@"}.isdisjoint(path):
        raise ConfigError(
            "an az:// location is az://CONTAINER/PATH; this one lacks the container, or has an "
            "account or a query in it",
            f"name the account in {ACCOUNT}; write special characters as %XX",
        )
    return _open_account(read_account()), unquote(path)


@cache
def _open_account(account: Account) -> pafs.FileSystem:
    try:
        system = pafs.AzureFileSystem(
            account.name, account_key=account.key, **account.arrow_services
        )
    except (pa.ArrowInvalid, ValueError, OSError):
        # Arrow's words may quote the key
        raise ConfigError(
            f"Arrow cannot open the storage account that {ACCOUNT} and {ENDPOINT} name",
            f"correct {ENDPOINT}: http://HOST:PORT/ACCOUNT or https://ACCOUNT.blob.DOMAIN",
        ) from None
    return pafs.PyFileSystem(_Containers(account, system))


@cache
def open_client(account: Account, *, retries: int = 4) -> Any:
    """Open Azure's client of an account, which threads may share.

    Args:
        account: of the environment.
        retries: how often a request is sent again that got no answer.

    Raises:
        ConfigError: the client library is not installed.
    """
    blob = import_sdk("azure.storage.blob", "azure")
    return blob.BlobServiceClient(
        account.endpoint,
        credential={"account_name": account.name, "account_key": account.key},
        retry_policy=blob.ExponentialRetry(
            initial_backoff=1, increment_base=2, retry_total=retries
        ),
        connection_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        max_single_put_size=BLOCK,
    )


def describe_azure_error(error: Exception) -> str:
    """Give the code of an error of Azure's client: its text repeats what was to be signed."""
    code = getattr(error, "error_code", None)
    status = getattr(error, "status_code", None)
    return str(getattr(code, "value", code) or status or type(error).__name__)


class _Containers(WrappedFileSystem):
    """The containers of an account, whose blobs appear whole."""

    def __init__(self, account: Account, system: pafs.FileSystem) -> None:
        super().__init__(system)
        self._account = account

    def get_file_info(self, paths: Sequence[str]) -> list[pafs.FileInfo]:
        """See the folder ``x`` also where there is a name such as ``x.cfray``.

        That sorts before ``x/``, and Arrow 26 looks at the first name only.
        """
        return [self._look_again(info) for info in super().get_file_info(paths)]

    def _look_again(self, info: pafs.FileInfo) -> pafs.FileInfo:
        if info.type == pafs.FileType.NotFound:
            selector = pafs.FileSelector(info.path, allow_not_found=True)
            if self.system.get_file_info(selector):
                return pafs.FileInfo(info.path, pafs.FileType.Directory)
        return info

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        """Open a blob that appears when it is closed."""
        container, _, name = path.partition("/")
        client = open_client(self._account).get_blob_client(container, name)
        return pa.PythonFile(_Upload(client), mode="w")


class _Upload:
    """A blob that appears when it is closed; one that is dropped unclosed never appears.

    No ``io.IOBase``, which would close it when it is dropped.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._pending = bytearray()
        self._blocks: list[Any] = []
        #: Names the blocks of this upload: two writers of one blob never mix theirs.
        self._nonce = uuid.uuid4().hex
        self._size = 0
        self.closed = False

    def write(self, data: pa.Buffer | bytes) -> int:
        """Take bytes; send those that fill blocks."""
        view = memoryview(data)
        self._pending += view
        self._size += view.nbytes
        while len(self._pending) > BLOCK:
            self._send_block(bytes(self._pending[:BLOCK]))
            del self._pending[:BLOCK]
        return int(view.nbytes)

    def tell(self) -> int:
        """Give the bytes that were taken."""
        return self._size

    def flush(self) -> None:
        """Do nothing: what was sent is not seen before the end."""

    def close(self) -> None:
        """Make the blob appear with all that was written."""
        if self.closed:
            return
        self.closed = True
        if not self._blocks:
            body = bytes(self._pending)
            _call(lambda: self._client.upload_blob(body, length=len(body), overwrite=True))
            return
        self._send_block(bytes(self._pending))
        _call(lambda: self._client.commit_block_list(self._blocks))

    def _send_block(self, body: bytes) -> None:
        # Azure wants names of one length within a blob
        name = base64.b64encode(f"{self._nonce}{len(self._blocks):06d}".encode()).decode()
        _call(lambda: self._client.stage_block(name, body, length=len(body)))
        self._blocks.append(import_sdk("azure.storage.blob", "azure").BlobBlock(name))


def _call(request: Any) -> None:
    """Send a request; its error becomes an ``OSError``, as Arrow's filesystems raise it."""
    errors = import_sdk("azure.core.exceptions", "azure")
    try:
        request()
    except errors.AzureError as error:
        raise OSError(f"Azure Blob Storage: {describe_azure_error(error)}") from None
