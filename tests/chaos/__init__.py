# SPDX-License-Identifier: BSD-3-Clause
"""Users' lives, faults at random, and what must stay true meanwhile."""
