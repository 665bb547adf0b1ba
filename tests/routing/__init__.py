"""Tests of how packets reach other nodes."""
