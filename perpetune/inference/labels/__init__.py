"""The scores of labels: the likelihood of each as an answer, or a head's."""
