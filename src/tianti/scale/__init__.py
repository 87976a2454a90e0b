"""What a run will take and how large it should be: machine, rules, cost."""
