# SPDX-License-Identifier: BSD-3-Clause
"""Builds a small conda channel out of wheels, npm packages and Debian packages."""
