"""The benchmark's parts, one idea a file. `command` reads like the table of contents."""
