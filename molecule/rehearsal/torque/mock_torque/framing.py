# SPDX-License-Identifier: BSD-3-Clause
"""The length in front of each message. Apart from ``wire``: commands do without asyncio."""

from __future__ import annotations

import struct

LENGTH = struct.Struct("!I")
MAXIMUM_BODY = 64 * 1024 * 1024  # bytes
