"""Metrics: from predictions and references to statistics of weighted items.

A factory takes predictions and references and gives a `Statistic`; `bootstrap` makes a figure with
an interval of it, `paired_difference` compares two models.
"""
