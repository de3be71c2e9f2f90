"""What `make bench` runs: Flicker beside other ways to do the same work, on this machine."""
