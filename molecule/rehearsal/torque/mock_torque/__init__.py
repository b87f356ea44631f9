# SPDX-License-Identifier: BSD-3-Clause
"""A small batch system that behaves towards its users as TORQUE 6.1.3 does."""
