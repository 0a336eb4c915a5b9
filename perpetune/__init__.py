"""Keep a fine-tuned language model good at its task for as long as it is in production."""

from perpetune.renamed import install_aliases

install_aliases()
