"""An API and a destination inside this process, for the tour and the tests."""
