"""Status, metrics and management: an aiohttp app reached over in-process socket pairs."""
