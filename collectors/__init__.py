"""Collectors: one module for each kind of source; importers are collectors that end.

A collector is a dataclass whose fields are its configuration, with one method, ``async def collect(self, out)``.
What several of them share lives in the modules that start with ``_``; no collector imports another.
"""
