"""Options of storage services: how obstore calls them, and how fsspec's file systems do."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Service:
    """What a kind of bucket knows.

    Parameters
    ----------
    schemes
        Of its addresses.
    names
        Option -> what obstore calls it.
    booleans
        Those of obstore's names that are yes or no.
    metadata_host
        Where a machine of that cloud gives credentials to what runs on it.
    credentials
        Names of obstore that are credentials, or say that there are none.
    variables
        Of the environment, that say the same.
    """

    schemes: tuple[str, ...]
    names: dict[str, str]
    booleans: frozenset[str] = frozenset()
    metadata_host: str = ""
    credentials: frozenset[str] = frozenset()
    variables: tuple[str, ...] = field(default=())


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


CLIENT = {
    **_same(
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "read_timeout",
        "timeout",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_url",
        "proxy_ca_certificate",
        "proxy_excludes",
        "root_certificate",
        "randomize_addresses",
        "user_agent",
    ),
    "proxy": "proxy_url",
}
"""Options of every service's connections."""
CLIENT_BOOLEANS = frozenset({"allow_http", "allow_invalid_certificates", "randomize_addresses"})
SECONDS = frozenset({"connect_timeout", "read_timeout", "timeout", "pool_idle_timeout"})
RETRY = ("max_retries", "retry_timeout")
"""How often a request is tried again, and for how many seconds after it was first sent."""

_S3 = Service(
    schemes=("s3", "s3a"),
    names={
        **_same(
            "access_key_id",
            "secret_access_key",
            "session_token",
            "endpoint",
            "region",
            "skip_signature",
            "checksum_algorithm",
            "conditional_put",
            "container_credentials_relative_uri",
            "container_credentials_full_uri",
            "container_authorization_token_file",
            "disable_tagging",
            "disable_bulk_delete",
            "metadata_endpoint",
            "request_payer",
            "role_arn",
            "role_session_name",
            "server_side_encryption",
            "sse_bucket_key_enabled",
            "sse_kms_key_id",
            "sts_endpoint",
            "unsigned_payload",
            "virtual_hosted_style_request",
            "web_identity_token_file",
        ),
        "key": "access_key_id",
        "aws_access_key_id": "access_key_id",
        "secret": "secret_access_key",
        "aws_secret_access_key": "secret_access_key",
        "token": "session_token",
        "aws_session_token": "session_token",
        "endpoint_url": "endpoint",
        "aws_endpoint_url": "endpoint",
        "region_name": "region",
        "default_region": "region",
        "aws_region": "region",
        "aws_default_region": "region",
        "anon": "skip_signature",
        "requester_pays": "request_payer",
    },
    booleans=frozenset(
        {
            "skip_signature",
            "disable_tagging",
            "disable_bulk_delete",
            "request_payer",
            "sse_bucket_key_enabled",
            "unsigned_payload",
            "virtual_hosted_style_request",
        }
    ),
    metadata_host="169.254.169.254",
    credentials=frozenset(
        {
            "access_key_id",
            "skip_signature",
            "container_credentials_relative_uri",
            "container_credentials_full_uri",
            "metadata_endpoint",
            "web_identity_token_file",
        }
    ),
    variables=(
        "AWS_ACCESS_KEY_ID",
        "AWS_SKIP_SIGNATURE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_METADATA_ENDPOINT",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ),
)

_GOOGLE = Service(
    schemes=("gs", "gcs"),
    names={
        **_same(
            "service_account",
            "service_account_key",
            "application_credentials",
            "base_url",
            "bearer_token",
            "skip_signature",
        ),
        "service_account_path": "service_account",
        "token": "application_credentials",
        "endpoint_url": "base_url",
        "endpoint": "base_url",
        "anon": "skip_signature",
    },
    booleans=frozenset({"skip_signature"}),
    metadata_host="metadata.google.internal",
    credentials=frozenset(
        {
            "service_account",
            "service_account_key",
            "application_credentials",
            "bearer_token",
            "skip_signature",
        }
    ),
    variables=(
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_BEARER_TOKEN",
        "GOOGLE_SKIP_SIGNATURE",
    ),
)

_AZURE = Service(
    schemes=("az", "azure", "abfs", "abfss", "adl"),
    names={
        **_same(
            "account_name",
            "account_key",
            "authority_host",
            "client_id",
            "client_secret",
            "credential_type",
            "disable_tagging",
            "encryption_key",
            "endpoint",
            "fabric_cluster_identifier",
            "fabric_session_token",
            "fabric_token_service_url",
            "fabric_workload_host",
            "federated_token_file",
            "msi_endpoint",
            "msi_resource_id",
            "object_id",
            "sas_key",
            "skip_signature",
            "tenant_id",
            "token",
            "use_azure_cli",
            "use_emulator",
            "use_fabric_endpoint",
        ),
        "account_host": "endpoint",
        "endpoint_url": "endpoint",
        "sas_token": "sas_key",
        "anon": "skip_signature",
    },
    booleans=frozenset(
        {
            "disable_tagging",
            "skip_signature",
            "use_azure_cli",
            "use_emulator",
            "use_fabric_endpoint",
        }
    ),
    metadata_host="169.254.169.254",
    credentials=frozenset(
        {
            "account_key",
            "client_id",
            "federated_token_file",
            "msi_endpoint",
            "sas_key",
            "skip_signature",
            "token",
            "use_azure_cli",
            "use_emulator",
        }
    ),
    variables=(
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_ACCESS_KEY",
        "AZURE_STORAGE_MASTER_KEY",
        "AZURE_CLIENT_ID",
        "AZURE_STORAGE_CLIENT_ID",
        "AZURE_STORAGE_SAS_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_TOKEN",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_SKIP_SIGNATURE",
        "AZURE_USE_AZURE_CLI",
        "AZURE_STORAGE_USE_EMULATOR",
        "IDENTITY_ENDPOINT",
    ),
)

SERVICES = (_S3, _GOOGLE, _AZURE)
"""Object stores that obstore reaches."""


def service_of(scheme: str) -> Service | None:
    """The service that a scheme of addresses belongs to; None where it is none of these."""
    return next((row for row in SERVICES if scheme in row.schemes), None)
