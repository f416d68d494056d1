"""The verbs, one file a group: each is a Python function, and by its line in `audiovae.VERBS` a command."""
