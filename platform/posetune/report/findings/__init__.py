"""What a sweep has found out beside its best trial: which parameters count, what pruning saved."""
