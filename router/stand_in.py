"""`python -I -S …/stand_in.py PID`: waits for a successor in the place of the daemon that started it.

Whoever runs the daemon without a service manager that can be told its new main process (a shell, launchd, a
container's init) waits for the first process. When that has handed over it becomes this: a few megabytes that
pass signals on and end as the successor ends. Standard library only; the process may outlive its version.
"""

import os
import signal
import sys


def main(pid: int) -> int:
    """Wait for *pid*, our child; its exit status."""

    def pass_on(number: int, _frame: object) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what came before there was a handler comes now
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the successor too
    while True:
        try:
            ended, status = os.waitpid(-1, 0)  # shims of the old daemon are our children as well
        except ChildProcessError:
            return 0
        if ended == pid:
            return os.waitstatus_to_exitcode(status) % 256


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
