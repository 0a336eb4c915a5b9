"""One pass through the loop, a file for each step, free of the orchestrator.

refresh: curate, fine_tune, assess, decide, release. watch: look.
"""
