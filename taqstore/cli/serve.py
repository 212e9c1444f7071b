"""`taqstore serve`."""

from __future__ import annotations

import click

from taqstore.cli.common import say
from taqstore.cli.completed import StoreAddress
from taqstore.cli.talk import Command


@click.command("serve", cls=Command)
@click.argument("stores", metavar="STORE...", nargs=-1, required=True, type=StoreAddress())
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True)
def command(stores: tuple[str, ...], host: str, port: int) -> None:
    """Serve STORE over HTTP, read-only: as Zarr, as JSON and CSV, and as a page to look at."""
    import uvicorn

    from taqstore.serve.app import application

    say(f"serving on http://{host}:{port}")
    from taqstore.serve.served.service import Service

    uvicorn.run(application(Service(stores)), host=host, port=port, log_level="warning")
