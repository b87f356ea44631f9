# SPDX-License-Identifier: BSD-3-Clause
"""In the place of all notebook servers: answers 200 to everybody, as the one in a job would.

One process serves every job, so that two hundred of them fit into a small machine. The job itself
(JOB below) is real: submitted, scheduled, run by its owner, and it reports its port to the hub.
"""

from __future__ import annotations

import asyncio
import sys

from jupyterhub import __version__

PORT = 8888
JOB = f"""\
#!/bin/bash
# Report the port of the notebook server with the job's own token, then stay.
[[ $JUPYTERHUB_API_URL =~ ^http://([^/:]+):([0-9]+)(/.*)$ ]] || exit 2
exec 3<> "/dev/tcp/${{BASH_REMATCH[1]}}/${{BASH_REMATCH[2]}}" || exit 3
body='{{"port": {PORT}}}'
printf '%s\\r\\n' >&3 "POST ${{BASH_REMATCH[3]}}/batchspawner HTTP/1.1" \\
  "Host: ${{BASH_REMATCH[1]}}" "Authorization: token $JUPYTERHUB_API_TOKEN" \\
  "Content-Type: application/json" "Content-Length: ${{#body}}" "Connection: close" ""
printf '%s' "$body" >&3
read -r _ status _ <&3
[[ $status == 20[01] ]] || exit 4
exec 3>&-
exec sleep 86400
"""
ANSWER = (
    f"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: {__version__}\r\n"
    "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
).encode()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", PORT, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
