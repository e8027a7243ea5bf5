"""The shim: the small process that owns an engine's tree, so that the daemon does not have to live as long.

Run by the launcher as `python -I -S …/supervisor/shim LABEL` (any Python from 3.9 on; LABEL is only for
`ps`). It imports the standard library and this package and nothing else of ours, all of it before the engine
starts: the shim may outlive the version that started it.

Protocol: newline-delimited JSON objects. The launcher hands over one end of a socket pair as stdin, and its
first line is the order (`entry.Order`), so that no secret is ever in argv. That connection counts as attached
from then on; later daemons connect to the Unix socket, where only our own uid is let in.

    {"op": "attach", "adopt_within": 60}   I am a daemon; hold the tree while I am connected, and tell me
                                           {"event": "output", "lines": [...], "open": "..."} at most every
                                           100 ms, and once {"event": "exited", "exit": {...}}
    {"op": "status"}                       record, last_output_age, phase, exit (null while the tree lives)
    {"op": "tail", "n": 50}                the last lines
    {"op": "stop", "grace": 20, "repeat_term": null, "command": null}
    {"op": "kill"}
    {"op": "collect"}                      the exit report was read: the shim may go

Every request is answered by one object with "re": op, or "error".

What it guarantees on Linux
- The engine gets SIGKILL when the shim dies, whatever kills the shim (parent-death signal; the shim has one
  thread, because the signal belongs to the thread that forked).
- Every descendant becomes the shim's child when its parent dies (subreaper), setsid or not. "The tree is
  empty" therefore means that waitpid says ECHILD, and nothing less.
- A process is only signalled through a pidfd whose start time was compared, so a reused pid is never hit.
- With nobody attached for `adopt_within` it ends the tree and itself. Exit status and last words are kept
  until they are collected, with nobody attached at most for `adopt_within`.
- multiprocessing's resource tracker is killed last and only if it does not go by itself: it is what unlinks
  the shared memory of its siblings. Where somebody has killed it before, that is unlinked by the shim.

Elsewhere (macOS) there is neither subreaper nor parent-death signal: descendants are those `ps` shows in the
engine's process group or below it, and a grandchild that left both is not found. That path cannot be run on
Linux; only its parser is tested.
"""

PROTOCOL = 1
