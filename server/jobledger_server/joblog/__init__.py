"""A job's log on disk: numbered segments of raw output, each with an index of runs.

The supervisor of a job writes (`writer`), the server reads (`reader`) while it grows. What the supervisor imports -
`structured`, `splitter`, `segments`, `snapshot`, `writer` - uses the standard library alone.
"""
