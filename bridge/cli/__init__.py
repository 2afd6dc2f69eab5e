"""The command line: what may be typed, what each command does, and how the process meets signals and streams.

Begin with `grammar`, which says what may be typed and with which exit codes it ends; `commands` does it, and `daemon`
is what `run` does.
"""
