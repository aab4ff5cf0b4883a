"""The command line, `optfactory`: see configs before they train anything."""
