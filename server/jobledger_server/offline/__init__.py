"""What is done to an installation without its server: recovering and backing up."""
