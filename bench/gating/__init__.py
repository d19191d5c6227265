"""Two revisions against each other: fresh processes in pairs, tests, verdicts, exit codes.

``rule`` and ``evidence`` are the statistics, ``decide`` the order of measuring and stopping,
``sides`` the two revisions on disk, ``worker`` one measuring process, ``live`` all of it on a
machine, ``rehearsal`` and ``self_test`` the self-test, ``promotion`` and ``trend`` what was before.
"""
