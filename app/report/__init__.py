"""Reports for people: the published form, the page with its plots, jobs side by side. Never loads torch."""
