"""An evaluation that warns about itself: what it refuses to report, and what it reports with a warning."""
