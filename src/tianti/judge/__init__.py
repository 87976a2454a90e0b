"""Models judged by tasks: kept results, comparisons, pages."""

# Folder of the results, beside the model they are about.
EVALUATIONS = "evaluations"
