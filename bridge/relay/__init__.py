"""The relay, pure: bytes of both sides in, bytes of both sides out, and what a bridge does next.

Begin with `relay`, which joins a `source` and a `destination` (each a `port` for one connection) to one window;
`steering` says what comes next (with `course`, its state, and `halt`, how it stops and rests), `brake` when to rest by
the destination's state, `consumer` whether the source delivers; `quarantine` is where refused messages go, `watchdog`
ends what makes no progress, `backoff` says when to try again.
"""
