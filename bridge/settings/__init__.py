"""The settings: every option once, and every mistake named at the start.

Begin with `settings`, where each option stands with its description; `sides` is what source and destination have in
common, `fields` are the types of the options and `parsers` what they read by, `files` opens what they name, `conflicts`
finds what does not go together, `options` shows them as rows, `environment` loads it all.
"""
