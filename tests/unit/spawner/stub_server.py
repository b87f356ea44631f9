#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""In the place of jupyterhub-singleuser: listens where it is told and answers 200."""

import http.server
import json
import os
from pathlib import Path
from urllib.parse import urlparse

address = urlparse(os.environ["JUPYTERHUB_SERVICE_URL"])
if "PBS_JOBID" in os.environ:
    Path("environment.json").write_text(json.dumps(dict(os.environ)))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *words: object) -> None:
        """Be silent: whoever read what this process writes may be gone."""


print("stub server at", address.netloc, flush=True)
http.server.HTTPServer((address.hostname or "", address.port or 0), Handler).serve_forever()
