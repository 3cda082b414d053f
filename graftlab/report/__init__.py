"""A comparison as a page that needs nothing beside itself."""
