"""The `edge` command line: deploys to a server and looks at it over its control API."""
