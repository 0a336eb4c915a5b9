"""From what the user names (files, folders, globs, addresses, data sets, standard input) to local files."""
