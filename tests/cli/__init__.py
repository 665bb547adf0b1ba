"""Tests of tortie.cli."""
