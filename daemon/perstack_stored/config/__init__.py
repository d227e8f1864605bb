"""Settings: their names, bounds and defaults, and where their values come from.

Entry points: `sources.Sources` finds the values (flags, environment, file, defaults); `settings.Settings`
holds them. Every bound of the daemon is a setting, named here with its unit.

Imports: `errors` only. Imported by anything above it.
"""
