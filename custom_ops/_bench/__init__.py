"""Times the ops beside what a user would pick instead, interleaved in one run, results verified."""
