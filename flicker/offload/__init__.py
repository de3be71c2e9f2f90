"""Pages decoded by a process of their own, while this one ships the ones before."""
