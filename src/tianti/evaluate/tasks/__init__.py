"""Tasks: typed YAML files that say what a model is asked and how its answers are judged."""
