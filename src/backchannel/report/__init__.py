"""Report: pages and figures."""
