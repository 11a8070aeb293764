"""How does one process train trial after trial, each as if it were new?

`process_state` puts back what a trial has changed, with `torch_state` for what torch keeps;
`imports` tells when a module is imported, by which `foreign_mlflow` refuses a trainable's own
calls of MLflow; `stuck` kills a process whose epoch shows no sign of life.
"""
