"""Sinks: where batches go. A sink is a dataclass with one method, ``async def consume(self, batches)``.

The journal waits for the disk and loses nothing; every other sink has a bounded queue and drops the oldest, counted.
"""
