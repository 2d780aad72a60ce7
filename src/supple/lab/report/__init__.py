"""Reports: statistics over seeds, figures, tables and pages."""
