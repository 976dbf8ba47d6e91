"""What people look at: HTML pages and the figure of one caption."""
