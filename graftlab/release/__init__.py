"""What leaves the house: an adapter for other programs, a merged model, a repository on the hub."""
