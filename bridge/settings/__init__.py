"""The settings: every option once, and every mistake named at the start.

Begin with `settings`, where each option stands with its description; `sides` is what source and destination have in
common, `parsers` reads words into values, `files` opens what they name, `conflicts` finds what does not go together,
`environment` loads it all.
"""
