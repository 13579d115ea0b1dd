"""What happens when something breaks: every test here stops, freezes, empties or fills a real server or process."""
