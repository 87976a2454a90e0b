"""Models judged by tasks: kept results, comparisons, pages."""
