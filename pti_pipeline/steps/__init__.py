"""The steps of a study, each its own entry point, process and MLflow run."""
