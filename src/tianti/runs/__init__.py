"""Runs: stages in order, each with its manifest; resume, results, report."""
