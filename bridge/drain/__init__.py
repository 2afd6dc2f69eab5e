"""The commands that end by themselves: `amqp-bridge drain` moves messages and proves it.

The bridge's own engine does the moving, held to a number (see `window/settlement`, `window.room`). Here is what a drain
adds: what it is asked for (`request`), what is found before it (`survey`) and printed first (`plan`), when it is over
(`finish`, by what `watch` sees), what it shows (`progress`), and what it hands out (`receipt`, with the `digest` of
what was confirmed).

Begin with `drain`, which runs one.
"""
