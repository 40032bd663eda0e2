"""Jobs as processes of this machine.

Each attempt has a supervisor of its own, the shim: a process that starts the job, captures its output, ends it with
everything that descends from it, and leaves word of how it ended. It outlives the server. Server and shim talk through
files alone (`control_dir`), so that a server that was killed finds everything again.

By the process in which they run:

- the server: `executor` (all attempts), `attempt` and `followups` (one), `statements` (what it says of itself),
  `spawner` (asks the nursery for shims), `wakes`, `pidfd` and `awaiting` (when to look), `remains` and `lost` (the end
  of what has lost its supervisor), `self_check` (whether jobs can be isolated); `forsaken`, for commands that run
  without a server;
- `nursery`: forks shims, and ends what is left of those that are killed;
- the shim: `shim` (start and end), `supervisor` (what is between), `capture` (output), `messages` and `reports` (what
  comes through the control pipe), `feeder` (input), `limits`, `secret_names`, `record` (start and end, written down);
- the job's first process, before it becomes the command: `child`, with `isolation` and `landlock` or `bwrap`, and
  `seccomp`; `namespace_init` is process 1 of a namespace of bwrap's;
- more than one: `control_dir` and `guarded_files` (what they talk through), `process_tree`, `cgroup`, `core_dumps`,
  `open_files` and `interpreter`.

All but the server's run without site-packages: with the standard library, `joblog`, and of `core` the modules that need
no more than that either (`durable`, `real_paths`).
"""
