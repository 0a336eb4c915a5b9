"""What a refresh will do: its steps and durations, and whether it would repeat or only complete the last one."""
