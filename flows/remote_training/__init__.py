"""Training in a container of SageMaker, of a Prefect work pool (such as Vertex AI's) or of Kubeflow Pipelines."""
