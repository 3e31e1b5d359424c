"""Tests, as a package: those of one kind of thing share their cases."""
