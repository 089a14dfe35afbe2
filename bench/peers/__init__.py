"""Other people's engines with our weights, each in an environment of its own, behind the same door as any runtime.

`serve` and `with_*` run in the peer's environment and need nothing of potstill's; all else runs in potstill's.
"""
