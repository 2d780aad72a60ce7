"""The studies that come with supple, and what their papers claim."""
