"""Jobs as processes of this machine.

Each attempt has a supervisor of its own, the shim: a process that starts the job, captures its output, ends it with
everything that descends from it, and leaves word of how it ended. It outlives the server. Server and shim talk through
files alone (`control_dir`), so that a server that was killed finds everything again.

In the server run `executor`, `attempt`, `pidfd`, `spawner`, `lost` and `self_check`. In processes of their own, with
the standard library and `joblog` alone, run `nursery` (forks shims, and ends what is left of those that are killed),
`shim`, `supervisor`, `child`, `process_tree`, `cgroup`, `limits`, `feeder` and `messages`; and for jobs that are
isolated `isolation`, `landlock`, `bwrap` and `namespace_init`.
"""
