# SPDX-License-Identifier: BSD-3-Clause
"""For all tests."""

from __future__ import annotations

import signal

# What started the tests (nohup, a shell's background job) may ignore these, and every process that
# a test starts would inherit it.
for _number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
