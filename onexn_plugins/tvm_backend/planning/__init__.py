"""What each layer becomes: which nodes one kernel computes, sparse or dense, in blocks of which size, and why."""
