"""The JSON of the wire: a module for each subject. Outside of here, records are dataclasses."""
