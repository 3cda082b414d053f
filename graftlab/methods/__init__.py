"""A module or package a method."""
