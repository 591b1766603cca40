"""The names that `telemetry.attributes` shows, by subject."""
