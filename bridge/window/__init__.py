"""The window, pure: every delivery that was received and is not settled, and each decision about one.

Begin with `window`, which has one method for each event and names the invariants; under it, `flight` is what is in
flight, `confirms` what the destination's answers mean, and `quarantining` what goes to the quarantine. Each rule that
can stand alone has a file: `settlement` (acks and requeues), `publishes` (confirms and returns), `blame` (whom a close
is about), `pace` (how many at once), `parked` (what others pass), `memory` (which redeliveries are known), `books` (the
numbers).
"""
