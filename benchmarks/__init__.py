"""One script per published table or figure; each writes JSON with its command, machine, versions and commit."""
